//! Adopting a collection that existed before: every document of it becomes the first event of a log, or, where it has a
//! version of its own, a base at that version. Running it again finds what changed in the source since, and appends that, so
//! that an application may write to the old collection until it has learnt to append. The source is only read. Everything is
//! decided anew from what the log holds, so it may be killed anywhere and run again, also twice at once.

mod decide;
mod last;
mod source;
mod write;

use std::{collections::HashMap, time::Duration};

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use mongodb::Database;

use self::{
    decide::is_only_of,
    source::{Item, Source, Walk, item},
    write::{AT_ONCE, Done, Writing},
};
use crate::{
    database::{self, Verdict},
    log::{append::AppendError, mongo::KnownLog},
    model::{
        clock::{CLIENT_RULE, is_client_name},
        document::FoldLimits,
        id::DocumentId,
        names::{BOOKKEEPING_PREFIX, snapshots_collection},
        skip::{FILLER_CLIENT, FILLER_RULE},
    },
    read::ReadError,
    time::{SystemTime, Time},
};

pub use source::Refused;

/// How many documents are named that could not be taken over. All are counted.
const REFUSED_MAX: usize = 10_000;
/// How often something is tried while the database is away. For longer than a server keeps the transaction of an import
/// that was killed (60 s, or a little more), whose places nobody else gets meanwhile.
const ATTEMPTS: u32 = 120;
/// The pause between two of these attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// What is taken over, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The collection that gets the documents, without a suffix.
    pub collection: String,
    /// The collection that they come from: of this database, or `DATABASE.COLLECTION`.
    pub from: String,
    /// The client that the events are written by. No other writer may use the name.
    pub client: String,
    /// The field of each document with its version; then a base at that version is written.
    pub version_field: Option<String>,
    /// Append a delete for each document that came from the source and has gone from it.
    pub deletes: bool,
    /// What a document may become, as the projection has it.
    pub limits: FoldLimits,
    /// How long the format of data with bases has to be on record before the first base.
    pub settled: Duration,
}

/// Why an import cannot be made. What it has done by then stays, and it may be run again.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// There is no such collection.
    #[error("there is nothing to import: {0} does not exist; check --from and --database")]
    NoSource(String),
    /// The login may not read the source.
    #[error(
        "`{database}.{name}`, which --from names, may not be read with this login ({reason}). No role of `alluvium init \
         --roles` allows it: db.getSiblingDB(\"admin\").createRole({{ role: \"import-{name}\", privileges: [{{ resource: {{ \
         db: \"{database}\", collection: \"{name}\" }}, actions: [\"find\"] }}, {{ resource: {{ db: \"{database}\", \
         collection: \"\" }}, actions: [\"listCollections\"] }}], roles: [] }}), then grant it to the user; or see whether \
         --from is right"
    )]
    NotReadable {
        /// The database of the source.
        database: String,
        /// The source.
        name: String,
        /// What the server says.
        reason: String,
    },
    /// The source is one of the collections that are written to.
    #[error(
        "`{from}` cannot be imported into `{collection}`, which writes there itself; rename the original first \
         (`renameCollection`), or give the new collection another name"
    )]
    Own {
        /// The source.
        from: String,
        /// The target.
        collection: String,
    },
    /// The client's name is none.
    #[error("`{0}` is no client name: {CLIENT_RULE}")]
    Client(String),
    /// The client's name is not a writer's to take.
    #[error("the client name `{FILLER_CLIENT}` {FILLER_RULE}")]
    ReservedClient,
    /// There is no log to append to.
    #[error(
        "`{0}` does not exist: add the collection to the configuration and run `alluvium init`"
    )]
    NoLog(String),
    /// No base may be written.
    #[error("no base can be written: {0}")]
    NoBases(String),
    /// The log or a row cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An event could not be appended.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The database refused, or was away for too long.
    #[error(transparent)]
    Database(#[from] database::Error),
}

