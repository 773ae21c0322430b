//! A product written as one string: `name | attribute | attribute`, or pairs as in `类型#裙*风格#简约`.

use thiserror::Error;

use super::brief::Product;
use super::text::{is_han, single_line};

/// Attributes that one product may have.
pub const MAX_ATTRIBUTES: usize = 50;
/// Characters of one value in a product string.
pub const MAX_VALUE_CHARS: usize = 500;

/// Why a string is not a product.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProductError {
    #[error("the product is empty")]
    Empty,
    #[error("the product has {given} attributes, at most {max} are allowed")]
    TooManyAttributes { given: usize, max: usize },
    #[error("a value has {given} characters, at most {max} are allowed")]
    ValueTooLong { given: usize, max: usize },
}

impl Product {
    /// Reads a product string. Values are separated by `|`, `｜`, `;`, `；` or newlines and the first is the name; in
    /// the pair form (`key#value*key#value`) keys say what a value is.
    ///
    /// # Errors
    /// When nothing is left after trimming, or a bound is passed.
    pub fn parse(text: &str) -> Result<Self, ProductError> {
        let product = if is_pairs(text) { from_pairs(text) } else { from_list(text) };
        product.named()
    }

    /// Gives a product of attributes alone its first attribute's name, drops empty and repeated attributes, and checks
    /// the bounds.
    ///
    /// # Errors
    /// As [`Product::parse`].
    pub fn named(mut self) -> Result<Self, ProductError> {
        let given = std::mem::take(&mut self.attributes);
        for value in given {
            if !value.is_empty() && value != self.name && !self.attributes.contains(&value) {
                self.attributes.push(value);
            }
        }
        if self.name.is_empty() {
            if self.attributes.is_empty() {
                return Err(ProductError::Empty);
            }
            self.name = self.attributes.remove(0);
        }
        if self.attributes.len() > MAX_ATTRIBUTES {
            return Err(ProductError::TooManyAttributes { given: self.attributes.len(), max: MAX_ATTRIBUTES });
        }
        let values = [Some(&self.name), self.brand.as_ref(), self.price.as_ref(), self.category.as_ref()];
        let longest = values.into_iter().flatten().chain(&self.attributes).map(|v| v.chars().count()).max();
        match longest {
            Some(given) if given > MAX_VALUE_CHARS => Err(ProductError::ValueTooLong { given, max: MAX_VALUE_CHARS }),
            _ => Ok(self),
        }
    }
}

/// Two pairs at least, or one that is the whole string: a lone `#` is too common in names (`Chanel #5`).
fn is_pairs(text: &str) -> bool {
    let mut parts = text.split(['*', '＊']).filter(|part| !part.trim().is_empty()).peekable();
    parts.peek().is_some()
        && parts.all(|part| {
            part.split_once(['#', '＃']).is_some_and(|(key, value)| {
                let key = key.trim();
                !key.is_empty() && key.chars().count() <= 10 && !key.contains(char::is_whitespace) && !value.is_empty()
            })
        })
}

fn from_pairs(text: &str) -> Product {
    let mut product = Product::default();
    let mut named = false;
    for part in text.split(['*', '＊']) {
        let Some((key, value)) = part.split_once(['#', '＃']) else { continue };
        let (key, value) = (single_line(key), single_line(value));
        match key.to_lowercase().as_str() {
            "名称" | "name" if !named => {
                named = true;
                // A type given before the name is what the thing is.
                product.category = Some(std::mem::take(&mut product.name)).filter(|v| !v.is_empty());
                product.name = value;
            }
            "类型" | "type" if product.name.is_empty() => product.name = value,
            "类型" | "type" if product.category.is_none() => product.category = Some(value),
            "品牌" | "brand" if product.brand.is_none() => product.brand = Some(value),
            "价格" | "price" if product.price.is_none() => product.price = Some(value),
            _ => product.attributes.push(attribute(&key, &value)),
        }
    }
    product
}

/// A value says enough alone unless it is a measure or a single character.
fn attribute(key: &str, value: &str) -> String {
    let alone = value.chars().nth(1).is_some() && !value.chars().any(|c| c.is_ascii_digit());
    match (alone, key.chars().next_back().is_some_and(is_han)) {
        (true, _) => value.to_owned(),
        (false, true) => format!("{key}{value}"),
        (false, false) => format!("{key} {value}"),
    }
}

fn from_list(text: &str) -> Product {
    let mut values = text.split(['|', '｜', ';', '；', '\n']).map(single_line).filter(|v| !v.is_empty());
    Product { name: values.next().unwrap_or_default(), attributes: values.collect(), ..Product::default() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_value_names_the_product_and_the_rest_are_attributes() {
        let product = Product::parse("智能手机 | 高像素相机 ｜强大处理器;快充；轻薄\n防水").unwrap();
        assert_eq!(product.name, "智能手机");
        assert_eq!(product.attributes, ["高像素相机", "强大处理器", "快充", "轻薄", "防水"]);
    }

    #[test]
    fn pairs_name_the_product_by_type_and_keep_measures_with_their_key() {
        let product = Product::parse("类型#裙*风格#简约*品牌#素白*价格#199元*裙长#80cm*颜色#白").unwrap();
        assert_eq!((product.name.as_str(), product.brand.as_deref()), ("裙", Some("素白")));
        assert_eq!(product.price.as_deref(), Some("199元"));
        assert_eq!(product.attributes, ["简约", "裙长80cm", "颜色白"]);
    }

    #[test]
    fn a_name_takes_the_place_of_the_type() {
        let product = Product::parse("类型#连衣裙*名称#晨雾*图案#条纹").unwrap();
        assert_eq!((product.name.as_str(), product.category.as_deref()), ("晨雾", Some("连衣裙")));
    }

    #[test]
    fn a_number_sign_in_a_name_does_not_make_it_a_pair() {
        assert_eq!(Product::parse("Atelier No. #5 | 50 ml").unwrap().name, "Atelier No. #5");
    }

    #[test]
    fn repeated_attributes_are_kept_once() {
        assert_eq!(Product::parse("Pack | light | light | Pack").unwrap().attributes, ["light"]);
    }

    #[test]
    fn nothing_is_not_a_product_and_bounds_are_stated() {
        assert_eq!(Product::parse(" | ;\n"), Err(ProductError::Empty));
        let many = (0..60).map(|i| i.to_string()).collect::<Vec<_>>().join("|");
        assert_eq!(Product::parse(&many), Err(ProductError::TooManyAttributes { given: 59, max: MAX_ATTRIBUTES }));
        let long = "x".repeat(501);
        assert_eq!(Product::parse(&long), Err(ProductError::ValueTooLong { given: 501, max: MAX_VALUE_CHARS }));
    }

    proptest! {
        #[test]
        fn any_string_is_refused_or_gives_a_named_product(text in "[a-z #*|;｜＃裙风\n]{0,60}") {
            if let Ok(product) = Product::parse(&text) {
                prop_assert!(!product.name.is_empty());
            }
        }
    }
}
