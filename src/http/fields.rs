//! Finds every invalid field of a JSON object instead of the first one, and holds the checks that requests share.
//!
//! serde stops at the first error. So the offending member is recorded, taken out, and the rest decoded again, until it
//! passes or nothing is left to take out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use super::problem::FieldError;
use super::text::clean_line;

/// Errors listed at most; what comes after them is left out.
const MAX_ERRORS: usize = 64;
/// Characters of a given value or of a message that are repeated in a detail.
const MAX_DETAIL_CHARS: usize = 240;

/// The errors found so far, each at its JSON pointer in the body as the caller sent it.
#[derive(Debug, Default)]
pub struct FieldErrors {
    errors: Vec<FieldError>,
    /// Array members that were taken out, by the pointer of the array: indices as sent.
    taken_out: BTreeMap<String, BTreeSet<usize>>,
}

impl FieldErrors {
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    pub fn into_vec(self) -> Vec<FieldError> {
        self.errors
    }

    /// Adds an error at a pointer into the decoded value, unless that place or one above it has one already.
    pub fn add(&mut self, pointer: &str, detail: impl Into<String>) {
        let pointer = self.as_sent(pointer);
        self.add_sent(pointer, detail.into());
    }

    /// Cleans a text. Empty is absent.
    pub fn text(&mut self, pointer: &str, given: Option<String>, max_chars: usize) -> Option<String> {
        let text = clean_line(&given?);
        self.check_chars(pointer, &text, max_chars);
        (!text.is_empty()).then_some(text)
    }

    /// Cleans a list of texts. Empty members are left out.
    pub fn texts(&mut self, pointer: &str, given: Vec<String>, max_items: usize, max_chars: usize) -> Vec<String> {
        self.check_items(pointer, given.len(), max_items);
        let mut texts = Vec::with_capacity(given.len().min(max_items));
        for (index, item) in given.into_iter().enumerate().take(max_items) {
            texts.extend(self.text(&format!("{pointer}/{index}"), Some(item), max_chars));
        }
        texts
    }

    /// Records a list that is too long.
    pub fn check_items(&mut self, pointer: &str, items: usize, max_items: usize) {
        if items > max_items {
            self.add(pointer, format!("must have at most {max_items} items, not {items}"));
        }
    }

    /// Records a text that is too long, counted in code points.
    pub fn check_chars(&mut self, pointer: &str, text: &str, max_chars: usize) {
        let chars = text.chars().count();
        if chars > max_chars {
            self.add(pointer, format!("must have at most {max_chars} characters, not {chars}"));
        }
    }

    /// A number within bounds, both included; `None` when absent or outside.
    pub fn range<T: PartialOrd + Display + Copy>(
        &mut self,
        pointer: &str,
        given: Option<T>,
        min: T,
        max: T,
    ) -> Option<T> {
        let given = given?;
        if given >= min && given <= max {
            return Some(given);
        }
        self.add(pointer, format!("must be from {min} to {max}, not {given}"));
        None
    }

    /// One of the names; the error lists them all.
    pub fn choice<T: Copy>(&mut self, pointer: &str, given: Option<String>, choices: &[(&str, T)]) -> Option<T> {
        let given = clean_line(&given?);
        let found = choices.iter().find(|(name, _)| *name == given);
        if found.is_none() {
            let names: Vec<String> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
            self.add(pointer, format!("must be one of {}, not {}", names.join(", "), quoted(&given)));
        }
        found.map(|(_, value)| *value)
    }

    fn add_sent(&mut self, pointer: String, detail: String) {
        let covered = |error: &FieldError| {
            pointer.strip_prefix(&error.pointer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                && !error.pointer.is_empty()
        };
        if self.errors.len() < MAX_ERRORS && !self.errors.iter().any(covered) {
            self.errors.push(FieldError { pointer, detail: shorten(&detail) });
        }
    }

    /// Translates array indices of the decoded value into those of the body as sent.
    fn as_sent(&self, pointer: &str) -> String {
        let mut sent = String::with_capacity(pointer.len());
        for segment in pointer.split('/').skip(1) {
            let index = segment.parse::<usize>().ok().and_then(|index| {
                let taken_out = self.taken_out.get(&sent)?;
                Some(taken_out.iter().fold(index, |index, taken| if *taken <= index { index + 1 } else { index }))
            });
            sent.push('/');
            match index {
                Some(index) => sent.push_str(&index.to_string()),
                None => sent.push_str(segment),
            }
        }
        sent
    }
}

/// Decodes an object, recording every member that does not fit. `None` when it cannot be decoded even without them.
pub fn decode<T: DeserializeOwned>(mut value: Value, errors: &mut FieldErrors) -> Option<T> {
    for _ in 0..MAX_ERRORS {
        let error = match serde_path_to_error::deserialize::<_, T>(&value) {
            Ok(decoded) => return Some(decoded),
            Err(error) => error,
        };
        let pointer = pointer_of(error.path());
        let sent = errors.as_sent(&pointer);
        errors.add_sent(sent, explain(&error.inner().to_string(), &pointer));
        let taken = take_out(&mut value, &pointer)?;
        let sent = errors.as_sent(&taken.pointer);
        if let (true, Some((array, index))) = (taken.from_array, sent.rsplit_once('/')) {
            errors.taken_out.entry(array.to_owned()).or_default().extend(index.parse::<usize>());
        }
    }
    None
}

/// Accepts a non-negative integer, also written as `1.0`; `null` is absent.
///
/// # Errors
/// Says what was given instead.
pub fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let Value::Number(number) = &value else {
        return if value.is_null() { Ok(None) } else { Err(D::Error::custom(not("an integer", &value))) };
    };
    if let Some(integer) = number.as_u64() {
        return Ok(Some(integer));
    }
    match number.as_f64() {
        Some(float) if float < 0.0 => Err(D::Error::custom(format!("must not be negative, not {number}"))),
        // Above 2^53 a float no longer names one integer.
        Some(float) if float.fract() == 0.0 && float <= 9_007_199_254_740_992.0 => Ok(Some(float as u64)),
        _ => Err(D::Error::custom(format!("must be an integer, not {number}"))),
    }
}

