//! Weights of a Hugging Face folder: one or several safetensors files over memory maps, found by GGUF's names.

mod config;
mod names;

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use ::safetensors::Dtype;
use ::safetensors::tensor::Metadata;
use candle_core::quantized::GgmlDType;
use thiserror::Error;

pub use self::config::{FolderConfig, MAX_CONFIG_BYTES};
use super::mapped_file::{FileError, MappedFile};
use super::weights::{WeightView, Weights};

/// Headers of models with hundreds of layers stay under one megabyte.
const MAX_HEADER_BYTES: u64 = 16 << 20;
const MAX_SHARDS: usize = 1024;
/// Bytes of the header's length, before the header.
const LENGTH_BYTES: usize = 8;

/// The tensors of a folder.
#[derive(Debug)]
pub struct Safetensors {
    shards: Vec<MappedFile>,
    /// By Hugging Face's name.
    tensors: HashMap<String, Entry>,
    tied: bool,
}

#[derive(Debug, Clone)]
struct Entry {
    shard: usize,
    shape: Vec<usize>,
    dtype: GgmlDType,
    range: Range<usize>,
}

/// Why a folder was refused.
#[derive(Debug, Error)]
pub enum SafetensorsError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} has a header of {found} bytes, at most {limit} and no more than the file are allowed", path.display())]
    HeaderSize { path: PathBuf, found: u64, limit: u64 },
    #[error("{} has a header that is not valid", path.display())]
    Header {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{} holds {found} bytes of tensors, its header says {expected}; is it a partial download?", path.display())]
    Length { path: PathBuf, found: usize, expected: usize },
    #[error("tensor {name} has type {found:?}, which is not supported; convert it to F32, F16 or BF16")]
    TensorType { name: String, found: Dtype },
    #[error("tensor {name} has the shape {shape:?}; 1 to 4 dimensions, none of them zero, are supported")]
    TensorShape { name: String, shape: Vec<usize> },
    #[error("tensor {name} stands in two shards")]
    DuplicateTensor { name: String },
    #[error("there are {found} weight files, 1 to {limit} are supported")]
    Shards { found: usize, limit: usize },
    #[error("config.json is not the JSON expected")]
    Config(#[source] serde_json::Error),
    #[error("config.json: {key} is {found}, it must be {expected}")]
    Value { key: &'static str, found: String, expected: String },
    #[error("config.json: {what} is not supported: {found}; supported: {supported}")]
    Unsupported { what: &'static str, found: String, supported: &'static str },
}

impl Safetensors {
    /// Maps the shards and reads their headers. `tied`: the embedding is the output head, whatever the files hold.
    ///
    /// # Errors
    /// A [`SafetensorsError`] that names the file or the tensor.
    pub fn open(shards: &[PathBuf], tied: bool) -> Result<Self, SafetensorsError> {
        if shards.is_empty() || shards.len() > MAX_SHARDS {
            return Err(SafetensorsError::Shards { found: shards.len(), limit: MAX_SHARDS });
        }
        let mut opened = Self { shards: Vec::new(), tensors: HashMap::new(), tied };
        for path in shards {
            let file = MappedFile::open(path)?;
            opened.add(path, &file)?;
            opened.shards.push(file);
        }
        Ok(opened)
    }

    /// Shapes and types of all tensors.
    pub fn tensors(&self) -> impl Iterator<Item = (&[usize], GgmlDType)> {
        self.tensors.values().map(|entry| (entry.shape.as_slice(), entry.dtype))
    }

    fn add(&mut self, path: &Path, bytes: &[u8]) -> Result<(), SafetensorsError> {
        let (metadata, data_start) = header(path, bytes)?;
        for (name, info) in metadata.tensors() {
            let dtype = match info.dtype {
                Dtype::F32 => GgmlDType::F32,
                Dtype::F16 => GgmlDType::F16,
                Dtype::BF16 => GgmlDType::BF16,
                found => return Err(SafetensorsError::TensorType { name, found }),
            };
            if info.shape.is_empty() || info.shape.len() > 4 || info.shape.contains(&0) {
                return Err(SafetensorsError::TensorShape { name, shape: info.shape.clone() });
            }
            let (start, end) = info.data_offsets;
            let range = data_start + start..data_start + end;
            let entry = Entry { shard: self.shards.len(), shape: info.shape.clone(), dtype, range };
            if self.tensors.insert(name.clone(), entry).is_some() {
                return Err(SafetensorsError::DuplicateTensor { name });
            }
        }
        Ok(())
    }
}

/// The header, whose tensors lie side by side and fill the file, and where their data begins.
fn header(path: &Path, bytes: &[u8]) -> Result<(Metadata, usize), SafetensorsError> {
    let path = || path.to_owned();
    let too_large = |found| SafetensorsError::HeaderSize { path: path(), found, limit: MAX_HEADER_BYTES };
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else { return Err(too_large(0)) };
    let length = u64::from_le_bytes(*length);
    let header = usize::try_from(length)
        .ok()
        .filter(|_| length <= MAX_HEADER_BYTES)
        .and_then(|length| rest.get(..length))
        .ok_or_else(|| too_large(length))?;
    // Checks sizes against shapes and that there are no gaps. The crate's own reader of whole files adds offsets
    // without a check for overflow, so the sum is compared here.
    let metadata: Metadata =
        serde_json::from_slice(header).map_err(|source| SafetensorsError::Header { path: path(), source })?;
    let (found, expected) = (rest.len() - header.len(), metadata.data_len());
    if found != expected {
        return Err(SafetensorsError::Length { path: path(), found, expected });
    }
    Ok((metadata, LENGTH_BYTES + header.len()))
}

impl Weights for Safetensors {
    fn view(&self, name: &str) -> Option<WeightView<'_>> {
        if self.tied && name == "output.weight" {
            return None;
        }
        let entry = self.tensors.get(&*names::hugging_face(name)?)?;
        let bytes = self.shards.get(entry.shard)?.get(entry.range.clone())?;
        Some(WeightView { shape: entry.shape.clone(), dtype: entry.dtype, bytes })
    }
}
