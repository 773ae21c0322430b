//! Figures as a table for people or as JSON.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

/// Times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantiles {
    pub count: usize,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl Quantiles {
    /// Nearest-rank quantiles; zeros when there are no times.
    pub fn of(times: &mut [Duration]) -> Self {
        times.sort_unstable();
        let at = |share: f64| {
            let rank = (share * times.len() as f64).ceil() as usize;
            times.get(rank.saturating_sub(1)).map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        Self { count: times.len(), p50_ms: at(0.5), p95_ms: at(0.95), p99_ms: at(0.99), max_ms: at(1.0) }
    }
}

/// Prints rows of quantiles and the facts of the run.
pub fn print(title: &str, rows: &[(String, Quantiles)], facts: Value, as_json: bool) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if as_json {
        let rows: Vec<Value> = rows
            .iter()
            .map(|(name, q)| {
                json!({"name": name, "count": q.count, "p50_ms": q.p50_ms, "p95_ms": q.p95_ms,
                       "p99_ms": q.p99_ms, "max_ms": q.max_ms})
            })
            .collect();
        let document = json!({"bench": title, "rows": rows, "facts": facts});
        writeln!(out, "{}", serde_json::to_string_pretty(&document)?)?;
        return Ok(());
    }
    writeln!(out, "{title}")?;
    writeln!(out, "{:<12} {:>8} {:>10} {:>10} {:>10} {:>10}", "", "count", "p50 ms", "p95 ms", "p99 ms", "max ms")?;
    for (name, q) in rows {
        writeln!(
            out,
            "{name:<12} {:>8} {:>10.3} {:>10.3} {:>10.3} {:>10.3}",
            q.count, q.p50_ms, q.p95_ms, q.p99_ms, q.max_ms
        )?;
    }
    if let Value::Object(facts) = facts {
        for (name, value) in facts {
            writeln!(out, "{name}: {value}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let mut times: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        let q = Quantiles::of(&mut times);
        assert_eq!((q.p50_ms, q.p95_ms, q.p99_ms, q.max_ms), (50.0, 95.0, 99.0, 100.0));
        assert_eq!(Quantiles::of(&mut []).max_ms, 0.0);
    }
}
