//! What copy is written from: the data that ships with the program, loaded and checked once at start.

use thiserror::Error;

use crate::domain::brand_kit::{BrandKitError, BrandKits};
use crate::domain::channel::{ChannelError, Channels};
use crate::domain::check::claims::{Claims, ClaimsError};
use crate::domain::composer::{Composer, ComposerError};
use crate::domain::prompt::{PromptDataError, Prompts};

/// All data of the copy services.
#[derive(Debug)]
pub struct Library {
    pub channels: Channels,
    pub brand_kits: BrandKits,
    pub prompts: Prompts,
    pub composer: Composer,
    pub claims: Claims,
}

/// A data file that cannot be used.
#[derive(Debug, Error)]
pub enum LibraryError {
    #[error("channel data cannot be used")]
    Channels(#[source] ChannelError),
    #[error("brand kits cannot be used")]
    BrandKits(#[source] BrandKitError),
    #[error("prompts cannot be used")]
    Prompts(#[source] PromptDataError),
    #[error("templates cannot be used")]
    Templates(#[source] ComposerError),
    #[error("claims cannot be used")]
    Claims(#[source] ClaimsError),
}

impl Library {
    /// The data that ships with the program.
    ///
    /// # Errors
    /// When a file is wrong; the source says where.
    pub fn embedded() -> Result<Self, LibraryError> {
        Ok(Self {
            channels: Channels::embedded().map_err(LibraryError::Channels)?,
            brand_kits: BrandKits::embedded().map_err(LibraryError::BrandKits)?,
            prompts: Prompts::embedded().map_err(LibraryError::Prompts)?,
            composer: Composer::embedded().map_err(LibraryError::Templates)?,
            claims: Claims::embedded().map_err(LibraryError::Claims)?,
        })
    }
}
