//! The matrix and attention kernels against `f64` references, on every instruction set of the machine.

use half::f16;
use proptest::prelude::*;

use super::*;

/// A tensor for the packer: stored bytes, or `f32` rows.
struct Source {
    format: SourceFormat,
    outputs: usize,
    inputs: usize,
    bytes: Vec<u8>,
    /// The exact meaning, row by row.
    values: Vec<f32>,
}

impl MatrixSource for Source {
    type Error = ();
    fn outputs(&self) -> usize {
        self.outputs
    }
    fn format(&self) -> SourceFormat {
        self.format
    }
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
    fn row(&self, output: usize, out: &mut [f32]) -> Result<(), ()> {
        out.copy_from_slice(&self.values[output * self.inputs..][..self.inputs]);
        Ok(())
    }
    fn not_finite(&self) {}
}

struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    /// Between -1 and 1, now and then twenty times as great.
    fn float(&mut self) -> f32 {
        let x = (self.next() >> 40) as f32 / 8_388_608.0 - 1.0;
        if self.next().is_multiple_of(300) { x * 20.0 } else { x }
    }
}

/// Random blocks; `extreme` ones hold only the greatest and least quants.
fn source(format: SourceFormat, outputs: usize, inputs: usize, extreme: bool, rng: &mut Numbers) -> Source {
    let mut made = Source { format, outputs, inputs, bytes: Vec::new(), values: Vec::new() };
    if format == SourceFormat::Rows {
        made.values = (0..outputs * inputs).map(|_| rng.float()).collect();
        return made;
    }
    for _ in 0..outputs * inputs / 32 {
        let d = f16::from_f32(0.01 + rng.float().abs() / 50.0);
        let m = f16::from_f32(rng.float() / 8.0);
        let high = rng.next().is_multiple_of(2);
        let byte = |rng: &mut Numbers, extremes: [u8; 2]| match extreme {
            true => extremes[usize::from(high)],
            false => rng.next() as u8,
        };
        made.bytes.extend(d.to_le_bytes());
        let d = d.to_f32();
        if format == SourceFormat::Q8_0 {
            let q: Vec<u8> = (0..32).map(|_| byte(rng, [127, 128])).collect();
            made.values.extend(q.iter().map(|&q| d * f32::from(q as i8)));
            made.bytes.extend(q);
            continue;
        }
        let offset = match format {
            SourceFormat::Q4_1 => {
                made.bytes.extend(m.to_le_bytes());
                m.to_f32()
            }
            _ => -8.0 * d,
        };
        let q: Vec<u8> = (0..16).map(|_| byte(rng, [0, 255])).collect();
        made.values.extend(q.iter().map(|q| d * f32::from(q & 15) + offset));
        made.values.extend(q.iter().map(|q| d * f32::from(q >> 4) + offset));
        made.bytes.extend(q);
    }
    made
}

fn product(isa: Isa, dense: bool, source: &Source, x: &[f32], rows: usize, pool: &Pool) -> Vec<f32> {
    let matrix = pack_matrix(isa, dense, source.inputs, std::slice::from_ref(source), pool).unwrap();
    let kind = if dense { ActivationKind::Dense } else { ActivationKind::Quantized };
    let mut acts = Activations::new(isa, kind);
    let width = source.inputs;
    acts.fill(rows, width, &mut [], pool, |row, _, out| out.copy_from_slice(&x[row * width..][..width]));
    // One column more on each side, which must stay as it is.
    let stride = source.outputs + 2;
    let mut out = vec![7.0; rows * stride];
    matmul(&matrix, &acts, &mut out, stride, 1, pool);
    let mut inner = Vec::new();
    for row in out.chunks_exact(stride) {
        assert!(row[0] == 7.0 && row[stride - 1] == 7.0, "neighbors of the product were written");
        inner.extend_from_slice(&row[1..stride - 1]);
    }
    inner
}

