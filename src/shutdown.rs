//! Signals of the operating system: the first starts the drain, a second one ends the process at once.

use crate::http::Drain;

/// Exit code of a process that was told twice, as after SIGINT in a shell.
const TOLD_TWICE: i32 = 130;

/// Starts the drain on SIGTERM or Ctrl-C. Runs for ever.
pub async fn drain_on_signal(drain: Drain) {
    let signal = stop_signal().await;
    tracing::info!(signal, "draining: no new work, accepted work is finished");
    drain.start();
    stop_signal().await;
    tracing::warn!("told again, stopping at once");
    std::process::exit(TOLD_TWICE);
}

async fn stop_signal() -> &'static str {
    let interrupted = async {
        // Without a handler the default action ends the process, which is right as well.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending::<()>().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<()>();
    tokio::select! {
        () = interrupted => "interrupt",
        () = terminated => "terminate",
    }
}
