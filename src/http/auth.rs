//! API keys: who calls, what they may do, and how often. Holds hashes of keys, never keys.
//!
//! A key is 128 random bits or more, so one SHA-256 is enough; a slow hash would be a way to overload the server.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;

use super::problem::Problem;

/// The `auth` section. Without keys every caller may do everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub keys: Vec<KeyConfig>,
    /// For keys that set none, and for all callers together when there are no keys; absent: no limit.
    pub requests_per_minute: Option<u32>,
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// Names the key in the log; unique.
    pub name: String,
    /// SHA-256 of the key, 64 hex digits. `printf %s "$KEY" | sha256sum` prints it.
    pub sha256: String,
    /// What the key may do.
    #[serde(default = "Scope::usual")]
    pub scopes: Vec<Scope>,
    pub requests_per_minute: Option<u32>,
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Write copy.
    Generate,
    /// Read what the server knows: models, channels.
    Read,
    /// Everything.
    Admin,
}

impl Scope {
    fn usual() -> Vec<Self> {
        vec![Self::Generate, Self::Read]
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    #[error("auth.keys[{index}].name must have 1 to 64 printable ASCII characters, not {given:?}")]
    Name { index: usize, given: String },
    #[error("auth.keys[{index}].name {given:?} is given twice")]
    DuplicateName { index: usize, given: String },
    /// The given value is not repeated: it may be the key itself.
    #[error("auth.keys[{index}].sha256 must have 64 hex digits, not {chars} characters")]
    Hash { index: usize, chars: usize },
    #[error("auth.keys[{index}].scopes must not be empty")]
    NoScopes { index: usize },
    #[error("{key} must be at least 1, not 0; leave it out for no limit")]
    Rate { key: String },
}

/// Who calls: a key, or anybody when there are no keys. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Principal {
    key: Arc<Key>,
}

/// Recognizes keys.
#[derive(Debug)]
pub struct Authenticator {
    keys: Vec<Arc<Key>>,
    /// The caller when there are no keys.
    anybody: Arc<Key>,
    clock: DefaultClock,
}

#[derive(Debug)]
struct Key {
    name: String,
    hash: [u8; 32],
    scopes: Vec<Scope>,
    limit: Option<(u32, DefaultDirectRateLimiter)>,
    cache_scope: u64,
}

impl Authenticator {
    /// # Errors
    /// Every mistake in the keys.
    pub fn new(config: &Config) -> Result<Self, Vec<KeyError>> {
        let mut errors = Vec::new();
        let mut keys: Vec<Arc<Key>> = Vec::with_capacity(config.keys.len());
        if config.requests_per_minute == Some(0) {
            errors.push(KeyError::Rate { key: "auth.requests_per_minute".to_owned() });
        }
        for (index, key) in config.keys.iter().enumerate() {
            let given = key.name.clone();
            if given.is_empty() || given.len() > 64 || !given.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
                errors.push(KeyError::Name { index, given });
            } else if keys.iter().any(|known| known.name == given) {
                errors.push(KeyError::DuplicateName { index, given });
            }
            if key.scopes.is_empty() {
                errors.push(KeyError::NoScopes { index });
            }
            if key.requests_per_minute == Some(0) {
                errors.push(KeyError::Rate { key: format!("auth.keys[{index}].requests_per_minute") });
            }
            let Some(hash) = decode_hash(&key.sha256) else {
                errors.push(KeyError::Hash { index, chars: key.sha256.chars().count() });
                continue;
            };
            let limit = key.requests_per_minute.or(config.requests_per_minute);
            keys.push(Arc::new(Key::new(&key.name, hash, key.scopes.clone(), limit)));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let anybody = Arc::new(Key::new("", [0; 32], vec![Scope::Admin], config.requests_per_minute));
        Ok(Self { keys, anybody, clock: DefaultClock::default() })
    }

    /// Finds the caller's key in `Authorization: Bearer` or `x-api-key`.
    ///
    /// # Errors
    /// 401 without a key or with one that nobody has.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, Problem> {
        if self.keys.is_empty() {
            return Ok(Principal { key: Arc::clone(&self.anybody) });
        }
        let given = given_key(headers)?;
        let hash: [u8; 32] = Sha256::digest(given).into();
        // All keys are compared, always: the time tells nothing of which one matched.
        let mut found = None;
        for key in &self.keys {
            if bool::from(key.hash.ct_eq(&hash)) {
                found = Some(key);
            }
        }
        match found {
            Some(key) => Ok(Principal { key: Arc::clone(key) }),
            None => Err(Problem::unauthorized("the API key is not known")),
        }
    }

    /// Counts one request of the caller.
    ///
    /// # Errors
    /// 429 when it is one too many.
    pub fn admit(&self, principal: &Principal) -> Result<(), Problem> {
        let Some((per_minute, limiter)) = &principal.key.limit else {
            return Ok(());
        };
        limiter.check().map_err(|refused| {
            let wait: Duration = refused.wait_time_from(self.clock.now());
            Problem::rate_limited(*per_minute, wait)
        })
    }
}

