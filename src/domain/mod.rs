//! What marketing text is made of: briefs, channels, languages, checks, ranking. Pure: no I/O, no clock, no async.

pub mod brand_kit;
pub mod brief;
pub mod channel;
mod channel_data;
pub mod check;
pub mod clean;
pub mod composer;
mod data_file;
pub mod language;
pub mod product;
pub mod prompt;
pub mod rank;
pub mod text;
pub mod units;
