//! (laid next)