impl ImportError {
    /// Whether it may pass by itself.
    fn passes(&self) -> bool {
        match self {
            Self::Database(error) | Self::Read(ReadError::Database(error)) => {
                error.verdict() == Verdict::Retry
            }
            Self::Append(error) => matches!(error, AppendError::Uncertain { .. }),
            _ => false,
        }
    }
}

/// What an import did and found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Documents of the source.
    pub documents: u64,
    /// Those that have become documents of ours now.
    pub created: u64,
    /// Those that had changed.
    pub updated: u64,
    /// Those that were what they should be already.
    pub same: u64,
    /// Those that came from the source and have gone from it.
    pub gone: u64,
    /// Those of them for which a delete was appended.
    pub deleted: u64,
    /// Those that were found to be other than the source again afterwards.
    pub changed: u64,
    /// Those that could not be taken over.
    pub refused_total: u64,
    /// The first of them: the id as Extended JSON, and the reason.
    pub refused: Vec<Refused>,
}

impl Report {
    fn refuse(&mut self, refused: Refused) {
        self.refused_total += 1;
        if self.refused.len() < REFUSED_MAX {
            self.refused.push(refused);
        }
    }

    fn count(&mut self, id: &DocumentId, done: Done) {
        match done {
            Done::Same => self.same += 1,
            Done::Created => self.created += 1,
            Done::Updated => self.updated += 1,
            Done::Deleted => self.deleted += 1,
            Done::Left(reason) => {
                self.refuse((id.to_bson().into_relaxed_extjson().to_string(), reason));
            }
        }
    }
}

/// Which way through the source is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Everything is taken over.
    Importing,
    /// Everything is looked at again.
    Verifying,
}

/// An import that is ready to begin.
#[derive(Debug)]
pub struct Import {
    source: Source,
    writing: Writing,
    options: Options,
    time: SystemTime,
}

impl Import {
    /// Looks at everything that has to be there.
    ///
    /// # Errors
    /// [`ImportError`]
    pub async fn open(database: &Database, options: Options) -> Result<Self, ImportError> {
        if !is_client_name(&options.client) {
            return Err(ImportError::Client(options.client));
        }
        if options.client == FILLER_CLIENT {
            return Err(ImportError::ReservedClient);
        }
        let source = Source::find(database, &options.from).await?;
        let Options { collection, .. } = &options;
        let own = [
            collection.clone(),
            KnownLog::new(database, collection).events(),
            snapshots_collection(collection),
        ];
        let is_own = |name: &String| source.name() == format!("{}.{name}", database.name());
        let bookkeeping = format!("{}.{BOOKKEEPING_PREFIX}.", database.name());
        if own.iter().any(is_own) || source.name().starts_with(&bookkeeping) {
            let (from, collection) = (source.name(), collection.clone());
            return Err(ImportError::Own { from, collection });
        }
        let writing = Writing::open(database, &options).await?;
        Ok(Self { source, writing, options, time: SystemTime::new() })
    }

    /// `DATABASE.COLLECTION` of the source.
    pub fn source(&self) -> String {
        self.source.name()
    }

