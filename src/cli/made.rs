//! `alluvium completions` and `alluvium man`: what packages bring beside the program, made from the definitions of the
//! command line itself.

use std::path::PathBuf;

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;

use super::{Cli, CommandResult, output};

#[derive(Args, Debug)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

#[derive(Args, Debug)]
pub(super) struct Man {
    /// The folder to write them to, which must exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Completions {
    pub(super) fn run(self) -> CommandResult {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "alluvium", &mut script);
        Ok(output::line(String::from_utf8_lossy(&script).trim_end())?)
    }
}

impl Man {
    pub(super) fn run(self) -> CommandResult {
        let Self { out } = self;
        clap_mangen::generate_to(described(Cli::command()), &out).map_err(|error| {
            format!("{} cannot be written to: {error}; give a folder to --out", out.display())
        })?;
        Ok(())
    }
}

/// With what a page of manual has at its end.
fn described(command: Command) -> Command {
    command.after_help(
        "EXIT STATUS: 0 done, 1 failed, 2 the command line makes no sense, 3 `verify` found a difference or one was left, \
         `archive check` a bad segment, or `compact` left documents as they are, 4 `status` or `health` found something that needs attention.\n\n\
         FILES: /etc/alluvium/alluvium.toml, which is read only where --config names it.",
    )
}