/// Accepts a list of strings; `null` is an empty one.
///
/// # Errors
/// When it is something else.
pub fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The kind of a JSON value, with its article.
pub fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The name nearest to a mistyped one, if one is near.
pub fn nearest<'a>(given: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given: String = given.chars().take(100).collect();
    let scored = names.into_iter().map(|name| (strsim::jaro_winkler(&given, name), name));
    scored.filter(|(score, _)| *score >= 0.75).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

fn not(wanted: &str, value: &Value) -> String {
    match value {
        Value::String(text) => format!("must be {wanted}, not the string {}", quoted(text)),
        other => format!("must be {wanted}, not {}", kind_of(other)),
    }
}

fn quoted(text: &str) -> String {
    format!("{:?}", shorten(text))
}

fn shorten(text: &str) -> String {
    let mut chars = text.chars();
    let mut short: String = chars.by_ref().take(MAX_DETAIL_CHARS).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    short
}

/// Turns serde's message into ours where it names an unknown field.
fn explain(message: &str, pointer: &str) -> String {
    let Some(known) = message.strip_prefix("unknown field `") else {
        return message.replacen("invalid type: ", "", 1).replace(", expected ", " is given, expected ");
    };
    let given = pointer.rsplit('/').next().map(unescape).unwrap_or_default();
    // The rest of the message lists the known names between back-ticks, after the given one.
    let list = known.rsplit_once("expected ").map(|(_, list)| list).unwrap_or_default();
    let names: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
    match nearest(&given, names.iter().copied()) {
        Some(name) => format!("no such field; did you mean {name:?}?"),
        None => format!("no such field; known are {}", names.join(", ")),
    }
}

fn pointer_of(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } | Segment::Enum { variant: key } => {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Segment::Unknown => pointer.push_str("/?"),
        }
    }
    pointer
}

fn unescape(segment: &str) -> String {
    segment.replace("~1", "/").replace("~0", "~")
}

struct Taken {
    /// Where the member was, in the value before it was taken out.
    pointer: String,
    /// Its later neighbors have moved up.
    from_array: bool,
}

/// Takes the member at the pointer, or the nearest one above it that exists, out of its container.
fn take_out(value: &mut Value, pointer: &str) -> Option<Taken> {
    let mut pointer = pointer;
    loop {
        let (parent, last) = pointer.rsplit_once('/')?;
        match value.pointer_mut(parent) {
            Some(Value::Object(members)) if members.contains_key(&unescape(last)) => {
                members.remove(&unescape(last));
                return Some(Taken { pointer: pointer.to_owned(), from_array: false });
            }
            Some(Value::Array(items)) => {
                let index = last.parse::<usize>().ok().filter(|index| *index < items.len())?;
                items.remove(index);
                return Some(Taken { pointer: pointer.to_owned(), from_array: true });
            }
            _ => pointer = parent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_name_finds_its_neighbor_and_nonsense_finds_none() {
        let names = ["channel", "language", "keywords"];
        assert_eq!(nearest("chanel", names), Some("channel"));
        assert_eq!(nearest("keyword", names), Some("keywords"));
        assert_eq!(nearest("zzz", names), None);
    }

    #[test]
    fn an_error_below_a_known_one_is_not_repeated() {
        let mut errors = FieldErrors::default();
        errors.add("/product", "wrong");
        errors.add("/product/name", "also wrong");
        errors.add("/products", "another");
        assert_eq!(errors.into_vec().len(), 2);
    }

    #[test]
    fn errors_and_details_are_bounded() {
        let mut errors = FieldErrors::default();
        for index in 0..200 {
            errors.add(&format!("/{index}"), "x".repeat(10_000));
        }
        let errors = errors.into_vec();
        assert_eq!(errors.len(), MAX_ERRORS);
        assert!(errors[0].detail.chars().count() <= MAX_DETAIL_CHARS + 1);
    }

    #[test]
    fn a_choice_names_all_choices() {
        let mut errors = FieldErrors::default();
        assert_eq!(errors.choice("/a", Some("x".into()), &[("x", 1), ("y", 2)]), Some(1));
        assert_eq!(errors.choice("/a", Some("z".into()), &[("x", 1), ("y", 2)]), None);
        assert_eq!(errors.into_vec()[0].detail, "must be one of \"x\", \"y\", not \"z\"");
    }

    #[test]
    fn a_range_refuses_what_is_no_number() {
        let mut errors = FieldErrors::default();
        assert_eq!(errors.range("/t", Some(f64::NAN), 0.0, 2.0), None);
        assert!(!errors.is_empty());
    }
}
