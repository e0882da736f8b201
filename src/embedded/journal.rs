//! The log of a private server: it says when the server listens (a port that answers could be
//! somebody else's), and what went wrong when it does not.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

pub(super) const FILE: &str = "mongod.log";

const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// MongoDB's own number for the message "Waiting for connections".
const LISTENING: u64 = 23016;
/// How many lines a failure tells.
const SUMMARY_LINES: usize = 5;

/// The part of the log that was written since some moment.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    start: u64,
}

impl Journal {
    pub(super) fn from_now(folder: &Path) -> io::Result<Journal> {
        let path = folder.join(FILE);
        let start = match path.metadata() {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        Ok(Journal { path, start })
    }

    /// Returns when the server listens on its port.
    pub(super) async fn until_listening(&self) -> io::Result<()> {
        loop {
            if self.entries()?.iter().any(|entry| entry["id"] == LISTENING) {
                return Ok(());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// The last errors, or the last lines where there are none, one a line.
    pub(super) fn summary(&self) -> io::Result<String> {
        let entries = self.entries()?;
        let is_error = |entry: &&Value| matches!(entry["s"].as_str(), Some("E" | "F"));
        let mut chosen: Vec<&Value> = entries.iter().filter(is_error).collect();
        if chosen.is_empty() {
            chosen = entries.iter().collect();
        }
        let first = chosen.len().saturating_sub(SUMMARY_LINES);
        let lines = chosen.iter().skip(first).map(|entry| {
            let message = entry["msg"].as_str().unwrap_or_default();
            format!("{message} {}", entry["attr"])
        });
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }

    /// The complete lines. A log is some 60 kB at the moment when it says that the server listens.
    fn entries(&self) -> io::Result<Vec<Value>> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened?,
        };
        file.seek(SeekFrom::Start(self.start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let lines = bytes.split(|byte| *byte == b'\n');
        Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn only_what_was_written_since_counts() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE);
        fs::write(&file, "{\"s\":\"E\",\"id\":1,\"msg\":\"old\"}\n").unwrap();
        let journal = Journal::from_now(folder.path()).unwrap();
        let old = fs::read_to_string(&file).unwrap();
        let line = |s, id, msg| format!("{{\"s\":\"{s}\",\"id\":{id},\"msg\":\"{msg}\"}}\n");
        fs::write(&file, old + &line("I", LISTENING, "up") + "{\"half").unwrap();
        journal.until_listening().await.unwrap();
        assert_eq!(journal.summary().unwrap(), "up null");
    }

    #[test]
    fn errors_come_before_chatter() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::from_now(folder.path()).unwrap();
        let log = "{\"s\":\"F\",\"msg\":\"broken\",\"attr\":{\"why\":1}}\n{\"s\":\"I\",\"msg\":\"bye\"}\n";
        fs::write(folder.path().join(FILE), log).unwrap();
        assert_eq!(journal.summary().unwrap(), "broken {\"why\":1}");
    }
}
