//! A model's raw text for one field becomes a candidate: without labels, quotes, markup and unfinished tails. Never cuts
//! within a word.

use super::brief::Language;
use super::channel::{Field, FieldKind, Forbidden};
use super::check::{Ground, Rejection, is_url};
use super::text::{fold, is_emoji, is_han, is_sentence_end, single_line};

/// A text cut back to its last whole sentence or clause must keep this share of the limit, else too little is left.
const LEAST_SHARE: f32 = 0.3;
/// Labels that models put before a text, folded; a colon follows.
const LABELS: &[&str] = &[
    "headline",
    "title",
    "ad",
    "ad copy",
    "ad text",
    "ad headline",
    "google ad headline",
    "description",
    "copy",
    "text",
    "output",
    "answer",
    "response",
    "subject",
    "subject line",
    "email subject",
    "body",
    "post",
    "caption",
    "tagline",
    "slogan",
    "assistant",
    "标题",
    "文案",
    "广告",
    "广告文案",
    "广告语",
    "描述",
    "正文",
    "主题",
    "输出",
    "答案",
];
/// Lines of the prompt that a model repeats instead of answering.
const PROMPT_LABELS: &[&str] = &[
    "format",
    "tone",
    "product",
    "facts",
    "audience",
    "must include",
    "industry",
    "voice",
    "格式",
    "语气",
    "产品",
    "事实",
    "人群",
    "必须包含",
    "行业",
];
/// A model that talks about itself or its task, folded.
const ASSISTANT_TALK: &[&str] = &[
    "as an ai",
    "i'm sorry",
    "i am sorry",
    "i cannot",
    "i can't",
    "i apologize",
    "language model",
    "here is a",
    "here is your",
    "here is the",
    "here's your",
    "here's a",
    "here are",
    "sure,",
    "sure!",
    "certainly",
    "of course!",
    "let me know",
    "i hope this",
    "feel free to",
    "your prompt",
    "作为ai",
    "作为一个",
    "作为人工智能",
    "抱歉",
    "对不起",
    "好的,",
    "当然可以",
    "以下是",
    "希望这",
    "请问您",
];
/// English words that cannot end a text.
const DANGLING: &[&str] = &[
    "a", "an", "and", "are", "as", "at", "but", "by", "for", "from", "has", "have", "in", "into", "is", "its", "of",
    "on", "or", "our", "so", "than", "that", "the", "their", "this", "to", "under", "up to", "was", "when", "which",
    "while", "who", "with", "your",
];

/// Cleans one text. `finished`: the model ended it by itself. A text over the limit is cut back to whole sentences or
/// clauses where enough of it remains; else it stays as it is, and the check drops it.
///
/// # Errors
/// When nothing usable is left.
pub fn clean(
    raw: &str,
    finished: bool,
    field: &Field,
    language: Language,
    ground: &Ground<'_>,
) -> Result<String, Rejection> {
    let mut text = first_part(raw, field.kind);
    text = strip_frame(&text);
    text = strip_frame(&without_tags(&text));
    text = without_markup(&text, field, ground);
    if fold(&text).is_empty() {
        return Err(Rejection::Empty);
    }
    if speaks_as_assistant(&text) || repeats_prompt(&text) {
        return Err(Rejection::AssistantTalk);
    }
    if text.contains(['[', ']', '<', '>']) && !ground.holds(&text) || text.contains("{{") {
        return Err(Rejection::Placeholder);
    }
    text = without_repetition(&text);
    if repeats_itself(&text) {
        return Err(Rejection::Repetition);
    }
    if !finished || field.unit.count(&text) > field.max {
        text = cut_back(&text, field).unwrap_or(text);
    }
    if dangles(&text, language) || (!finished && !ends_whole(&text, field.kind)) {
        text = cut_back(&text, field).filter(|cut| !dangles(cut, language)).ok_or(Rejection::Unfinished)?;
    }
    let text = tidy_end(&text, field);
    if text.is_empty() { Err(Rejection::Empty) } else { Ok(text) }
}

/// The first paragraph, on one line; of a short field the first line.
fn first_part(raw: &str, kind: FieldKind) -> String {
    let raw = raw.trim();
    let raw = match raw.split_once('\n') {
        Some((line, rest)) if line.trim_end().ends_with([':', '：']) && after_label(line) == Some("") => {
            rest.trim_start()
        }
        _ => raw,
    };
    let part = match kind {
        FieldKind::Paragraph => raw.split("\n\n").next().unwrap_or_default(),
        _ => raw.lines().next().unwrap_or_default(),
    };
    single_line(part)
}

