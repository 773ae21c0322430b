//! The tensor table of a GGUF header: names, shapes, types and checked byte ranges.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::quantized::GgmlDType;

use super::GgufError;
use super::reader::Reader;

pub(super) const MAX_DIMS: usize = 4;
pub(super) const DEFAULT_ALIGNMENT: u64 = 32;
/// 512 layers of a dozen tensors, and some.
const MAX_TENSORS: u64 = 16_384;
/// ggml's own limit is 63.
const MAX_NAME_BYTES: usize = 255;
/// Blocks hold 32-bit scales at most; anything less than 4 would misalign them.
const MIN_ALIGNMENT: u64 = 4;
const MAX_ALIGNMENT: u64 = 1 << 16;

/// Where a tensor lies and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorEntry {
    /// Row-major: `[outputs, inputs]`.
    pub shape: Vec<usize>,
    pub dtype: GgmlDType,
    /// In the file, checked to lie within it.
    pub(super) range: Range<usize>,
}

#[derive(Debug)]
pub(super) struct TensorTable {
    entries: BTreeMap<String, TensorEntry>,
}

impl TensorEntry {
    /// Values in the tensor; checked not to overflow.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

impl TensorTable {
    pub(super) fn parse(reader: &mut Reader<'_>, n_tensors: u64, alignment: u64) -> Result<Self, GgufError> {
        if n_tensors > MAX_TENSORS {
            return Err(GgufError::TooLarge { what: "the number of tensors", found: n_tensors, limit: MAX_TENSORS });
        }
        if !alignment.is_power_of_two() || !(MIN_ALIGNMENT..=MAX_ALIGNMENT).contains(&alignment) {
            return Err(GgufError::Value {
                key: "general.alignment".to_owned(),
                found: alignment.to_string(),
                expected: format!("a power of two from {MIN_ALIGNMENT} to {MAX_ALIGNMENT}"),
            });
        }
        let mut raw = Vec::new();
        for _ in 0..n_tensors {
            raw.push(RawTensor::read(reader)?);
        }
        let data_start = (reader.offset() as u64).next_multiple_of(alignment);
        let data_bytes = ((reader.offset() + reader.left()) as u64).saturating_sub(data_start);
        let mut entries = BTreeMap::new();
        for tensor in raw {
            let name = tensor.name.to_owned();
            let entry = tensor.check(alignment, data_start, data_bytes)?;
            if entries.insert(name.clone(), entry).is_some() {
                return Err(GgufError::DuplicateTensor { name });
            }
        }
        Ok(Self { entries })
    }

    pub(super) fn get(&self, name: &str) -> Option<&TensorEntry> {
        self.entries.get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &TensorEntry)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }
}

/// A row of the table as it stands in the file.
struct RawTensor<'a> {
    name: &'a str,
    /// Fastest-running dimension first.
    dims: Vec<u64>,
    dtype: u32,
    offset: u64,
}

impl<'a> RawTensor<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, GgufError> {
        let name = reader.string("a tensor's name")?;
        if name.len() > MAX_NAME_BYTES {
            return Err(GgufError::TooLarge {
                what: "the length of a tensor's name",
                found: name.len() as u64,
                limit: MAX_NAME_BYTES as u64,
            });
        }
        let n_dims = reader.u32("a tensor's dimensions")?;
        if n_dims as usize > MAX_DIMS {
            return Err(GgufError::TooLarge {
                what: "the number of a tensor's dimensions",
                found: n_dims.into(),
                limit: MAX_DIMS as u64,
            });
        }
        let dims = (0..n_dims).map(|_| reader.u64("a tensor's dimensions")).collect::<Result<Vec<_>, _>>()?;
        let dtype = reader.u32("a tensor's type")?;
        let offset = reader.u64("a tensor's offset")?;
        Ok(Self { name, dims, dtype, offset })
    }

    fn check(self, alignment: u64, data_start: u64, data_bytes: u64) -> Result<TensorEntry, GgufError> {
        let name = || self.name.to_owned();
        let misshapen = || GgufError::TensorShape { name: self.name.to_owned(), dims: self.dims.clone() };
        let dtype = dtype_of(self.dtype).ok_or_else(|| GgufError::TensorType { name: name(), found: self.dtype })?;
        let elements = self.dims.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim));
        let elements = elements.filter(|&n| n > 0 && !self.dims.is_empty()).ok_or_else(misshapen)?;
        let shape = self
            .dims
            .iter()
            .rev()
            .map(|&dim| usize::try_from(dim))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| misshapen())?;
        let row = shape.last().copied().unwrap_or(0);
        let block = dtype.block_size();
        if !row.is_multiple_of(block) {
            return Err(GgufError::TensorRow { name: name(), dtype, row, block });
        }
        if !self.offset.is_multiple_of(alignment) {
            return Err(GgufError::TensorAlignment { name: name(), offset: self.offset, alignment });
        }
        let bytes = (elements / block as u64).checked_mul(dtype.type_size() as u64).ok_or_else(misshapen)?;
        let within = self.offset.checked_add(bytes).is_some_and(|end| end <= data_bytes);
        // The data lies in a file that is mapped, so its offsets fit `usize`.
        let range = usize::try_from(data_start + self.offset.min(data_bytes))
            .ok()
            .zip(usize::try_from(bytes).ok())
            .filter(|_| within)
            .map(|(start, length)| start..start + length);
        let range =
            range.ok_or_else(|| GgufError::TensorRange { name: name(), bytes, offset: self.offset, data_bytes })?;
        Ok(TensorEntry { shape, dtype, range })
    }
}

/// ggml's type numbers, <https://github.com/ggml-org/ggml/blob/master/include/ggml.h>.
fn dtype_of(number: u32) -> Option<GgmlDType> {
    Some(match number {
        0 => GgmlDType::F32,
        1 => GgmlDType::F16,
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        9 => GgmlDType::Q8_1,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        15 => GgmlDType::Q8K,
        30 => GgmlDType::BF16,
        _ => return None,
    })
}
