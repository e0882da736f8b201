//! Work that takes more than a moment is done on a thread of its own. The threads that serve requests are few, and
//! health is served by them too: while one of them reads a clock of half a megabyte, nobody is told that the daemon lives.

use super::problem::{Kind, Problem};

/// Up to so many bytes are read or written in about a millisecond, less than it takes to notice.
const BYTES_MAX: usize = 32 * 1024;

/// Does work on so many bytes: at once where it is little, on another thread where it is more. Not by `block_in_place`,
/// which needs a runtime of several threads.
pub(super) async fn aside<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    if bytes <= BYTES_MAX {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Problem::new(Kind::Internal, format!("the work was not done: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[tokio::test]
    async fn only_what_takes_long_leaves_the_thread() {
        let here = thread::current().id();
        let at = |bytes| aside(bytes, || thread::current().id());
        assert_eq!(at(BYTES_MAX).await.unwrap(), here);
        assert_ne!(at(BYTES_MAX + 1).await.unwrap(), here);
    }
}
