//! Claims without digits (discounts, "free", guarantees, awards, ranks) that only the brief may bring up.

use serde::Deserialize;
use thiserror::Error;

use crate::domain::text::{find_term, fold, skeleton};

/// The claims file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("claims.toml: {reason}")]
pub struct ClaimsError {
    pub reason: String,
}

/// All claims that are watched.
#[derive(Debug, Clone)]
pub struct Claims(Vec<Claim>);

#[derive(Debug, Clone)]
struct Claim {
    id: String,
    /// Skeletons.
    terms: Vec<String>,
    grounded_by: Vec<String>,
    /// Folded.
    except: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[expect(dead_code, reason = "states the data's version; read by people")]
    version: String,
    claim: Vec<ClaimData>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimData {
    id: String,
    terms: Vec<String>,
    grounded_by: Vec<String>,
    #[serde(default)]
    except: Vec<String>,
}

impl Claims {
    /// The claims that ship with the program.
    ///
    /// # Errors
    /// When the file is wrong; a test keeps that from shipping.
    pub fn embedded() -> Result<Self, ClaimsError> {
        Self::load(include_str!("../../../config/grounding/claims.toml"))
    }

    fn load(content: &str) -> Result<Self, ClaimsError> {
        let file: File = toml::from_str(content).map_err(|error| ClaimsError { reason: error.to_string() })?;
        let skeletons = |terms: Vec<String>| terms.iter().map(|term| skeleton(term)).collect();
        let claim = |claim: ClaimData| Claim {
            id: claim.id,
            terms: skeletons(claim.terms),
            grounded_by: skeletons(claim.grounded_by),
            except: claim.except.iter().map(|phrase| fold(phrase)).collect(),
        };
        Ok(Self(file.claim.into_iter().map(claim).collect()))
    }

    /// The claims that a brief does not make: a text may not make them either.
    pub fn unmade<'a>(&'a self, brief_texts: impl Iterator<Item = &'a str>) -> UnmadeClaims<'a> {
        let brief: Vec<String> = brief_texts.map(fold).collect();
        let is_made = |claim: &&Claim| {
            brief.iter().any(|text| {
                let text = claim.without_exceptions(text);
                claim.terms.iter().chain(&claim.grounded_by).any(|term| find_term(&text, term))
            })
        };
        UnmadeClaims(self.0.iter().filter(|claim| !is_made(claim)).collect())
    }
}

impl Claim {
    /// The characters of a folded text without the phrases that only look like the claim.
    fn without_exceptions(&self, folded: &str) -> Vec<char> {
        let text = self.except.iter().fold(folded.to_owned(), |text, phrase| text.replace(phrase, " "));
        text.chars().collect()
    }
}

/// Claims that a brief does not make.
#[derive(Debug, Clone)]
pub struct UnmadeClaims<'a>(Vec<&'a Claim>);

impl UnmadeClaims<'_> {
    /// The id of the first such claim in a text, given as its folded characters.
    pub fn find(&self, folded: &[char]) -> Option<&str> {
        let text: String = folded.iter().collect();
        let makes = |claim: &&&Claim| {
            let text = claim.without_exceptions(&text);
            claim.terms.iter().any(|term| find_term(&text, term))
        };
        self.0.iter().find(makes).map(|claim| claim.id.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(brief: &str, text: &str) -> Option<String> {
        let claims = Claims::embedded().unwrap();
        let folded: Vec<char> = fold(text).chars().collect();
        claims.unmade([brief].into_iter()).find(&folded).map(str::to_owned)
    }

    #[test]
    fn a_claim_needs_the_brief_to_make_it() {
        assert_eq!(found("waterproof", "With free shipping").as_deref(), Some("free"));
        assert_eq!(found("free returns", "With free returns"), None);
        assert_eq!(found("3-year warranty", "Guaranteed for years"), None);
        assert_eq!(found("轻便", "限时半价").as_deref(), Some("price_cut"));
        assert_eq!(found("首单立减20元", "首单优惠"), None);
        assert_eq!(found("light", "The best pack").as_deref(), Some("rank"));
    }

    #[test]
    fn what_only_looks_like_a_claim_makes_and_grounds_none() {
        for text in
            ["Hands-free hiking", "Feel free outdoors", "Look your best", "第一次露营", "有机会看日出", "最近的山"]
        {
            assert_eq!(found("light", text), None, "{text}");
        }
        let cases = [
            ("fragrance-free", "With free shipping", "free"),
            ("免熨烫", "免费试用", "free"),
            ("送礼", "包邮到家", "free"),
            ("off-road ready", "On sale now", "price_cut"),
            ("可折叠", "全场打折", "price_cut"),
            ("减震鞋底", "全场优惠", "price_cut"),
            ("保暖", "终身质保", "guarantee"),
            ("三年质保", "终身质保", "lifetime"),
            ("无限循环", "限时抢购", "scarcity"),
            ("light", "Try it free", "free"),
            ("light", "Organic comfort", "organic"),
            ("light", "At half the weight", "multiple"),
            ("轻便", "荣获大奖", "award"),
            ("轻便", "最轻的背包", "rank"),
        ];
        for (brief, text, claim) in cases {
            assert_eq!(found(brief, text).as_deref(), Some(claim), "{brief} / {text}");
        }
    }
}
