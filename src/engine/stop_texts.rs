//! Finds the texts that end a candidate, across any borders of tokens. Pure.

/// What became of a piece of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Released {
    /// Text that no stop text can begin in any more. May be empty.
    Text(String),
    /// Text before a stop text; the candidate ends.
    Stopped(String),
}

/// Holds back text that may be the beginning of a stop text: fewer bytes than the longest one has.
#[derive(Debug)]
pub struct StopTexts {
    stops: Vec<String>,
    held: String,
}

impl StopTexts {
    /// Empty stop texts are passed over: they would end every candidate before it begins.
    pub fn new(stops: &[String]) -> Self {
        Self { stops: stops.iter().filter(|stop| !stop.is_empty()).cloned().collect(), held: String::new() }
    }

    /// Takes the next piece and releases what is decided. Ends with the stop text that begins first.
    pub fn push(&mut self, piece: &str) -> Released {
        self.held.push_str(piece);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            let mut text = std::mem::take(&mut self.held);
            text.truncate(at);
            return Released::Stopped(text);
        }
        let undecided = self.held.split_off(self.held.len() - self.undecided());
        Released::Text(std::mem::replace(&mut self.held, undecided))
    }

    /// What is still held back, when no more text comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Length in bytes of the longest end of the held text that a stop text begins with.
    fn undecided(&self) -> usize {
        let longest = self.stops.iter().map(|stop| stop.len() - 1).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest);
        (from..self.held.len())
            .filter(|&at| self.held.is_char_boundary(at))
            .find(|&at| self.stops.iter().any(|stop| stop.starts_with(&self.held[at..])))
            .map_or(0, |at| self.held.len() - at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stops(texts: &[&str]) -> StopTexts {
        StopTexts::new(&texts.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    fn text(text: &str) -> Released {
        Released::Text(text.to_owned())
    }

    #[test]
    fn a_stop_text_is_found_across_pieces_and_is_not_part_of_the_text() {
        let mut stops = stops(&["\n\n"]);
        assert_eq!(stops.push("Dry gear\n"), text("Dry gear"));
        assert_eq!(stops.push("\nmore"), Released::Stopped(String::new()));
    }

    #[test]
    fn text_that_only_looked_like_a_stop_text_is_released() {
        let mut stops = stops(&["END!"]);
        assert_eq!(stops.push("the EN"), text("the "));
        assert_eq!(stops.push("D"), text(""));
        assert_eq!(stops.push("ING"), text("ENDING"));
        assert_eq!(stops.finish(), "");
    }

    #[test]
    fn what_is_held_at_the_end_is_text() {
        let mut stops = stops(&["END!"]);
        assert_eq!(stops.push("the END"), text("the "));
        assert_eq!(stops.finish(), "END");
    }

    #[test]
    fn the_stop_text_that_begins_first_wins() {
        let mut stops = stops(&["c", "bcd"]);
        assert_eq!(stops.push("abcd"), Released::Stopped("a".to_owned()));
    }

    #[test]
    fn a_repeated_beginning_is_followed_correctly() {
        let mut stops = stops(&["aab"]);
        assert_eq!(stops.push("aaa"), text("a"));
        assert_eq!(stops.push("b"), Released::Stopped(String::new()));
    }

    #[test]
    fn characters_of_several_bytes_are_never_split() {
        let mut stops = stops(&["。完"]);
        assert_eq!(stops.push("好。"), text("好"));
        assert_eq!(stops.push("宴"), text("。宴"));
        assert_eq!(stops.push("。完"), Released::Stopped(String::new()));
    }

    #[test]
    fn an_empty_stop_text_stops_nothing() {
        assert_eq!(stops(&[""]).push("a"), text("a"));
    }

    proptest! {
        #[test]
        fn pieces_join_to_the_text_before_the_first_stop_text_that_completes(
            whole in "[ab好]{0,40}",
            patterns in proptest::collection::vec("[ab好]{1,4}", 0..4),
            cuts in proptest::collection::vec(1usize..5, 1..20),
        ) {
            let mut matcher = StopTexts::new(&patterns);
            let chars: Vec<char> = whole.chars().collect();
            let (mut joined, mut stopped, mut at, mut cuts) = (String::new(), false, 0, cuts.into_iter().cycle());
            let mut seen = String::new();
            while at < chars.len() && !stopped {
                let end = (at + cuts.next().unwrap()).min(chars.len());
                let piece: String = chars[at..end].iter().collect();
                seen.push_str(&piece);
                match matcher.push(&piece) {
                    Released::Text(text) => joined.push_str(&text),
                    Released::Stopped(text) => {
                        joined.push_str(&text);
                        stopped = true;
                    }
                }
                at = end;
            }
            joined.push_str(&matcher.finish());
            let first = patterns.iter().filter_map(|p| seen.find(p.as_str())).min();
            prop_assert_eq!(stopped, first.is_some());
            prop_assert_eq!(joined, &seen[..first.unwrap_or(seen.len())]);
        }
    }
}