    /// About how many documents the source has.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn estimate(&self) -> database::Result<u64> {
        self.source.estimate().await
    }

    /// Takes everything over, then looks at everything again. `told` hears how many documents have been looked at.
    ///
    /// # Errors
    /// [`ImportError`]; what was done by then stays.
    pub async fn run(
        &self,
        told: &mut (dyn FnMut(Pass, u64) + Send),
    ) -> Result<Report, ImportError> {
        let mut report = Report::default();
        if self.options.version_field.is_some() {
            self.wait_for_bases().await?;
        }
        self.pass(Pass::Importing, &mut report, told).await?;
        self.find_gone(&mut report).await?;
        self.pass(Pass::Verifying, &mut report, told).await?;
        Ok(report)
    }

    async fn pass(
        &self,
        pass: Pass,
        report: &mut Report,
        told: &mut (dyn FnMut(Pass, u64) + Send),
    ) -> Result<(), ImportError> {
        let (mut walk, mut seen, mut failed) = (self.source.walk(), 0, 0);
        loop {
            match self.step(&mut walk, pass, report).await {
                Ok(0) => return Ok(()),
                Ok(documents) => (seen, failed) = (seen + documents, 0),
                // Unlike a daemon, an import has somebody who waits for its end, and who may run it again.
                Err(error) if error.passes() && failed < ATTEMPTS => {
                    failed += 1;
                    walk.go_back();
                    self.time.sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
            told(pass, seen);
        }
    }

    /// Deals with the next documents of the source, and says how many there were. After an error the walk has to go back:
    /// they are read again.
    async fn step(
        &self,
        walk: &mut Walk,
        pass: Pass,
        report: &mut Report,
    ) -> Result<u64, ImportError> {
        let batch = walk.next().await?;
        let (mut items, mut refused) = (Vec::with_capacity(batch.len()), Vec::new());
        for raw in &batch {
            match item(raw, self.options.version_field.as_deref()) {
                Ok(item) => items.push(item),
                Err(why) => refused.push(why),
            }
        }
        let done = self.batch(&items, pass).await?;
        walk.go_past(&batch)?;
        match pass {
            Pass::Importing => {
                report.documents += batch.len() as u64;
                refused.into_iter().for_each(|refused| report.refuse(refused));
                done.into_iter().for_each(|(id, done)| report.count(&id, done));
            }
            Pass::Verifying => {
                let differs = |done: &&_| matches!(done, (_, Done::Updated | Done::Created));
                report.changed += done.iter().filter(differs).count() as u64;
            }
        }
        Ok(batch.len() as u64)
    }

    async fn batch(
        &self,
        items: &[Item],
        pass: Pass,
    ) -> Result<Vec<(DocumentId, Done)>, ImportError> {
        let rows = self.writing.rows(items).await?;
        let last = match rows.is_empty() {
            true => HashMap::new(),
            false => self.writing.last_versions(items).await?,
        };
        let (rows_read, last_read, writing) = (&rows, &last, &self.writing);
        let looks = items.iter().map(|item| {
            let (row, last) = (rows_read.get(&item.id), last_read.get(&item.id).copied());
            async move { Ok::<_, database::Error>((item, writing.is_same(row, last, item).await?)) }
                .boxed()
        });
        let looked: Vec<(&Item, bool)> =
            stream::iter(looks.collect::<Vec<_>>()).buffered(AT_ONCE).try_collect().await?;
        let (same, others): (Vec<_>, Vec<_>) =
            looked.into_iter().partition(|(_, is_same)| *is_same);
        let others: Vec<&Item> = others.into_iter().map(|(item, _)| item).collect();
        let mut done: Vec<_> =
            same.into_iter().map(|(item, _)| (item.id.clone(), Done::Same)).collect();
        done.extend(match pass {
            Pass::Importing => self.writing.take_over(&others, &rows).await?,
            Pass::Verifying => self.writing.compare(&others).await?,
        });
        Ok(done)
    }

    /// Documents that came from the source alone and are not in it any more.
    async fn find_gone(&self, report: &mut Report) -> Result<(), ImportError> {
        let mut rows = self.writing.all_rows().await?;
        loop {
            let batch: HashMap<DocumentId, _> = rows.next().await?;
            if batch.is_empty() {
                return Ok(());
            }
            let client = &self.options.client;
            let is_ours = |(_, (version, clock)): &(&DocumentId, &(i64, _))| {
                is_only_of(clock, *version, client)
            };
            let ours: Vec<DocumentId> =
                batch.iter().filter(is_ours).map(|(id, _)| id.clone()).collect();
            let present = self.source.present(&ours).await?;
            for id in ours.iter().filter(|id| !present.contains(id)) {
                report.gone += 1;
                let is_gone = self.options.deletes
                    && self.source.one(id).await?.is_none()
                    && self.source.is_there().await?;
                if is_gone {
                    report.count(id, self.writing.bring(id, None).await?);
                }
            }
        }
    }

    /// Waits until bases may be written.
    async fn wait_for_bases(&self) -> Result<(), ImportError> {
        while !self.writing.may_write_bases(self.options.settled).await? {
            self.time.sleep(PAUSE).await;
        }
        Ok(())
    }
}
