//! What `log` and `store` share about MongoDB: the connection and its checks, and the meaning of errors.

mod ahead;
mod causal;
mod clock;
pub mod code;
mod connect;
pub mod create;
mod diagnose;
mod error;
mod refusal;
mod reply;
mod words;

pub use ahead::Ahead;
pub use causal::Causal;
pub use clock::{operation_time, server_time};
pub use connect::{Connected, connect};
pub use error::{Error, Result, Verdict, is_retryable_read};
pub use refusal::{ConnectError, check_hello, check_version};
pub use reply::reply_of;
