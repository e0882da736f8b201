//! The command line: one file per subcommand, and here what they share. Every command speaks to
//! MongoDB only, prints its result on standard output and everything else on standard error.

mod append;
mod bench;
mod config_check;
mod demo;
mod dev;
mod follow;
mod gap;
mod get;
mod globals;
mod history;
mod init;
mod jobs;
mod logging;
mod missing;
mod output;
mod parts;
mod pause;
mod private;
mod quarantine;
mod roles;
mod run;
mod snapshot;
mod status;
mod target;
mod verify;
mod waiting;

use std::ffi::OsString;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

pub use globals::Globals;

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
    /// Start a MongoDB server that keeps its data in .alluvium, the daemon and its API, to play with
    Dev(dev::Dev),
    /// Project and serve the configured collections until SIGTERM or Ctrl-C
    Run(run::Run),
    /// Create the collections that are missing, with their validator
    Init(init::Init),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config_check::Config),
    /// Append an event to a document's log
    Append(Box<append::Append>),
    /// Show how each projection is doing, as far as the database alone can tell
    Status(status::Status),
    /// Show a document, now or as it was
    Get(get::Get),
    /// Show the events of a document
    History(history::History),
    /// Show what a client with a given vector clock has not seen of a document
    Missing(missing::Missing),
    /// Take the snapshot of a document, or of every document of a collection
    Snapshot(snapshot::Snapshot),
    /// Fold the log anew and compare every document with it; exit code 3 when one differs
    Verify(verify::Verify),
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
    /// Measure the daemon beside what a throwaway MongoDB server allows: some minutes
    Bench(bench::Bench),
}

impl Command {
    /// What is logged unless the user says otherwise: commands that talk to people keep quiet, except
    /// about a server that is being fetched.
    fn log_level(&self) -> &'static str {
        match self {
            Self::Demo(_) | Self::Dev(_) => "warn,alluvium::embedded=info",
            Self::Run(_) | Self::Bench(_) => "info",
            _ => "warn",
        }
    }
}

/// How a command can end other than well. What there is to say has been said by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It failed: exit code 1.
    Failed,
    /// The command line makes no sense: exit code 2.
    Usage,
    /// `verify` found a difference: exit code 3.
    Difference,
}

/// What a command gives: an error's message is for the user, and says what to do.
type CommandResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Runs the command that `arguments` (the program's name first) ask for.
///
/// # Errors
/// [`Failure`], after a message on standard error.
pub async fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<(), Failure> {
    let Cli { globals, command } = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        // Also how `--help` and `--version` arrive, which are no failures.
        Err(error) => {
            let failed = error.print().is_err() || error.use_stderr();
            return if failed { Err(Failure::Usage) } else { Ok(()) };
        }
    };
    let log_level = globals.log_level.clone();
    logging::start(log_level.unwrap_or_else(|| EnvFilter::new(command.log_level())));
    let outcome = match command {
        Command::Demo(command) => command.run(&globals).await,
        Command::Dev(command) => command.run(&globals).await,
        Command::Run(command) => command.run(&globals).await,
        Command::Init(command) => command.run(&globals).await,
        Command::Config(command) => command.run(&globals),
        Command::Append(command) => command.run(&globals).await,
        Command::Status(command) => command.run(&globals).await,
        Command::Get(command) => command.run(&globals).await,
        Command::History(command) => command.run(&globals).await,
        Command::Missing(command) => command.run(&globals).await,
        Command::Snapshot(command) => command.run(&globals).await,
        Command::Verify(command) => command.run(&globals).await,
        Command::Pause(command) => command.run(&globals, true).await,
        Command::Resume(command) => command.run(&globals, false).await,
        Command::Parts(command) => command.run(&globals).await,
        Command::Quarantine(command) => command.run(&globals).await,
        Command::Gap(command) => command.run(&globals).await,
        Command::Jobs(command) => command.run(&globals).await,
        Command::Bench(command) => command.run(&globals).await,
    };
    match outcome {
        Ok(()) => Ok(()),
        Err(error) if output::is_closed(&*error) => Ok(()),
        Err(error) if error.is::<verify::Differs>() => Err(Failure::Difference),
        Err(error) => {
            output::fail(&globals, &*error);
            Err(Failure::Failed)
        }
    }
}
