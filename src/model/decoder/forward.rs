//! One step: embeddings, layers, final norm and head over all rows of a checked batch.

use super::plan::{self, Row};
use super::workspace::{Workspace, sized};
use super::{Decoder, Layer};
use crate::model::kernels::{
    Attention, DisjointMut, KvLayer, Tile, add_assign, attend, query_rows_per_tile, rms_norm, rms_norm_in_place,
    silu_mul,
};
use crate::model::step::{SequenceSlice, StepError};

impl Decoder {
    /// Runs a batch that [`plan::check`] passed.
    pub(super) fn step(&mut self, batch: &[SequenceSlice<'_>], logits: &mut Vec<f32>) -> Result<(), StepError> {
        let hidden = self.config.hidden_size;
        plan::lay_out(batch, self.cache.shape.block_size, &mut self.work.rows, &mut self.work.wanted);
        let n = self.work.rows.len();
        self.rope.fill(self.work.rows.iter().map(|r| r.position), &mut self.work.angles);
        let residual = sized(&mut self.work.residual, n * hidden);
        for (row, x) in self.work.rows.iter().zip(residual.chunks_exact_mut(hidden)) {
            self.embeddings.read_output(row.token as usize, x);
        }
        sized(&mut self.work.delta, n * hidden).fill(0.0);
        let tiles = self.tiles(batch);
        for i in 0..self.layers.len() {
            self.layer(i, n, &tiles);
        }
        self.logits(logits);
        match all_finite(logits) {
            true => Ok(()),
            false => {
                logits.clear();
                Err(StepError::NotANumber)
            }
        }
    }

    fn tiles<'a>(&self, batch: &[SequenceSlice<'a>]) -> Vec<Tile<'a>> {
        let shape = &self.cache.shape;
        let most = query_rows_per_tile(self.isa, shape);
        let mut tiles = Vec::new();
        let mut row = 0;
        for slice in batch {
            let mut done = 0;
            while done < slice.tokens.len() {
                let rows = most.min(slice.tokens.len() - done);
                let position = slice.position + done;
                let blocks = &slice.blocks[..(position + rows).div_ceil(shape.block_size)];
                tiles.push(Tile { row, rows, position, blocks });
                row += rows;
                done += rows;
            }
        }
        tiles
    }

    fn layer(&mut self, i: usize, n: usize, tiles: &[Tile<'_>]) {
        let Self { config, isa, pool, layers, rope, cache, work, .. } = self;
        let (isa, layer, shape) = (*isa, &layers[i], cache.shape);
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let Workspace { rows, angles, residual, delta, qkv, attention, gate_up, activations, scores, .. } = work;
        let (residual, delta) = (&mut residual[..n * hidden], &mut delta[..n * hidden]);

        activations.fill(n, hidden, residual, pool, |row, x, out| {
            add_assign(isa, x, &delta[row * hidden..][..hidden]);
            rms_norm(isa, x, &layer.attention_norm, config.rms_norm_eps, out);
        });
        let stride = layer.qkv.outputs();
        let qkv = sized(qkv, n * stride);
        layer.qkv.forward(activations, qkv, pool);
        let heads = Heads {
            layer,
            eps: config.rms_norm_eps,
            isa,
            turn: |row, head: &mut [f32]| {
                rope.turn(isa, angles, row, head);
            },
        };
        heads.finish(qkv, rows, &mut cache.layers[i], shape, pool);

        let width = shape.n_heads * shape.head_dim;
        let attention = sized(attention, n * width);
        let input = Attention { isa, shape, layer: &cache.layers[i], queries: qkv, query_stride: stride, tiles };
        attend(&input, attention, scores, pool);
        activations.fill(n, width, attention, pool, |_, x, out| out.copy_from_slice(x));
        layer.attention_out.forward(activations, delta, pool);

        activations.fill(n, hidden, residual, pool, |row, x, out| {
            add_assign(isa, x, &delta[row * hidden..][..hidden]);
            rms_norm(isa, x, &layer.ffn_norm, config.rms_norm_eps, out);
        });
        let gate_up = sized(gate_up, n * 2 * inner);
        layer.gate_up.forward(activations, gate_up, pool);
        activations.fill(n, inner, gate_up, pool, |_, x, out| {
            let (gate, up) = x.split_at(inner);
            silu_mul(isa, gate, up, out);
        });
        layer.down.forward(activations, delta, pool);
    }

    /// The final norm and the head, for the wanted rows only.
    fn logits(&mut self, logits: &mut Vec<f32>) {
        let Self { config, isa, pool, embeddings, output_norm, head, work, .. } = self;
        let (isa, hidden) = (*isa, config.hidden_size);
        let Workspace { wanted, residual, delta, activations, .. } = work;
        activations.fill(wanted.len(), hidden, &mut [], pool, |i, _, out| {
            let row = wanted[i] * hidden;
            out.copy_from_slice(&residual[row..][..hidden]);
            add_assign(isa, out, &delta[row..][..hidden]);
            rms_norm_in_place(isa, out, output_norm, config.rms_norm_eps);
        });
        logits.resize(wanted.len() * config.vocab_size, 0.0);
        head.as_ref().unwrap_or(embeddings).forward(activations, logits, pool);
    }
}

/// Biases, norms and rotation of the heads of a layer's rows.
struct Heads<'a, F> {
    layer: &'a Layer,
    eps: f32,
    isa: crate::model::kernels::Isa,
    turn: F,
}

impl<F: Fn(usize, &mut [f32]) + Sync> Heads<'_, F> {
    /// Finishes every row of `qkv`: its keys and values go to the cache, its queries stay, scaled by
    /// `1 / sqrt(head_dim)`.
    fn finish(
        &self,
        qkv: &mut [f32],
        rows: &[Row],
        cache: &mut KvLayer,
        shape: crate::model::kernels::AttentionShape,
        pool: &crate::model::kernels::Pool,
    ) {
        let dim = shape.head_dim;
        let (n_q, n_kv) = (shape.n_heads, shape.n_kv_heads);
        let scale = 1.0 / (dim as f32).sqrt();
        let cache = cache.writer(shape);
        DisjointMut::for_each_part(qkv, (n_q + 2 * n_kv) * dim, pool, |_, i, row| {
            if let Some(bias) = &self.layer.qkv_bias {
                add_assign(self.isa, row, bias);
            }
            let (queries, rest) = row.split_at_mut(n_q * dim);
            let (keys, values) = rest.split_at_mut(n_kv * dim);
            for query in queries.chunks_exact_mut(dim) {
                self.norm(self.layer.query_norm.as_deref(), query);
                (self.turn)(i, query);
                query.iter_mut().for_each(|x| *x *= scale);
            }
            for (h, (key, value)) in keys.chunks_exact_mut(dim).zip(values.chunks_exact(dim)).enumerate() {
                self.norm(self.layer.key_norm.as_deref(), key);
                (self.turn)(i, key);
                cache.put(rows[i].place, h, key, value);
            }
        });
    }

    fn norm(&self, weight: Option<&[f32]>, head: &mut [f32]) {
        if let Some(weight) = weight {
            crate::model::kernels::rms_norm_in_place(self.isa, head, weight, self.eps);
        }
    }
}

/// Whether no value is infinite or not a number.
fn all_finite(values: &[f32]) -> bool {
    // In pieces: each vectorizes, and the first bad one ends the search.
    values.chunks(256).all(|piece| piece.iter().fold(true, |ok, x| ok & x.is_finite()))
}
