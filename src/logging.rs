//! Logs: for people on a terminal, as JSON for whatever collects them otherwise. Always on standard
//! error, since standard output is for results. Logging is best effort: a reader that has gone, is stuck or has a
//! full disk stops nothing. A line that could not be written is lost, and counted.

use std::{
    io::{self, IsTerminal, Write},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{filter::Targets, fmt, prelude::*};

/// The target of lines that say who has had something changed.
pub const AUDIT: &str = "alluvium::audit";

/// How many lines wait for a slow reader. What comes beyond them is lost.
const LINES_MAX: usize = 10_000;

/// Lines that standard error did not take.
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Lines for which there was no room in the queue.
static CROWDED_OUT: OnceLock<ErrorCounter> = OnceLock::new();

/// Writes what is waiting when it is dropped, or gives up after about a second.
#[derive(Debug)]
pub struct Logging {
    _worker: WorkerGuard,
}

/// Starts logging. Without effect when something has started it before.
pub fn start(filter: Targets) -> Logging {
    let (writer, worker) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_MAX)
        .thread_name("log")
        .finish(Lossy(io::stderr()));
    // Only the first is counted, because only the first is written to.
    let _ = CROWDED_OUT.set(writer.error_counter());
    // The subscriber must not speak of its own errors: it would do so on standard error, and panic.
    let logs =
        fmt().with_max_level(LevelFilter::TRACE).with_writer(writer).log_internal_errors(false);
    let started = if io::stderr().is_terminal() {
        logs.with_target(false).finish().with(filter).try_init()
    } else {
        logs.json().flatten_event(true).finish().with(filter).try_init()
    };
    // The only error: a subscriber is there already, and it is the one that was asked for first.
    drop(started);
    Logging { _worker: worker }
}

/// How many lines of the log could not be written.
pub fn lines_lost() -> u64 {
    let crowded_out = CROWDED_OUT.get().map_or(0, ErrorCounter::dropped_lines);
    let crowded_out = u64::try_from(crowded_out).unwrap_or(u64::MAX);
    REFUSED.load(Ordering::Relaxed).saturating_add(crowded_out)
}

/// Takes every line, and counts those that the writer behind it refuses.
struct Lossy<W>(W);

impl<W: Write> Write for Lossy<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.write_all(line).is_err() {
            REFUSED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // Standard error has no buffer, so what a flush could lose has been counted.
        drop(self.0.flush());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_refused_is_counted_and_no_error() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let before = lines_lost();
        let mut writer = Lossy(full);
        writer.write_all(b"a line\n").unwrap();
        writer.flush().unwrap();
        assert_eq!(lines_lost(), before + 1);
    }
}
