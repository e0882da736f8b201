//! `alluvium dev`: everything on one machine and ready to be played with, kept from one start to the
//! next: a MongoDB server of one's own, the daemon and its API. What it prints can be pasted into a shell as it
//! stands, and needs nothing but this program.

use std::{fs, io, net::SocketAddr, path::PathBuf};

use clap::Args;
use serde_json::json;

use super::{CommandResult, Globals, Signals, output, private::Private, run::serve};
use crate::daemon::Daemon;

/// The configuration that is written into the folder of the data.
const CONFIGURATION: &str = "alluvium.toml";

/// With `--config` its collections and its `[http]` are used, and its `mongodb` is not.
#[derive(Args, Debug)]
pub(super) struct Dev {
    /// The folder that keeps the data, and a configuration with which every other command finds it
    #[arg(long, value_name = "FOLDER", default_value = ".alluvium")]
    data: PathBuf,
}

impl Dev {
    pub(super) async fn run(self, globals: &Globals, mut signals: Signals) -> CommandResult {
        if !globals.json {
            output::line("Starting a private MongoDB server and the daemon ...")?;
        }
        let data = std::path::absolute(&self.data)?;
        let private = Private::start(globals, "game", Some(data)).await?;
        let outcome = play(&private, globals, &mut signals).await;
        private.mongod.stop().await?;
        outcome
    }
}

async fn play(private: &Private, globals: &Globals, signals: &mut Signals) -> CommandResult {
    let daemon = Daemon::start(&private.database, &private.config).await?;
    let place = Place::new(private, daemon.http())?;
    place.write_configuration(private)?;
    if globals.json {
        place.print_json()?;
    } else {
        output::line(place.describe())?;
    }
    serve(daemon, signals).await
}

/// What there is to play with.
struct Place {
    uri: String,
    database: String,
    collection: String,
    http: SocketAddr,
    data: String,
    /// The configuration to go on with.
    configuration: PathBuf,
    /// This program, as a shell finds it.
    program: String,
    /// A document that does not exist yet, so that what is printed works on every start.
    document: String,
}

impl Place {
    fn new(private: &Private, http: SocketAddr) -> io::Result<Self> {
        let collection = private.config.collections.first();
        let folder = private.mongod.folder();
        Ok(Self {
            uri: private.mongod.uri().to_owned(),
            database: private.database.name().to_owned(),
            collection: collection.map_or_else(String::new, |first| first.name.clone()),
            http,
            data: folder.display().to_string(),
            configuration: folder.join(CONFIGURATION),
            program: quoted(&std::env::current_exe()?.display().to_string()),
            document: format!("game-{:06x}", fastrand::u32(..1 << 24)),
        })
    }

    /// Writes what another command, or `alluvium run`, needs to find all this.
    fn write_configuration(&self, private: &Private) -> io::Result<()> {
        let Self { uri, database, http, .. } = self;
        let mut text = format!(
            "# Where `alluvium dev` keeps its server, for other commands: --config with this file.\n\
             # It is written anew on every start: copy it to change it.\n\n\
             [mongodb]\nuri = {uri:?}\ndatabase = {database:?}\n\n[http]\nlisten = \"{http}\"\n"
        );
        for collection in &private.config.collections {
            text += &format!("\n[[collections]]\nname = {:?}\n", collection.name);
        }
        fs::write(&self.configuration, text)
    }

    fn print_json(&self) -> io::Result<()> {
        output::json(&json!({
            "uri": self.uri, "database": self.database, "collection": self.collection,
            "http": format!("http://{}", self.http), "data": self.data,
            "config": self.configuration.display().to_string(),
        }))
    }

    fn describe(&self) -> String {
        let Self { uri, database, collection, http, data, configuration, program, document } = self;
        let with = format!("--config {}", quoted(&configuration.display().to_string()));
        let collection = quoted(collection);
        format!(
            r#"
MongoDB   {uri}
          database {database}; data in {data}, kept for the next start
HTTP API  http://{http}
          status at http://{http}/v1/status
Settings  {}

Try next, in another terminal; every line works as it stands:

1. Append two events. Any MongoDB driver can do the same: an event is an insert.

{program} append {collection} {document} --client game-server --op create --state '{{"gold":0}}' {with}
{program} append {collection} {document} --client admin-panel --op update --patch '{{"$inc":{{"gold":50}}}}' {with}

2. See the document that the daemon has made of them, how it came to be, and what a client is missing that knows only
   the first:

{program} get {collection} {document} {with}
{program} history {collection} {document} {with}
{program} missing {collection} {document} --clock '{{"game-server":1}}' {with}

3. See whether all is well:

{program} status {with}

Ctrl-C stops the daemon and the server."#,
            configuration.display()
        )
    }
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word_in_a_shell() {
        for (word, shown) in [
            ("/a/b-1", "/a/b-1"),
            ("a b", "'a b'"),
            ("it's", "'it'\\''s'"),
            ("", "''"),
            ("$x", "'$x'"),
        ] {
            assert_eq!(quoted(word), shown);
        }
    }
}
