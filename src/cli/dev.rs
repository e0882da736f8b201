//! `alluvium dev`: everything on one machine and ready to be played with, kept from one start to the
//! next: a MongoDB server of one's own, the daemon and its API. What it prints can be pasted into a shell as it
//! stands, and needs nothing but this program.

use std::{fs, io, net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use serde_json::json;

use super::{CommandResult, Globals, Signals, output, private::Private, run::serve};
use crate::{
    config::{CollectionConfig, CompactionConfig, SnapshotsConfig},
    daemon::{Daemon, DaemonError},
};

/// The configuration that is written into the folder of the data.
const CONFIGURATION: &str = "alluvium.toml";

/// Start a MongoDB server that keeps its data in .alluvium, the daemon and its API, to play with
///
/// With --config its collections and its [http] count, and its [mongodb] does not.
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
    let daemon = match Daemon::start(&private.database, &private.config).await {
        Err(error @ DaemonError::Listen { .. }) => {
            let said =
                format!("{error}, or set ALLUVIUM_HTTP__LISTEN: 127.0.0.1:0 is any free port");
            return Err(said.into());
        }
        daemon => daemon?,
    };
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
            text += &tables(collection);
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

/// A collection as a configuration has it.
fn tables(collection: &CollectionConfig) -> String {
    let CollectionConfig {
        name,
        flush_interval,
        cache_bytes,
        gap_grace,
        max_event_bytes,
        max_state_bytes,
        max_clients,
        snapshots: SnapshotsConfig { every_events, every, keep },
        compaction,
    } = collection;
    let CompactionConfig { every: compaction_every, min_age, keep_events, client_ttl, archive } =
        compaction;
    let shown = |time: Duration| format!("\"{}\"", humantime::format_duration(time));
    let mut text = format!(
        "\n[[collections]]\nname = {name:?}\nflush_interval = {}\ncache_bytes = \"{cache_bytes}B\"\n\
         gap_grace = {}\nmax_event_bytes = \"{max_event_bytes}B\"\nmax_state_bytes = \"{max_state_bytes}B\"\n\
         max_clients = {max_clients}\n\n\
         [collections.snapshots]\nevery_events = {every_events}\nevery = {}\nkeep = {keep}\n\n\
         [collections.compaction]\nevery = {}\nmin_age = {}\nkeep_events = {keep_events}\nclient_ttl = {}\n",
        shown(*flush_interval),
        shown(*gap_grace),
        shown(*every),
        shown(compaction_every.unwrap_or_default()),
        shown(*min_age),
        shown(*client_ttl),
    );
    if let Some(archive) = archive {
        text += &format!("archive = {:?}\n", archive.to_string());
    }
    text
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
    use crate::config::{Expect, Sources, load};

    #[test]
    fn a_collection_is_written_as_it_is_read() {
        let mut given = CollectionConfig::new("games");
        given.flush_interval = Duration::from_millis(1_500);
        given.cache_bytes = (1 << 20) + 1;
        given.snapshots.every = Duration::from_secs(3_661);
        let mut other = CollectionConfig::new("users");
        other.compaction.every = Some(Duration::from_secs(600));
        other.compaction.keep_events = 5;
        other.compaction.archive = Some("file:///var/lib/a".parse().unwrap());
        let file = tempfile::NamedTempFile::new().unwrap();
        let mongodb = "[mongodb]\nuri = \"mongodb://h/\"\ndatabase = \"game\"\n";
        fs::write(file.path(), mongodb.to_owned() + &tables(&given) + &tables(&other)).unwrap();
        let sources = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
        let read = load(&sources, Expect::Collections).unwrap();
        assert_eq!(read.collections, [given, other]);
    }

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
