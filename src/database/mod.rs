//! What `log` and `store` share about MongoDB: the connection and its checks, and the meaning of errors.

mod error;

pub use error::{Error, Result, Verdict};
