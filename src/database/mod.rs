//! What `log` and `store` share about MongoDB: the connection and its checks, and the meaning of errors.

mod causal;
mod error;

pub use causal::Causal;
pub use error::{Error, Result, Verdict};
