//! What the unit tests of this room share.

use std::sync::Arc;
use std::time::Duration;

use super::{AppState, Config, Drain, auth};
use crate::domain::brief::Language;
use crate::engine::request::{Generation, GenerationRequest, Generator, ModelInfo, Readiness, Refusal};
use crate::service::ad_copy::{AdCopy, AdCopyService, Timing, Usage};
use crate::service::library::Library;

/// Refuses every request.
struct Absent;

impl Generator for Absent {
    fn submit(&self, _: GenerationRequest) -> Result<Generation, Refusal> {
        Err(Refusal::Draining)
    }

    fn readiness(&self) -> Readiness {
        Readiness::NotReady("absent".to_owned())
    }

    fn model(&self) -> Option<ModelInfo> {
        None
    }
}

pub fn state(config: Config) -> AppState {
    let generator = Arc::new(Absent);
    let library = Arc::new(Library::embedded().unwrap());
    let service = AdCopyService::new(Arc::clone(&generator) as Arc<dyn Generator>, library);
    AppState::new(service, generator, None, Drain::default(), config, &auth::Config::default()).unwrap()
}

pub fn answer() -> AdCopy {
    AdCopy {
        id: "gen_1".to_owned(),
        created: jiff::Timestamp::UNIX_EPOCH,
        model: "m".to_owned(),
        language: Language::En,
        channel: "generic".to_owned(),
        variants: Vec::new(),
        assets: None,
        dropped: Vec::new(),
        seed: 7,
        usage: Usage::default(),
        timing: Timing { total: Duration::from_millis(7), ..Timing::default() },
    }
}
