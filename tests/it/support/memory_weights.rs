//! Weights held in memory, as a decoder reads them.

use std::collections::HashMap;

use adquill::model::weights::{WeightView, Weights};
use candle_core::quantized::GgmlDType;

/// Tensors by name: shape, type, bytes.
#[derive(Default, Clone)]
pub struct MemoryWeights(pub HashMap<String, (Vec<usize>, GgmlDType, Vec<u8>)>);

impl MemoryWeights {
    pub fn from_f32(tensors: impl IntoIterator<Item = (String, Vec<usize>, Vec<f32>)>) -> Self {
        let bytes = |data: Vec<f32>| data.iter().flat_map(|x| x.to_le_bytes()).collect();
        Self(tensors.into_iter().map(|(name, shape, data)| (name, (shape, GgmlDType::F32, bytes(data)))).collect())
    }
}

impl Weights for MemoryWeights {
    fn view(&self, name: &str) -> Option<WeightView<'_>> {
        let (shape, dtype, bytes) = self.0.get(name)?;
        Some(WeightView { shape: shape.clone(), dtype: *dtype, bytes })
    }
}
