//! The engine's settings and why their defaults are what they are. Reads no file and no environment.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// `[engine]`: how much is computed at once, and how much may wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Threads of the decoder. 0, the default: as many as the process may use (its CPU affinity and cgroup quota),
    /// because more only wait for each other.
    pub threads: usize,
    /// Token slots in a block of the KV cache. 16, the default, wastes at most 15 slots a sequence and lets prompts
    /// share beginnings in steps of 16 tokens; larger blocks read a little faster and share less.
    pub block_size: usize,
    /// Tokens that the KV cache holds when `kv_blocks` is 0. 8192, the default: 32 sequences of 256 tokens, which is
    /// about 190 MB in half precision for the default model.
    pub kv_tokens: usize,
    /// Blocks of the KV cache. 0, the default: as many as `kv_tokens` need.
    pub kv_blocks: usize,
    /// Requests that may wait. 256, the default: several bursts of a busy frontend; whoever comes later would wait
    /// longer than a page view lasts.
    pub max_waiting_requests: usize,
    /// Tokens that may wait: prompts, and what their candidates may become. 32768, the default, is about a minute of
    /// work for the default model on two cores.
    pub max_waiting_tokens: usize,
    /// Candidates decoded at once. 32, the default: weights are read once a step, whatever the batch, and beyond 32
    /// the arithmetic costs more than the reading on a few cores, so every token only comes later.
    pub max_running_sequences: usize,
    /// Tokens of a step: first one for every running sequence, then chunks of waiting prompts. 256, the default,
    /// keeps a step, and with it the gap between two tokens of a running sequence, near half a second on two cores.
    pub step_token_budget: usize,
    /// Candidates that one request may ask for. 32, the default; never more than `max_running_sequences`.
    pub max_candidates: usize,
    /// Tokens that one candidate may have. 1024, the default, is far more than any ad needs and bounds a reservation.
    pub max_new_tokens: usize,
    /// A batch request that waited this long counts as interactive. 5000 ms, the default.
    pub aging_ms: u64,
    /// A step that lasts longer is reported as a stall by readiness. 30 s, the default, is far above the slowest
    /// step and below the patience of an orchestrator.
    pub stall_seconds: u64,
    /// Keep the blocks of past prompts for requests that begin alike. On by default: every request of a service
    /// begins with the same instructions.
    pub prefix_cache: bool,
    /// An OpenAI-compatible engine to use in place of this one. Empty: none; this version takes no other value.
    pub remote_url: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            threads: 0,
            block_size: 16,
            kv_tokens: 8192,
            kv_blocks: 0,
            max_waiting_requests: 256,
            max_waiting_tokens: 32_768,
            max_running_sequences: 32,
            step_token_budget: 256,
            max_candidates: 32,
            max_new_tokens: 1024,
            aging_ms: 5000,
            stall_seconds: 30,
            prefix_cache: true,
            remote_url: String::new(),
        }
    }
}

/// A setting that the engine cannot run with.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    #[error("must be at least {least}, not {given}")]
    TooSmall { key: &'static str, given: usize, least: usize },
    #[error("must be at most {most}, not {given}")]
    TooLarge { key: &'static str, given: usize, most: usize },
}

impl ConfigError {
    /// The dotted key of the setting.
    pub fn key(&self) -> &'static str {
        match self {
            Self::TooSmall { key, .. } | Self::TooLarge { key, .. } => key,
        }
    }
}

impl Config {
    /// Threads to run the decoder with; at least 1. Linux's affinity mask and cgroup quota are honored by the
    /// standard library.
    pub fn resolved_threads(&self) -> usize {
        if self.threads > 0 { self.threads } else { std::thread::available_parallelism().map_or(1, usize::from) }
    }

    /// Blocks that the loader gives the model's KV cache.
    pub fn resolved_kv_blocks(&self) -> usize {
        if self.kv_blocks > 0 { self.kv_blocks } else { self.kv_tokens.div_ceil(self.block_size.max(1)) }
    }

    pub fn aging(&self) -> Duration {
        Duration::from_millis(self.aging_ms)
    }

    /// Every setting that is out of bounds, by its key.
    pub fn mistakes(&self) -> Vec<ConfigError> {
        const BLOCKS: usize = 1 << 20;
        let bounds = [
            ("engine.threads", self.threads, 0, 1024),
            ("engine.block_size", self.block_size, 1, 1024),
            ("engine.kv_tokens", self.kv_tokens, 1, BLOCKS * 16),
            ("engine.kv_blocks", self.kv_blocks, 0, BLOCKS),
            ("engine.max_waiting_requests", self.max_waiting_requests, 1, 1 << 16),
            ("engine.max_waiting_tokens", self.max_waiting_tokens, 1, 1 << 30),
            ("engine.max_running_sequences", self.max_running_sequences, 1, 1024),
            // Every running sequence gets its token and at least one prompt token fits besides.
            ("engine.step_token_budget", self.step_token_budget, self.max_running_sequences.saturating_add(1), 1 << 16),
            ("engine.max_candidates", self.max_candidates, 1, self.max_running_sequences),
            ("engine.max_new_tokens", self.max_new_tokens, 1, 1 << 16),
            ("engine.stall_seconds", usize::try_from(self.stall_seconds).unwrap_or(usize::MAX), 1, 86_400),
        ];
        bounds
            .into_iter()
            .filter_map(|(key, given, least, most)| {
                if given < least {
                    Some(ConfigError::TooSmall { key, given, least })
                } else if given > most {
                    Some(ConfigError::TooLarge { key, given, most })
                } else {
                    None
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_mistakes() {
        assert_eq!(Config::default().mistakes(), []);
    }

    #[test]
    fn kv_blocks_follow_from_tokens_unless_they_are_given() {
        let config = Config { kv_tokens: 100, block_size: 16, ..Config::default() };
        assert_eq!(config.resolved_kv_blocks(), 7);
        assert_eq!(Config { kv_blocks: 9, ..config }.resolved_kv_blocks(), 9);
    }

    #[test]
    fn a_budget_that_leaves_no_room_for_prompts_is_a_mistake() {
        let config = Config { step_token_budget: 32, ..Config::default() };
        assert_eq!(
            config.mistakes(),
            [ConfigError::TooSmall { key: "engine.step_token_budget", given: 32, least: 33 }]
        );
    }

    #[test]
    fn every_mistake_is_named() {
        let config = Config { max_waiting_requests: 0, max_new_tokens: 0, ..Config::default() };
        assert_eq!(config.mistakes().len(), 2);
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(toml::from_str::<Config>("max_runing_sequences = 3").is_err());
        assert_eq!(toml::from_str::<Config>("").unwrap(), Config::default());
    }
}
