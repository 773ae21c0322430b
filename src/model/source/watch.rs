//! Bounds on a transfer that somebody else makes: it must grow, and end in time. Pure; takes `now` as an argument.

use std::time::{Duration, Instant};

use super::SourceError;

/// How long a transfer may stand still and take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferLimits {
    /// Without one more byte; 3 minutes by default.
    pub stall: Duration,
    /// Altogether; 30 minutes by default. Also the longest wait for another process that fetches the same model.
    pub overall: Duration,
}

impl Default for TransferLimits {
    fn default() -> Self {
        Self { stall: Duration::from_secs(180), overall: Duration::from_secs(1800) }
    }
}

/// Observes one transfer.
pub(super) struct Watch {
    what: String,
    limits: TransferLimits,
    began: Instant,
    last_growth: Instant,
    bytes: u64,
}

impl Watch {
    pub(super) fn new(what: &str, limits: TransferLimits, now: Instant) -> Self {
        Self { what: what.to_owned(), limits, began: now, last_growth: now, bytes: 0 }
    }

    /// Notes the transfer's size; fails once it has stood still or run for too long. Any change counts as growth: a
    /// temporary file may be replaced by a smaller one.
    pub(super) fn observe(&mut self, bytes: u64, now: Instant) -> Result<(), SourceError> {
        if bytes != self.bytes {
            self.bytes = bytes;
            self.last_growth = now;
        }
        let what = || self.what.clone();
        if now.saturating_duration_since(self.last_growth) >= self.limits.stall {
            return Err(SourceError::Stalled { what: what(), seconds: self.limits.stall.as_secs() });
        }
        if now.saturating_duration_since(self.began) >= self.limits.overall {
            return Err(SourceError::TooSlow { what: what(), seconds: self.limits.overall.as_secs() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(begin: Instant, seconds: u64) -> Instant {
        begin + Duration::from_secs(seconds)
    }

    #[test]
    fn a_transfer_that_grows_lives_until_the_overall_limit() {
        let begin = Instant::now();
        let mut watch = Watch::new("x", TransferLimits::default(), begin);
        for second in 0..1800 {
            watch.observe(second, at(begin, second)).unwrap();
        }
        let end = watch.observe(1800, at(begin, 1800));
        assert!(matches!(end, Err(SourceError::TooSlow { seconds: 1800, .. })));
    }

    #[test]
    fn a_transfer_that_stands_still_ends_after_the_stall_limit() {
        let begin = Instant::now();
        let mut watch = Watch::new("x", TransferLimits::default(), begin);
        watch.observe(10, at(begin, 100)).unwrap();
        watch.observe(10, at(begin, 279)).unwrap();
        assert!(matches!(watch.observe(10, at(begin, 280)), Err(SourceError::Stalled { seconds: 180, .. })));
    }
}
