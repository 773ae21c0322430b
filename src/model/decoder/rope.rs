//! Rotary position embeddings: the frequencies of a model, and the angles of a step's rows.

use std::f32::consts::PI;

use crate::model::config::{DecoderConfig, RopePairing, RopeScaling};
use crate::model::kernels::{self, Isa};

/// The frequencies of a model, `head_dim / 2` of them.
pub(super) struct Rope {
    pairing: RopePairing,
    frequencies: Vec<f32>,
}

/// Cosines and sines of a step's rows; refilled in each step.
#[derive(Default)]
pub(super) struct Angles {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    pub(super) fn new(config: &DecoderConfig) -> Self {
        let dim = config.head_dim;
        let plain = (0..dim).step_by(2).map(|i| 1.0 / config.rope_theta.powf(i as f32 / dim as f32));
        let frequencies = match &config.rope_scaling {
            RopeScaling::None => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|f| f / factor).collect(),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context_length } => {
                let context = *original_context_length as f32;
                plain.map(|f| llama3(f, *factor, *low_freq_factor, *high_freq_factor, context)).collect()
            }
            RopeScaling::Divisors(divisors) => plain.zip(divisors).map(|(f, d)| f / d).collect(),
        };
        Self { pairing: config.rope_pairing, frequencies }
    }

    pub(super) fn fill(&self, positions: impl Iterator<Item = usize>, angles: &mut Angles) {
        angles.cos.clear();
        angles.sin.clear();
        for position in positions {
            for frequency in &self.frequencies {
                let (sin, cos) = (position as f32 * frequency).sin_cos();
                angles.cos.push(cos);
                angles.sin.push(sin);
            }
        }
    }

    /// Turns one head of row `row`.
    pub(super) fn turn(&self, isa: Isa, angles: &Angles, row: usize, head: &mut [f32]) {
        let half = self.frequencies.len();
        let (cos, sin) = (&angles.cos[row * half..][..half], &angles.sin[row * half..][..half]);
        match self.pairing {
            RopePairing::Adjacent => kernels::rope_adjacent(isa, head, cos, sin),
            RopePairing::Halves => kernels::rope_halves(isa, head, cos, sin),
        }
    }
}

/// Llama 3's rule (`rope_type = "llama3"` in Hugging Face's `modeling_rope_utils`): long waves are stretched by
/// `factor`, short ones kept, those between blended.
fn llama3(frequency: f32, factor: f32, low: f32, high: f32, context: f32) -> f32 {
    let wavelength = 2.0 * PI / frequency;
    if wavelength < context / high {
        frequency
    } else if wavelength > context / low {
        frequency / factor
    } else {
        let smooth = (context / wavelength - low) / (high - low);
        (1.0 - smooth) * frequency / factor + smooth * frequency
    }
}
