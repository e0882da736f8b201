//! The flush under way. It goes on beside whatever else the projection waits for.

use std::task::Poll;

use futures::{future::BoxFuture, poll};

use super::Flushed;
use crate::database::Result;

/// See the module.
#[derive(Default)]
pub(in crate::projector) enum Flushing {
    /// None is under way.
    #[default]
    Idle,
    /// It is being written.
    Running(BoxFuture<'static, Result<Flushed>>),
    /// It has returned while something else was awaited, and what became of it is not taken in yet.
    Returned(Box<Result<Flushed>>),
}

impl Flushing {
    /// Whether another flush may begin.
    pub(in crate::projector) fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }

    /// Lets it take its next step, without waiting for it.
    pub(in crate::projector) async fn advance(&mut self) {
        if let Self::Running(flush) = self
            && let Poll::Ready(flushed) = poll!(flush)
        {
            *self = Self::Returned(Box::new(flushed));
        }
    }

    /// What became of it, if it has returned.
    pub(in crate::projector) fn take(&mut self) -> Option<Result<Flushed>> {
        match std::mem::take(self) {
            Self::Returned(flushed) => Some(*flushed),
            other => {
                *self = other;
                None
            }
        }
    }

    /// Waits until it returns; for ever if none is under way. Can be dropped without losing anything.
    pub(in crate::projector) async fn returned(&mut self) -> Result<Flushed> {
        if let Self::Running(flush) = self {
            let flushed = flush.await;
            *self = Self::Returned(Box::new(flushed));
        }
        match self.take() {
            Some(flushed) => flushed,
            None => std::future::pending().await,
        }
    }

    /// Awaits `work` while the flush goes on.
    pub(in crate::projector) async fn beside<V>(&mut self, work: impl Future<Output = V>) -> V {
        tokio::pin!(work);
        if let Self::Running(flush) = self {
            tokio::select! {
                biased;
                flushed = &mut *flush => *self = Self::Returned(Box::new(flushed)),
                value = &mut work => return value,
            }
        }
        work.await
    }
}
