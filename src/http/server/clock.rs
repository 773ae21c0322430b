//! When a connection has lasted too long without doing what it is for. Pure: `now` is an argument.

use std::time::{Duration, Instant};

/// How long a connection may stay in each state.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    pub header: Duration,
    pub idle: Duration,
    pub write: Duration,
}

/// Why a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// A request's headers are not complete.
    Header,
    /// No request is in progress.
    Idle,
    /// The client takes nothing of a response.
    Write,
}

impl Expired {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header_timeout",
            Self::Idle => "idle",
            Self::Write => "write_timeout",
        }
    }
}

/// What a connection does.
#[derive(Debug)]
pub struct Clock {
    timeouts: Timeouts,
    requests: usize,
    /// Since when no request is in progress.
    idle_since: Instant,
    /// When the first byte came after that.
    header_since: Option<Instant>,
    /// HTTP/2 sends bytes that belong to no request, so they do not start a header there.
    is_http2: bool,
    write_blocked_since: Option<Instant>,
}

impl Clock {
    pub fn new(timeouts: Timeouts, now: Instant) -> Self {
        Self { timeouts, requests: 0, idle_since: now, header_since: None, is_http2: false, write_blocked_since: None }
    }

    pub fn bytes_read(&mut self, first: &[u8], now: Instant) {
        // No method of HTTP/1 begins like the preface of HTTP/2.
        self.is_http2 |= first.starts_with(b"PRI");
        if self.requests == 0 {
            self.header_since.get_or_insert(now);
        }
    }

    pub fn request_started(&mut self) {
        self.requests += 1;
        self.header_since = None;
    }

    pub fn request_ended(&mut self, now: Instant) {
        self.requests = self.requests.saturating_sub(1);
        if self.requests == 0 {
            self.idle_since = now;
            self.header_since = None;
        }
    }

    pub fn write_blocked(&mut self, now: Instant) {
        self.write_blocked_since.get_or_insert(now);
    }

    pub fn written(&mut self) {
        self.write_blocked_since = None;
    }

    pub fn expired(&self, now: Instant) -> Option<Expired> {
        let past =
            |since: Option<Instant>, limit| since.is_some_and(|since| now.saturating_duration_since(since) >= limit);
        if past(self.write_blocked_since, self.timeouts.write) {
            return Some(Expired::Write);
        }
        if self.requests > 0 {
            return None;
        }
        if !self.is_http2 && past(self.header_since, self.timeouts.header) {
            return Some(Expired::Header);
        }
        past(Some(self.idle_since), self.timeouts.idle).then_some(Expired::Idle)
    }

    /// How often to look.
    pub fn tick(&self) -> Duration {
        let least = self.timeouts.header.min(self.timeouts.idle).min(self.timeouts.write);
        (least / 4).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUTS: Timeouts =
        Timeouts { header: Duration::from_secs(10), idle: Duration::from_secs(30), write: Duration::from_secs(20) };

    fn clock() -> (Clock, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        (Clock::new(TIMEOUTS, start), move |seconds| start + Duration::from_secs(seconds))
    }

    #[test]
    fn a_connection_that_sends_nothing_is_idle() {
        let (clock, at) = clock();
        assert_eq!(clock.expired(at(29)), None);
        assert_eq!(clock.expired(at(30)), Some(Expired::Idle));
    }

    #[test]
    fn a_header_is_timed_from_its_first_byte_however_slowly_it_drips() {
        let (mut clock, at) = clock();
        for second in 5..15 {
            clock.bytes_read(b"G", at(second));
        }
        assert_eq!(clock.expired(at(14)), None);
        assert_eq!(clock.expired(at(15)), Some(Expired::Header));
    }

    #[test]
    fn a_request_in_progress_may_take_its_time_and_idleness_starts_after_it() {
        let (mut clock, at) = clock();
        clock.bytes_read(b"GET", at(1));
        clock.request_started();
        clock.bytes_read(b"body", at(2));
        assert_eq!(clock.expired(at(1000)), None);
        clock.request_ended(at(1000));
        assert_eq!(clock.expired(at(1029)), None);
        assert_eq!(clock.expired(at(1030)), Some(Expired::Idle));
    }

    #[test]
    fn http2_frames_start_no_header() {
        let (mut clock, at) = clock();
        clock.bytes_read(b"PRI * HTTP/2.0", at(0));
        assert_eq!(clock.expired(at(29)), None);
        assert_eq!(clock.expired(at(30)), Some(Expired::Idle));
    }

    #[test]
    fn a_client_that_takes_nothing_is_cut_off_and_one_that_takes_something_is_not() {
        let (mut clock, at) = clock();
        clock.request_started();
        clock.write_blocked(at(0));
        clock.written();
        clock.write_blocked(at(15));
        clock.write_blocked(at(30));
        assert_eq!(clock.expired(at(34)), None);
        assert_eq!(clock.expired(at(35)), Some(Expired::Write));
    }
}
