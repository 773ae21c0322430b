//! The types of the wire and their conversion to and from the domain. No other room knows them.

pub mod ad_copy;
pub mod ad_copy_answer;
pub mod limits;
pub mod models;
pub mod product;