impl Principal {
    /// Name of the key; empty when there are no keys.
    pub fn name(&self) -> &str {
        &self.key.name
    }

    /// Callers of different keys never share cached prompt blocks.
    pub fn cache_scope(&self) -> u64 {
        self.key.cache_scope
    }

    /// # Errors
    /// 403 when the key lacks the scope.
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        let scopes = &self.key.scopes;
        if scopes.contains(&scope) || scopes.contains(&Scope::Admin) {
            return Ok(());
        }
        Err(Problem::forbidden(scope.as_str()))
    }
}

impl Key {
    fn new(name: &str, hash: [u8; 32], scopes: Vec<Scope>, per_minute: Option<u32>) -> Self {
        let limit = per_minute.and_then(NonZeroU32::new);
        let limit = limit.map(|rate| (rate.get(), RateLimiter::direct(Quota::per_minute(rate))));
        let cache_scope = hash.iter().take(8).fold(0, |scope, byte| scope << 8 | u64::from(*byte));
        Self { name: name.to_owned(), hash, scopes, limit, cache_scope }
    }
}

fn given_key(headers: &HeaderMap) -> Result<&[u8], Problem> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        return match value.as_bytes().split_at_checked(7) {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => Ok(key.trim_ascii()),
            _ => Err(Problem::unauthorized("the authorization header must have the form: Bearer <key>")),
        };
    }
    match headers.get("x-api-key") {
        Some(value) => Ok(value.as_bytes()),
        None => Err(Problem::unauthorized("no API key is given; send authorization: Bearer <key>, or x-api-key")),
    }
}

fn decode_hash(hex: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = hex.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    if digits.len() == 64 { bytes.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, secret: &str, scopes: &[Scope], per_minute: Option<u32>) -> KeyConfig {
        let sha256 = Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect();
        KeyConfig { name: name.to_owned(), sha256, scopes: scopes.to_vec(), requests_per_minute: per_minute }
    }

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::HeaderName::from_static(name), value.parse().unwrap())])
    }

    fn two_keys() -> Authenticator {
        let keys = vec![key("ads", "s3cret", &[Scope::Generate], Some(2)), key("ops", "0ps", &[Scope::Admin], None)];
        Authenticator::new(&Config { keys, requests_per_minute: None }).unwrap()
    }

    #[test]
    fn a_key_is_known_in_both_headers() {
        let auth = two_keys();
        assert_eq!(auth.authenticate(&headers("authorization", "bearer s3cret")).unwrap().name(), "ads");
        assert_eq!(auth.authenticate(&headers("x-api-key", "0ps")).unwrap().name(), "ops");
    }

    #[test]
    fn wrong_missing_and_odd_keys_are_401() {
        let auth = two_keys();
        for headers in [
            HeaderMap::new(),
            headers("authorization", "Bearer s3cre"),
            headers("authorization", "Bearer "),
            headers("authorization", "Basic czNjcmV0"),
            headers("authorization", "Bea"),
            headers("x-api-key", ""),
        ] {
            assert_eq!(auth.authenticate(&headers).unwrap_err().status().as_u16(), 401);
        }
    }

    #[test]
    fn a_scope_is_required_and_admin_has_all() {
        let auth = two_keys();
        let ads = auth.authenticate(&headers("x-api-key", "s3cret")).unwrap();
        assert!(ads.require(Scope::Generate).is_ok());
        assert_eq!(ads.require(Scope::Read).unwrap_err().status().as_u16(), 403);
        assert!(auth.authenticate(&headers("x-api-key", "0ps")).unwrap().require(Scope::Read).is_ok());
    }

    #[test]
    fn each_key_has_its_own_rate() {
        let auth = two_keys();
        let ads = auth.authenticate(&headers("x-api-key", "s3cret")).unwrap();
        let ops = auth.authenticate(&headers("x-api-key", "0ps")).unwrap();
        assert!(auth.admit(&ads).is_ok() && auth.admit(&ads).is_ok());
        assert_eq!(auth.admit(&ads).unwrap_err().status().as_u16(), 429);
        assert!((0..100).all(|_| auth.admit(&ops).is_ok()));
        assert_ne!(ads.cache_scope(), ops.cache_scope());
    }

    #[test]
    fn every_unusable_key_is_reported_without_its_value() {
        let mut bad = key("", "x", &[], Some(0));
        bad.sha256 = "plain-key".to_owned();
        let errors = Authenticator::new(&Config { keys: vec![bad], requests_per_minute: Some(0) }).unwrap_err();
        assert_eq!(errors.len(), 5, "{errors:?}");
        assert!(errors.iter().all(|error| !error.to_string().contains("plain-key")));
    }

    #[test]
    fn without_keys_anybody_may_do_everything() {
        let auth = Authenticator::new(&Config::default()).unwrap();
        assert!(auth.authenticate(&HeaderMap::new()).unwrap().require(Scope::Admin).is_ok());
    }
}
