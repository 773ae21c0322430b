//! The real default model, fetched once into the product's own cache.

use std::{path::PathBuf, sync::OnceLock};

use adquill::model::source::{Cache, Config, LogProgress, ModelFormat, fetch};

/// Path of the default model's GGUF file. `ADQUILL_TEST_MODEL` names another copy of it.
pub fn default_model() -> PathBuf {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL
        .get_or_init(|| {
            if let Some(path) = std::env::var_os("ADQUILL_TEST_MODEL") {
                return PathBuf::from(path);
            }
            let config = Config::default();
            let cache = Cache::open(&config).unwrap();
            let files = fetch(&config.source().unwrap(), &cache, &LogProgress::default())
                .unwrap_or_else(|error| panic!("the default model cannot be fetched: {error}"));
            match files.format {
                ModelFormat::Gguf(path) => path,
                other => panic!("the default model is not a GGUF file: {other:?}"),
            }
        })
        .clone()
}
