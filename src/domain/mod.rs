//! What marketing text is made of: briefs, channels, languages, checks, ranking. Pure: no I/O, no clock, no async.

pub mod brief;
pub mod product;
pub mod text;
