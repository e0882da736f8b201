//! A replica: a copy of one document that follows by its clock alone, as a client without a connection
//! to the database would.

use bson::RawDocument;
use serde::{Serialize, de::DeserializeOwned};

use super::{DemoError, Error};
use crate::{
    model::{
        document::{Document, FoldLimits, Outcome},
        event::Event,
        id::DocumentId,
    },
    writer::EventSourced,
};

/// A phone with a copy of the game.
pub(super) struct Phone {
    document: Document,
}

impl Phone {
    /// A phone that has seen what there is now, and will then be offline.
    pub(super) async fn buy<T: Serialize + DeserializeOwned>(
        games: &EventSourced<T>,
        id: &DocumentId,
    ) -> Result<Self, Error> {
        let mut phone = Self { document: Document::new(id.clone()) };
        let missing = games.missing_events(id, &phone.document.clock).await?;
        for event in &missing.events {
            phone.apply(&event.raw)?;
        }
        Ok(phone)
    }

    pub(super) fn document(&self) -> &Document {
        &self.document
    }

    /// Folds one more event into the copy, with the daemon's own fold.
    pub(super) fn apply(&mut self, raw: &RawDocument) -> Result<(), Error> {
        match self.document.apply(&Event::decode(raw)?, &FoldLimits::default()) {
            Outcome::Applied(_) => Ok(()),
            other => {
                Err(DemoError::Wrong(format!("the phone cannot apply an event: {other:?}")).into())
            }
        }
    }
}
