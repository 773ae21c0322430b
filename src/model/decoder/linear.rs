//! A linear map whose outputs are several tensors joined, e.g. q, k and v.

use crate::model::kernels::{Activations, Isa, Matrix, MatrixSource, Pool, SourceFormat, matmul, pack_matrix};
use crate::model::weights::WeightsError;

use super::tensors::Tensor;

/// Packed matrices side by side. Tensors of one kind form one matrix.
pub(super) struct Linear {
    /// Each with its first output.
    parts: Vec<(usize, Matrix)>,
    outputs: usize,
}

impl Linear {
    pub(super) fn pack(
        isa: Isa,
        dense: bool,
        inputs: usize,
        tensors: &[Tensor<'_>],
        pool: &Pool,
    ) -> Result<Self, WeightsError> {
        let is_q4 = |t: &Tensor<'_>| matches!(t.format(), SourceFormat::Q4_0 | SourceFormat::Q4_1);
        let mut linear = Self { parts: Vec::new(), outputs: 0 };
        for run in tensors.chunk_by(|a, b| dense || is_q4(a) == is_q4(b)) {
            let matrix = pack_matrix(isa, dense, inputs, run, pool)?;
            let first = linear.outputs;
            linear.outputs += matrix.outputs();
            linear.parts.push((first, matrix));
        }
        Ok(linear)
    }

    /// `out = x W^T`: a row of `outputs` for each row of `x`.
    pub(super) fn forward(&self, x: &Activations, out: &mut [f32], pool: &Pool) {
        for (first, matrix) in &self.parts {
            matmul(matrix, x, out, self.outputs, *first, pool);
        }
    }

    /// The weights of one output.
    pub(super) fn read_output(&self, output: usize, out: &mut [f32]) {
        if let Some((first, matrix)) = self.parts.iter().rev().find(|(first, _)| *first <= output) {
            matrix.read_output(output - first, out);
        }
    }

    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.parts.iter().map(|(_, m)| m.size_bytes()).sum()
    }
}
