//! `alluvium dev`: everything on one machine and ready to be played with, kept from one start to the
//! next: a MongoDB server of one's own, the daemon and its API.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use serde_json::json;

use super::{CommandResult, Globals, Signals, output, private::Private, run::serve};
use crate::daemon::Daemon;

#[derive(Args, Debug)]
pub(super) struct Dev {
    /// The folder that keeps the data
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
    let place = Place::new(private, daemon.http());
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
    /// The same with the database in its path, as mongosh wants it.
    shell_uri: String,
    database: String,
    collection: String,
    api: String,
    data: String,
    /// A document that does not exist yet, so that what is printed works on every start.
    document: String,
}

impl Place {
    fn new(private: &Private, http: SocketAddr) -> Self {
        let uri = private.mongod.uri().to_owned();
        let database = private.database.name().to_owned();
        let collection = private.config.collections.first();
        Self {
            shell_uri: uri.replacen("/?", &format!("/{database}?"), 1),
            uri,
            database,
            collection: collection.map_or_else(String::new, |first| first.name.clone()),
            api: format!("http://{http}"),
            data: private.mongod.folder().display().to_string(),
            document: format!("game-{:06x}", fastrand::u32(..1 << 24)),
        }
    }

    fn print_json(&self) -> std::io::Result<()> {
        output::json(&json!({
            "uri": self.uri, "database": self.database, "collection": self.collection,
            "http": self.api, "data": self.data,
        }))
    }

    fn describe(&self) -> String {
        let Self { uri, shell_uri, database, collection, api, data, document } = self;
        format!(
            r#"
MongoDB   {uri}
          database {database}; data in {data}, kept for the next start
HTTP API  {api}
          status at {api}/v1/status

Try next, in another terminal:

1. Append two events with mongosh, which knows nothing of alluvium:

mongosh --quiet '{shell_uri}' --eval '
  const events = db.getCollection("{collection}.events"), majority = {{ writeConcern: {{ w: "majority" }} }};
  events.insertOne({{ _id: {{ d: "{document}", s: 1 }}, client: "game-server", op: "create",
                     at: new Date(), state: {{ gold: 0 }} }}, majority);
  events.insertOne({{ _id: {{ d: "{document}", s: 2 }}, client: "admin-panel", op: "update",
                     at: new Date(), patch: {{ $inc: {{ gold: 50 }} }} }}, majority);'

2. See the document that the daemon has made of them, and what a client is missing that knows only
   the first:

curl -s '{api}/v1/collections/{collection}/documents/{document}?min_version=2&wait=5s'
curl -s '{api}/v1/collections/{collection}/documents/{document}/missing' -H 'content-type: application/json' -d '{{"clock":{{"game-server":1}}}}'

3. Append from the command line, and look again:

alluvium append {collection} {document} --client me --op update --patch '{{"$inc":{{"gold":5}}}}' --uri '{uri}' --database {database}

Ctrl-C stops the daemon and the server."#
        )
    }
}
