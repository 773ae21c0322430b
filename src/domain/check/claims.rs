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
        let claims = file.claim.into_iter();
        Ok(Self(
            claims
                .map(|c| Claim { id: c.id, terms: skeletons(c.terms), grounded_by: skeletons(c.grounded_by) })
                .collect(),
        ))
    }

    /// The claims that a brief does not make: a text may not make them either.
    pub fn unmade<'a>(&'a self, brief_texts: impl Iterator<Item = &'a str>) -> UnmadeClaims<'a> {
        let brief: Vec<Vec<char>> = brief_texts.map(|text| fold(text).chars().collect()).collect();
        let made = |term: &String| brief.iter().any(|text| find_term(text, term));
        UnmadeClaims(self.0.iter().filter(|c| !c.terms.iter().chain(&c.grounded_by).any(made)).collect())
    }
}

/// Claims that a brief does not make.
#[derive(Debug, Clone)]
pub struct UnmadeClaims<'a>(Vec<&'a Claim>);

impl UnmadeClaims<'_> {
    /// The id of the first such claim in a text, given as its folded characters.
    pub fn find(&self, folded: &[char]) -> Option<&str> {
        self.0.iter().find(|claim| claim.terms.iter().any(|term| find_term(folded, term))).map(|c| c.id.as_str())
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
}
