//! GGUF's tensor names in Hugging Face's words.

use std::borrow::Cow;

/// `blk.0.attn_q.weight` becomes `model.layers.0.self_attn.q_proj.weight`; `None` for names that have no equal.
pub(super) fn hugging_face(name: &str) -> Option<Cow<'static, str>> {
    match name {
        "token_embd.weight" => return Some("model.embed_tokens.weight".into()),
        "output.weight" => return Some("lm_head.weight".into()),
        "output_norm.weight" => return Some("model.norm.weight".into()),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    let (part, kind) = rest.split_once('.')?;
    if !matches!(kind, "weight" | "bias") {
        return None;
    }
    let part = match part {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{part}.{kind}").into())
}

#[cfg(test)]
mod tests {
    use super::hugging_face;

    #[test]
    fn names_of_layers_and_of_the_whole_model_are_translated() {
        let translated = |name: &str| hugging_face(name).map(|name| name.into_owned());
        assert_eq!(translated("token_embd.weight").as_deref(), Some("model.embed_tokens.weight"));
        assert_eq!(translated("blk.12.attn_q.bias").as_deref(), Some("model.layers.12.self_attn.q_proj.bias"));
        assert_eq!(translated("blk.0.ffn_down.weight").as_deref(), Some("model.layers.0.mlp.down_proj.weight"));
        assert_eq!(translated("rope_freqs.weight"), None);
        assert_eq!(translated("blk.x.attn_q.weight"), None);
        assert_eq!(translated("blk.0.attn_q.scale"), None);
    }
}
