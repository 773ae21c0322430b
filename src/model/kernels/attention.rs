//! Attention of query rows over the keys and values of a block cache.
//!
//! A layer's keys lie as `[block][kv head][coordinate][slot]` and its values as `[block][kv head][slot][coordinate]`,
//! so that both passes run along whole vectors without a sum across lanes.

use std::sync::atomic::{AtomicU16, AtomicU32, Ordering::Relaxed};

use half::f16;

use super::isa::Kind;
use super::lanes::{LANES, Lanes, Plain};
#[cfg(target_arch = "x86_64")]
use super::lanes::{Ymm2, Zmm};
use super::rowwise::softmax_unscaled;
use super::{DisjointMut, Isa, Pool};

/// Sizes that all layers share.
#[derive(Debug, Clone, Copy)]
pub struct AttentionShape {
    pub n_heads: usize,
    pub n_kv_heads: usize,
    /// Even.
    pub head_dim: usize,
    /// Token slots in a block; a multiple of 16.
    pub block_size: usize,
    /// A query sees at most this many positions, its own included.
    pub window: usize,
}

/// The cache of one layer.
pub enum KvLayer {
    /// Bits of half-precision values.
    F16 {
        keys: Vec<u16>,
        values: Vec<u16>,
    },
    F32 {
        keys: Vec<f32>,
        values: Vec<f32>,
    },
}

/// Stores rows into a layer, from several threads at once.
pub struct KvWriter<'a> {
    shape: AttentionShape,
    target: Target<'a>,
}

enum Target<'a> {
    F16(DisjointMut<'a, u16>, DisjointMut<'a, u16>),
    F32(DisjointMut<'a, f32>, DisjointMut<'a, f32>),
}

/// A slot of a block.
#[derive(Debug, Clone, Copy)]
pub struct RowPlace {
    pub block: usize,
    pub slot: usize,
}

/// Consecutive query rows of one sequence that are computed together.
#[derive(Debug, Clone, Copy)]
pub struct Tile<'a> {
    /// The first row's number among the query rows.
    pub row: usize,
    pub rows: usize,
    /// The first row's position in its sequence.
    pub position: usize,
    /// The sequence's blocks, enough for the last row's position.
    pub blocks: &'a [u32],
}

impl AttentionShape {
    fn padded_head(&self) -> usize {
        self.head_dim.next_multiple_of(2 * LANES)
    }
    /// Elements of one block's keys, all heads.
    pub fn key_block(&self) -> usize {
        self.n_kv_heads * self.head_dim * self.block_size
    }
    /// Elements of one block's values, all heads.
    pub fn value_block(&self) -> usize {
        self.n_kv_heads * self.padded_head() * self.block_size
    }
    fn group(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }
    /// Floats of scratch that a thread needs for sequences of up to `positions` tokens.
    pub fn scratch(&self, isa: Isa, positions: usize) -> usize {
        isa.tile_queries() * positions.next_multiple_of(self.block_size)
    }
}

/// How many rows a [`Tile`] should have so that a thread carries as many queries as its registers hold.
pub fn query_rows_per_tile(isa: Isa, shape: &AttentionShape) -> usize {
    (isa.tile_queries() / shape.group()).max(1)
}

/// An element type of the cache.
trait Element: Copy {
    unsafe fn load<V: Lanes>(from: *const Self) -> V;
    /// Writes one element. Atomic, so that two slices that were wrongly given one slot are a wrong result and not a
    /// data race.
    unsafe fn put(to: *mut Self, x: f32);
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn load<V: Lanes>(from: *const Self) -> V {
        // SAFETY: passed on.
        unsafe { V::load_f16(from) }
    }
    #[inline(always)]
    unsafe fn put(to: *mut Self, x: f32) {
        // SAFETY: the pointer is valid and aligned, and only accessed atomically while rows are stored.
        unsafe { AtomicU16::from_ptr(to.cast()) }.store(f16::from_f32(x).to_bits(), Relaxed);
    }
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<V: Lanes>(from: *const Self) -> V {
        // SAFETY: passed on.
        unsafe { V::load(from) }
    }
    #[inline(always)]
    unsafe fn put(to: *mut Self, x: f32) {
        // SAFETY: as for `f16`.
        unsafe { AtomicU32::from_ptr(to.cast()) }.store(x.to_bits(), Relaxed);
    }
}

impl KvLayer {
    /// An empty cache; the system commits its memory when blocks are first written.
    pub fn new(half_precision: bool, shape: &AttentionShape, n_blocks: usize) -> Self {
        let (keys, values) = (n_blocks * shape.key_block(), n_blocks * shape.value_block());
        match half_precision {
            true => Self::F16 { keys: vec![0; keys], values: vec![0; values] },
            false => Self::F32 { keys: vec![0.0; keys], values: vec![0.0; values] },
        }
    }

