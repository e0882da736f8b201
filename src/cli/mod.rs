//! The command line: one file per subcommand, and here what they share. Every command speaks to
//! MongoDB only, prints its result on standard output and everything else on standard error.

mod append;
mod archive;
mod bench;
mod compact;
mod config_check;
mod demo;
mod dev;
mod erase;
mod follow;
mod gap;
mod get;
mod globals;
mod health;
mod history;
mod http;
mod import;
mod init;
mod jobs;
mod made;
mod missing;
mod output;
mod parts;
mod pause;
mod private;
mod quarantine;
mod roles;
mod run;
mod signals;
mod snapshot;
mod status;
mod target;
mod token;
mod top;
mod verify;
mod waiting;
mod who;

use std::{ffi::OsString, time::Duration};

use clap::{Parser, Subcommand};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

use crate::logging;
pub use globals::Globals;
pub use signals::{Signal, Signals};

/// Projects an append-only log of events in MongoDB: state, vector clocks and missing events.
#[derive(Debug, Parser)]
#[command(name = "alluvium", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell a small story on a throwaway MongoDB server, and check that it comes out right
    Demo(demo::Demo),
    Dev(dev::Dev),
    /// Project and serve the configured collections until SIGTERM or Ctrl-C
    Run(run::Run),
    /// Create the collections that are missing, with their validator
    Init(init::Init),
    /// Turn a collection that existed before into events; again: append what changed in it since
    Import(Box<import::ImportCommand>),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config_check::Config),
    /// Append an event to a document's log
    Append(Box<append::Append>),
    /// Say of each collection whether all is well, and why not; exit code 4 when something needs attention
    Status(status::Status),
    /// Ask the daemon that listens at `http.listen` whether it is ready; exit code 4 when it is not
    Health(health::Health),
    /// Watch the daemons: collections, rates, lag, leaders, what waits and jobs, live in the terminal
    Top(top::Top),
    /// Show a document, now or as it was
    Get(get::Get),
    /// Show the events of a document
    History(history::History),
    /// Show what a client with a given vector clock has not seen of a document
    Missing(missing::Missing),
    /// Take the snapshot of a document, or of every document of a collection
    Snapshot(snapshot::Snapshot),
    /// Write bases and prune what they stand for, of one document or of a whole collection
    ///
    /// What stays is decided by the configuration of the daemon that leads the collection, not by --config. Exit code 3 when
    /// documents were left as they are.
    Compact(compact::Compact),
    /// Put back what compaction has taken out, from the archive: of one document or of a whole collection; exit code 3 when some
    /// could not be
    Restore(archive::Restore),
    /// Look at what was archived; exit code 3 when a segment is damaged or missing
    Archive(archive::Archive),
    /// Remove the content of a document for good: from its log, its row, snapshots, records and jobs
    Erase(erase::Erase),
    /// Fold the log anew and compare every document with it, or one; exit code 3 when one differs
    Verify(verify::Verify),
    /// Make every projected document again that is not what its log makes of it; exit code 3 when one could not be
    Rebuild(verify::Rebuild),
    /// Stop projecting a collection, on every instance, until `resume`
    Pause(pause::Pause),
    /// Go on projecting a paused collection
    Resume(pause::Pause),
    /// Show into how many parts a collection is divided, or divide it anew, for several daemons to share it
    Parts(parts::Parts),
    /// List, retry and skip what is parked by an event that cannot be applied
    #[command(subcommand)]
    Quarantine(quarantine::Quarantine),
    /// List documents that wait behind a missing event; fill the gap
    #[command(subcommand)]
    Gap(gap::Gap),
    /// List, show and cancel what the daemons are asked to do
    #[command(subcommand)]
    Jobs(jobs::Jobs),
    /// Make a token for the HTTP API
    #[command(subcommand)]
    Token(token::Token),
    /// Measure the daemon beside what a throwaway MongoDB server allows: some minutes
    Bench(bench::Bench),
    /// Print what makes a shell complete these commands
    Completions(made::Completions),
    /// Write the pages of the manual: one for each command
    Man(made::Man),
}

impl Command {
    /// What is logged unless the user says otherwise: commands that talk to people keep quiet, except
    /// about a server that is being fetched.
    fn log_level(&self) -> Targets {
        match self {
            Self::Demo(_) | Self::Dev(_) => Targets::new()
                .with_default(LevelFilter::WARN)
                .with_target("alluvium::embedded", LevelFilter::INFO),
            // What it says of a certificate is told by the command itself.
            Self::Top(_) => Targets::new()
                .with_default(LevelFilter::WARN)
                .with_target("rustls_platform_verifier", LevelFilter::OFF),
            Self::Run(_) | Self::Bench(_) => Targets::new().with_default(LevelFilter::INFO),
            _ => Targets::new().with_default(LevelFilter::WARN),
        }
    }
}

