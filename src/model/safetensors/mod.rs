//! Safetensors weights in Hugging Face's layout, one file or several, over memory maps. Headers are checked by the
//! `safetensors` crate against the file's length before anything is used.

mod config_json;

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;
use safetensors::{Dtype, SafeTensors};
use thiserror::Error;

use super::mapped_file::{FileError, MappedFile};
use super::weights::{WeightView, Weights};
pub use config_json::{ConfigError, HfConfig};

/// Bytes before the header: its length.
const LENGTH_BYTES: usize = 8;
/// More than any sharded model that runs on one machine.
pub const MAX_SHARDS: usize = 256;

#[derive(Debug, Error)]
pub enum SafetensorsError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} is not a safetensors file, or is a partial download", path.display())]
    Header {
        path: PathBuf,
        #[source]
        source: safetensors::SafeTensorError,
    },
    #[error("{} holds {name} as {dtype:?}; F32, F16 and BF16 are supported", path.display())]
    Type { path: PathBuf, name: String, dtype: Dtype },
    #[error("{} holds {name}, which another shard holds too", path.display())]
    Duplicate { path: PathBuf, name: String },
    #[error("the model has {shards} weight files, at most {limit} are read")]
    TooManyShards { shards: usize, limit: usize },
}

/// Open weight files.
#[derive(Debug)]
pub struct SafetensorsFiles {
    files: Vec<MappedFile>,
    tensors: HashMap<String, Entry>,
    /// The head is the embedding, whatever the files hold.
    tied: bool,
}

#[derive(Debug)]
struct Entry {
    file: usize,
    shape: Vec<usize>,
    dtype: GgmlDType,
    range: Range<usize>,
}

impl SafetensorsFiles {
    /// Maps all shards and reads their headers. `tied`: config.json's `tie_word_embeddings`.
    ///
    /// # Errors
    /// See [`SafetensorsError`].
    pub fn open<P: AsRef<Path>>(paths: &[P], tied: bool) -> Result<Self, SafetensorsError> {
        if paths.len() > MAX_SHARDS {
            return Err(SafetensorsError::TooManyShards { shards: paths.len(), limit: MAX_SHARDS });
        }
        let mut opened = Self { files: Vec::with_capacity(paths.len()), tensors: HashMap::new(), tied };
        for path in paths {
            opened.add(path.as_ref())?;
        }
        Ok(opened)
    }

    /// Numbers stored, all tensors together.
    pub fn parameters(&self) -> u64 {
        self.tensors.values().map(|entry| entry.shape.iter().product::<usize>() as u64).sum()
    }

    /// The type that most numbers have.
    pub fn dominant_dtype(&self) -> Option<GgmlDType> {
        let largest = self.tensors.values().max_by_key(|entry| entry.shape.iter().product::<usize>())?;
        Some(largest.dtype)
    }

    fn add(&mut self, path: &Path) -> Result<(), SafetensorsError> {
        let file = MappedFile::open(path)?;
        let (header_bytes, metadata) = SafeTensors::read_metadata(&file)
            .map_err(|source| SafetensorsError::Header { path: path.to_owned(), source })?;
        let data = LENGTH_BYTES + header_bytes;
        for (name, info) in metadata.tensors() {
            let Some(dtype) = ggml_dtype(info.dtype) else {
                // Buffers such as position ids are of no use here; weights must be floats.
                if name.ends_with(".weight") || name.ends_with(".bias") {
                    return Err(SafetensorsError::Type { path: path.to_owned(), name, dtype: info.dtype });
                }
                continue;
            };
            let range = data + info.data_offsets.0..data + info.data_offsets.1;
            let entry = Entry { file: self.files.len(), shape: info.shape.clone(), dtype, range };
            if self.tensors.insert(name.clone(), entry).is_some() {
                return Err(SafetensorsError::Duplicate { path: path.to_owned(), name });
            }
        }
        self.files.push(file);
        Ok(())
    }
}

impl Weights for SafetensorsFiles {
    fn view(&self, name: &str) -> Option<WeightView<'_>> {
        if self.tied && name == "output.weight" {
            return None;
        }
        let entry = self.tensors.get(&hugging_face_name(name)?)?;
        let bytes = self.files.get(entry.file)?.get(entry.range.clone())?;
        Some(WeightView { shape: entry.shape.clone(), dtype: entry.dtype, bytes })
    }
}

fn ggml_dtype(dtype: Dtype) -> Option<GgmlDType> {
    match dtype {
        Dtype::F32 => Some(GgmlDType::F32),
        Dtype::F16 => Some(GgmlDType::F16),
        Dtype::BF16 => Some(GgmlDType::BF16),
        _ => None,
    }
}

/// GGUF's name of a tensor (see [`super::weights`]) in Hugging Face's words.
fn hugging_face_name(name: &str) -> Option<String> {
    let whole = match name {
        "token_embd.weight" => "model.embed_tokens.weight",
        "output.weight" => "lm_head.weight",
        "output_norm.weight" => "model.norm.weight",
        _ => "",
    };
    if !whole.is_empty() {
        return Some(whole.to_owned());
    }
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    let (part, kind) = part.rsplit_once('.')?;
    let part = match part {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "attn_output" => "self_attn.o_proj",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{part}.{kind}"))
}

#[cfg(test)]
mod tests {
    use super::hugging_face_name;

    #[test]
    fn names_are_translated() {
        let name = |gguf| hugging_face_name(gguf);
        assert_eq!(name("blk.12.attn_q.bias").as_deref(), Some("model.layers.12.self_attn.q_proj.bias"));
        assert_eq!(name("blk.0.ffn_norm.weight").as_deref(), Some("model.layers.0.post_attention_layernorm.weight"));
        assert_eq!(name("token_embd.weight").as_deref(), Some("model.embed_tokens.weight"));
        assert_eq!(name("rope_freqs.weight"), None);
    }
}