/// What the quantized activations stand for.
fn quantized(x: &[f32], width: usize) -> Vec<f64> {
    let blocks = x.chunks(width).flat_map(|row| row.chunks(32));
    blocks
        .flat_map(|block| {
            let mut padded = [0.0; 32];
            padded[..block.len()].copy_from_slice(block);
            let mut q = [0; 32];
            let (d, _) = super::activations::quantize_block(&padded, &mut q);
            q[..block.len()].iter().map(|&q| f64::from(d) * f64::from(q)).collect::<Vec<_>>()
        })
        .collect()
}

fn relative_error(found: &[f32], source: &Source, x: &[f64], rows: usize) -> f64 {
    let (n, k) = (source.outputs, source.inputs);
    let (mut error, mut size) = (0.0, 0.0);
    for row in 0..rows {
        for j in 0..n {
            let terms = (0..k).map(|i| x[row * k + i] * f64::from(source.values[j * k + i]));
            let exact: f64 = terms.clone().sum();
            error += (f64::from(found[row * n + j]) - exact).powi(2);
            // Against the size of the terms, so that a sum that happens to cancel does not count as an error.
            size += terms.map(|t| t * t).sum::<f64>();
        }
    }
    (error / size.max(1e-30)).sqrt()
}

/// The largest error of an output over what rounding may do to it: a sum of k products in f32, in any order, is off by
/// at most (k + a few) u times the sum of the products' sizes, u = 2^-24 (Higham, Accuracy and Stability of Numerical
/// Algorithms, section 3.1).
fn error_over_rounding(found: &[f32], source: &Source, x: &[f64], rows: usize) -> f64 {
    let (n, k) = (source.outputs, source.inputs);
    let unit = f64::from(f32::EPSILON) / 2.0;
    let mut worst: f64 = 0.0;
    for row in 0..rows {
        for j in 0..n {
            let terms = (0..k).map(|i| x[row * k + i] * f64::from(source.values[j * k + i]));
            let (exact, sizes) = terms.fold((0.0, 0.0), |(sum, sizes), term| (sum + term, sizes + term.abs()));
            let error = (f64::from(found[row * n + j]) - exact).abs();
            worst = worst.max(error / (sizes * unit * (k + 8) as f64).max(1e-30));
        }
    }
    worst
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn products_agree_with_f64_and_a_row_does_not_depend_on_the_others(
        rows in 1usize..40, outputs in 1usize..70, blocks in 1usize..9, ragged in 0usize..32,
        format in prop::sample::select(vec![
            SourceFormat::Q4_0, SourceFormat::Q4_1, SourceFormat::Q8_0, SourceFormat::Rows]),
        extreme: bool, dense: bool, seed in 1u64..,
    ) {
        let mut rng = Numbers(seed);
        let inputs = if format == SourceFormat::Rows { blocks * 32 - ragged } else { blocks * 32 };
        let source = source(format, outputs, inputs, extreme, &mut rng);
        let x: Vec<f32> = (0..rows * inputs)
            .map(|i| if extreme { 1.0 - 2.0 * (i / inputs % 2) as f32 } else { rng.float() })
            .collect();
        let pool = Pool::new(2).unwrap();
        for isa in Isa::available() {
            let found = product(isa, dense, &source, &x, rows, &pool);
            let meant = if dense { x.iter().map(|&x| f64::from(x)).collect() } else { quantized(&x, inputs) };
            if format == SourceFormat::Rows && !dense {
                // Rows become 8 bits when packed: that error is the format's, not the kernel's.
                let error = relative_error(&found, &source, &meant, rows);
                prop_assert!(error < 0.03, "{}: {error}", isa.name());
            } else {
                let error = error_over_rounding(&found, &source, &meant, rows);
                prop_assert!(error <= 1.0, "{}: {error} times the rounding error", isa.name());
            }
            let row = rows / 2;
            let alone = product(isa, dense, &source, &x[row * inputs..][..inputs], 1, &pool);
            prop_assert_eq!(&alone, &found[row * outputs..][..outputs]);
        }
    }

    #[test]
    fn a_packed_output_reads_back_as_it_was_stored(
        outputs in 1usize..40, blocks in 1usize..5, seed in 1u64..,
        format in prop::sample::select(vec![SourceFormat::Q4_0, SourceFormat::Q4_1, SourceFormat::Q8_0]),
        dense: bool,
    ) {
        let source = source(format, outputs, blocks * 32, false, &mut Numbers(seed));
        let pool = Pool::new(1).unwrap();
        for isa in Isa::available() {
            let matrix = pack_matrix(isa, dense, blocks * 32, std::slice::from_ref(&source), &pool).unwrap();
            let mut row = vec![0.0; blocks * 32];
            for j in 0..outputs {
                matrix.read_output(j, &mut row);
                prop_assert_eq!(&row[..], &source.values[j * blocks * 32..][..blocks * 32]);
            }
        }
    }

    #[test]
    fn attention_agrees_with_f64_through_shuffled_blocks(
        group in 1usize..10, n_kv_heads in 1usize..3, half_dim in 1usize..36, rows in 1usize..20,
        position in 0usize..60, window in 1usize..90, half_precision: bool, seed in 1u64..,
    ) {
        let (head_dim, n_heads) = (2 * half_dim, group * n_kv_heads);
        let shape = AttentionShape { n_heads, n_kv_heads, head_dim, block_size: 16, window };
        let end = position + rows;
        let n_blocks = end.div_ceil(16);
        let blocks: Vec<u32> = (0..n_blocks as u32).rev().collect();
        let mut rng = Numbers(seed);
        let mut layer = KvLayer::new(half_precision, &shape, n_blocks);
        // As the cache will hold them.
        let kept = |x: f32| if half_precision { f16::from_f32(x).to_f32() } else { x };
        let mut random = |n: usize| (0..n).map(|_| kept(rng.float())).collect::<Vec<f32>>();
        let (keys, values) = (random(end * n_kv_heads * head_dim), random(end * n_kv_heads * head_dim));
        let queries = random(rows * n_heads * head_dim);
        let writer = layer.writer(shape);
        for t in 0..end {
            for h in 0..n_kv_heads {
                let at = (t * n_kv_heads + h) * head_dim;
                let place = RowPlace { block: blocks[t / 16] as usize, slot: t % 16 };
                writer.put(place, h, &keys[at..][..head_dim], &values[at..][..head_dim]);
            }
        }
        let pool = Pool::new(2).unwrap();
        for isa in Isa::available() {
            let most = query_rows_per_tile(isa, &shape);
            let tiles: Vec<Tile<'_>> = (0..rows)
                .step_by(most)
                .map(|row| Tile { row, rows: most.min(rows - row), position: position + row, blocks: &blocks })
                .collect();
            let query_stride = n_heads * head_dim;
            let work = Attention { isa, shape, layer: &layer, queries: &queries, query_stride, tiles: &tiles };
            let mut out = vec![0.0; rows * n_heads * head_dim];
            attend(&work, &mut out, &mut vec![0.0; 2 * shape.scratch(isa, end)], &pool);
            for (i, query) in queries.chunks_exact(head_dim).enumerate() {
                let (last, kv) = (position + i / n_heads, i % n_heads / group);
                let seen = (last + 1).saturating_sub(window)..last + 1;
                let at = |t: usize| (t * n_kv_heads + kv) * head_dim;
                let dot = |t: usize| -> f64 {
                    (0..head_dim).map(|d| f64::from(query[d]) * f64::from(keys[at(t) + d])).sum()
                };
                let max = seen.clone().map(dot).fold(f64::MIN, f64::max);
                let weights: Vec<f64> = seen.clone().map(|t| (dot(t) - max).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for d in 0..head_dim {
                    let terms = seen.clone().zip(&weights).map(|(t, w)| w / sum * f64::from(values[at(t) + d]));
                    let exact: f64 = terms.sum();
                    let found = f64::from(out[i * head_dim + d]);
                    // Scores of a thousand keep four digits behind the point in `f32`.
                    prop_assert!((found - exact).abs() < 1e-3 * (1.0 + exact.abs()), "{}: {found} {exact}", isa.name());
                }
            }
        }
    }
}
