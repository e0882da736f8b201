//! Keeps an eye on into how many parts each collection is divided, and tells who keeps its projectors. What was
//! known stays known while the database is away. Whoever leads the first part of a collection also sees to it
//! that what is left of its earlier divisions goes.

use std::{collections::BTreeMap, time::Duration};

use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::{
    health::{Heart, beating},
    lease::Standing,
    logging::AUDIT,
    observe::Observer,
    retry::{ATTEMPT_LIMIT, limited},
    store::{Layout, Layouts},
    time::Time,
};

/// How often the layouts are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often what is left of earlier divisions is looked for.
const RETIRE_INTERVAL: Duration = Duration::from_secs(60);
/// The same, after the beginning and while the present parts have no places of their own yet.
const RETIRE_SOON: Duration = Duration::from_secs(5);

/// One collection whose layout is watched.
pub struct Watched {
    /// Is told of the layout.
    pub layout: watch::Sender<Option<u32>>,
    /// Where this instance stands with the first part.
    pub first: watch::Receiver<Standing>,
    /// Is told when the layout is none.
    pub observer: Observer,
}

/// See the module.
pub struct LayoutWatch<L, T> {
    /// Where layouts are kept.
    pub layouts: L,
    /// The time that it goes by.
    pub time: T,
    /// The collections.
    pub collections: BTreeMap<String, Watched>,
    /// Beats on every turn.
    pub heart: Heart,
}

impl<L: Layouts, T: Time> LayoutWatch<L, T> {
    /// Looks for ever. May be dropped at any moment.
    pub async fn run(self) {
        let mut retire_at = self.time.now() + RETIRE_SOON;
        let mut failed = false;
        loop {
            let look = limited(&self.time, ATTEMPT_LIMIT, self.layouts.load_layouts());
            match beating(&self.heart, &self.time, look).await {
                Ok(mut layouts) => {
                    if std::mem::take(&mut failed) {
                        self.observers().for_each(Observer::recovered);
                    }
                    for (name, watched) in &self.collections {
                        if watched
                            .follow(name, layouts.remove(name).unwrap_or((Layout::Parts(1), None)))
                        {
                            retire_at = self.time.now() + RETIRE_SOON;
                        }
                    }
                }
                Err(error) => {
                    let advice = error.advice();
                    warn!(%error, advice, "how collections are divided could not be read; trying again");
                    // Without this nothing is projected, so that nobody else tells of it.
                    self.observers().for_each(|observer| observer.error(&error));
                    failed = true;
                }
            }
            if self.time.now() >= retire_at {
                let is_over = beating(&self.heart, &self.time, self.retire()).await;
                let pause = if is_over { RETIRE_INTERVAL } else { RETIRE_SOON };
                retire_at = self.time.now() + pause;
            }
            beating(&self.heart, &self.time, self.time.sleep(LOOK_INTERVAL)).await;
        }
    }

    fn observers(&self) -> impl Iterator<Item = &Observer> {
        self.collections.values().map(|watched| &watched.observer)
    }

    /// Has what is left of earlier divisions forgotten, where this instance leads the first part; whether it does
    /// everywhere, and nothing is left.
    async fn retire(&self) -> bool {
        let mut is_over = true;
        for (name, watched) in &self.collections {
            let leads = matches!(*watched.first.borrow(), Standing::Leader(_));
            let of = watched.layout.borrow().filter(|_| leads);
            let Some(of) = of else {
                // It may lead soon: its predecessor may not have come to it.
                is_over = false;
                continue;
            };
            let retire = self.layouts.retire_layouts(name, of);
            match limited(&self.time, ATTEMPT_LIMIT, retire).await {
                Ok(retired) => is_over &= retired,
                Err(error) => {
                    debug!(collection = name, %error, "what is left of earlier divisions stays for now");
                    is_over = false;
                }
            }
        }
        is_over
    }
}

impl Watched {
    /// Takes over what was read; whether the collection is divided anew.
    fn follow(&self, collection: &str, (layout, by): (Layout, Option<String>)) -> bool {
        let of = match layout {
            Layout::Parts(of) => of,
            Layout::Damaged(found) => {
                let problem = format!(
                    "by `alluvium.meta` `{collection}` is divided into {found} parts, which is no number of parts; \
                     `alluvium parts {collection} N` sets it"
                );
                self.observer
                    .layout(Some((problem, "until then it goes on as it was divided before")));
                return false;
            }
        };
        self.observer.layout(None);
        let known = self.layout.send_replace(Some(of));
        let is_new = known.is_some_and(|known| known != of);
        if is_new {
            info!(target: AUDIT, collection, parts = of, by, "divided anew by an operator");
        }
        is_new
    }
}
