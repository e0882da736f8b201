//! Rows that are replaced together are replaced in a transaction. It makes one entry in the oplog
//! instead of a thousand, and wakes each change stream once instead of a thousand times. That halves
//! what a row costs the server (benches/README.md).
//!
//! A daemon that is killed before it commits leaves its rows locked until the server ends the
//! transaction, a minute or more later. So each instance shows its sessions to the others. Whoever
//! takes a lease from an instance that is silent ends the sessions of that instance (`leases.rs`).

use std::sync::Arc;

use bson::{Document, RawArray, RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, doc, rawdoc};
use futures::{FutureExt, future::select_all};
use mongodb::{ClientSession, Database, options::WriteConcern};
use tokio::sync::{Mutex, MutexGuard};
use tracing::debug;

use crate::database::{Error, Result, reply_of};

/// How many transactions one daemon has open at once.
const SESSIONS: usize = 8;

/// The sessions in which a daemon writes rows. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Transactions {
    slots: Arc<[Mutex<Slot>]>,
    /// The `lsid` of each.
    ids: RawArrayBuf,
}

/// One of the sessions.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) session: ClientSession,
    /// Whether the last transaction was left in the middle: whoever awaited it is gone.
    is_left: bool,
}

impl Transactions {
    /// Opens the sessions, which costs the server nothing until they are used.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn open(database: &Database) -> Result<Self> {
        let (mut slots, mut ids) = (Vec::new(), RawArrayBuf::new());
        for _ in 0..SESSIONS {
            let session = database.client().start_session().await?;
            ids.push(RawDocumentBuf::try_from(session.id())?);
            slots.push(Mutex::new(Slot { session, is_left: false }));
        }
        Ok(Self { slots: slots.into(), ids })
    }

    /// The ids of the sessions, as [`end_sessions`] takes them.
    pub(super) fn ids(&self) -> &RawArray {
        &self.ids
    }

    /// Runs a write command and commits it at majority. `None` when the server refuses it: somebody
    /// else writes one of the rows, say, or a statement failed. Then nothing of it is written, and the
    /// same command may succeed without a transaction.
    ///
    /// # Errors
    /// When the database is away. Whether it is written is unknown; to try again does no harm.
    pub(super) async fn run(
        &self,
        database: &Database,
        command: RawDocumentBuf,
    ) -> Result<Option<Document>> {
        let mut slot = self.slot(database).await?;
        let ended = run_in(&mut slot.session, database, command).await;
        match ended {
            Ok(Some(_)) => slot.is_left = false,
            _ => slot.clear(database).await?,
        }
        match ended {
            Err(error) if error.code().is_some() => {
                debug!(%error, "a transaction was refused");
                Ok(None)
            }
            ended => ended,
        }
    }

    /// A session for one transaction, which is to be ended by [`Slot::end`]. What was left in the middle is ended first:
    /// its rows may be those of this one.
    ///
    /// # Errors
    /// When the database is away.
    pub(super) async fn slot(&self, database: &Database) -> Result<MutexGuard<'_, Slot>> {
        for slot in self.slots.iter() {
            if let Ok(mut slot) = slot.try_lock()
                && slot.is_left
            {
                slot.clear(database).await?;
            }
        }
        let locks = self.slots.iter().map(|slot| slot.lock().boxed());
        let (mut slot, ..) = select_all(locks).await;
        slot.is_left = true;
        Ok(slot)
    }
}

impl Slot {
    /// Commits the transaction, or ends it without effect.
    pub(super) async fn end(&mut self, database: &Database, is_kept: bool) -> Result<()> {
        if !is_kept {
            return self.clear(database).await;
        }
        self.session.commit_transaction().await?;
        self.is_left = false;
        Ok(())
    }

    /// Ends what is left of a transaction, however far it came: what has been committed stays so.
    async fn clear(&mut self, database: &Database) -> Result<()> {
        // This has no effect after a commit was tried, and does not say whether the server heard of it.
        // The command below ends it for sure.
        let _ended_below = self.session.abort_transaction().await;
        let kill = doc! { "killSessions": [self.session.id()] };
        match database.run_command(kill).await.map_err(Error::from) {
            Err(error) if error.code().is_none() => Err(error),
            // The user may have no right to kill sessions. Then the next transaction of the session
            // ends this one.
            _ => {
                self.is_left = false;
                Ok(())
            }
        }
    }
}

async fn run_in(
    session: &mut ClientSession,
    database: &Database,
    command: RawDocumentBuf,
) -> Result<Option<Document>> {
    session.start_transaction().write_concern(WriteConcern::majority()).await?;
    let reply = reply_of(database.run_raw_command(command).session(&mut *session)).await?;
    if reply.contains_key("writeErrors") {
        return Ok(None);
    }
    session.commit_transaction().await?;
    Ok(Some(reply))
}

/// Ends the transactions in the sessions that an instance shows in its presence.
pub(super) async fn end_sessions(database: &Database, presence: &RawDocument) -> Result<()> {
    let sessions = match presence.get("sessions")? {
        Some(RawBsonRef::Array(sessions)) if !sessions.is_empty() => sessions,
        _ => return Ok(()),
    };
    let command = rawdoc! { "killSessions": sessions.to_owned() };
    database.run_raw_command(command).await?;
    Ok(())
}
