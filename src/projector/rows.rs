//! The projected rows as a scan of the log meets them, in the order of their ids. Their versions are enough to pass
//! over what is up to date; where most of them turn out to be behind, the walk brings the rows themselves, so
//! that they need not be asked for once more.

use std::{iter::Peekable, vec};

use futures::{FutureExt, future::BoxFuture};

use crate::{
    database::Result,
    model::id::DocumentId,
    store::{Documents, Extent, RowVersion, Versions},
};

type Next<V> = BoxFuture<'static, (V, Result<Option<Vec<RowVersion>>>)>;

/// Of so many rows of a batch one has to be behind for the next batches to bring whole rows.
const BEHIND_SHARE: usize = 3;
/// Where not even one of so many is, versions are enough again.
const LEVEL_SHARE: usize = 8;

/// An ordered walk over the rows.
pub(super) struct Rows<D: Documents> {
    next: Option<Next<D::Versions>>,
    ready: Peekable<vec::IntoIter<RowVersion>>,
    /// The last row that was handed out: where to begin again.
    last: Option<DocumentId>,
    is_over: bool,
    extent: Extent,
    /// How many rows the present batch has, and how many of them were found to be behind.
    batch: usize,
    behind: usize,
}

impl<D: Documents> Rows<D> {
    /// A walk from the first row on, which begins by bringing so much of each.
    pub(super) fn new(extent: Extent) -> Self {
        Self {
            next: None,
            ready: Vec::new().into_iter().peekable(),
            last: None,
            is_over: false,
            extent,
            batch: 0,
            behind: 0,
        }
    }

    /// Notes that a row that was handed out is behind.
    pub(super) fn is_behind(&mut self) {
        self.behind += 1;
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
        self.adapt();
        if self.next.is_none() {
            self.next = Some(fetch(store.versions(self.last.as_ref(), self.extent).await?));
        }
        let Some(next) = &mut self.next else { return Ok(()) };
        let (walk, batch) = next.await;
        self.next = None;
        match batch? {
            Some(rows) => {
                (self.batch, self.behind) = (rows.len(), 0);
                self.ready = rows.into_iter().peekable();
                self.next = Some(fetch(walk));
            }
            None => self.is_over = true,
        }
        Ok(())
    }

    /// Chooses what the walk is to bring, by the batch that is over.
    fn adapt(&mut self) {
        let extent = match self.extent {
            Extent::Version if self.behind * BEHIND_SHARE > self.batch => Extent::Whole,
            Extent::Whole if self.behind * LEVEL_SHARE < self.batch => Extent::Version,
            same => same,
        };
        if extent != self.extent {
            (self.extent, self.next) = (extent, None);
        }
    }
}

fn fetch<V: Versions + 'static>(mut walk: V) -> Next<V> {
    async move {
        let batch = walk.next().await;
        (walk, batch)
    }
    .boxed()
}
