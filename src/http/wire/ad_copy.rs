//! The request of `POST /v1/ad-copy` and its conversion into the domain's.

use std::time::Duration;

use serde::Deserialize;
use utoipa::ToSchema;

use super::limits;
use super::product::ProductInput;
use crate::domain::brief::{Audience, Brief, Language};
use crate::engine::request::Priority;
use crate::http::fields::{FieldErrors, integer, list};
use crate::http::json::Wire;
use crate::service::ad_copy::{AdCopyRequest, Fallback, SamplingChoice};

/// A request for ad copy. Texts are taken in NFC, on one line, without control and invisible characters.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdCopyBody {
    #[schema(required, value_type = ProductInput)]
    pub product: Option<ProductInput>,
    #[schema(value_type = Option<AudienceBody>)]
    pub audience: Option<AudienceBody>,
    /// Whom the copy is shown to.
    #[schema(max_length = 128, example = "u-17")]
    pub user_id: Option<String>,
    /// A whole channel (`google_rsa`) or one of its fields (`google_rsa.headline`).
    #[schema(max_length = 64, default = "generic", example = "google_rsa.headline")]
    pub channel: Option<String>,
    /// `en` or `zh`; detected from the product when absent.
    #[schema(pattern = "^(en|zh)$", example = "en")]
    pub language: Option<String>,
    #[schema(max_length = 64, example = "retail")]
    pub industry: Option<String>,
    #[schema(max_length = 64, example = "friendly")]
    pub tone: Option<String>,
    #[serde(default, deserialize_with = "list")]
    #[schema(max_items = 20, example = json!(["backpack"]))]
    pub keywords: Vec<String>,
    /// Never in the text.
    #[serde(default, deserialize_with = "list")]
    #[schema(max_items = 100, example = json!(["cheap"]))]
    pub banned_terms: Vec<String>,
    #[schema(max_length = 64)]
    pub brand_kit: Option<String>,
    /// Variants wanted.
    #[serde(default, deserialize_with = "integer")]
    #[schema(minimum = 1, maximum = 20, default = 3)]
    pub n: Option<u64>,
    #[schema(value_type = Option<SamplingBody>)]
    pub sampling: Option<SamplingBody>,
    /// The answer comes within this time.
    #[serde(default, deserialize_with = "integer")]
    #[schema(minimum = 1, maximum = 120000, example = 2000)]
    pub deadline_ms: Option<u64>,
    /// What to do when the model cannot answer: `template` composes the text, `none` fails.
    #[schema(pattern = "^(template|none)$", default = "template")]
    pub fallback: Option<String>,
    /// Answer as an event stream; so does `accept: text/event-stream`.
    #[schema(default = false)]
    pub stream: Option<bool>,
}

/// Whom the copy speaks to.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Audience)]
pub struct AudienceBody {
    #[schema(max_length = 200, example = "weekend hikers")]
    pub segment: Option<String>,
    #[serde(default, deserialize_with = "list")]
    #[schema(max_items = 20, example = json!(["camping"]))]
    pub interests: Vec<String>,
    #[serde(default, deserialize_with = "list")]
    #[schema(max_items = 20, example = json!(["heavy packs"]))]
    pub pain_points: Vec<String>,
}

/// How tokens are chosen. What is left out has the channel's default.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Sampling)]
pub struct SamplingBody {
    /// 0: always the likeliest token.
    #[schema(minimum = 0, maximum = 2)]
    pub temperature: Option<f64>,
    #[schema(minimum = 0.01, maximum = 1)]
    pub top_p: Option<f64>,
    /// 0: all tokens.
    #[serde(default, deserialize_with = "integer")]
    #[schema(minimum = 0, maximum = 1000)]
    pub top_k: Option<u64>,
    #[schema(minimum = 0, maximum = 1)]
    pub min_p: Option<f64>,
    #[schema(minimum = 0.5, maximum = 2)]
    pub repetition_penalty: Option<f64>,
    /// With the same seed, model and request the text is the same.
    #[serde(default, deserialize_with = "integer")]
    #[schema(minimum = 0)]
    pub seed: Option<u64>,
    /// Of each variant.
    #[serde(default, deserialize_with = "integer")]
    #[schema(minimum = 1, maximum = 512)]
    pub max_new_tokens: Option<u64>,
}