/// Takes off list marks, labels and quotes around the whole text, in whatever order they stand.
fn strip_frame(text: &str) -> String {
    let mut text = text.trim();
    loop {
        let before = text;
        text = text.trim_start_matches(['-', '*', '•', '>', '–', ' ']).trim_end_matches(['*', ' ']);
        // A heading's mark stands before a space; without one it belongs to a hashtag or a rank.
        if text.trim_start_matches('#').starts_with(' ') {
            text = text.trim_start_matches('#').trim_start();
        }
        if let Some((number, rest)) = text.split_once(['.', ')'])
            && !number.is_empty()
            && number.len() <= 2
            && number.bytes().all(|byte| byte.is_ascii_digit())
            && rest.starts_with(' ')
        {
            text = rest.trim_start();
        }
        if let Some(rest) = after_label(text) {
            text = rest;
        }
        for (open, close) in [('"', '"'), ('“', '”'), ('「', '」'), ('\'', '\''), ('‘', '’'), ('《', '》'), ('`', '`')]
        {
            if let Some(inner) = text.strip_prefix(open) {
                match inner.strip_suffix(close) {
                    Some(inner) if !inner.contains([open, close]) => text = inner.trim(),
                    None if !inner.contains(close) => text = inner.trim(),
                    _ => {}
                }
            }
        }
        if text == before {
            return text.to_owned();
        }
    }
}

/// Without bold marks, hashtags, emoji and addresses that the field forbids or the brief does not hold.
fn without_markup(text: &str, field: &Field, ground: &Ground<'_>) -> String {
    let plain = text.replace("**", "").replace("__", "").replace('`', "");
    let no_emoji = field.forbids.contains(&Forbidden::Emoji);
    let plain: String = plain.chars().filter(|c| !(no_emoji && is_emoji(*c))).collect();
    let words = plain.split(' ').filter(|word| {
        let hashtag = word.starts_with(['#', '＃', '@', '＠']) && word.chars().count() > 1;
        !(hashtag || is_url(&fold(word))) || ground.holds(word)
    });
    single_line(&words.collect::<Vec<_>>().join(" "))
}

/// What follows a label or an announcement ("Headline 1:", "Sure! Here is your headline:") and its colon.
fn after_label(text: &str) -> Option<&str> {
    const ANNOUNCEMENTS: &[&str] =
        &["here is", "here's", "here are", "sure", "certainly", "of course", "以下是", "好的", "当然"];
    /// A longer beginning is a sentence of the text itself.
    const LONGEST: usize = 80;
    let (label, rest) = text.split_once([':', '：'])?;
    let folded = fold(label.trim_matches(['*', ' '])).replace('’', "'");
    let name = folded.trim_end_matches(|c: char| c.is_ascii_digit() || c == ' ');
    let announces = folded.chars().count() <= LONGEST && ANNOUNCEMENTS.iter().any(|start| folded.starts_with(start));
    (LABELS.contains(&name) || announces).then(|| rest.trim_start_matches(['*', ' ']))
}

/// Without HTML tags; a `<` that opens none stays.
fn without_tags(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        kept.push_str(&rest[..at]);
        let inner = &rest[at + 1..];
        let is_tag = inner.trim_start_matches('/').starts_with(|c: char| c.is_ascii_alphabetic());
        match inner.find('>').filter(|_| is_tag) {
            Some(end) => rest = &inner[end + 1..],
            None => {
                kept.push('<');
                rest = inner;
            }
        }
    }
    kept + rest
}

/// Whether a clause stands twice, or a word three times in a row.
fn repeats_itself(text: &str) -> bool {
    let folded = fold(text);
    let mut clauses: Vec<&str> = folded.split([',', ';', '.', '!', '?', '。', '、']).map(str::trim).collect();
    clauses.retain(|clause| clause.chars().count() > 3);
    let whole = clauses.len();
    clauses.sort_unstable();
    clauses.dedup();
    let thrice = |three: &[&str]| three[0] == three[1] && three[1] == three[2];
    let words: Vec<&str> = folded.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    clauses.len() < whole || words.windows(3).any(thrice)
}

fn speaks_as_assistant(text: &str) -> bool {
    let folded = fold(text).replace('’', "'");
    sentences(&folded).iter().any(|sentence| ASSISTANT_TALK.iter().any(|talk| sentence.trim_start().starts_with(talk)))
        || ["as an ai", "language model", "作为ai", "人工智能助手"].iter().any(|talk| folded.contains(talk))
}

