//! Reading ahead: while one batch of a walk is worked on, the next is already on its way. That takes a
//! task of its own, because the driver sends a request and reads the answer only while somebody polls
//! it. The task ends when the walk is dropped.

use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{Error, Result};

/// How many batches are read ahead. Each may have 16 MB.
const BATCHES_AHEAD_MAX: usize = 1;

/// The batches of a walk, one read ahead.
#[derive(Debug)]
pub struct Ahead<B> {
    batches: mpsc::Receiver<Result<Option<B>>>,
    _reader: AbortOnDropHandle<()>,
}

impl<B: Send + 'static> Ahead<B> {
    /// Begins to read.
    pub fn new(batches: impl Stream<Item = Result<B>> + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel(BATCHES_AHEAD_MAX);
        let reader = tokio::spawn(read(batches, sender));
        Self { batches: receiver, _reader: AbortOnDropHandle::new(reader) }
    }

    /// The next batch, or `None` at the end.
    ///
    /// # Errors
    /// Those of the walk, which is then over.
    pub async fn next(&mut self) -> Result<Option<B>> {
        match self.batches.recv().await {
            Some(batch) => batch,
            None => Err(Error::unreachable("a walk that has ended, or failed, was asked for more")),
        }
    }
}

async fn read<B>(
    batches: impl Stream<Item = Result<B>> + Send,
    sender: mpsc::Sender<Result<Option<B>>>,
) {
    let mut batches = std::pin::pin!(batches);
    while let Ok(room) = sender.reserve().await {
        let batch = batches.next().await.transpose();
        let is_last = !matches!(batch, Ok(Some(_)));
        room.send(batch);
        if is_last {
            return;
        }
    }
}
