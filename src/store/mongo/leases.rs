//! Leases on MongoDB, in `alluvium.leases`: `{_id: {c, p, of}, holder, epoch, beat}` for a lease,
//! `{_id: {i}, beat, at, format, sessions, report}` for an instance that is there, with the latest format that it knows, the
//! sessions in which it may leave a transaction open, and how it is doing.

use bson::{DateTime, RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, raw::cstr, rawdoc};
use futures::TryStreamExt;
use mongodb::{Collection, Database, options::ReadConcern};
use tracing::warn;

use super::{
    Report, Transactions, bulk, no_write_errors, transactions::end_sessions, update_statement,
};
use crate::{
    database::{Error, Result, code, server_time},
    model::{id::integral, part::Part, shown::id_of},
    store::{
        CHECKPOINTS_COLLECTION, LEASES_COLLECTION as COLLECTION, Lease, LeaseName, Leases,
        Presence, Roster,
        format::{FORMAT, recorded_format},
    },
};

/// The leases of one database.
#[derive(Clone, Debug)]
pub struct MongoLeases {
    database: Database,
    leases: Collection<RawDocumentBuf>,
    sessions: RawArrayBuf,
    report: Option<Report>,
}

impl MongoLeases {
    /// The leases of `database`.
    pub fn new(database: &Database) -> Self {
        Self {
            database: database.clone(),
            leases: database.collection(COLLECTION),
            sessions: RawArrayBuf::new(),
            report: None,
        }
    }

    /// The same, for an instance that writes in these transactions.
    #[must_use]
    pub fn with_transactions(self, transactions: &Transactions) -> Self {
        Self { sessions: transactions.ids().to_owned(), ..self }
    }

    /// The same, for an instance that tells how it is doing whenever it shows that it lives.
    #[must_use]
    pub fn with_report(self, report: Report) -> Self {
        Self { report: Some(report), ..self }
    }

    /// Runs one update; how many rows it matched or made.
    async fn update(&self, statement: RawDocumentBuf) -> Result<i32> {
        let statements: RawArrayBuf = [statement].into_iter().collect();
        let reply = bulk(&self.database, "update", COLLECTION, "updates", statements).await?;
        no_write_errors(&reply)?;
        Ok(reply.get_i32("n").unwrap_or_default())
    }
}

impl MongoLeases {
    /// Ends the transactions of an instance that has been silent for too long, so that nobody has to
    /// wait for its rows.
    async fn end_transactions(&self, instance: &str) {
        let presence = self.leases.find_one(bson::doc! { "_id": { "i": instance } });
        let ended = match presence.await {
            Ok(Some(presence)) => end_sessions(&self.database, &presence).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = ended {
            warn!(
                instance, %error,
                "the sessions of an instance that is silent could not be ended: rows that it was writing may be locked for a minute"
            );
        }
    }
}

impl Leases for MongoLeases {
    async fn load_roster(&self) -> Result<Roster> {
        let rows = self.leases.find(bson::doc! {}).read_concern(ReadConcern::majority()).await?;
        let rows: Vec<RawDocumentBuf> = rows.try_collect().await?;
        let mut roster = Roster::default();
        for row in &rows {
            match row.get_document("_id") {
                Ok(id) if id.get("i")?.is_some() => roster.instances.push(presence(id, row)?),
                Ok(id) => roster.leases.push(lease(id, row)?),
                Err(_) => return Err(damaged(row)),
            }
        }
        Ok(roster)
    }

    async fn epoch_floor(&self, name: &LeaseName) -> Result<i64> {
        let checkpoint = self
            .database
            .collection::<RawDocumentBuf>(CHECKPOINTS_COLLECTION)
            .find_one(bson::doc! { "_id": name.to_string() })
            .read_concern(ReadConcern::majority())
            .await?;
        match checkpoint {
            Some(row) => Ok(row.get("epoch")?.and_then(integral).unwrap_or_default()),
            None => Ok(0),
        }
    }