/// A valid request, but for what only the server knows: the caller's cache scope and the overall deadline.
#[derive(Debug)]
pub struct AdCopyCall {
    pub request: AdCopyRequest,
    pub stream: bool,
}

impl Wire for AdCopyBody {
    type Domain = AdCopyCall;

    fn parse(self, errors: &mut FieldErrors) -> Option<AdCopyCall> {
        let product = match self.product {
            Some(product) => product.parse("/product", errors),
            None => {
                errors.add("/product", "is required");
                None
            }
        };
        let audience = self.audience.unwrap_or_default().parse(errors);
        errors.text("/user_id", self.user_id, limits::USER_ID_CHARS);
        let channel = errors.text("/channel", self.channel, limits::CHANNEL_CHARS);
        let languages = [("en", Language::En), ("zh", Language::Zh)];
        let language = errors.choice("/language", self.language, &languages);
        let industry = errors.text("/industry", self.industry, limits::INDUSTRY_CHARS);
        let tone = errors.text("/tone", self.tone, limits::TONE_CHARS);
        let keywords = errors.texts("/keywords", self.keywords, limits::KEYWORDS, limits::KEYWORD_CHARS);
        let banned_terms =
            errors.texts("/banned_terms", self.banned_terms, limits::BANNED_TERMS, limits::BANNED_TERM_CHARS);
        let brand_kit = errors.text("/brand_kit", self.brand_kit, limits::BRAND_KIT_CHARS);
        let n = errors.range("/n", self.n, limits::MIN_VARIANTS, limits::MAX_VARIANTS);
        let sampling = self.sampling.unwrap_or_default().parse(errors);
        let deadline_ms =
            errors.range("/deadline_ms", self.deadline_ms, limits::MIN_DEADLINE_MS, limits::MAX_DEADLINE_MS);
        let fallbacks = [("template", Fallback::Template), ("none", Fallback::None)];
        let fallback = errors.choice("/fallback", self.fallback, &fallbacks);
        let brief = Brief {
            product: product?,
            audience,
            channel: channel.unwrap_or_else(|| "generic".to_owned()),
            language,
            industry,
            tone,
            keywords,
            banned_terms,
            brand_kit,
        };
        let request = AdCopyRequest {
            brief,
            n: n.unwrap_or(limits::DEFAULT_VARIANTS) as usize,
            sampling,
            deadline: deadline_ms.map(Duration::from_millis),
            fallback: fallback.unwrap_or(Fallback::Template),
            priority: Priority::Interactive,
            cache_scope: 0,
        };
        Some(AdCopyCall { request, stream: self.stream.unwrap_or(false) })
    }
}

impl AudienceBody {
    fn parse(self, errors: &mut FieldErrors) -> Audience {
        let interests = "/audience/interests";
        let pain_points = "/audience/pain_points";
        Audience {
            segment: errors.text("/audience/segment", self.segment, limits::SEGMENT_CHARS),
            interests: errors.texts(interests, self.interests, limits::INTERESTS, limits::INTEREST_CHARS),
            pain_points: errors.texts(pain_points, self.pain_points, limits::PAIN_POINTS, limits::PAIN_POINT_CHARS),
        }
    }
}