/// How a command can end other than well. What there is to say has been said by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It failed.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// `verify` found a difference, or one was left; `archive check` found a bad segment; `compact` left documents as they
    /// are.
    Difference,
    /// `status` or `health` found something that needs attention.
    Attention,
    /// A signal ended it.
    Interrupted(Signal),
}

impl Failure {
    /// The exit code of the process. That of a signal is what a shell makes of it.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Difference => 3,
            Self::Attention => 4,
            Self::Interrupted(signal) => 128 + signal.number(),
        }
    }
}

/// What a command gives: an error's message is for the user, and says what to do.
type CommandResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// What `status` and `health` give when something needs attention. What it is has been said by then.
#[derive(Debug, thiserror::Error)]
#[error("something needs attention")]
struct NeedsAttention;

/// Runs the command that `arguments` (the program's name first) ask for, until a signal ends it.
///
/// # Errors
/// [`Failure`], after a message on standard error.
pub async fn run(
    arguments: impl IntoIterator<Item = OsString>,
    signals: Signals,
) -> Result<(), Failure> {
    let Cli { globals, command } = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        // Also how `--help` and `--version` arrive, which are no failures.
        Err(error) => {
            // A reader that has gone wants no help any more.
            drop(error.print());
            return if error.use_stderr() { Err(Failure::Usage) } else { Ok(()) };
        }
    };
    let log_level = globals.log_level.clone();
    // Kept until the end, for the lines that are still to be written.
    let _logging = logging::start(log_level.unwrap_or_else(|| command.log_level()));
    let outcome = match command {
        Command::Dev(command) => command.run(&globals, signals).await,
        Command::Run(command) => command.run(&globals, signals).await,
        command => match until_signal(command, globals.clone(), signals).await {
            Ok(outcome) => outcome,
            Err(signal) => return Err(Failure::Interrupted(signal)),
        },
    };
    globals.clients.shut_down().await;
    match outcome {
        Ok(()) => Ok(()),
        Err(error) if output::is_closed(&*error) => Ok(()),
        Err(error) if is_difference(&*error) => Err(Failure::Difference),
        Err(error) if error.is::<NeedsAttention>() => Err(Failure::Attention),
        Err(error) if error.is::<erase::Unconfirmed>() => {
            output::fail(&globals, &*error);
            Err(Failure::Usage)
        }
        Err(error) => {
            output::fail(&globals, &*error);
            Err(Failure::Failed)
        }
    }
}

/// Whether a command found what should be otherwise, and has told of it.
fn is_difference(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    error.is::<verify::Differs>()
        || error.is::<archive::Bad>()
        || error.is::<archive::NotRestored>()
        || error.is::<compact::LeftAlone>()
}

/// How long the end of a command may take that a signal has ended.
const ENDING_MAX: Duration = Duration::from_secs(1);

/// Runs a command that a signal ends at once. It has a task of its own, so that signals are heard also while it
/// is held up by a reader of its output.
async fn until_signal(
    command: Command,
    globals: Globals,
    mut signals: Signals,
) -> Result<CommandResult, Signal> {
    let mut task =
        AbortOnDropHandle::new(tokio::spawn(async move { once(command, &globals).await }));
    tokio::select! {
        biased;
        outcome = &mut task => Ok(outcome.unwrap_or_else(|error| Err(error.into()))),
        signal = signals.next() => {
            task.abort();
            // At its end it gives the terminal back. One that a reader holds up has no end.
            drop(timeout(ENDING_MAX, task).await);
            Err(signal)
        }
    }
}

/// Runs a command that ends by itself.
async fn once(command: Command, globals: &Globals) -> CommandResult {
    match command {
        // These hear signals themselves.
        Command::Dev(_) | Command::Run(_) => Ok(()),
        Command::Demo(command) => command.run(globals).await,
        Command::Init(command) => command.run(globals).await,
        Command::Import(command) => command.run(globals).await,
        Command::Config(command) => command.run(globals),
        Command::Append(command) => command.run(globals).await,
        Command::Status(command) => command.run(globals).await,
        Command::Health(command) => command.run(globals).await,
        Command::Top(command) => command.run(globals).await,
        Command::Get(command) => command.run(globals).await,
        Command::History(command) => command.run(globals).await,
        Command::Missing(command) => command.run(globals).await,
        Command::Snapshot(command) => command.run(globals).await,
        Command::Erase(command) => command.run(globals).await,
        Command::Compact(command) => command.run(globals).await,
        Command::Restore(command) => command.run(globals).await,
        Command::Archive(command) => command.run(globals).await,
        Command::Verify(command) => command.run(globals).await,
        Command::Rebuild(command) => command.run(globals).await,
        Command::Pause(command) => command.run(globals, true).await,
        Command::Resume(command) => command.run(globals, false).await,
        Command::Parts(command) => command.run(globals).await,
        Command::Quarantine(command) => command.run(globals).await,
        Command::Gap(command) => command.run(globals).await,
        Command::Jobs(command) => command.run(globals).await,
        Command::Token(command) => command.run(globals),
        Command::Bench(command) => command.run(globals).await,
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
    }
}
