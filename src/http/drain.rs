//! The two moments of a shutdown that requests must know of: no more work is wanted, and time is up.

use tokio_util::sync::CancellationToken;

/// Shared by the server, which passes through the stages, and by what must react to them.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    started: CancellationToken,
    closing: CancellationToken,
}

impl Drain {
    /// `started` is cancelled by the owner of the process, e.g. on SIGTERM.
    pub fn new(started: CancellationToken) -> Self {
        Self { started, closing: CancellationToken::new() }
    }

    /// Starts the drain: readiness is off from now on.
    pub fn start(&self) {
        self.started.cancel();
    }

    pub fn is_started(&self) -> bool {
        self.started.is_cancelled()
    }

    /// Completes when the drain starts.
    pub async fn started(&self) {
        self.started.cancelled().await;
    }

    /// Ends what is still in progress: each request gets a final answer at once.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Completes when time is up.
    pub async fn closing(&self) {
        self.closing.cancelled().await;
    }
}