    pub fn writer(&mut self, shape: AttentionShape) -> KvWriter<'_> {
        let target = match self {
            Self::F16 { keys, values } => Target::F16(DisjointMut::new(keys), DisjointMut::new(values)),
            Self::F32 { keys, values } => Target::F32(DisjointMut::new(keys), DisjointMut::new(values)),
        };
        KvWriter { shape, target }
    }

    /// Copies a whole block.
    ///
    /// # Panics
    /// When a block does not exist.
    pub fn copy_block(&mut self, shape: &AttentionShape, from: usize, to: usize) {
        fn copy<T: Copy>(data: &mut [T], size: usize, from: usize, to: usize) {
            data.copy_within(from * size..(from + 1) * size, to * size);
        }
        let (key, value) = (shape.key_block(), shape.value_block());
        match self {
            Self::F16 { keys, values } => {
                copy(keys, key, from, to);
                copy(values, value, from, to);
            }
            Self::F32 { keys, values } => {
                copy(keys, key, from, to);
                copy(values, value, from, to);
            }
        }
    }
}

impl KvWriter<'_> {
    /// Stores one token's key and value of a head.
    ///
    /// # Panics
    /// When the place lies outside the cache or a length is not `head_dim`.
    pub fn put(&self, place: RowPlace, kv_head: usize, key: &[f32], value: &[f32]) {
        let shape = &self.shape;
        assert!(place.slot < shape.block_size && kv_head < shape.n_kv_heads, "slot {} of a block", place.slot);
        assert!(key.len() == shape.head_dim && value.len() == shape.head_dim, "a head's length");
        let head = place.block * shape.n_kv_heads + kv_head;
        let key_at = head * shape.head_dim * shape.block_size + place.slot;
        let value_at = (head * shape.block_size + place.slot) * shape.padded_head();
        match &self.target {
            Target::F16(keys, values) => {
                put_strided::<f16, _>(keys, key_at, shape.block_size, key);
                put_strided::<f16, _>(values, value_at, 1, value);
            }
            Target::F32(keys, values) => {
                put_strided::<f32, _>(keys, key_at, shape.block_size, key);
                put_strided::<f32, _>(values, value_at, 1, value);
            }
        }
    }
}

fn put_strided<E: Element, T>(data: &DisjointMut<'_, T>, at: usize, stride: usize, row: &[f32]) {
    assert!(at + row.len().saturating_sub(1) * stride < data.len(), "the block exists");
    const { assert!(size_of::<E>() == size_of::<T>() && align_of::<E>() == align_of::<T>()) };
    for (i, &x) in row.iter().enumerate() {
        // SAFETY: inside the slice (asserted), whose elements have E's size and alignment; every access is atomic.
        unsafe { E::put(data.as_ptr().add(at + i * stride).cast(), x) };
    }
}

/// What one call of [`attend`] works on.
pub struct Attention<'a> {
    pub isa: Isa,
    pub shape: AttentionShape,
    pub layer: &'a KvLayer,
    /// Rows of `query_stride` floats that begin with the heads' queries, already scaled.
    pub queries: &'a [f32],
    pub query_stride: usize,
    pub tiles: &'a [Tile<'a>],
}

/// Attention of every tile's rows: `out` gets rows of `n_heads * head_dim`. `scratch` holds [`AttentionShape::scratch`]
/// floats for each thread, for the longest sequence. Tiles and heads are spread over the pool's threads.
///
/// # Panics
/// When a tile's rows or blocks, or the scratch, do not fit.
pub fn attend(work: &Attention<'_>, out: &mut [f32], scratch: &mut [f32], pool: &Pool) {
    let shape = &work.shape;
    let (out_stride, blocks) = (shape.n_heads * shape.head_dim, work.layer.blocks(shape));
    assert!(shape.block_size.is_multiple_of(LANES) && shape.head_dim.is_multiple_of(2), "whole vectors");
    let share = scratch.len() / pool.threads();
    let mut positions = 0;
    for tile in work.tiles {
        let end = tile.position + tile.rows;
        assert!(end <= tile.blocks.len() * shape.block_size, "blocks for {end} positions");
        assert!(tile.blocks.iter().all(|&b| (b as usize) < blocks), "blocks below {blocks}");
        assert!((tile.row + tile.rows) * out_stride <= out.len(), "room for the tile's rows");
        assert!((tile.row + tile.rows) * work.query_stride <= work.queries.len(), "queries for the tile's rows");
        assert!(shape.scratch(work.isa, end) <= share, "scratch for {end} positions");
        positions += end.min(shape.window) * tile.rows;
    }
    assert!(out_stride <= work.query_stride, "rows hold every head's query");
    let (out, scratch) = (DisjointMut::new(out), DisjointMut::new(scratch));
    let items = work.tiles.len() * shape.n_kv_heads;
    // A hand-over costs as much as some ten thousand multiply-adds.
    let parts = if positions * out_stride < 20_000 { 1 } else { items };
    pool.ranges(items, parts, &|worker, items| {
        // SAFETY: each worker has a share of the scratch and runs one chunk at a time.
        let scratch = unsafe { scratch.range(worker * share..(worker + 1) * share) };
        for item in items {
            run_item(work, &out, scratch, &work.tiles[item / shape.n_kv_heads], item % shape.n_kv_heads);
        }
    });
}

