//! Keeps an eye on which collections are paused, and tells their projectors. What was known stays known
//! while the database is away.

use std::{collections::BTreeMap, time::Duration};

use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    database::Error,
    health::{Heart, beating},
    logging::AUDIT,
    retry::{ATTEMPT_LIMIT, limited},
    store::Pauses,
    time::Time,
};

/// How often the pauses are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// See the module.
pub struct PauseWatch<P, T> {
    /// Where pauses are kept.
    pub pauses: P,
    /// The time that it goes by.
    pub time: T,
    /// Whether each collection is paused; `None` until that is known.
    pub collections: BTreeMap<String, watch::Sender<Option<bool>>>,
    /// Beats on every turn.
    pub heart: Heart,
}

impl<P: Pauses, T: Time> PauseWatch<P, T> {
    /// Looks for ever. May be dropped at any moment.
    pub async fn run(self) {
        loop {
            let look = limited(&self.time, ATTEMPT_LIMIT, self.pauses.load_pauses());
            match beating(&self.heart, &self.time, look).await {
                Ok(paused) => {
                    for (name, sender) in &self.collections {
                        let by = paused.get(name);
                        let is_paused = Some(by.is_some());
                        let changed = sender.send_if_modified(|known| {
                            std::mem::replace(known, is_paused) != is_paused
                        });
                        if let Some(by) = by.filter(|_| changed) {
                            info!(target: AUDIT, collection = name, by, "paused by an operator");
                        }
                    }
                }
                Err(error) => self.unknown(&error),
            }
            beating(&self.heart, &self.time, self.time.sleep(LOOK_INTERVAL)).await;
        }
    }

    fn unknown(&self, error: &Error) {
        warn!(%error, "which collections are paused could not be read; trying again");
    }
}
