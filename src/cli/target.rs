//! The document that a command is about.

use clap::Args;

use super::Globals;
use crate::{
    archive::Archive,
    config::Expect,
    model::id::DocumentId,
    read::{ReadLimits, Reader},
};

#[derive(Args, Clone, Debug)]
pub(super) struct Target {
    /// The collection
    pub(super) collection: String,
    /// The document's id: text; 24 hex digits for an ObjectId; Extended JSON such as {"$numberLong":"5"}; or a
    /// JSON string in its quotes
    #[arg(value_parser = DocumentId::from_text)]
    pub(super) id: DocumentId,
}

impl Target {
    /// Connects, with the limits that are configured for the collection, or the default ones.
    pub(super) async fn reader(
        &self,
        globals: &Globals,
    ) -> Result<Reader, Box<dyn std::error::Error + Send + Sync>> {
        let config = globals.load(Expect::Connection)?;
        let limits =
            ReadLimits { fold: config.fold_limits(&self.collection), ..ReadLimits::default() };
        let configured = config.collections.iter().find(|known| known.name == self.collection);
        let place = configured.and_then(|known| known.compaction.archive.as_ref());
        let database = &config.mongodb.database;
        let archive = place.map(|place| Archive::at(place, database, &self.collection));
        let connected = globals.open_known(&config.mongodb).await?;
        Ok(Reader::new(&connected.database, &self.collection, limits).with_archive(archive))
    }

    /// What to say when there is no such document.
    pub(super) fn unknown(&self) -> String {
        let Self { collection, id } = self;
        format!(
            "{id} of `{collection}` does not exist: it has no event, or had none yet; check the \
             collection, the id (24 hex digits are taken for an ObjectId) and --database"
        )
    }
}
