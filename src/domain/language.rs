//! Which language a brief is written in.

use super::brief::{Brief, Language};
use super::text::{is_han, is_latin};

impl Brief {
    /// The caller's language, or the one that the product is described in.
    pub fn resolved_language(&self) -> Language {
        self.language.unwrap_or_else(|| {
            let product = &self.product;
            let texts = [&product.name].into_iter().chain(&product.attributes).chain(&product.category);
            detect(texts.chain(&product.description).chain(&self.keywords).map(String::as_str))
        })
    }
}

/// Chinese when at least a fifth of the letters are Han: brand and model names in Latin letters are common in Chinese
/// text, Chinese characters in English text are not. Scripts that no copy is written in count as English.
pub fn detect<'a>(texts: impl Iterator<Item = &'a str>) -> Language {
    let (mut han, mut latin) = (0_usize, 0_usize);
    for c in texts.flat_map(str::chars) {
        han += usize::from(is_han(c));
        latin += usize::from(is_latin(c));
    }
    if han > 0 && han * 4 >= latin { Language::Zh } else { Language::En }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_decides() {
        let cases = [
            ("智能手机 高像素相机", Language::Zh),
            ("iPhone 15 手机壳", Language::Zh),
            ("Great 商品 很好", Language::Zh),
            ("Buy now and save", Language::En),
            ("Tsingtao (青岛) crisp lager from the coast", Language::En),
            ("12345", Language::En),
        ];
        for (text, expected) in cases {
            assert_eq!(detect([text].into_iter()), expected, "{text}");
        }
    }
}
