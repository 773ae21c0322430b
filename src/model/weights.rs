//! Named tensors as they are stored, before a decoder packs them.
//!
//! Names are GGUF's, whatever the file: `token_embd.weight`, `output.weight` (absent when tied), `output_norm.weight`,
//! `rope_freqs.weight`, and for each layer `blk.{i}.` + `attn_norm.weight`, `attn_q|attn_k|attn_v.weight` (and `.bias`),
//! `attn_q_norm|attn_k_norm.weight`, `attn_output.weight`, `ffn_norm.weight`, `ffn_gate|ffn_up|ffn_down.weight`.
//! The safetensors reader translates them to Hugging Face's.

use std::borrow::Cow;

use candle_core::CpuStorage;
use candle_core::quantized::GgmlDType;
use thiserror::Error;

/// A tensor's bytes in the file, not yet dequantized.
#[derive(Debug, Clone)]
pub struct WeightView<'a> {
    /// Row-major: a matrix is `[outputs, inputs]`, a vector `[n]`.
    pub shape: Vec<usize>,
    pub dtype: GgmlDType,
    /// Exactly as many bytes as shape and type need.
    pub bytes: &'a [u8],
}

#[derive(Debug, Error)]
pub enum WeightsError {
    #[error("tensor {name} is missing")]
    Missing { name: String },
    #[error("tensor {name} has shape {found:?}, expected {expected:?}")]
    Shape { name: String, found: Vec<usize>, expected: Vec<usize> },
    #[error("tensor {name} has {found} bytes, its shape and type need {expected}")]
    Length { name: String, found: usize, expected: usize },
    #[error("tensor {name} holds a value that is not finite (NaN or infinity)")]
    NotFinite { name: String },
    #[error("tensor {name} cannot be dequantized")]
    Dequantize {
        name: String,
        #[source]
        source: candle_core::Error,
    },
}

/// A file, or several, that holds a model's tensors.
pub trait Weights: Send + Sync {
    /// The tensor of that name, if the file has it.
    fn view(&self, name: &str) -> Option<WeightView<'_>>;
}

/// The tensor of that name and shape.
///
/// # Errors
/// [`WeightsError::Missing`] or [`WeightsError::Shape`].
pub fn expect<'a>(weights: &'a dyn Weights, name: &str, shape: &[usize]) -> Result<WeightView<'a>, WeightsError> {
    match optional(weights, name, shape)? {
        Some(view) => Ok(view),
        None => Err(WeightsError::Missing { name: name.to_owned() }),
    }
}

/// As [`expect`], for a tensor that a model may lack (a bias, an output head).
///
/// # Errors
/// [`WeightsError::Shape`].
pub fn optional<'a>(
    weights: &'a dyn Weights,
    name: &str,
    shape: &[usize],
) -> Result<Option<WeightView<'a>>, WeightsError> {
    let Some(view) = weights.view(name) else { return Ok(None) };
    if view.shape != shape {
        let (found, expected) = (view.shape, shape.to_vec());
        return Err(WeightsError::Shape { name: name.to_owned(), found, expected });
    }
    Ok(Some(view))
}

impl WeightView<'_> {
    /// Every value in single precision, in the order of the shape. `name` is for the error.
    ///
    /// # Errors
    /// [`WeightsError::NotFinite`] for a NaN or an infinity (also one that a scale makes), and
    /// [`WeightsError::Length`] when there are not exactly as many bytes as the shape needs.
    pub fn to_f32(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let elements: usize = self.shape.iter().product();
        let expected = elements.div_ceil(self.dtype.block_size()) * self.dtype.type_size();
        if self.bytes.len() != expected || !elements.is_multiple_of(self.dtype.block_size()) {
            return Err(WeightsError::Length { name: name.to_owned(), found: self.bytes.len(), expected });
        }
        let values = match self.dtype {
            GgmlDType::F32 => le_chunks(self.bytes).map(f32::from_le_bytes).collect(),
            GgmlDType::F16 => le_chunks(self.bytes).map(|b| half::f16::from_le_bytes(b).to_f32()).collect(),
            GgmlDType::BF16 => le_chunks(self.bytes).map(|b| half::bf16::from_le_bytes(b).to_f32()).collect(),
            quantized => dequantize(quantized, self.bytes, elements, name)?,
        };
        if values.iter().all(|value| value.is_finite()) {
            Ok(values)
        } else {
            Err(WeightsError::NotFinite { name: name.to_owned() })
        }
    }
}

/// The bytes in little-endian words of `N`.
fn le_chunks<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

fn dequantize(dtype: GgmlDType, bytes: &[u8], elements: usize, name: &str) -> Result<Vec<f32>, WeightsError> {
    /// candle's blocks hold 32-bit scales at most.
    const ALIGNMENT: usize = 8;

    let failed = |source| WeightsError::Dequantize { name: name.to_owned(), source };
    let mut copy = Vec::new();
    // candle reads blocks in place and asserts that they are aligned, which bytes from anywhere need not be.
    let aligned = if bytes.as_ptr().align_offset(ALIGNMENT) == 0 {
        bytes
    } else {
        copy.resize(bytes.len() + ALIGNMENT, 0);
        let start = copy.as_ptr().align_offset(ALIGNMENT);
        let place = &mut copy[start..start + bytes.len()];
        place.copy_from_slice(bytes);
        place
    };
    match dtype.from_data(Cow::Borrowed(aligned)).dequantize(elements).map_err(failed)? {
        CpuStorage::F32(values) => Ok(values),
        _ => Err(failed(candle_core::Error::Msg("dequantized to another type than F32".to_owned()))),
    }
}
