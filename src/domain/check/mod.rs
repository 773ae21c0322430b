//! Whether a text may run: limits, forbidden content, grounding, banned terms, language.
//!
//! Everything that depends on the brief alone is prepared once in [`Ground`].

pub mod claims;
pub mod numbers;
pub mod similar;

use super::brief::{Brief, Language};
use super::channel::{Field, Forbidden};
use super::text::{find_term, fold, is_emoji, is_han, is_latin, is_sentence_end, skeleton, stem, words};
use claims::{Claims, UnmadeClaims};
use numbers::Numbers;

/// Why a text was not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rejection {
    Empty,
    /// The model spoke about itself or its task.
    AssistantTalk,
    Placeholder,
    Repetition,
    Unfinished,
    TooShort,
    OverLimit,
    ForbiddenContent,
    BannedTerm,
    Ungrounded,
    WrongLanguage,
    /// It shares no word with the brief.
    OffTopic,
    /// It repeats an example of the prompt.
    ExampleEcho,
    NearDuplicate,
}

impl Rejection {
    /// The wire form and metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::AssistantTalk => "assistant_talk",
            Self::Placeholder => "placeholder",
            Self::Repetition => "repetition",
            Self::Unfinished => "unfinished",
            Self::TooShort => "too_short",
            Self::OverLimit => "over_limit",
            Self::ForbiddenContent => "forbidden_content",
            Self::BannedTerm => "banned_term",
            Self::Ungrounded => "ungrounded",
            Self::WrongLanguage => "wrong_language",
            Self::OffTopic => "off_topic",
            Self::ExampleEcho => "example_echo",
            Self::NearDuplicate => "near_duplicate",
        }
    }
}

/// What a brief allows a text to say, prepared for many checks.
#[derive(Debug, Clone)]
pub struct Ground<'a> {
    language: Language,
    /// Folded; all strings of the brief.
    text: String,
    words: Vec<String>,
    numbers: Numbers,
    claims: UnmadeClaims<'a>,
    /// Skeletons.
    banned: Vec<String>,
}

impl<'a> Ground<'a> {
    /// `kit_facts`: claims of the brand kit, which count as the brief's own.
    pub fn new(brief: &'a Brief, kit_facts: &'a [String], language: Language, claims: &'a Claims) -> Self {
        let texts = || brief_texts(brief).chain(kit_facts.iter().map(String::as_str));
        let all = texts().collect::<Vec<_>>().join("\n");
        Self {
            language,
            text: fold(&all),
            words: words(&all),
            numbers: Numbers::of(texts()),
            claims: claims.unmade(texts()),
            banned: brief.banned_terms.iter().map(|term| skeleton(term)).filter(|s| !s.is_empty()).collect(),
        }
    }

    /// Checks everything a text must keep to on its own. Near-duplicates are for [`similar`].
    ///
    /// # Errors
    /// The first reason against it.
    pub fn check(&self, text: &str, field: &Field) -> Result<(), Rejection> {
        let folded: Vec<char> = fold(text).chars().collect();
        let count = field.unit.count(text);
        let tests: [(Rejection, &dyn Fn() -> bool); 8] = [
            (Rejection::Empty, &|| !folded.iter().any(|c| c.is_alphanumeric())),
            (Rejection::OverLimit, &|| count > field.max),
            (Rejection::TooShort, &|| count < field.min),
            (Rejection::ForbiddenContent, &|| self.holds_forbidden(text, &folded, field)),
            (Rejection::BannedTerm, &|| {
                let terms = field.forbidden_terms.iter().map(|term| skeleton(term));
                self.banned.iter().any(|term| find_term(&folded, term))
                    || terms.into_iter().any(|t| find_term(&folded, &t))
            }),
            (Rejection::Ungrounded, &|| !self.is_grounded(text, &folded)),
            (Rejection::WrongLanguage, &|| !self.is_in_language(text)),
            (Rejection::ForbiddenContent, &|| {
                field.max_word_chars.is_some_and(|max| {
                    text.split(|c: char| !c.is_alphanumeric())
                        .any(|word| word.chars().count() > max && !word.chars().any(is_han))
                })
            }),
        ];
        tests.into_iter().find(|(_, fails)| fails()).map_or(Ok(()), |(reason, _)| Err(reason))
    }

