//! What marketing text is made of: briefs, channels, languages, checks, ranking. Pure: no I/O, no clock, no async.

pub mod brand_kit;
pub mod brief;
pub mod channel;
mod channel_data;
pub mod check;
pub mod language;
pub mod product;
pub mod text;
pub mod units;