impl KvLayer {
    fn blocks(&self, shape: &AttentionShape) -> usize {
        match self {
            Self::F16 { keys, .. } => keys.len() / shape.key_block(),
            Self::F32 { keys, .. } => keys.len() / shape.key_block(),
        }
    }
}

/// One tile's queries of one KV head, as many at a time as fit the registers.
fn run_item(work: &Attention<'_>, out: &DisjointMut<'_, f32>, scratch: &mut [f32], tile: &Tile<'_>, kv_head: usize) {
    let (shape, group) = (&work.shape, work.shape.group());
    let all = tile.rows * group;
    let mut first = 0;
    while first < all {
        let n = work.isa.tile_queries().min(all - first);
        let mut queries = [Query { from: std::ptr::null(), to: std::ptr::null_mut(), position: 0 }; MAX_QUERIES];
        for (i, query) in queries[..n].iter_mut().enumerate() {
            let (row, head) = ((first + i) / group, kv_head * group + (first + i) % group);
            // SAFETY: `attend` asserted that rows and heads lie inside both slices.
            unsafe {
                query.from = work.queries.as_ptr().add((tile.row + row) * work.query_stride + head * shape.head_dim);
                let row_out = (tile.row + row) * shape.n_heads * shape.head_dim;
                query.to = out.as_ptr().add(row_out + head * shape.head_dim);
            }
            query.position = tile.position + row;
        }
        // SAFETY: the queries are valid as set above, each head of each row belongs to one item, and `attend`
        // asserted blocks and scratch.
        unsafe {
            match work.layer {
                KvLayer::F16 { keys, values } => {
                    let (keys, values) = (keys.as_ptr().cast::<f16>(), values.as_ptr().cast::<f16>());
                    dispatch(work, keys, values, &queries[..n], tile.blocks, kv_head, scratch);
                }
                KvLayer::F32 { keys, values } => {
                    dispatch(work, keys.as_ptr(), values.as_ptr(), &queries[..n], tile.blocks, kv_head, scratch);
                }
            }
        }
        first += n;
    }
}

/// The most queries an instruction set carries at once.
const MAX_QUERIES: usize = 8;

#[derive(Clone, Copy)]
struct Query {
    from: *const f32,
    to: *mut f32,
    position: usize,
}

unsafe fn dispatch<E: Element>(
    work: &Attention<'_>,
    keys: *const E,
    values: *const E,
    queries: &[Query],
    blocks: &[u32],
    kv_head: usize,
    scratch: &mut [f32],
) {
    let input = Input { shape: &work.shape, isa: work.isa, keys, values, blocks, kv_head };
    // SAFETY: the caller's promises are passed on; an `Isa` exists only where its features were detected.
    unsafe {
        match work.isa.kind() {
            Kind::Portable => by_count::<Plain, E, 3>(&input, queries, scratch),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => avx2(&input, queries, scratch),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => avx512(&input, queries, scratch),
        }
    }
}