fn repeats_prompt(text: &str) -> bool {
    let labels = text.split_once([':', '：']).map(|(label, _)| fold(label.trim()));
    labels.is_some_and(|label| PROMPT_LABELS.contains(&label.as_str()))
}

/// The text up to the first sentence that was there before.
fn without_repetition(text: &str) -> String {
    let mut seen: Vec<String> = Vec::new();
    let mut kept = String::new();
    for sentence in sentences(text) {
        let folded = fold(sentence.trim());
        if seen.contains(&folded) {
            break;
        }
        seen.push(folded);
        kept.push_str(sentence);
    }
    kept.trim_end().to_owned()
}

/// The sentences, each with its mark and the space after it.
fn sentences(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    for end in sentence_ends(text) {
        parts.push(&text[start..end]);
        start = end;
    }
    if start < text.len() {
        parts.push(&text[start..]);
    }
    parts
}

/// Byte positions just after each sentence mark. A point within a number or before a letter ends none.
fn sentence_ends(text: &str) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|(_, next)| *next);
        let whole = match c {
            '.' => next.is_none_or(|next| next.is_whitespace() || is_han(next)),
            c => is_sentence_end(c),
        };
        if whole && !next.is_some_and(is_sentence_end) {
            ends.push(at + c.len_utf8());
        }
    }
    ends
}

/// The longest beginning that fits and ends with a sentence, else with a clause; `None` when too little is left.
fn cut_back(text: &str, field: &Field) -> Option<String> {
    let fits = |end: &usize| {
        let count = field.unit.count(text[..*end].trim_end());
        count <= field.max && count >= field.min
    };
    let enough = |end: &usize| field.unit.count(text[..*end].trim_end()) as f32 >= field.max as f32 * LEAST_SHARE;
    let sentence = sentence_ends(text).into_iter().filter(fits).max();
    if let Some(end) = sentence.filter(|end| enough(end) || field.kind == FieldKind::Paragraph || *end > 24) {
        return Some(text[..end].trim_end().to_owned());
    }
    let clause = |(at, c): (usize, char)| {
        let next = text[at + c.len_utf8()..].chars().next();
        let whole = match c {
            ',' | ';' | ':' => next.is_none_or(char::is_whitespace),
            '，' | '；' | '：' | '、' | '–' | '—' => true,
            _ => false,
        };
        whole.then_some(at)
    };
    let clause = text.char_indices().filter_map(clause).filter(fits).filter(enough).max()?;
    Some(text[..clause].trim_end().to_owned())
}

/// Whether the last word asks for another.
fn dangles(text: &str, language: Language) -> bool {
    let folded = fold(text);
    let trimmed = folded.trim_end();
    if trimmed.ends_with([',', ';', ':', '-', '–', '—', '(', '&', '/', '，', '；', '：', '、', '（', '“']) {
        return true;
    }
    if trimmed.matches('(').count() > trimmed.matches(')').count() {
        return true;
    }
    language == Language::En
        && trimmed
            .rsplit(|c: char| !(c.is_alphanumeric() || c == '\''))
            .next()
            .is_some_and(|word| DANGLING.contains(&word))
}

/// Whether a text that was stopped from outside may pass as whole: it ends with a mark, or is a headline.
fn ends_whole(text: &str, kind: FieldKind) -> bool {
    kind == FieldKind::Headline && text.ends_with(|c: char| !c.is_alphanumeric())
        || text.ends_with(|c: char| is_sentence_end(c) || matches!(c, ')' | '”' | '"'))
}

