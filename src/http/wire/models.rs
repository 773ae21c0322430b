//! The answer of `GET /v1/models`.

use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::request::ModelInfo;

/// The models of this server.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Models)]
pub struct ModelsAnswer {
    /// Empty while the model loads.
    pub models: Vec<ModelBody>,
}

/// A loaded model.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Model)]
pub struct ModelBody {
    #[schema(example = "smollm2-135m-instruct")]
    pub id: String,
    /// It takes requests now.
    pub ready: bool,
    #[schema(example = "llama")]
    pub architecture: String,
    #[schema(example = "Q4_1")]
    pub quantization: String,
    pub parameters: u64,
    /// Tokens of prompt and answer together.
    pub context_length: usize,
    pub vocab_size: usize,
    /// ISO 639-1 codes that it writes well; empty: unknown.
    pub languages: Vec<String>,
    /// Where it came from, as configured.
    pub source: String,
    /// Of the weights file.
    pub sha256: String,
}

impl ModelBody {
    pub fn new(model: ModelInfo, ready: bool) -> Self {
        Self {
            id: model.id,
            ready,
            architecture: model.architecture,
            quantization: model.quantization,
            parameters: model.parameters,
            context_length: model.context_length,
            vocab_size: model.vocab_size,
            languages: model.languages,
            source: model.source,
            sha256: model.sha256,
        }
    }
}
