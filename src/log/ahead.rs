//! Scanning ahead: the next batch of a scan is on its way, or here already, while the last is folded. It takes a task of
//! its own, since a request is only sent, and an answer only read, when somebody looks; the task ends with the scan
//! that it reads for.

use futures::StreamExt;
use mongodb::{ClientSession, raw_batch_cursor::SessionRawBatchCursor};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{Batch, Scan};
use crate::database::{Error, Result};

/// How many batches wait or are being read, beside the one that is being folded: each may have 16 MB.
const BATCHES_AHEAD_MAX: usize = 1;

/// An ordered walk over a log, in one causally consistent session.
pub struct MongoScan {
    batches: mpsc::Receiver<Result<Option<Batch>>>,
    _reader: AbortOnDropHandle<()>,
}

impl MongoScan {
    /// Begins to read.
    pub(super) fn new(session: ClientSession, cursor: SessionRawBatchCursor) -> Self {
        let (sender, batches) = mpsc::channel(BATCHES_AHEAD_MAX);
        let reader = tokio::spawn(read(session, cursor, sender));
        Self { batches, _reader: AbortOnDropHandle::new(reader) }
    }
}

async fn read(
    mut session: ClientSession,
    mut cursor: SessionRawBatchCursor,
    sender: mpsc::Sender<Result<Option<Batch>>>,
) {
    while let Ok(room) = sender.reserve().await {
        let batch = cursor.stream(&mut session).next().await.transpose();
        let batch = batch.map(|batch| batch.map(Batch::from)).map_err(Error::from);
        let is_last = !matches!(batch, Ok(Some(_)));
        room.send(batch);
        if is_last {
            return;
        }
    }
}

impl Scan for MongoScan {
    async fn next(&mut self) -> Result<Option<Batch>> {
        match self.batches.recv().await {
            Some(batch) => batch,
            None => Err(Error::unreachable("the scan of the log has ended before its end")),
        }
    }
}
