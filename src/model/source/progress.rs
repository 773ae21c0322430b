//! How a download is shown: a bar on a terminal, else a log line every few seconds.

use std::{
    io::IsTerminal,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

/// Between two log lines of one download.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// Is told what a fetch does. Transfers follow one another; they do not overlap.
pub trait Progress: Send + Sync {
    /// Something happened that takes time or deserves notice.
    fn note(&self, message: &str);
    /// A transfer begins; `total_bytes` when it is known.
    fn start(&self, what: &str, total_bytes: Option<u64>);
    /// The transfer stands at so many bytes.
    fn advance(&self, position_bytes: u64);
    /// The transfer ended, well or not.
    fn finish(&self);
}

/// A bar when stderr is a terminal, else log lines.
pub fn for_stderr() -> Box<dyn Progress> {
    if std::io::stderr().is_terminal() {
        Box::new(TerminalProgress::default())
    } else {
        Box::new(LogProgress::default())
    }
}

/// An indicatif bar on stderr.
#[derive(Default)]
pub struct TerminalProgress {
    bar: Mutex<Option<ProgressBar>>,
}

impl TerminalProgress {
    fn with_bar(&self, act: impl FnOnce(&mut Option<ProgressBar>)) {
        act(&mut self.bar.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Progress for TerminalProgress {
    fn note(&self, message: &str) {
        self.with_bar(|bar| match bar {
            Some(bar) => bar.println(message),
            None => tracing::info!("{message}"),
        });
    }

    fn start(&self, what: &str, total_bytes: Option<u64>) {
        let (new, template) = match total_bytes {
            Some(total) => {
                (ProgressBar::new(total), "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} ({eta})")
            }
            None => (ProgressBar::new_spinner(), "{spinner} {msg} {bytes} {bytes_per_sec} ({elapsed})"),
        };
        // The templates are constants; a wrong one would only cost the looks.
        if let Ok(style) = ProgressStyle::with_template(template) {
            new.set_style(style);
        }
        new.set_message(what.to_owned());
        self.with_bar(|bar| *bar = Some(new));
    }

    fn advance(&self, position_bytes: u64) {
        self.with_bar(|bar| {
            if let Some(bar) = bar {
                bar.set_position(position_bytes);
            }
        });
    }

    fn finish(&self) {
        self.with_bar(|bar| {
            if let Some(bar) = bar.take() {
                bar.finish_and_clear();
            }
        });
    }
}

/// Log lines at level info.
#[derive(Default)]
pub struct LogProgress {
    transfer: Mutex<Option<Transfer>>,
}

struct Transfer {
    what: String,
    total_bytes: Option<u64>,
    position_bytes: u64,
    began: Instant,
    last_line: Instant,
}

impl LogProgress {
    fn with_transfer(&self, act: impl FnOnce(&mut Option<Transfer>)) {
        act(&mut self.transfer.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Progress for LogProgress {
    fn note(&self, message: &str) {
        tracing::info!("{message}");
    }

    fn start(&self, what: &str, total_bytes: Option<u64>) {
        let size = total_bytes.map(|total| HumanBytes(total).to_string());
        tracing::info!(size, "{what}");
        let now = Instant::now();
        let transfer = Transfer { what: what.to_owned(), total_bytes, position_bytes: 0, began: now, last_line: now };
        self.with_transfer(|current| *current = Some(transfer));
    }

    fn advance(&self, position_bytes: u64) {
        self.with_transfer(|transfer| {
            let Some(transfer) = transfer else { return };
            transfer.position_bytes = position_bytes;
            if transfer.last_line.elapsed() >= LOG_EVERY {
                transfer.last_line = Instant::now();
                tracing::info!("{}", progress_line(&transfer.what, position_bytes, transfer.total_bytes));
            }
        });
    }

    fn finish(&self) {
        self.with_transfer(|transfer| {
            if let Some(transfer) = transfer.take() {
                let elapsed_seconds = transfer.began.elapsed().as_secs();
                tracing::info!(elapsed_seconds, "{}: {}, ended", transfer.what, HumanBytes(transfer.position_bytes));
            }
        });
    }
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn note(&self, _message: &str) {}
    fn start(&self, _what: &str, _total_bytes: Option<u64>) {}
    fn advance(&self, _position_bytes: u64) {}
    fn finish(&self) {}
}

fn progress_line(what: &str, position_bytes: u64, total_bytes: Option<u64>) -> String {
    let position = HumanBytes(position_bytes);
    match total_bytes {
        Some(total) if total > 0 => {
            // Saturates at 100: a server may send more than it announced.
            let percent = (position_bytes.saturating_mul(100) / total).min(100);
            format!("{what}: {position} of {} ({percent} %)", HumanBytes(total))
        }
        _ => format!("{what}: {position}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_percent_only_when_the_total_is_known() {
        assert_eq!(
            progress_line("downloading x", 1 << 20, Some(4 << 20)),
            "downloading x: 1.00 MiB of 4.00 MiB (25 %)"
        );
        assert_eq!(progress_line("downloading x", 1 << 20, None), "downloading x: 1.00 MiB");
        assert_eq!(progress_line("x", 3, Some(2)), "x: 3 B of 2 B (100 %)");
        assert_eq!(progress_line("x", 3, Some(0)), "x: 3 B");
    }
}
