//! What happens around every handler, from the outside in: observation, safety headers, panics and time, admission.

pub mod admit;
pub mod guard;
pub mod observe;
