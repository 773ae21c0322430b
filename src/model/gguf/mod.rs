//! GGUF files (versions 2 and 3) over a memory map. Every count and length is checked against what is left of the file
//! before anything is allocated, so a hostile file costs an error, not memory.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod hyperparameters;
mod metadata;
mod reader;
mod tensors;

use std::path::Path;

use thiserror::Error;

pub use self::metadata::Metadata;
use self::reader::Reader;
pub use self::tensors::TensorEntry;
use self::tensors::TensorTable;
use super::config::DecoderConfig;
use super::mapped_file::{FileError, MappedFile};
use super::weights::{WeightView, Weights};

/// An open GGUF file.
#[derive(Debug)]
pub struct Gguf {
    file: MappedFile,
    header: Header,
}

/// What a GGUF file says before its tensor data.
#[derive(Debug)]
pub struct Header {
    metadata: Metadata,
    tensors: TensorTable,
}

/// Why a GGUF file was refused.
#[derive(Debug, Error)]
pub enum GgufError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("not a GGUF file: it starts with {found:02x?}, not with \"GGUF\"")]
    Magic { found: Vec<u8> },
    #[error("GGUF version {version} is not supported, only 2 and 3 are (byte order: little-endian)")]
    Version { version: u32 },
    #[error(
        "the file ends in the middle of {what}: {needed} bytes needed at byte {offset}, {left} left; is it a partial download?"
    )]
    Truncated { what: &'static str, offset: usize, needed: u64, left: usize },
    #[error("{what} is {found}, at most {limit} is allowed")]
    TooLarge { what: &'static str, found: u64, limit: u64 },
    #[error("{what} at byte {offset} is not UTF-8")]
    NotText { what: &'static str, offset: usize },
    #[error("metadata {key} has value type {found}, which GGUF does not define")]
    ValueType { key: String, found: u32 },
    #[error("metadata {key} nests arrays deeper than {limit}")]
    Nesting { key: String, limit: usize },
    #[error("metadata {key} appears twice")]
    DuplicateKey { key: String },
    #[error("metadata {key} is missing")]
    MissingKey { key: String },
    #[error("metadata {key} is not {expected}")]
    WrongType { key: String, expected: &'static str },
    #[error("metadata {key} is {found}, it must be {expected}")]
    Value { key: String, found: String, expected: String },
    #[error("{what} is not supported: {found}; supported: {supported}")]
    Unsupported { what: &'static str, found: String, supported: &'static str },
    #[error("tensor {name} appears twice")]
    DuplicateTensor { name: String },
    #[error(
        "tensor {name} has type {found}, which is not supported; convert it to F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 or a K-quant"
    )]
    TensorType { name: String, found: u32 },
    #[error("tensor {name} has dimensions {dims:?}; 1 to {limit} are supported, none of them zero, their product within the file's size", limit = tensors::MAX_DIMS)]
    TensorShape { name: String, dims: Vec<u64> },
    #[error("tensor {name} of type {dtype:?} has rows of {row} values, not a multiple of {block}")]
    TensorRow { name: String, dtype: candle_core::quantized::GgmlDType, row: usize, block: usize },
    #[error("tensor {name} starts at {offset}, not a multiple of the alignment {alignment}")]
    TensorAlignment { name: String, offset: u64, alignment: u64 },
    #[error(
        "tensor {name} needs {bytes} bytes at {offset} of the tensor data, which has {data_bytes}; is it a partial download?"
    )]
    TensorRange { name: String, bytes: u64, offset: u64, data_bytes: u64 },
    #[error("tensor {name} is missing")]
    MissingTensor { name: &'static str },
    #[error("tensor {name} has shape {found:?}, expected {expected}")]
    MisshapenTensor { name: &'static str, found: Vec<usize>, expected: String },
    #[error("tensor {name} must hold positive, finite F32 values")]
    BadDivisors { name: &'static str },
}

impl Gguf {
    /// Maps a file and reads its header.
    ///
    /// # Errors
    /// A [`GgufError`] that says what in the file is wrong.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let file = MappedFile::open(path)?;
        let header = Header::parse(&file)?;
        Ok(Self { file, header })
    }

    /// The key-value pairs, readable with the file's bytes at hand.
    pub fn metadata(&self) -> MetadataView<'_> {
        MetadataView { bytes: &self.file, metadata: &self.header.metadata }
    }

    /// All tensors, by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorEntry)> {
        self.header.tensors.iter()
    }

    /// The decoder's hyperparameters.
    ///
    /// # Errors
    /// When a key is missing, out of bounds, or asks for something the decoder does not do.
    pub fn decoder_config(&self) -> Result<DecoderConfig, GgufError> {
        hyperparameters::read(self.metadata(), self)
    }
}

impl Weights for Gguf {
    fn view(&self, name: &str) -> Option<WeightView<'_>> {
        let entry = self.header.tensors.get(name)?;
        let bytes = self.file.get(entry.range.clone())?;
        Some(WeightView { shape: entry.shape.clone(), dtype: entry.dtype, bytes })
    }
}

impl Header {
    /// Reads and checks everything before the tensor data. `bytes` is the whole file: ranges are checked against it.
    ///
    /// # Errors
    /// As for [`Gguf::open`].
    pub fn parse(bytes: &[u8]) -> Result<Self, GgufError> {
        let mut reader = Reader::new(bytes);
        let magic = reader.bytes(4, "the magic number")?;
        if magic != b"GGUF" {
            return Err(GgufError::Magic { found: magic.to_vec() });
        }
        let version = reader.u32("the version")?;
        if !matches!(version, 2 | 3) {
            return Err(GgufError::Version { version });
        }
        let n_tensors = reader.u64("the tensor count")?;
        let n_keys = reader.u64("the metadata count")?;
        let metadata = Metadata::parse(&mut reader, n_keys)?;
        let alignment = metadata.view(bytes).u64_or("general.alignment", tensors::DEFAULT_ALIGNMENT)?;
        let tensors = TensorTable::parse(&mut reader, n_tensors, alignment)?;
        Ok(Self { metadata, tensors })
    }

    /// The key-value pairs of the file these `bytes` are.
    pub fn metadata<'a>(&'a self, bytes: &'a [u8]) -> MetadataView<'a> {
        self.metadata.view(bytes)
    }
}

pub use self::metadata::MetadataView;

#[cfg(test)]
mod tests;
