//! `archive_check`: reads back every segment of a collection's archive and compares it with its checksum and with the index.

use std::time::Duration;

use bson::{Bson, doc};

use super::{Done, Performance, Undone};
use crate::{
    archive::ArchiveError,
    log::{EventLog, LogSource, Mend},
    retry::limited,
    store::{Archived, Bases, Jobs, MarkRows, Snapshots, Store},
    time::Time,
};

/// How many bad segments are named. There may be more: they are counted.
const BAD_MAX: usize = 100;
/// What is older than this, and not whole, was left by a writer that was killed.
const LEFT_AGE: Duration = Duration::from_secs(60 * 60);
/// How long one look at the index may take.
const STEP_LIMIT: Duration = Duration::from_secs(60);

impl<J: Jobs, S: LogSource, D, T: Time> Performance<'_, J, S, D, T>
where
    S::Log: Mend,
    D: Store + Snapshots + Bases + MarkRows,
{
    pub(super) async fn archive_check(&mut self) -> Done {
        let archive = self.archive()?.clone();
        let store = self.snapshotter().store.clone();
        let log = self.snapshotter().source.open_existing(&self.ward.collection).await?;
        let away = |error| match error {
            ArchiveError::Database(error) => Undone::from(error),
            error => Undone::Failed(error.to_string()),
        };
        archive.claim(&store, log.id()).await.map_err(away)?;
        let swept = archive.sweep(LEFT_AGE).await.map_err(away)?;
        let swept = i64::try_from(swept).unwrap_or(i64::MAX);
        let (mut segments, mut events, mut bad) = (0_i64, 0_i64, 0_i64);
        let mut named: Vec<Bson> = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let rows = limited(self.time, STEP_LIMIT, store.segments(after.as_deref())).await?;
            let Some(last) = rows.last() else { break };
            after = Some(last.segment.clone());
            for rows in rows.chunk_by(|one, other| one.segment == other.segment) {
                let rows: Vec<Archived> = rows
                    .iter()
                    .filter(|row| row.is_proven && row.log == log.id())
                    .cloned()
                    .collect();
                let Some(first) = rows.first() else { continue };
                segments += 1;
                events += rows.iter().map(|row| row.to - row.from + 1).sum::<i64>();
                match archive.check(&rows).await {
                    // One that an erasure has written anew comes under its new name, or is as good as that.
                    Ok(()) | Err(ArchiveError::Moved(_)) => {}
                    Err(error @ ArchiveError::Damaged { .. }) => {
                        bad += 1;
                        if named.len() < BAD_MAX {
                            let problem = error.to_string();
                            named.push(
                                doc! { "segment": &first.segment, "problem": problem }.into(),
                            );
                        }
                    }
                    Err(error) => return Err(away(error)),
                }
                // This also finds out whether the job was cancelled.
                self.at.done = segments;
                self.save_place().await?;
            }
        }
        self.at.total = Some(segments);
        self.save_place().await?;
        Ok(
            doc! { "segments": segments, "events": events, "bad": bad, "named": named, "swept": swept },
        )
    }
}
