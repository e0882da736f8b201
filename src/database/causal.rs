//! Sessions that see what earlier sessions did. A read at majority in one of them is never older than
//! any operation before it, even when a failover has changed the server.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bson::Timestamp;
use mongodb::{Client, ClientSession};

use super::Result;

/// Hands out causally consistent sessions. Each begins after the newest operation of all earlier ones.
/// Clones share what they know.
#[derive(Clone, Debug)]
pub struct Causal {
    client: Client,
    /// The newest operation time, packed so that it can only move forward without a lock.
    newest: Arc<AtomicU64>,
}

impl Causal {
    /// Starts with nothing seen.
    pub fn new(client: Client) -> Self {
        Self { client, newest: Arc::default() }
    }

    /// A session that sees everything that was observed.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn session(&self) -> Result<ClientSession> {
        let mut session = self.client.start_session().causal_consistency(true).await?;
        match self.newest.load(Ordering::Acquire) {
            0 => {}
            newest => session.advance_operation_time(unpack(newest)),
        }
        Ok(session)
    }

    /// Takes note of what a session has done.
    pub fn observe(&self, session: &ClientSession) {
        if let Some(time) = session.operation_time() {
            self.observe_time(time);
        }
    }

    /// Takes note of the time of an answer that was given outside of such a session.
    pub fn observe_time(&self, time: Timestamp) {
        self.newest.fetch_max(pack(time), Ordering::AcqRel);
    }
}

fn pack(time: Timestamp) -> u64 {
    u64::from(time.time) << 32 | u64::from(time.increment)
}

fn unpack(packed: u64) -> Timestamp {
    Timestamp { time: (packed >> 32) as u32, increment: packed as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_times_keep_their_order() {
        let times = [(0, 1), (1, 0), (1, u32::MAX), (2, 0), (u32::MAX, u32::MAX)]
            .map(|(time, increment)| Timestamp { time, increment });
        let packed = times.map(pack);
        assert!(packed.is_sorted());
        assert_eq!(packed.map(unpack), times);
    }
}
