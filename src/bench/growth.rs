//! What grows: the same number of events tailed over ever more documents, and by ever more clients of a
//! document. Events per second, memory and the time until the daemon reads should not depend on how many
//! documents there are.

use super::{
    backlog::{self, Shape},
    catch_up::project_beforehand,
    daemon::Tuning,
    error::Result,
    report::{Row, Target, Unit},
    server::{self, Server, Way},
    tail::{load, project},
};

const DOCUMENTS: [usize; 3] = [10_000, 100_000, 1_000_000];
const CLIENTS: [usize; 4] = [1, 10, 100, 1_000];
/// How many events are tailed over documents that are there already.
const EVENTS: usize = 10_000;
/// As many documents, with as many events each, as give every client of a document a turn.
const SHARED: usize = 100;
const SHARED_EACH: i64 = 2_000;

/// Measures at every size.
///
/// # Errors
/// When a measurement cannot be finished.
pub(super) async fn run(server: &mut Server, scale: impl Fn(usize) -> usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for documents in DOCUMENTS.map(&scale) {
        let fresh = server.fresh().await?;
        let mut expected = project_beforehand(&fresh, documents).await?;
        let place = server::end_of_log(&fresh.database).await?;
        let every = (documents / EVENTS.min(documents)).max(1);
        let new = backlog::append(&fresh.database, Shape::Spread { documents, every }).await?;
        // A scan would take longer, the more documents there are.
        server::save_checkpoint(&fresh.database, place, Way::StreamAlone).await?;
        expected.events += new.events;
        expected.last = new.last;
        let work = format!("tail {} events of {documents} documents", new.events);
        let mut row = Row::new(work, Unit::EventsPerSecond, "", Target::None);
        project(server, &fresh, &expected, new.events, &Tuning::default()).await?.note(&mut row);
        rows.push(row);
    }
    for clients in CLIENTS {
        let shape = Shape::Clients { documents: scale(SHARED), each: SHARED_EACH, clients };
        let (fresh, expected) = load(server, shape).await?;
        let work = format!("catch up {} x {SHARED_EACH}, {clients} clients each", scale(SHARED));
        let mut row = Row::new(work, Unit::EventsPerSecond, "", Target::None);
        project(server, &fresh, &expected, expected.events, &Tuning::default())
            .await?
            .note(&mut row);
        rows.push(row);
    }
    Ok(rows)
}
