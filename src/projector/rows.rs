//! The projected rows as a scan of the log meets them: their versions, in the order of their ids, so
//! that what is up to date is passed over without being loaded.

use std::{iter::Peekable, vec};

use futures::{FutureExt, future::BoxFuture};

use crate::{
    database::Result,
    model::id::DocumentId,
    store::{Documents, RowVersion, Versions},
};

type Next<V> = BoxFuture<'static, (V, Result<Option<Vec<RowVersion>>>)>;

/// An ordered walk over the versions of the rows. The next batch is always being fetched.
pub(super) struct Rows<D: Documents> {
    next: Option<Next<D::Versions>>,
    ready: Peekable<vec::IntoIter<RowVersion>>,
    /// The last row that was handed out: where to begin again.
    last: Option<DocumentId>,
    is_over: bool,
}

impl<D: Documents> Rows<D> {
    /// A walk from the first row on.
    pub(super) fn new() -> Self {
        Self { next: None, ready: Vec::new().into_iter().peekable(), last: None, is_over: false }
    }

    /// The next row, if it does not stand behind `end`; every row if there is none. After an error, or
    /// when dropped, begins again behind the last row that was handed out.
    pub(super) async fn next(
        &mut self,
        store: &D,
        end: Option<&DocumentId>,
    ) -> Result<Option<RowVersion>> {
        loop {
            let wanted = |row: &RowVersion| end.is_none_or(|end| row.id <= *end);
            match self.ready.peek() {
                Some(row) if !wanted(row) => return Ok(None),
                Some(_) => {}
                None if self.is_over => return Ok(None),
                None => {
                    self.fetch(store).await?;
                    continue;
                }
            }
            let Some(row) = self.ready.next() else { continue };
            // A walk that began again may begin with the last row.
            if self.last.as_ref().is_none_or(|last| row.id > *last) {
                self.last = Some(row.id.clone());
                return Ok(Some(row));
            }
        }
    }

    async fn fetch(&mut self, store: &D) -> Result<()> {
        if self.next.is_none() {
            self.next = Some(fetch(store.versions(self.last.as_ref()).await?));
        }
        let Some(next) = &mut self.next else { return Ok(()) };
        let (walk, batch) = next.await;
        self.next = None;
        match batch? {
            Some(rows) => {
                self.ready = rows.into_iter().peekable();
                self.next = Some(fetch(walk));
            }
            None => self.is_over = true,
        }
        Ok(())
    }
}

fn fetch<V: Versions + 'static>(mut walk: V) -> Next<V> {
    async move {
        let batch = walk.next().await;
        (walk, batch)
    }
    .boxed()
}