struct Input<'a, E> {
    shape: &'a AttentionShape,
    isa: Isa,
    keys: *const E,
    values: *const E,
    blocks: &'a [u32],
    kv_head: usize,
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<E: Element>(input: &Input<'_, E>, queries: &[Query], scratch: &mut [f32]) {
    // SAFETY: the caller's promises are passed on.
    unsafe { by_count::<Ymm2, E, 3>(input, queries, scratch) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn avx512<E: Element>(input: &Input<'_, E>, queries: &[Query], scratch: &mut [f32]) {
    // SAFETY: the caller's promises are passed on.
    unsafe { by_count::<Zmm, E, 8>(input, queries, scratch) }
}

#[inline(always)]
unsafe fn by_count<V: Lanes, E: Element, const MAX: usize>(
    input: &Input<'_, E>,
    queries: &[Query],
    scratch: &mut [f32],
) {
    // SAFETY: the caller's promises are passed on.
    unsafe {
        match queries.len() {
            1 => body::<V, E, 1>(input, queries, scratch),
            2 => body::<V, E, 2>(input, queries, scratch),
            3 => body::<V, E, 3>(input, queries, scratch),
            4 if MAX >= 4 => body::<V, E, 4>(input, queries, scratch),
            5 if MAX >= 5 => body::<V, E, 5>(input, queries, scratch),
            6 if MAX >= 6 => body::<V, E, 6>(input, queries, scratch),
            7 if MAX >= 7 => body::<V, E, 7>(input, queries, scratch),
            8 if MAX >= 8 => body::<V, E, 8>(input, queries, scratch),
            _ => {}
        }
    }
}

/// Scores, softmax and the weighted sum of values for Q queries. Sums run over coordinates and positions in order, so
/// a query's result does not depend on the queries beside it: masked positions add an exact zero.
#[inline(always)]
unsafe fn body<V: Lanes, E: Element, const Q: usize>(input: &Input<'_, E>, queries: &[Query], scratch: &mut [f32]) {
    let shape = input.shape;
    let (head_dim, padded, size) = (shape.head_dim, shape.padded_head(), shape.block_size);
    let window_start = |position: usize| (position + 1).saturating_sub(shape.window);
    // Positions that any of the queries sees; the first is rounded down to a block.
    let first = queries.iter().map(|q| window_start(q.position)).min().unwrap_or(0) / size * size;
    let end = queries.iter().map(|q| q.position + 1).max().unwrap_or(0);
    let blocks = &input.blocks[first / size..end.div_ceil(size)];
    let row = blocks.len() * size;
    let scores = scratch.as_mut_ptr();
    // SAFETY: `attend` asserted that the blocks exist, and that the scratch holds `row` floats for each query; queries
    // are valid for `head_dim` floats; a block's keys and values are whole vectors.
    unsafe {
        for (b, &block) in blocks.iter().enumerate() {
            let head = block as usize * shape.n_kv_heads + input.kv_head;
            let keys = input.keys.add(head * head_dim * size);
            let used = (end - first - b * size).min(size);
            for slot in (0..used).step_by(LANES) {
                let mut even = [V::splat(0.0); Q];
                let mut odd = [V::splat(0.0); Q];
                for d in (0..head_dim).step_by(2) {
                    let k0 = E::load::<V>(keys.add(d * size + slot));
                    let k1 = E::load::<V>(keys.add((d + 1) * size + slot));
                    for q in 0..Q {
                        even[q] = k0.mul_add(V::splat(*queries[q].from.add(d)), even[q]);
                        odd[q] = k1.mul_add(V::splat(*queries[q].from.add(d + 1)), odd[q]);
                    }
                }
                for q in 0..Q {
                    even[q].add(odd[q]).store(scores.add(q * row + b * size + slot));
                }
            }
        }
    }
    let mut inverse = [0.0; Q];
    for (q, query) in queries.iter().enumerate() {
        let scores = &mut scratch[q * row..(q + 1) * row];
        let mut sum = 0.0;
        let start = window_start(query.position).max(first) - first;
        softmax_unscaled(input.isa, scores, start, query.position + 1 - first, &mut sum);
        inverse[q] = 1.0 / sum;
    }
    let scores = scratch.as_ptr();
    // SAFETY: as above; out rows are valid for `head_dim` floats, and the last vector of a head that is not a whole
    // number of vectors goes through `tail`.
    unsafe {
        for d in (0..head_dim).step_by(2 * LANES) {
            let mut low = [V::splat(0.0); Q];
            let mut high = [V::splat(0.0); Q];
            for (b, &block) in blocks.iter().enumerate() {
                let head = block as usize * shape.n_kv_heads + input.kv_head;
                let values = input.values.add(head * size * padded + d);
                // Never past the last position: slots not yet written may hold anything, and 0 * NaN is NaN.
                for slot in 0..(end - first - b * size).min(size) {
                    let v0 = E::load::<V>(values.add(slot * padded));
                    let v1 = E::load::<V>(values.add(slot * padded + LANES));
                    for q in 0..Q {
                        let p = V::splat(*scores.add(q * row + b * size + slot));
                        low[q] = v0.mul_add(p, low[q]);
                        high[q] = v1.mul_add(p, high[q]);
                    }
                }
            }
            for q in 0..Q {
                let mut tail = [0.0f32; 2 * LANES];
                low[q].store(tail.as_mut_ptr());
                high[q].store(tail.as_mut_ptr().add(LANES));
                for (i, x) in tail.iter().take(head_dim - d).enumerate() {
                    *queries[q].to.add(d + i) = x * inverse[q];
                }
            }
        }
    }
}
