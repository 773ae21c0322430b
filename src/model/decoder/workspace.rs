//! Buffers of a step, kept from one step to the next: once they have grown to the largest step, steps allocate nothing.

use super::Precision;
use super::plan::Row;
use super::rope::Angles;
use crate::model::kernels::{ActivationKind, Activations, AttentionShape, Isa};

pub(super) struct Workspace {
    pub rows: Vec<Row>,
    /// Numbers of the rows whose logits are wanted.
    pub wanted: Vec<usize>,
    pub angles: Angles,
    /// The residual stream: rows of `hidden_size`.
    pub residual: Vec<f32>,
    /// What the last block adds to it.
    pub delta: Vec<f32>,
    pub qkv: Vec<f32>,
    pub attention: Vec<f32>,
    pub gate_up: Vec<f32>,
    /// The left side of the next product.
    pub activations: Activations,
    /// Attention scores, a share for each thread.
    pub scores: Vec<f32>,
}

impl Workspace {
    pub(super) fn new(
        isa: Isa,
        precision: Precision,
        shape: &AttentionShape,
        context_length: usize,
        threads: usize,
    ) -> Self {
        let kind = match precision {
            Precision::Packed => ActivationKind::Quantized,
            Precision::F32 => ActivationKind::Dense,
        };
        Self {
            rows: Vec::new(),
            wanted: Vec::new(),
            angles: Angles::default(),
            residual: Vec::new(),
            delta: Vec::new(),
            qkv: Vec::new(),
            attention: Vec::new(),
            gate_up: Vec::new(),
            activations: Activations::new(isa, kind),
            scores: vec![0.0; threads * shape.scratch(isa, context_length)],
        }
    }
}

/// Makes `buffer` at least `len` long and lends that much of it.
pub(super) fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}
