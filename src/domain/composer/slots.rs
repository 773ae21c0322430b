//! What a brief puts into the slots of patterns.

use std::borrow::Cow;

use crate::domain::brief::{Brief, Language};

/// A place in a pattern; `capital`: its value begins a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    kind: Kind,
    capital: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Name,
    Full,
    Brand,
    Category,
    CategoryWithArticle,
    Attribute(usize),
    List,
    AndList,
    Price,
    ListPrice,
    Offer,
    Keyword,
}

impl Slot {
    pub fn parse(name: &str) -> Option<Self> {
        let capital = name.starts_with(char::is_uppercase);
        let kind = match name.to_lowercase().as_str() {
            "name" => Kind::Name,
            "full" => Kind::Full,
            "brand" => Kind::Brand,
            "category" => Kind::Category,
            "a_category" => Kind::CategoryWithArticle,
            "a1" => Kind::Attribute(0),
            "a2" => Kind::Attribute(1),
            "a3" => Kind::Attribute(2),
            "list" => Kind::List,
            "and_list" => Kind::AndList,
            "price" => Kind::Price,
            "list_price" => Kind::ListPrice,
            "offer" => Kind::Offer,
            "keyword" => Kind::Keyword,
            _ => return None,
        };
        Some(Self { kind, capital })
    }

    pub fn is_list(self) -> bool {
        matches!(self.kind, Kind::List | Kind::AndList)
    }

    pub fn is_attribute(self) -> bool {
        self.is_list() || matches!(self.kind, Kind::Attribute(_))
    }
}

/// The values of one brief with its attributes turned by some places.
pub struct Slots<'a> {
    brief: &'a Brief,
    language: Language,
    attributes: Vec<&'a str>,
}

impl<'a> Slots<'a> {
    pub fn new(brief: &'a Brief, language: Language, rotation: usize) -> Self {
        let name = brief.product.name.as_str();
        // A product without a name is called by its first attribute, which is then not said again.
        let mut attributes: Vec<&str> =
            brief.product.attributes.iter().map(String::as_str).filter(|attribute| *attribute != name).collect();
        if !attributes.is_empty() {
            let places = rotation % attributes.len();
            attributes.rotate_left(places);
        }
        Self { brief, language, attributes }
    }

    pub fn attributes(&self) -> usize {
        self.attributes.len()
    }

    /// `None` when the brief has no value for it.
    pub fn value(&self, slot: Slot, listed: usize) -> Option<String> {
        let product = &self.brief.product;
        let value: Cow<'_, str> = match slot.kind {
            Kind::Name => product.name.as_str().into(),
            Kind::Full => self.full_name().into(),
            Kind::Brand => product.brand.as_deref()?.into(),
            Kind::Category => product.category.as_deref()?.into(),
            Kind::CategoryWithArticle => {
                let category = product.category.as_deref()?;
                format!("{} {category}", article(category)).into()
            }
            Kind::Attribute(index) => (*self.attributes.get(index)?).into(),
            Kind::List => self.list(listed, false)?.into(),
            Kind::AndList => self.list(listed, true)?.into(),
            Kind::Price => product.price.as_deref()?.into(),
            Kind::ListPrice => product.list_price.as_deref()?.into(),
            Kind::Offer => product.offer.as_deref()?.into(),
            Kind::Keyword => self.brief.keywords.first()?.as_str().into(),
        };
        let value = value.trim();
        if value.is_empty() {
            return None;
        }
        Some(if slot.capital { capitalized(value) } else { value.to_owned() })
    }

    fn full_name(&self) -> String {
        let name = &self.brief.product.name;
        match self.brief.product.brand.as_deref() {
            Some(brand) if !name.to_lowercase().contains(&brand.to_lowercase()) => match self.language {
                Language::En => format!("{brand} {name}"),
                Language::Zh => format!("{brand}{name}"),
            },
            _ => name.clone(),
        }
    }

    fn list(&self, listed: usize, with_and: bool) -> Option<String> {
        let items = &self.attributes[..listed.min(self.attributes.len())];
        let (last, first) = items.split_last()?;
        if first.is_empty() {
            return Some((*last).to_owned());
        }
        // Items that hold commas themselves need a stronger separator.
        let strong = items.iter().any(|item| item.contains([',', '，', '、']));
        Some(match (self.language, strong) {
            (Language::Zh, false) => items.join("、"),
            (Language::Zh, true) => items.join("；"),
            (Language::En, true) => items.join("; "),
            (Language::En, false) if with_and => format!("{} and {last}", first.join(", ")),
            (Language::En, false) => items.join(", "),
        })
    }
}

/// `an` before a vowel's sound. Spelling decides, but for the common words in which it misleads.
fn article(word: &str) -> &'static str {
    let word = word.to_lowercase();
    let sounds = |starts: &[&str]| starts.iter().any(|start| word.starts_with(start));
    if sounds(&["hour", "honest", "heir"]) {
        return "an";
    }
    if sounds(&["uni", "use", "usb", "eu", "one", "ute"]) {
        return "a";
    }
    if sounds(&["a", "e", "i", "o", "u"]) { "an" } else { "a" }
}

/// The first letter in upper case, unless the word mixes cases as names do (`iPad`).
fn capitalized(text: &str) -> String {
    let first_word = text.split(' ').next().unwrap_or(text);
    if first_word.chars().skip(1).any(char::is_uppercase) {
        return text.to_owned();
    }
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn articles_follow_the_sound() {
        for (word, expected) in
            [("umbrella", "an"), ("USB lamp", "a"), ("hourglass", "an"), ("backpack", "a"), ("oak desk", "an")]
        {
            assert_eq!(article(word), expected, "{word}");
        }
    }

    #[test]
    fn names_with_their_own_case_keep_it() {
        assert_eq!(capitalized("waterproof shell"), "Waterproof shell");
        assert_eq!(capitalized("iPad stand"), "iPad stand");
    }
}
