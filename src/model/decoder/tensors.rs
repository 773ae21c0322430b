//! A file's tensors, checked and read as `f32`.

use candle_core::Device;
use candle_core::quantized::{GgmlDType, ggml_file::qtensor_from_ggml};
use half::{bf16, f16};

use crate::model::kernels::{MatrixSource, SourceFormat};
use crate::model::weights::{WeightView, Weights, WeightsError};

/// A matrix of a file, its shape and size checked.
pub(super) struct Tensor<'a> {
    name: String,
    view: WeightView<'a>,
    outputs: usize,
    inputs: usize,
}

/// The matrix of that name.
pub(super) fn matrix<'a>(
    weights: &'a dyn Weights,
    name: &str,
    outputs: usize,
    inputs: usize,
) -> Result<Tensor<'a>, WeightsError> {
    let view = view(weights, name, &[outputs, inputs])?;
    // Rows of blocks are read one by one, so none may begin inside a block.
    if !inputs.is_multiple_of(view.dtype.block_size()) {
        let expected = vec![outputs, inputs.next_multiple_of(view.dtype.block_size())];
        return Err(WeightsError::Shape { name: name.to_owned(), found: view.shape, expected });
    }
    Ok(Tensor { name: name.to_owned(), view, outputs, inputs })
}

/// The vector of that name.
pub(super) fn vector(weights: &dyn Weights, name: &str, len: usize) -> Result<Vec<f32>, WeightsError> {
    let view = view(weights, name, &[len])?;
    let mut out = vec![0.0; len];
    read(name, view.dtype, view.bytes, &mut out)?;
    Ok(out)
}

/// As [`vector`], where the file may lack it.
pub(super) fn optional_vector(weights: &dyn Weights, name: &str, len: usize) -> Result<Option<Vec<f32>>, WeightsError> {
    weights.view(name).map(|_| vector(weights, name, len)).transpose()
}

fn view<'a>(weights: &'a dyn Weights, name: &str, expected: &[usize]) -> Result<WeightView<'a>, WeightsError> {
    let view = weights.view(name).ok_or_else(|| WeightsError::Missing { name: name.to_owned() })?;
    let elements: usize = expected.iter().product();
    let bytes = elements / view.dtype.block_size() * view.dtype.type_size();
    if view.shape != expected || view.bytes.len() != bytes {
        return Err(WeightsError::Shape { name: name.to_owned(), found: view.shape, expected: expected.to_vec() });
    }
    Ok(view)
}

impl MatrixSource for Tensor<'_> {
    type Error = WeightsError;

    fn outputs(&self) -> usize {
        self.outputs
    }

    fn format(&self) -> SourceFormat {
        match self.view.dtype {
            GgmlDType::Q4_0 => SourceFormat::Q4_0,
            GgmlDType::Q4_1 => SourceFormat::Q4_1,
            GgmlDType::Q8_0 => SourceFormat::Q8_0,
            _ => SourceFormat::Rows,
        }
    }

    fn bytes(&self) -> &[u8] {
        self.view.bytes
    }

    fn row(&self, output: usize, out: &mut [f32]) -> Result<(), WeightsError> {
        let row_bytes = self.inputs / self.view.dtype.block_size() * self.view.dtype.type_size();
        let bytes = &self.view.bytes[output * row_bytes..][..row_bytes];
        read(&self.name, self.view.dtype, bytes, out)
    }

    fn not_finite(&self) -> WeightsError {
        WeightsError::NotFinite { name: self.name.clone() }
    }
}

/// Reads `out.len()` values, every one finite.
fn read(name: &str, dtype: GgmlDType, bytes: &[u8], out: &mut [f32]) -> Result<(), WeightsError> {
    match dtype {
        GgmlDType::F32 => {
            for (x, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *x = f32::from_le_bytes(*b);
            }
        }
        GgmlDType::F16 => {
            for (x, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *x = f16::from_le_bytes(*b).to_f32();
            }
        }
        GgmlDType::BF16 => {
            for (x, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *x = bf16::from_le_bytes(*b).to_f32();
            }
        }
        _ => {
            let error = |source| WeightsError::Dequantize { name: name.to_owned(), source };
            // candle reads blocks in place and so needs them aligned as its types are, at most to 8 bytes.
            let mut aligned = vec![0u64; bytes.len().div_ceil(8)];
            for (word, chunk) in aligned.iter_mut().zip(bytes.chunks(8)) {
                let mut word_bytes = [0; 8];
                word_bytes[..chunk.len()].copy_from_slice(chunk);
                *word = u64::from_ne_bytes(word_bytes);
            }
            let aligned = crate::model::kernels::bytes_of(&aligned);
            let tensor = qtensor_from_ggml(dtype, &aligned[..bytes.len()], vec![out.len()], &Device::Cpu);
            let values = tensor.and_then(|t| t.dequantize(&Device::Cpu)).and_then(|t| t.to_vec1::<f32>());
            out.copy_from_slice(&values.map_err(error)?);
        }
    }
    match out.iter().all(|x| x.is_finite()) {
        true => Ok(()),
        false => Err(WeightsError::NotFinite { name: name.to_owned() }),
    }
}
