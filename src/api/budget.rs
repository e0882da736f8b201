//! How much memory the answers of all requests may take together. How large one is is known once the database has sent it,
//! in up to 16 MB: so few are read at once, large ones are written one by one, and what waits to be sent has a bound.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::stream;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    aside::aside,
    guard::too_busy,
    problem::{Kind, Problem},
};

/// How many requests read documents or events at once.
const READS_AT_ONCE: usize = 8;
/// An answer of so many bytes of BSON is large.
const LARGE_BYTES: usize = 1 << 20;
/// How many mebibytes of large answers may wait to be sent. One that is larger waits until it is the only one.
const SENDING_MIB: u32 = 64;
/// How long a request waits for its turn.
const TURN_MAX: Duration = Duration::from_secs(5);
/// How long a large answer waits until others are written.
const WRITING_MAX: Duration = Duration::from_secs(30);

/// A text of JSON.
pub(super) type Text = serde_json::Result<Vec<u8>>;

/// See the module. Clones are one budget.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    reads: Arc<Semaphore>,
    large: Arc<Semaphore>,
    sending: Arc<Semaphore>,
    waits: Arc<Semaphore>,
}

impl Budget {
    /// For so many requests at once, of which a quarter is kept for those that do not wait for a version.
    pub(super) fn new(requests_max: usize) -> Self {
        let of = |permits| Arc::new(Semaphore::new(permits));
        let (sending, waits) = (of(SENDING_MIB as usize), of(requests_max - requests_max / 4));
        Self { reads: of(READS_AT_ONCE), large: of(1), sending, waits }
    }

    /// The right to wait until a document has come to a version, which may take long.
    pub(super) fn wait(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.waits.clone().try_acquire_owned().map_err(|_| too_busy())
    }

    /// The right to read from the database, once others have read.
    pub(super) async fn read(&self) -> Result<OwnedSemaphorePermit, Problem> {
        turn(&self.reads, 1, TURN_MAX).await
    }

    /// An answer of JSON, made out of so many bytes. Whoever waits for the turn to write holds what was read, and so the
    /// right to read.
    pub(super) async fn answer(
        &self,
        _reading: OwnedSemaphorePermit,
        status: StatusCode,
        bytes: usize,
        json: impl FnOnce() -> Text + Send + 'static,
    ) -> Result<Response, Problem> {
        let unwritten =
            |error| Problem::new(Kind::Internal, format!("the answer cannot be written: {error}"));
        let head = [(header::CONTENT_TYPE, "application/json")];
        if bytes < LARGE_BYTES {
            return Ok(
                (status, head, aside(bytes, json).await?.map_err(unwritten)?).into_response()
            );
        }
        let writing = turn(&self.large, 1, WRITING_MAX).await?;
        let text = Bytes::from(aside(bytes, json).await?.map_err(unwritten)?);
        let mib = u32::try_from(text.len() >> 20).unwrap_or(u32::MAX).clamp(1, SENDING_MIB);
        let sent = turn(&self.sending, mib, TURN_MAX).await?;
        drop(writing);
        let length = [(header::CONTENT_LENGTH, text.len())];
        Ok((status, head, length, held(text, sent)).into_response())
    }
}

/// A body that holds its share until it is sent, or nobody wants it any more.
fn held(text: Bytes, sent: OwnedSemaphorePermit) -> Body {
    const PIECE_BYTES: usize = 1 << 20;
    Body::from_stream(stream::unfold((text, sent), async |(mut text, sent)| {
        let piece = text.split_to(text.len().min(PIECE_BYTES));
        (!piece.is_empty()).then_some((Ok::<_, std::convert::Infallible>(piece), (text, sent)))
    }))
}

async fn turn(
    turns: &Arc<Semaphore>,
    permits: u32,
    longest: Duration,
) -> Result<OwnedSemaphorePermit, Problem> {
    match timeout(longest, turns.clone().acquire_many_owned(permits)).await {
        Ok(Ok(turn)) => Ok(turn),
        _ => Err(too_busy()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_leave_room_for_requests_that_do_not_wait() {
        let budget = Budget::new(4);
        let mut waits: Vec<_> = (0..3).map(|_| budget.wait().unwrap()).collect();
        assert_eq!(budget.wait().unwrap_err().kind, Kind::TooBusy);
        drop(waits.pop());
        assert!(budget.wait().is_ok());
    }

    #[tokio::test]
    async fn what_waits_to_be_sent_is_bounded_and_small_answers_pass() {
        tokio::time::pause();
        let budget = Budget::new(256);
        let answer = async |mib: usize| {
            let text = move || Ok(vec![b'1'; mib << 20]);
            budget.answer(budget.read().await?, StatusCode::OK, LARGE_BYTES, text).await
        };
        let first = answer(40).await.unwrap();
        assert_eq!(answer(40).await.unwrap_err().kind, Kind::TooBusy);
        let reading = budget.read().await.unwrap();
        let small = budget.answer(reading, StatusCode::OK, 1, || Ok(b"1".to_vec())).await;
        assert!(small.is_ok());
        let body = axum::body::to_bytes(first.into_body(), usize::MAX).await.unwrap();
        assert_eq!(body.len(), 40 << 20);
        // One that is larger than all of it has its turn as well.
        let large = answer(100).await.unwrap();
        assert!(answer(1).await.is_err());
        drop(large);
        answer(1).await.unwrap();
    }

    #[tokio::test]
    async fn few_read_at_once() {
        tokio::time::pause();
        let budget = Budget::new(256);
        let mut reading = Vec::new();
        for _ in 0..READS_AT_ONCE {
            reading.push(budget.read().await.unwrap());
        }
        assert_eq!(budget.read().await.unwrap_err().kind, Kind::TooBusy);
        reading.pop();
        drop(budget.read().await.unwrap());
    }
}
