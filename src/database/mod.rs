//! What `log` and `store` share about MongoDB: the connection and its checks, and the meaning of errors.

mod ahead;
mod causal;
pub mod code;
mod connect;
pub mod create;
mod error;

pub use ahead::Ahead;
pub use causal::Causal;
pub use connect::{ConnectError, Connected, check_hello, check_version, connect};
pub use error::{Error, Result, Verdict, is_retryable_read};
