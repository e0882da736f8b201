//! Commands on the log of the in-memory replica set that say which log they mean, and what an operator has inserted by
//! them. What this claims about MongoDB is checked in `conformance`.

use bson::RawDocumentBuf;

use super::{
    log::SimLog,
    world::{State, World},
};
use crate::{
    database::{Error, Result},
    log::Mend,
    model::event::EventKey,
    planted::{Bug, planted},
};

impl State {
    /// Whether the primary has this very log under its name.
    pub(super) fn check_named(&self, log: &SimLog) -> Result<()> {
        let found = self.latest.collections.get(&log.collection);
        match found.is_some_and(|found| found.id == log.id) || planted(Bug::LogNotNamed) {
            true => Ok(()),
            false => Err(Error::log_mismatch(&log.collection, log.id)),
        }
    }
}

impl World {
    /// Waits until a majority read sees the log under its name, as one does behind a rename that the majority has not
    /// got yet.
    ///
    /// # Errors
    /// When the primary has no such log under that name.
    pub(super) async fn named(&self, log: &SimLog) -> Result<()> {
        let (world, log) = (self.clone(), log.clone());
        let named = move || {
            let state = world.state();
            if let Err(error) = state.check_named(&log) {
                return Some(Err(error));
            }
            let seen = state.visible.collections.get(&log.collection);
            let is_seen = seen.is_some_and(|seen| seen.id == log.id) || planted(Bug::LogNotNamed);
            is_seen.then_some(Ok(()))
        };
        self.sim.until(named).await
    }
}

impl Mend for SimLog {
    async fn insert(&self, events: &[RawDocumentBuf]) -> Result<()> {
        for event in events {
            let Ok(key) = EventKey::from_event(event) else { continue };
            let (world, name) =
                (self.node.world.clone(), self.node.name(|| format!("insert {key:?}")));
            let (row, log) = ((key, event.clone()), self.clone());
            let work = async move {
                world.state().check_named(&log)?;
                let (ticket, _duplicate) = world.insert_events(vec![row], false);
                let found = world.state().last();
                world.majority(ticket.unwrap_or(found)).await
            };
            self.node.call(&name, work).await?;
        }
        Ok(())
    }
}
