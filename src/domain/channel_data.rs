//! Reads channel files: TOML into [`Channels`], every mistake with its file and line.

use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;
use thiserror::Error;
use toml::Spanned;

use super::channel::{Bilingual, Channel, Channels, Field, FieldKind, Forbidden};
use super::data_file::line_at;
use super::units::Unit;

/// A channel file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChannelError {
    #[error("{file}:{line}: {reason}")]
    Syntax { file: String, line: usize, reason: String },
    #[error("{file}:{line}: channel {id:?} is defined twice")]
    DuplicateChannel { file: String, line: usize, id: String },
    #[error("{file}:{line}: field {name:?} is defined twice in channel {channel:?}")]
    DuplicateField { file: String, line: usize, channel: String, name: String },
    #[error("{file}:{line}: {what} {name:?} is not a name of lower-case letters, digits and underscores")]
    Name { file: String, line: usize, what: &'static str, name: String },
    #[error("{file}:{line}: {what} of field {name:?} is {given}, it must be {expected}")]
    Bound { file: String, line: usize, what: &'static str, name: String, given: usize, expected: String },
    #[error("{file}:{line}: channel {id:?} has no fields")]
    NoFields { file: String, line: usize, id: String },
}

/// The channel files that ship.
const FILES: &[(&str, &str)] = &[
    ("google.toml", include_str!("../../config/channels/google.toml")),
    ("microsoft.toml", include_str!("../../config/channels/microsoft.toml")),
    ("social.toml", include_str!("../../config/channels/social.toml")),
    ("amazon.toml", include_str!("../../config/channels/amazon.toml")),
    ("yandex.toml", include_str!("../../config/channels/yandex.toml")),
    ("china.toml", include_str!("../../config/channels/china.toml")),
    ("messages.toml", include_str!("../../config/channels/messages.toml")),
    ("push.toml", include_str!("../../config/channels/push.toml")),
    ("site.toml", include_str!("../../config/channels/site.toml")),
];

/// The largest limit a field may state; texts beyond it are not copy.
const MAX_LIMIT: usize = 5_000;

impl Channels {
    /// The channels that ship with the program.
    ///
    /// # Errors
    /// When a file is wrong, with its line; a test keeps that from shipping.
    pub fn embedded() -> Result<Self, ChannelError> {
        Self::load(FILES.iter().copied())
    }

    /// Reads files given as name and content.
    ///
    /// # Errors
    /// At the first mistake, with its file and line.
    pub fn load<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, ChannelError> {
        let mut channels: Vec<Arc<Channel>> = Vec::new();
        for (file, content) in files {
            let place = Place { file, content };
            let data: FileData = toml::from_str(content).map_err(|error| ChannelError::Syntax {
                file: file.to_owned(),
                line: place.line(error.span().unwrap_or_default()),
                reason: error.message().to_owned(),
            })?;
            for channel in data.channel {
                let span = channel.id.span();
                let channel = read_channel(&place, channel)?;
                if channels.iter().any(|other| other.id == channel.id) {
                    let line = place.line(span);
                    return Err(ChannelError::DuplicateChannel { file: file.to_owned(), line, id: channel.id });
                }
                channels.push(Arc::new(channel));
            }
        }
        Ok(Self { channels })
    }
}

struct Place<'a> {
    file: &'a str,
    content: &'a str,
}