    async fn take_lease(&self, lease: &Lease, seen: Option<&Lease>) -> Result<bool> {
        let row = encode(lease);
        let statement = match seen {
            Some(seen) => {
                let filter =
                    rawdoc! { "_id": key(&lease.name), "epoch": seen.epoch, "beat": seen.beat };
                update_statement(filter, row, false)
            }
            // No lease has this epoch. So if a row has come meanwhile the upsert inserts, and error
            // 11000 tells.
            None => {
                let filter = rawdoc! { "_id": key(&lease.name), "epoch": -1_i64 };
                update_statement(filter, row, true)
            }
        };
        let is_taken = match self.update(statement).await {
            Ok(matched) => matched == 1,
            Err(error) if error.code() == Some(code::DUPLICATE_KEY) => false,
            Err(error) => return Err(error),
        };
        if let (true, Some(silent)) = (is_taken, seen.and_then(|seen| seen.holder.as_deref())) {
            self.end_transactions(silent).await;
        }
        Ok(is_taken)
    }

    async fn renew_lease(&self, lease: &Lease) -> Result<bool> {
        let filter = rawdoc! { "_id": key(&lease.name), "epoch": lease.epoch };
        Ok(self.update(update_statement(filter, encode(lease), false)).await? == 1)
    }

    async fn load_format(&self) -> Result<Option<i64>> {
        recorded_format(&self.database).await
    }

    async fn server_time(&self) -> Result<DateTime> {
        server_time(&self.database).await
    }

    async fn show_presence(&self, presence: &Presence) -> Result<()> {
        let id = rawdoc! { "i": presence.instance.as_str() };
        let mut row = rawdoc! {
            "_id": id.clone(), "beat": presence.beat, "format": FORMAT,
            "sessions": self.sessions.clone(),
        };
        if let Some(report) = &self.report {
            row.append(cstr!("report"), RawDocumentBuf::try_from(&report.tell())?);
        }
        // By the server's clock, which tells whoever reads it how long the instance has been silent.
        let with_time = rawdoc! { "$mergeObjects": [{ "$literal": row }, { "at": "$$NOW" }] };
        let statement = rawdoc! {
            "q": { "_id": id }, "u": [{ "$replaceWith": with_time }], "upsert": true,
        };
        self.update(statement).await.map(drop)
    }

    async fn remove_presence(&self, instance: &str) -> Result<()> {
        let delete = rawdoc! { "q": { "_id": { "i": instance } }, "limit": 1 };
        let statements: RawArrayBuf = [delete].into_iter().collect();
        let reply = bulk(&self.database, "delete", COLLECTION, "deletes", statements).await?;
        no_write_errors(&reply)
    }
}

fn key(name: &LeaseName) -> RawDocumentBuf {
    rawdoc! {
        "c": name.collection.as_str(),
        "p": i64::from(name.part.index),
        "of": i64::from(name.part.of),
    }
}

fn encode(lease: &Lease) -> RawDocumentBuf {
    let mut row = rawdoc! { "_id": key(&lease.name) };
    match &lease.holder {
        Some(holder) => row.append(cstr!("holder"), holder.as_str()),
        None => row.append(cstr!("holder"), RawBsonRef::Null),
    }
    row.append(cstr!("epoch"), lease.epoch);
    row.append(cstr!("beat"), lease.beat);
    row
}

fn damaged(row: &RawDocument) -> Error {
    Error::damaged(format!("the row {} of `{COLLECTION}` is no lease; delete it", id_of(row)))
}

fn number(row: &RawDocument, field: &str) -> Result<i64> {
    row.get(field)?.and_then(integral).ok_or_else(|| damaged(row))
}

fn lease(id: &RawDocument, row: &RawDocument) -> Result<Lease> {
    let part = |field| u32::try_from(number(id, field)?).map_err(|_| damaged(row));
    Ok(Lease {
        name: LeaseName {
            collection: id.get_str("c").map_err(|_| damaged(row))?.to_owned(),
            part: Part { index: part("p")?, of: part("of")? },
        },
        holder: row.get_str("holder").ok().map(str::to_owned),
        epoch: number(row, "epoch")?,
        beat: number(row, "beat")?,
    })
}

fn presence(id: &RawDocument, row: &RawDocument) -> Result<Presence> {
    let instance = id.get_str("i").map_err(|_| damaged(row))?.to_owned();
    Ok(Presence { instance, beat: number(row, "beat")? })
}
