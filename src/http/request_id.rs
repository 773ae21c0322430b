//! The id of a request: the caller's if it is sane, else a UUID v7.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// Header of the id, in requests and in every response.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// A caller's id may have this many bytes.
const MAX_BYTES: usize = 128;

/// Visible ASCII only, so it is safe in headers, logs and JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    pub fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(HEADER).map(HeaderValue::as_bytes).filter(|id| is_sane(id));
        match given.and_then(|id| std::str::from_utf8(id).ok()) {
            Some(id) => Self(id.into()),
            None => Self::new(),
        }
    }

    pub fn new() -> Self {
        Self(Uuid::now_v7().to_string().into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn header_value(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::new()
    }
}

fn is_sane(id: &[u8]) -> bool {
    (1..=MAX_BYTES).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_for(given: &[u8]) -> RequestId {
        RequestId::of(&HeaderMap::from_iter([(HEADER, HeaderValue::from_bytes(given).unwrap())]))
    }

    #[test]
    fn a_sane_id_is_kept_and_others_are_replaced() {
        assert_eq!(id_for(b"trace-1/a").as_str(), "trace-1/a");
        assert_eq!(id_for(&[b'x'; 128]).as_str().len(), 128);
        for odd in [&b""[..], b"two words", b"\xe4\xb8\xad", &[b'x'; 129]] {
            assert_eq!(id_for(odd).as_str().len(), 36, "{odd:?}");
        }
    }
}