    /// Whether a text shares a content word with the brief; a generator that lost the thread shares none.
    pub fn is_on_topic(&self, text: &str) -> bool {
        let of_text = words(text);
        match self.language {
            Language::En => {
                let stems = |of: &[String]| -> Vec<String> {
                    of.iter().filter(|w| w.chars().count() > 1 && !is_stop_word(w)).map(|w| stem(w)).collect()
                };
                let brief = stems(&self.words);
                brief.is_empty() || stems(&of_text).iter().any(|word| brief.contains(word))
            }
            Language::Zh => {
                let pairs = |of: &[String]| of.windows(2).map(|pair| pair.concat()).collect::<Vec<_>>();
                let brief = pairs(&self.words);
                brief.is_empty() || pairs(&of_text).iter().any(|pair| brief.contains(pair))
            }
        }
    }

    /// Whether an English text names something that the brief does not: a word of mixed case (`TrailLight`), or one with
    /// a capital within a sentence; for the latter texts that capitalize most words (headlines) are not judged.
    pub fn invents_name(&self, text: &str) -> bool {
        if self.language != Language::En {
            return false;
        }
        let mixes_case = |word: &str| {
            let chars: Vec<char> = word.chars().collect();
            chars.windows(2).any(|pair| pair[0].is_lowercase() && pair[1].is_uppercase())
        };
        // A product's name that is spelled almost right is another product's.
        let spelled = text.split(|c: char| !c.is_alphanumeric());
        if spelled.into_iter().any(|word| mixes_case(word) && !self.holds(word)) {
            return true;
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        let has_capital = |word: &&str| word.chars().find(|c| c.is_alphabetic()).is_some_and(char::is_uppercase);
        if words.iter().filter(|word| has_capital(word)).count() * 2 > words.len() {
            return false;
        }
        words.windows(2).any(|pair| {
            let begins_sentence =
                pair[0].ends_with(|c: char| is_sentence_end(c) || matches!(c, ':' | '"' | '“' | '–' | '-'));
            let name: String = pair[1].chars().filter(|c| c.is_alphanumeric()).collect();
            !begins_sentence
                && has_capital(&pair[1])
                && name != "I"
                && !self.holds(pair[1].trim_matches(|c: char| !c.is_alphanumeric()))
        })
    }

    /// Whether a URL of the text stands in the brief.
    pub fn holds(&self, part: &str) -> bool {
        self.text.contains(&fold(part))
    }

    fn is_grounded(&self, text: &str, folded: &[char]) -> bool {
        numbers::numbers(text).iter().all(|number| self.numbers.ground(number)) && self.claims.find(folded).is_none()
    }

    /// English text holds no letters of other scripts but the brief's own; Chinese text holds Han, and only those
    /// Latin words that stand in the brief.
    fn is_in_language(&self, text: &str) -> bool {
        match self.language {
            Language::En => {
                let foreign = |c: char| c.is_alphabetic() && !is_latin(c) && !matches!(c, 'ª' | 'º' | 'µ' | 'μ' | '™');
                let runs = text.split(|c: char| !foreign(c)).filter(|run| !run.is_empty());
                text.chars().any(|c| is_latin(c) || c.is_numeric()) && runs.into_iter().all(|run| self.holds(run))
            }
            Language::Zh => {
                let latin_words = text.split(|c: char| !is_latin(c)).filter(|word| !word.is_empty());
                let other = |c: char| c.is_alphabetic() && !is_han(c) && !is_latin(c);
                text.chars().any(is_han)
                    && latin_words.into_iter().all(|word| self.holds(word))
                    && text.split(|c: char| !other(c)).filter(|run| !run.is_empty()).all(|run| self.holds(run))
            }
        }
    }

    fn holds_forbidden(&self, text: &str, folded: &[char], field: &Field) -> bool {
        let exclamations = text.chars().filter(|c| matches!(c, '!' | '！')).count();
        exclamations > field.max_exclamations
            || text.chars().any(|c| c.is_control())
            || field.forbids.iter().any(|forbidden| match forbidden {
                Forbidden::Emoji => text.chars().any(is_emoji),
                Forbidden::Hashtag => marks_a_word(text, &['#', '＃']),
                Forbidden::Mention => marks_a_word(text, &['@', '＠']),
                Forbidden::Url => holds_url(folded),
                Forbidden::Phone => longest_digit_run(folded) >= 7,
                Forbidden::Braces => text.contains(['{', '}']),
                Forbidden::Slash => text.contains(['/', '\\']),
                Forbidden::AllCaps => self.shouts(text),
                Forbidden::Dash => text.contains('—'),
            })
    }

    fn shouts(&self, text: &str) -> bool {
        text.split(|c: char| !is_latin(c)).any(|word| {
            word.chars().count() >= 4 && word.chars().all(char::is_uppercase) && !self.words.contains(&fold(word))
        })
    }
}

/// All strings of a brief that a text may draw from.
pub fn brief_texts(brief: &Brief) -> impl Iterator<Item = &str> {
    let Brief { product, audience, .. } = brief;
    let single = [&product.brand, &product.category, &product.price, &product.list_price, &product.offer];
    let more = [&product.description, &audience.segment];
    [&product.name]
        .into_iter()
        .chain(single.into_iter().chain(more).flatten())
        .chain(&product.attributes)
        .chain(&audience.interests)
        .chain(&audience.pain_points)
        .chain(&brief.keywords)
        .map(String::as_str)
}

/// English words that say nothing of a subject.
pub fn is_stop_word(word: &str) -> bool {
    const SHORT: &str = " a an and are as at be but by for from get in into is it its new no not of off on one or our out so that the this to up us we with you your ";
    SHORT.contains(&format!(" {word} "))
}

fn marks_a_word(text: &str, marks: &[char]) -> bool {
    text.char_indices().any(|(at, c)| {
        marks.contains(&c) && text[at + c.len_utf8()..].chars().next().is_some_and(char::is_alphanumeric)
    })
}

/// `http://`, `www.`, or a word with an inner dot that ends in a common top-level domain.
pub fn holds_url(folded: &[char]) -> bool {
    let text: String = folded.iter().collect();
    text.contains("://")
        || text.split(|c: char| c.is_whitespace() || is_han(c) || matches!(c, ',' | '，' | '(' | ')')).any(is_url)
}

/// Whether a folded word without spaces is a web address.
pub fn is_url(word: &str) -> bool {
    const DOMAINS: &[&str] = &["com", "net", "org", "io", "cn", "co", "uk", "de", "shop", "store", "app", "eu", "info"];
    let word = word.trim_end_matches(['.', ',', '!', '?', ')', ':']);
    let host = word.split('/').next().unwrap_or(word);
    word.starts_with("www.")
        || word.contains("://")
        || host.rsplit_once('.').is_some_and(|(head, end)| {
            DOMAINS.contains(&end) && head.chars().next_back().is_some_and(char::is_alphanumeric)
        })
}

fn longest_digit_run(folded: &[char]) -> usize {
    let (mut longest, mut run) = (0, 0);
    for c in folded {
        match c {
            '0'..='9' => run += 1,
            ' ' | '-' if run > 0 => {}
            _ => run = 0,
        }
        longest = longest.max(run);
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::brief::Product;
    use crate::domain::channel::Channels;

    fn brief() -> Brief {
        Brief {
            product: Product {
                name: "TrailLite 40".into(),
                brand: Some("NORRBO".into()),
                category: Some("hiking backpack".into()),
                attributes: vec!["waterproof".into(), "900 g".into()],
                price: Some("$89".into()),
                ..Product::default()
            },
            banned_terms: vec!["cheap".into()],
            ..Brief::default()
        }
    }

    fn check(channel: &str, language: Language, text: &str) -> Result<(), Rejection> {
        let (brief, claims) = (brief(), Claims::embedded().unwrap());
        let ground = Ground::new(&brief, &[], language, &claims);
        ground.check(text, &Channels::embedded().unwrap().resolve(channel).unwrap().fields[0])
    }

    #[test]
    fn a_fitting_grounded_text_passes() {
        assert_eq!(check("google_rsa.headline", Language::En, "TrailLite 40: 900 g, $89"), Ok(()));
        assert_eq!(check("xiaohongshu.title", Language::Zh, "TrailLite 40，只有900 g"), Ok(()));
    }

    #[test]
    fn names_that_the_brief_does_not_hold_are_invented() {
        let (brief, claims) = (brief(), Claims::embedded().unwrap());
        let ground = Ground::new(&brief, &[], Language::En, &claims);
        for text in ["TripLite is waterproof", "The pack from Santa Ana is waterproof", "TripLite: Waterproof Pack"] {
            assert!(ground.invents_name(text), "{text}");
        }
        for text in
            ["The TrailLite 40 by NORRBO. Dry and light, I say", "Waterproof Hiking Backpack", "Dry: Light and easy"]
        {
            assert!(!ground.invents_name(text), "{text}");
        }
    }

    #[test]
    fn each_fault_has_its_reason() {
        let cases = [
            ("google_rsa.headline", "...", Rejection::Empty),
            ("google_rsa.headline", "A hiking backpack that keeps dry", Rejection::OverLimit),
            ("product_page", "Waterproof.", Rejection::TooShort),
            ("google_rsa.headline", "Stay dry!", Rejection::ForbiddenContent),
            ("google_rsa.headline", "Stay dry 🎒", Rejection::ForbiddenContent),
            ("google_rsa.headline", "Stay dry #hiking", Rejection::ForbiddenContent),
            ("google_rsa.headline", "See norrbo.com", Rejection::ForbiddenContent),
            ("google_rsa.headline", "STAY DRY", Rejection::ForbiddenContent),
            ("generic", "C h e a p and light", Rejection::BannedTerm),
            ("amazon_sponsored_brands", "Click here for backpacks", Rejection::BannedTerm),
            ("generic", "Only 700 g", Rejection::Ungrounded),
            ("generic", "Waterproof, with a guarantee", Rejection::Ungrounded),
            ("generic", "Waterproof 背包", Rejection::WrongLanguage),
            ("yandex_direct.title", "Waterproofwaterproofwaterproof", Rejection::ForbiddenContent),
        ];
        for (channel, text, reason) in cases {
            assert_eq!(check(channel, Language::En, text), Err(reason), "{text}");
        }
        assert_eq!(check("generic", Language::Zh, "一个 amazing 的包"), Err(Rejection::WrongLanguage));
        assert_eq!(check("generic", Language::Zh, "Waterproof"), Err(Rejection::WrongLanguage));
    }

    #[test]
    fn capitals_of_the_brief_are_not_shouting() {
        assert_eq!(check("google_rsa.headline", Language::En, "NORRBO, dry and light"), Ok(()));
    }

    #[test]
    fn a_text_without_a_word_of_the_brief_is_off_topic() {
        let (brief, claims) = (brief(), Claims::embedded().unwrap());
        let ground = Ground::new(&brief, &[], Language::En, &claims);
        assert!(ground.is_on_topic("For every hike"));
        assert!(ground.is_on_topic("Backpacks for all"));
        assert!(!ground.is_on_topic("The future of banking is here"));
    }
}
