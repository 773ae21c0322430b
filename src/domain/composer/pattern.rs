//! A pattern: literal text, slots, and optional parts. Parsed once; values put into it are never parsed.

use super::slots::{Slot, Slots};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Slot(Slot),
    Optional(Vec<Part>),
}

impl Pattern {
    /// Parses `{slot}` and `[optional]`; neither nests in itself.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut optional: Option<Vec<Part>> = None;
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}', '[', ']']) {
            let (before, from) = rest.split_at(at);
            let target = optional.as_mut().unwrap_or(&mut parts);
            if !before.is_empty() {
                target.push(Part::Literal(before.to_owned()));
            }
            rest = match from.as_bytes()[0] {
                b'{' => {
                    let (name, after) = from[1..].split_once('}').ok_or("a `{` is not closed")?;
                    target.push(Part::Slot(Slot::parse(name).ok_or_else(|| format!("there is no slot {name:?}"))?));
                    after
                }
                b'[' if optional.is_none() => {
                    optional = Some(Vec::new());
                    &from[1..]
                }
                b']' => {
                    parts.push(Part::Optional(optional.take().ok_or("a `]` closes nothing")?));
                    &from[1..]
                }
                _ => return Err(format!("unexpected {:?}", &from[..1])),
            };
        }
        if optional.is_some() {
            return Err("a `[` is not closed".to_owned());
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    pub fn uses_list(&self) -> bool {
        self.slots().any(|slot| slot.is_list())
    }

    /// Whether another order of the attributes makes another text.
    pub fn uses_attributes(&self) -> bool {
        self.slots().any(|slot| slot.is_attribute())
    }

    /// The text with `listed` attributes in lists; `None` when a slot outside optional parts has no value.
    pub fn fill(&self, slots: &Slots<'_>, listed: usize, with_optional: bool) -> Option<String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => join(&mut text, literal),
                Part::Slot(slot) => join(&mut text, &slots.value(*slot, listed)?),
                Part::Optional(parts) if with_optional => {
                    let filled = parts.iter().map(|part| match part {
                        Part::Slot(slot) => slots.value(*slot, listed),
                        Part::Literal(literal) => Some(literal.clone()),
                        Part::Optional(_) => None,
                    });
                    for piece in filled.collect::<Option<Vec<String>>>().unwrap_or_default() {
                        join(&mut text, &piece);
                    }
                }
                Part::Optional(_) => {}
            }
        }
        text.truncate(text.trim_end_matches(['，', '、', '：', '；', ',', ';', ':', ' ']).len());
        Some(text)
    }

    fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        let inner = |part: &Part| match part {
            Part::Slot(slot) => vec![*slot],
            Part::Optional(parts) => {
                parts.iter().filter_map(|part| if let Part::Slot(slot) = part { Some(*slot) } else { None }).collect()
            }
            Part::Literal(_) => Vec::new(),
        };
        self.parts.iter().flat_map(inner)
    }
}

/// Appends a piece; where two marks meet at the seam one of them stays. Marks within a piece are the caller's own.
fn join(text: &mut String, piece: &str) {
    let is_mark =
        |c: &char| matches!(c, '.' | ',' | ':' | ';' | '!' | '?' | '。' | '，' | '：' | '；' | '！' | '？' | '、');
    let (before, first) = (text.chars().next_back(), piece.chars().next());
    let (Some(before), Some(_)) = (before.filter(is_mark), first.filter(is_mark)) else {
        text.push_str(piece);
        return;
    };
    // A full stop outweighs a comma; a question mark stays.
    if matches!(before, '.' | '!' | '?' | '。' | '！' | '？') {
        text.push_str(piece.trim_start_matches(|c| is_mark(&c)));
    } else {
        text.pop();
        text.push_str(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_patterns_are_told() {
        for (pattern, part) in [
            ("{nmae}", "nmae"),
            ("{name", "not closed"),
            ("[x", "not closed"),
            ("x]", "closes nothing"),
            ("x}", "unexpected"),
        ] {
            assert!(Pattern::parse(pattern).unwrap_err().contains(part), "{pattern}");
        }
    }

    #[test]
    fn marks_that_meet_become_one_and_those_of_a_value_stay() {
        let joined = |pieces: &[&str]| {
            let mut text = String::new();
            pieces.iter().for_each(|piece| join(&mut text, piece));
            text
        };
        assert_eq!(joined(&["Yours.", ". Now"]), "Yours. Now");
        assert_eq!(joined(&["轻便，", "。防水。"]), "轻便。防水。");
        assert_eq!(joined(&["Why", "?", ", you ask"]), "Why? you ask");
        assert_eq!(joined(&["Node..js", ": x"]), "Node..js: x");
    }
}