impl SamplingBody {
    fn parse(self, errors: &mut FieldErrors) -> SamplingChoice {
        let mut float = |field: &str, given: Option<f64>, min: f64, max: f64| {
            errors.range(&format!("/sampling/{field}"), given, min, max).map(|value| value as f32)
        };
        let temperature = float("temperature", self.temperature, 0.0, limits::MAX_TEMPERATURE);
        let top_p = float("top_p", self.top_p, limits::MIN_TOP_P, 1.0);
        let min_p = float("min_p", self.min_p, 0.0, 1.0);
        let (least, most) = (limits::MIN_REPETITION_PENALTY, limits::MAX_REPETITION_PENALTY);
        let repetition_penalty = float("repetition_penalty", self.repetition_penalty, least, most);
        let top_k = errors.range("/sampling/top_k", self.top_k, 0, limits::MAX_TOP_K);
        let most = limits::MAX_NEW_TOKENS;
        let max_new_tokens = errors.range("/sampling/max_new_tokens", self.max_new_tokens, 1, most);
        SamplingChoice {
            temperature,
            top_p,
            top_k: top_k.map(|value| value as usize),
            min_p,
            repetition_penalty,
            seed: self.seed,
            max_new_tokens: max_new_tokens.map(|value| value as usize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::json::parse_json;

    fn parse(json: &str) -> Result<AdCopyCall, Vec<String>> {
        parse_json::<AdCopyBody>(json.as_bytes()).map_err(|problem| {
            let errors = problem.body("id").errors;
            errors.into_iter().map(|error| format!("{}: {}", error.pointer, error.detail)).collect()
        })
    }

    #[test]
    fn the_contract_s_example_is_taken_whole() {
        let call = parse(crate::http::openapi::EXAMPLE_REQUEST).unwrap();
        let request = call.request;
        assert_eq!(request.brief.product.name, "TrailLite 40");
        assert_eq!(request.brief.product.attributes.len(), 3);
        assert_eq!(request.brief.audience.pain_points, ["heavy packs"]);
        assert_eq!(request.brief.language, Some(Language::En));
        assert_eq!((request.n, request.deadline), (3, Some(Duration::from_millis(2000))));
        assert_eq!(request.sampling.seed, Some(7));
        assert_eq!(request.sampling.top_k, Some(40));
        assert!(!call.stream);
    }

    #[test]
    fn a_product_is_enough() {
        let call = parse(r#"{"product": "智能手机 | 高像素相机"}"#).unwrap();
        assert_eq!(call.request.brief.channel, "generic");
        assert_eq!((call.request.n, call.request.fallback), (3, Fallback::Template));
        assert!(parse(r#"{"product": {"attributes": ["waterproof"]}, "tone": null, "keywords": null}"#).is_ok());
    }

    #[test]
    fn every_invalid_field_is_listed() {
        let errors = parse(
            r#"{"product": {"nam": "x", "price": 5}, "n": 21, "sampling": {"temperature": "hot", "top_p": 0},
                "language": "fr", "deadline_ms": 0, "keywords": ["a", 1], "audience": 3}"#,
        )
        .unwrap_err();
        let all = errors.join("\n");
        for part in [
            "/product/nam: no such field; did you mean \"name\"?",
            "/product/price: integer `5` is given, expected a string",
            "/n: must be from 1 to 20, not 21",
            "/sampling/temperature: string \"hot\" is given, expected f64",
            "/sampling/top_p: must be from 0.01 to 1, not 0",
            "/language: must be one of \"en\", \"zh\", not \"fr\"",
            "/deadline_ms: must be from 1 to 120000, not 0",
            "/keywords/1: integer `1` is given, expected a string",
            "/audience: integer `3` is given",
            "/product: must have a name or attributes",
        ] {
            assert!(all.contains(part), "{part} is missing in:\n{all}");
        }
        assert_eq!(errors.len(), 10, "{all}");
    }

    #[test]
    fn a_missing_product_is_named_and_a_wrong_one_is_named_once() {
        assert_eq!(parse("{}").unwrap_err(), ["/product: is required"]);
        assert_eq!(parse(r#"{"product": null}"#).unwrap_err(), ["/product: is required"]);
        let errors = parse(r#"{"product": 5}"#).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains("a product object or a string"), "{errors:?}");
    }
}
