//! The document that a command is about.

use clap::Args;

use super::Globals;
use crate::{
    archive::Archive,
    config::Expect,
    model::id::DocumentId,
    read::{ReadError, ReadLimits, Reader},
};

/// What the names of logs end with.
const EVENTS_SUFFIX: &str = ".events";

/// A failure that is told as it stands.
type Failure = Box<dyn std::error::Error + Send + Sync>;

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
    pub(super) async fn reader(&self, globals: &Globals) -> Result<Reader, Failure> {
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

    /// The same for what is to be read through the archive, if `archive` says so.
    pub(super) async fn reader_through(
        &self,
        globals: &Globals,
        archive: bool,
    ) -> Result<Reader, Failure> {
        let reader = self.reader(globals).await?;
        match archive && !reader.has_archive() {
            true => Err(format!(
                "`{}` has no archive in this configuration; set `archive` in its [collections.compaction], or leave \
                 out --archive",
                self.collection
            )
            .into()),
            false => Ok(reader),
        }
    }

    /// Why a read failed. Where there is no log, it is told which there are.
    pub(super) async fn explained(&self, failure: Failure, reader: &Reader) -> Failure {
        let Some(ReadError::NoLog(log)) = failure.downcast_ref() else { return failure };
        let Ok(names) = reader.database().list_collection_names().await else { return failure };
        let mut known: Vec<&str> =
            names.iter().filter_map(|name| name.strip_suffix(EVENTS_SUFFIX)).collect();
        known.sort_unstable();
        let (collection, database) = (&self.collection, reader.database().name());
        let there = match known.is_empty() {
            true => "there is none with a log; check --database".to_owned(),
            false => format!("those that are there: {}", known.join(", ")),
        };
        format!("the database `{database}` has no collection `{collection}`, whose log is `{log}`; {there}").into()
    }

    /// What to say when there is no such document.
    pub(super) fn unknown(&self) -> String {
        let Self { collection, id } = self;
        format!(
            "{id} of `{collection}` does not exist: it has no event, or had none yet; check the \
             collection, the id (a number is {{\"$numberLong\":\"7\"}}, 24 hex digits are an ObjectId, other text is text) and \
             --database"
        )
    }
}
