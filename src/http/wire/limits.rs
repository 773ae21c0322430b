//! Bounds of request fields, used by the checks and by the OpenAPI document. Texts are counted in code points.

use crate::service::ad_copy;

pub const NAME_CHARS: usize = 200;
pub const BRAND_CHARS: usize = 100;
pub const CATEGORY_CHARS: usize = 100;
pub const ATTRIBUTES: usize = 50;
pub const ATTRIBUTE_CHARS: usize = 200;
pub const PRICE_CHARS: usize = 40;
pub const OFFER_CHARS: usize = 200;
pub const DESCRIPTION_CHARS: usize = 2000;
/// A whole product in one string.
pub const PRODUCT_TEXT_CHARS: usize = 4000;

pub const SEGMENT_CHARS: usize = 200;
pub const INTERESTS: usize = 20;
pub const INTEREST_CHARS: usize = 100;
pub const PAIN_POINTS: usize = 20;
pub const PAIN_POINT_CHARS: usize = 200;

pub const USER_ID_CHARS: usize = 128;
pub const CHANNEL_CHARS: usize = 64;
pub const INDUSTRY_CHARS: usize = 64;
pub const TONE_CHARS: usize = 64;
pub const KEYWORDS: usize = 20;
pub const KEYWORD_CHARS: usize = 60;
pub const BANNED_TERMS: usize = 100;
pub const BANNED_TERM_CHARS: usize = 60;
pub const BRAND_KIT_CHARS: usize = 64;

pub const MIN_VARIANTS: u64 = 1;
pub const MAX_VARIANTS: u64 = ad_copy::MAX_VARIANTS as u64;
pub const DEFAULT_VARIANTS: u64 = 3;
pub const MIN_DEADLINE_MS: u64 = 1;
pub const MAX_DEADLINE_MS: u64 = 120_000;

pub const MAX_TEMPERATURE: f64 = 2.0;
/// The smallest `top_p`: 0 would keep nothing.
pub const MIN_TOP_P: f64 = 0.01;
pub const MAX_TOP_K: u64 = 1000;
pub const MIN_REPETITION_PENALTY: f64 = 0.5;
pub const MAX_REPETITION_PENALTY: f64 = 2.0;
pub const MAX_NEW_TOKENS: u64 = 512;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_document_states_the_bounds_that_are_checked() {
        let document: Value = serde_json::from_str(&crate::http::openapi::document()).unwrap();
        for (schema, field, keyword, bound) in [
            ("ProductObject", "name", "maxLength", json!(NAME_CHARS)),
            ("ProductObject", "brand", "maxLength", json!(BRAND_CHARS)),
            ("ProductObject", "category", "maxLength", json!(CATEGORY_CHARS)),
            ("ProductObject", "attributes", "maxItems", json!(ATTRIBUTES)),
            ("ProductObject", "price", "maxLength", json!(PRICE_CHARS)),
            ("ProductObject", "list_price", "maxLength", json!(PRICE_CHARS)),
            ("ProductObject", "offer", "maxLength", json!(OFFER_CHARS)),
            ("ProductObject", "description", "maxLength", json!(DESCRIPTION_CHARS)),
            ("Audience", "segment", "maxLength", json!(SEGMENT_CHARS)),
            ("Audience", "interests", "maxItems", json!(INTERESTS)),
            ("Audience", "pain_points", "maxItems", json!(PAIN_POINTS)),
            ("AdCopyBody", "user_id", "maxLength", json!(USER_ID_CHARS)),
            ("AdCopyBody", "channel", "maxLength", json!(CHANNEL_CHARS)),
            ("AdCopyBody", "industry", "maxLength", json!(INDUSTRY_CHARS)),
            ("AdCopyBody", "tone", "maxLength", json!(TONE_CHARS)),
            ("AdCopyBody", "keywords", "maxItems", json!(KEYWORDS)),
            ("AdCopyBody", "banned_terms", "maxItems", json!(BANNED_TERMS)),
            ("AdCopyBody", "brand_kit", "maxLength", json!(BRAND_KIT_CHARS)),
            ("AdCopyBody", "n", "minimum", json!(MIN_VARIANTS)),
            ("AdCopyBody", "n", "maximum", json!(MAX_VARIANTS)),
            ("AdCopyBody", "n", "default", json!(DEFAULT_VARIANTS)),
            ("AdCopyBody", "deadline_ms", "maximum", json!(MAX_DEADLINE_MS)),
            ("Sampling", "temperature", "maximum", json!(MAX_TEMPERATURE)),
            ("Sampling", "top_p", "minimum", json!(MIN_TOP_P)),
            ("Sampling", "top_k", "maximum", json!(MAX_TOP_K)),
            ("Sampling", "repetition_penalty", "minimum", json!(MIN_REPETITION_PENALTY)),
            ("Sampling", "repetition_penalty", "maximum", json!(MAX_REPETITION_PENALTY)),
            ("Sampling", "max_new_tokens", "maximum", json!(MAX_NEW_TOKENS)),
        ] {
            let stated = &document["components"]["schemas"][schema]["properties"][field][keyword];
            assert_eq!(stated.as_f64(), bound.as_f64(), "{schema}.{field}: {keyword}");
        }
    }
}