/// A headline loses its final point; a sentence in another field keeps its own.
fn tidy_end(text: &str, field: &Field) -> String {
    let text = text.trim();
    let one_sentence = sentence_ends(text).len() == 1;
    if field.kind == FieldKind::Headline && one_sentence {
        return text.trim_end_matches(['.', '。']).trim_end().to_owned();
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::brief::{Brief, Product};
    use crate::domain::channel::Channels;
    use crate::domain::check::claims::Claims;

    fn cleaned_as(raw: &str, finished: bool, channel: &str, language: Language) -> Result<String, Rejection> {
        let brief = Brief {
            product: Product {
                name: "TrailLite 40".into(),
                attributes: vec!["waterproof".into()],
                ..Product::default()
            },
            ..Brief::default()
        };
        let claims = Claims::embedded().unwrap();
        let ground = Ground::new(&brief, &[], language, &claims);
        let target = Channels::embedded().unwrap().resolve(channel).unwrap();
        clean(raw, finished, &target.fields[0], language, &ground)
    }

    fn cleaned(raw: &str) -> Result<String, Rejection> {
        cleaned_as(raw, true, "google_rsa.headline", Language::En)
    }

    #[test]
    fn labels_quotes_and_markup_come_off() {
        for raw in [
            "Headline: \"Light pack, dry gear\"",
            "**Light pack, dry gear**",
            "1. Light pack, dry gear",
            "- Light pack, dry gear.",
            "## Light pack, dry gear",
            "Headline 2: Light pack, dry gear",
            "**Headline:** Light pack, dry gear",
            "Headline:\nLight pack, dry gear",
            "Here's your headline: \"Light pack, dry gear\"",
            "Sure! Here is a headline for you:\n\nLight pack, dry gear",
            "<b>Light pack</b>, dry gear",
            "\"Light pack, dry gear",
            "Light pack, dry gear #hiking https://x.example.com/a",
            "Light pack, dry gear 🎒\nAnother line",
        ] {
            assert_eq!(cleaned(raw).as_deref(), Ok("Light pack, dry gear"), "{raw}");
        }
    }

    #[test]
    fn assistant_talk_and_prompt_echoes_are_refused() {
        for raw in
            ["Sure! Here it is", "I'm sorry, but I cannot", "As an AI model", "Tone: friendly", "Here is a headline"]
        {
            assert_eq!(cleaned(raw), Err(Rejection::AssistantTalk), "{raw}");
        }
        assert_eq!(cleaned_as("以下是文案", true, "banner", Language::Zh), Err(Rejection::AssistantTalk));
        for raw in ["Here is your headline", "Stay dry all day. I'm sorry."] {
            assert_eq!(cleaned(raw), Err(Rejection::AssistantTalk), "{raw}");
        }
        assert_eq!(cleaned_as("好的，轻装出发", true, "banner", Language::Zh), Err(Rejection::AssistantTalk));
        assert_eq!(cleaned("[Brand] for your trip"), Err(Rejection::Placeholder));
    }

    #[test]
    fn an_unfinished_tail_is_cut_back_or_refused() {
        let line = |raw| cleaned_as(raw, false, "google_rsa.description", Language::En);
        assert_eq!(
            line("Dry gear on wet trails, all day. It also has the").as_deref(),
            Ok("Dry gear on wet trails, all day.")
        );
        assert_eq!(line("Dry gear for the"), Err(Rejection::Unfinished));
        assert_eq!(cleaned("Dry gear with the"), Err(Rejection::Unfinished));
    }

    #[test]
    fn a_text_over_the_limit_is_cut_at_a_clause() {
        assert_eq!(cleaned("Stay dry on the trail, every single day of it").as_deref(), Ok("Stay dry on the trail"));
        let whole = "Staydryonthetrailallthewaytothetopofthehill";
        assert_eq!(cleaned(whole).as_deref(), Ok(whole), "left for the check to drop");
    }

    #[test]
    fn a_repeated_sentence_ends_the_text() {
        let text = cleaned_as("Pack light. Stay dry. Pack light. Stay dry.", true, "generic", Language::En);
        assert_eq!(text.as_deref(), Ok("Pack light. Stay dry."));
    }

    #[test]
    fn a_repeated_clause_or_word_is_refused() {
        for raw in ["Stay dry, stay dry", "dry dry dry dry"] {
            assert_eq!(cleaned(raw), Err(Rejection::Repetition), "{raw}");
        }
        assert!(cleaned("Light, so light").is_ok());
    }

    #[test]
    fn chinese_is_cut_at_its_own_marks() {
        let text = cleaned_as("轻装出发，山路不湿。它还有", false, "google_rsa.description", Language::Zh);
        assert_eq!(text.as_deref(), Ok("轻装出发，山路不湿。"));
    }

    proptest! {
        #[test]
        fn no_word_is_ever_cut(raw in "[A-Za-z]{1,12}([ ,.!][ ]?[A-Za-z]{1,12}){0,30}", finished: bool) {
            let words: Vec<&str> = raw.split(|c: char| !c.is_alphabetic()).filter(|w| !w.is_empty()).collect();
            if let Ok(text) = cleaned_as(&raw, finished, "google_rsa.description", Language::En) {
                for word in text.split(|c: char| !c.is_alphabetic()).filter(|w| !w.is_empty()) {
                    prop_assert!(words.contains(&word), "{word} of {text}");
                }
            }
        }

        #[test]
        fn any_text_is_taken_without_a_panic(raw in "\\PC{0,200}", finished: bool) {
            let _ = cleaned_as(&raw, finished, "generic", Language::Zh);
            let _ = cleaned_as(&raw, finished, "push.title", Language::En);
        }
    }
}
