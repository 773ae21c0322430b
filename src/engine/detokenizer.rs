//! Turns tokens' bytes into text as they come: whole characters only. Pure.

/// Holds the bytes of a character that is not complete yet, at most three.
///
/// All that it returns, joined, equals `String::from_utf8_lossy` of all bytes, joined.
#[derive(Debug, Default)]
pub struct Detokenizer {
    pending: Vec<u8>,
}

impl Detokenizer {
    /// The characters that `bytes` complete.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    // Valid by the error's own word; lossy costs no copy then.
                    text.push_str(&String::from_utf8_lossy(valid));
                    rest = after;
                    let Some(invalid) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[invalid..];
                }
            }
        }
        let kept = rest.len();
        self.pending.drain(..self.pending.len() - kept);
        text
    }

    /// What an incomplete last character becomes.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_character_comes_with_its_last_byte() {
        let mut detokenizer = Detokenizer::default();
        let bytes = "机🎒".as_bytes();
        let pieces: Vec<String> = bytes.iter().map(|byte| detokenizer.push(&[*byte])).collect();
        assert_eq!(pieces, ["", "", "机", "", "", "", "🎒"]);
        assert_eq!(detokenizer.finish(), "");
    }

    #[test]
    fn a_byte_that_cannot_go_on_is_replaced_at_once() {
        let mut detokenizer = Detokenizer::default();
        assert_eq!(detokenizer.push(&[0xE6, 0x9C]), "");
        assert_eq!(detokenizer.push(b"a"), "\u{FFFD}a");
        assert_eq!(detokenizer.push(&[0xFF]), "\u{FFFD}");
    }

    #[test]
    fn an_incomplete_end_is_one_replacement_character() {
        let mut detokenizer = Detokenizer::default();
        assert_eq!(detokenizer.push(&[b'x', 0xF0, 0x9F, 0x8E]), "x");
        assert_eq!(detokenizer.finish(), "\u{FFFD}");
        assert_eq!(detokenizer.finish(), "");
    }

    proptest! {
        #[test]
        fn pieces_join_to_the_lossy_text_of_the_whole(
            text in any::<String>(),
            noise in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..6),
            cuts in proptest::collection::vec(1usize..7, 1..50),
        ) {
            let mut bytes = text.into_bytes();
            for (at, byte) in noise {
                bytes.insert(at % (bytes.len() + 1), byte);
            }
            let mut detokenizer = Detokenizer::default();
            let (mut joined, mut rest, mut cuts) = (String::new(), bytes.as_slice(), cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                joined.push_str(&detokenizer.push(piece));
                prop_assert!(detokenizer.pending.len() <= 3);
                rest = after;
            }
            joined.push_str(&detokenizer.finish());
            prop_assert_eq!(joined, String::from_utf8_lossy(&bytes));
        }
    }
}
