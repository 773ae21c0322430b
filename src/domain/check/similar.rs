//! How alike two texts are: overlap of character n-grams.

use std::collections::HashSet;

use crate::domain::text::{is_han, skeleton};

/// Texts at least this alike are near-duplicates.
pub const NEAR_DUPLICATE: f32 = 0.6;

/// The n-grams of a text, to be compared with others'.
#[derive(Debug, Clone)]
pub struct Shape(HashSet<Vec<char>>);

impl Shape {
    /// Trigrams of letters and digits; pairs where half of them are Han, whose words are shorter.
    pub fn of(text: &str) -> Self {
        let chars: Vec<char> = skeleton(text).chars().collect();
        let han = chars.iter().filter(|c| is_han(**c)).count();
        let n = if han * 2 >= chars.len() { 2 } else { 3 };
        if chars.len() < n {
            return Self(HashSet::from([chars]));
        }
        Self(chars.windows(n).map(<[char]>::to_vec).collect())
    }

    /// 0: nothing in common, 1: the same n-grams.
    pub fn similarity(&self, other: &Self) -> f32 {
        let union = self.0.union(&other.0).count();
        if union == 0 { 1.0 } else { self.0.intersection(&other.0).count() as f32 / union as f32 }
    }

    /// The highest similarity to any of the others; 0 without others.
    pub fn nearest<'a>(&self, others: impl Iterator<Item = &'a Self>) -> f32 {
        others.map(|other| self.similarity(other)).fold(0.0, f32::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn similarity(a: &str, b: &str) -> f32 {
        Shape::of(a).similarity(&Shape::of(b))
    }

    #[test]
    fn case_and_punctuation_make_no_difference() {
        assert_eq!(similarity("Dry gear, light shoulders!", "dry gear light shoulders"), 1.0);
        assert_eq!(similarity("防水，轻便。", "防水轻便"), 1.0);
    }

    #[test]
    fn a_changed_word_is_near_and_another_text_is_not() {
        assert!(similarity("Pack light, stay dry this weekend", "Pack light, stay dry each weekend") >= NEAR_DUPLICATE);
        assert!(similarity("Pack light, stay dry", "Three years of warranty") < 0.2);
        assert!(similarity("轻便背包，说走就走", "三年质保，放心出发") < 0.2);
    }
}
