//! The scenarios: each a story with an end that can be checked.

pub mod first_pod;
mod stage;

pub use stage::Stage;
