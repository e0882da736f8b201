//! `alluvium token new`: a new token for the HTTP API. Its secret is shown this once and kept nowhere.

use clap::Subcommand;
use serde_json::json;

use super::{CommandResult, Globals, output};
use crate::access::{Role, mint};

#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// Print a new token, and the lines that let it in for the file that `http.tokens_file` names
    New {
        /// Who it is for: what is done with it is put on record under this name
        name: String,
        /// What it is good for: read, client (read, and say what a client has) or admin (everything)
        #[arg(long)]
        role: Role,
        /// The only collections that it opens
        #[arg(long, value_delimiter = ',', value_name = "NAMES")]
        collections: Option<Vec<String>>,
    },
}

impl Token {
    pub(super) fn run(self, globals: &Globals) -> CommandResult {
        let Self::New { name, role, collections } = self;
        let (secret, lines) = mint(&name, role, collections.as_deref())?;
        if globals.json {
            output::json(&json!({ "token": secret, "lines": lines }))?;
        } else {
            output::note(
                "the token, which is shown only now; the lines below it go into `http.tokens_file`",
            );
            output::line(secret)?;
            output::line("")?;
            output::line(lines.trim_end())?;
        }
        Ok(())
    }
}
