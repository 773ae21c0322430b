//! Merges of a SentencePiece vocabulary, which a GGUF file stores as scores only.

use std::cmp::Ordering;
use std::collections::HashMap;

use tokenizers::models::bpe::{Merges, Vocab};

/// Two tokens whose joined text is a third, and that one's score.
struct Merge<'a> {
    left: &'a str,
    right: &'a str,
    score: f32,
}

/// The merges that the scores imply, best first, in the order of Hugging Face's `generate_merges`: by score, then by
/// the lengths of left and right, all falling; ties by the ids of left and right, rising, within a token.
pub(super) fn from_scores(tokens: &[&str], scores: &[f32]) -> Merges {
    let ids: HashMap<&str, usize> = tokens.iter().enumerate().map(|(id, &token)| (token, id)).collect();
    let mut merges = Vec::new();
    for (&token, &score) in tokens.iter().zip(scores) {
        let mut splits: Vec<(usize, usize, Merge<'_>)> = token
            .char_indices()
            .skip(1)
            .filter_map(|(at, _)| {
                let (left, right) = token.split_at(at);
                Some((*ids.get(left)?, *ids.get(right)?, Merge { left, right, score }))
            })
            .collect();
        splits.sort_by_key(|&(left, right, _)| (left, right));
        merges.extend(splits.into_iter().map(|(.., merge)| merge));
    }
    merges.sort_by(falling);
    merges.into_iter().map(|merge| (merge.left.to_owned(), merge.right.to_owned())).collect()
}

/// The first merge that does not join two tokens to a third. The `tokenizers` crate panics on some of these.
pub(super) fn first_broken(vocab: &Vocab, merges: &[(String, String)]) -> Option<usize> {
    let mut joined = String::new();
    merges.iter().position(|(left, right)| {
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        !(vocab.contains_key(left) && vocab.contains_key(right) && vocab.contains_key(&joined))
    })
}

fn falling(a: &Merge<'_>, b: &Merge<'_>) -> Ordering {
    let lengths = |merge: &Merge<'_>| (merge.left.chars().count(), merge.right.chars().count());
    b.score.total_cmp(&a.score).then_with(|| lengths(b).cmp(&lengths(a)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_come_by_score_and_then_by_length() {
        let tokens = ["a", "b", "c", "ab", "bc", "abc"];
        let scores = [-9.0, -9.0, -9.0, -2.0, -1.0, -3.0];
        let merges = from_scores(&tokens, &scores);
        let text: Vec<String> = merges.iter().map(|(l, r)| format!("{l}+{r}")).collect();
        assert_eq!(text, ["b+c", "a+b", "ab+c", "a+bc"]);
    }

    #[test]
    fn a_merge_whose_product_is_no_token_is_found() {
        let vocab: Vocab = [("a", 0), ("b", 1), ("ab", 2)].map(|(t, i)| (t.to_owned(), i)).into_iter().collect();
        let pair = |l: &str, r: &str| (l.to_owned(), r.to_owned());
        assert_eq!(first_broken(&vocab, &[pair("a", "b")]), None);
        assert_eq!(first_broken(&vocab, &[pair("a", "b"), pair("ab", "ab")]), Some(1));
        assert_eq!(first_broken(&vocab, &[pair("x", "b")]), Some(0));
    }
}