impl Place<'_> {
    fn line(&self, span: Range<usize>) -> usize {
        line_at(self.content, span.start)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileData {
    channel: Vec<ChannelData>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChannelData {
    id: Spanned<String>,
    name: String,
    version: String,
    as_of: String,
    field: Vec<FieldData>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FieldData {
    name: Spanned<String>,
    kind: FieldKind,
    unit: Unit,
    #[serde(default = "one")]
    min: usize,
    max: usize,
    #[serde(default = "one")]
    items_min: usize,
    #[serde(default = "twenty")]
    items_max: usize,
    short_max: Option<usize>,
    #[serde(default)]
    forbids: Vec<Forbidden>,
    #[serde(default)]
    forbidden_terms: Vec<String>,
    #[serde(default = "one")]
    max_exclamations: usize,
    max_word_chars: Option<usize>,
    format: Bilingual,
    #[serde(default)]
    hint: Bilingual,
    source: String,
    evidence: Evidence,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Evidence {
    Verified,
    Unverified,
}

fn one() -> usize {
    1
}

fn twenty() -> usize {
    20
}

fn read_channel(place: &Place<'_>, data: ChannelData) -> Result<Channel, ChannelError> {
    let line = place.line(data.id.span());
    let id = checked_name(place, "channel", data.id)?;
    if data.field.is_empty() {
        return Err(ChannelError::NoFields { file: place.file.to_owned(), line, id });
    }
    let mut fields: Vec<Arc<Field>> = Vec::new();
    for field in data.field {
        let line = place.line(field.name.span());
        let field = read_field(place, &id, &data.version, field)?;
        if fields.iter().any(|other| other.name == field.name) {
            let file = place.file.to_owned();
            return Err(ChannelError::DuplicateField { file, line, channel: id, name: field.name });
        }
        fields.push(Arc::new(field));
    }
    Ok(Channel { id, name: data.name, version: data.version, as_of: data.as_of, fields })
}

fn read_field(place: &Place<'_>, channel: &str, version: &str, data: FieldData) -> Result<Field, ChannelError> {
    let line = place.line(data.name.span());
    let name = checked_name(place, "field", data.name)?;
    let bounds = [
        ("max", data.max, 1..=MAX_LIMIT),
        ("min", data.min, 0..=data.max),
        ("items_min", data.items_min, 1..=data.items_max),
        ("items_max", data.items_max, 1..=100),
        ("short_max", data.short_max.unwrap_or(data.max), data.min..=data.max),
    ];
    if let Some((what, given, allowed)) = bounds.into_iter().find(|(_, given, allowed)| !allowed.contains(given)) {
        let expected = format!("from {} to {}", allowed.start(), allowed.end());
        return Err(ChannelError::Bound { file: place.file.to_owned(), line, what, name, given, expected });
    }
    Ok(Field {
        channel: channel.to_owned(),
        rule: format!("{channel}.{name}@{version}"),
        name,
        kind: data.kind,
        unit: data.unit,
        min: data.min,
        max: data.max,
        items_min: data.items_min,
        items_max: data.items_max,
        short_max: data.short_max,
        forbids: data.forbids,
        forbidden_terms: data.forbidden_terms,
        max_exclamations: data.max_exclamations,
        max_word_chars: data.max_word_chars,
        format: data.format,
        hint: data.hint,
        source: data.source,
        verified: data.evidence == Evidence::Verified,
    })
}

fn checked_name(place: &Place<'_>, what: &'static str, name: Spanned<String>) -> Result<String, ChannelError> {
    let line = place.line(name.span());
    let name = name.into_inner();
    if !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
        return Ok(name);
    }
    Err(ChannelError::Name { file: place.file.to_owned(), line, what, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[[channel]]\nid = \"c\"\nname = \"C\"\nversion = \"1\"\nas_of = \"2026-02-01\"\n\n[[channel.field]]\nname = \"text\"\nkind = \"line\"\nunit = \"code_points\"\nmax = 10\nformat = { en = \"text\", zh = \"文字\" }\nsource = \"here\"\nevidence = \"verified\"\n";

    fn error(content: &str) -> String {
        Channels::load([("c.toml", content)]).unwrap_err().to_string()
    }

    #[test]
    fn every_channel_of_the_contract_ships() {
        let channels = Channels::embedded().unwrap();
        let names = "google_rsa.headline google_rsa.description google_rsa.path google_pmax.headline \
            google_pmax.long_headline google_pmax.description google_pmax.business_name google_demand_gen \
            microsoft_rsa meta.primary_text meta.headline meta.description tiktok.description tiktok.app_name \
            tiktok.brand_name linkedin.intro linkedin.headline linkedin.description x.post x.card_title \
            amazon_sponsored_brands.headline amazon_product.title yandex_direct.title yandex_direct.title2 \
            yandex_direct.text baidu_search.title baidu_search.description ocean_engine.title wechat_moments.text \
            xiaohongshu.title xiaohongshu.body weibo.post sms.text sms_cn.text push.title push.body push_apns.title \
            push_huawei.body push_xiaomi.title push_oppo.body push_vivo.title push_honor.body push_meizu.title \
            email.subject banner.text product_page.text recommendation_line.text recommendation_paragraph.text \
            generic.text";
        for name in names.split_whitespace() {
            assert!(channels.resolve(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn every_rule_states_its_source_and_its_format_in_both_languages() {
        for channel in Channels::embedded().unwrap().iter() {
            assert!(!channel.as_of.is_empty() && !channel.name.is_empty(), "{}", channel.id);
            for field in &channel.fields {
                assert!(!field.source.is_empty(), "{}", field.rule);
                assert!(!field.format.en.is_empty() && !field.format.zh.is_empty(), "{}", field.rule);
            }
        }
    }

    #[test]
    fn mistakes_are_told_with_file_and_line() {
        assert!(Channels::load([("c.toml", GOOD)]).is_ok());
        assert!(error(&GOOD.replace("max = 10", "maxx = 10")).starts_with("c.toml:11: unknown field `maxx`"));
        assert_eq!(
            error(&GOOD.replace("max = 10", "max = 0")),
            "c.toml:8: max of field \"text\" is 0, it must be from 1 to 5000"
        );
        assert!(error(&GOOD.replace("\"c\"", "\"C d\"")).starts_with("c.toml:2: channel \"C d\" is not a name"));
        assert_eq!(error(&format!("{GOOD}{GOOD}")), "c.toml:16: channel \"c\" is defined twice");
        assert!(error("[[channel]]\nid = 3").starts_with("c.toml:2: invalid type"));
    }
}
