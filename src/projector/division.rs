//! One projector for each part of a collection, as many as the database says. When that changes, the
//! projectors of all old parts flush, save and end before those of the new ones begin; other instances may be
//! earlier or later, which does no harm: where a part begins rests on saved checkpoints alone, and every row
//! is written only over what was read.

use std::collections::BTreeMap;

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    health::{Heart, beating},
    lease::{Leaderships, Standing},
    model::part::Part,
    observe::Observer,
    store::LeaseName,
    time::Time,
};

/// See the module.
pub struct Division<T: Time> {
    /// The collection.
    pub collection: String,
    /// Into how many parts it is divided; `None` until that is known.
    pub layout: watch::Receiver<Option<u32>>,
    /// The leases that this instance could hold: those of the present parts.
    pub leaderships: Leaderships,
    /// Where this instance stands with the first part. Who leads it does what is done once for the whole
    /// collection.
    pub first: watch::Sender<Standing>,
    /// Who is told.
    pub observer: Observer,
    /// The time that it goes by.
    pub time: T,
    /// Beats on every turn.
    pub heart: Heart,
}

impl<T: Time> Division<T> {
    /// Keeps projectors running until `stop`. `start` starts that of a part, which projects while its lease is
    /// held and ends, flushed and saved, when the token says so; what it gives completes then.
    ///
    /// Returns after `stop`, or when a projector has ended that was not told to.
    pub async fn run<E: Future<Output = ()>>(
        mut self,
        mut start: impl FnMut(Part, watch::Receiver<Standing>, CancellationToken) -> E,
        stop: CancellationToken,
    ) {
        while let Some(of) = self.known(&stop).await {
            self.observer.divided(of);
            let until = stop.child_token();
            let mut projectors = FuturesUnordered::new();
            let mut standings = BTreeMap::new();
            for part in Part::all(of) {
                let standing = self.leaderships.want(self.lease(part));
                projectors.push(start(part, standing.clone(), until.clone()));
                standings.insert(part, standing);
            }
            let first = standings.remove(&Part { index: 0, of });
            let has_ended = self.watch(of, first, &mut projectors, &stop).await;
            self.first.send_replace(Standing::Unknown);
            until.cancel();
            beating(&self.heart, &self.time, projectors.by_ref().for_each(async |()| {})).await;
            if has_ended {
                return;
            }
            if !stop.is_cancelled() {
                // Everything that was done under them is over. At a stop the keeper gives them back.
                Part::all(of).for_each(|part| self.leaderships.release(&self.lease(part)));
            }
        }
    }

    /// The number of parts, as soon as it is known; `None` at the stop.
    async fn known(&mut self, stop: &CancellationToken) -> Option<u32> {
        let known = beating(&self.heart, &self.time, self.layout.wait_for(Option::is_some));
        let known = stop.run_until_cancelled(known).await?;
        known.ok().and_then(|known| *known)
    }

    /// Waits until the projectors have to end; whether one of them has ended by itself.
    async fn watch<E: Future<Output = ()>>(
        &mut self,
        of: u32,
        first: Option<watch::Receiver<Standing>>,
        projectors: &mut FuturesUnordered<E>,
        stop: &CancellationToken,
    ) -> bool {
        let Self { layout, first: told, heart, time, .. } = self;
        let forwarding = async {
            let Some(mut first) = first else { return };
            loop {
                told.send_replace(*first.borrow_and_update());
                if first.changed().await.is_err() {
                    return;
                }
            }
        };
        let ending = async {
            tokio::select! {
                biased;
                () = stop.cancelled() => false,
                _changed = layout.wait_for(|now| now.is_some_and(|now| now != of)) => false,
                Some(()) = projectors.next() => !stop.is_cancelled(),
                () = async { forwarding.await; std::future::pending().await } => false,
            }
        };
        beating(heart, time, ending).await
    }

    fn lease(&self, part: Part) -> LeaseName {
        LeaseName { collection: self.collection.clone(), part }
    }
}
