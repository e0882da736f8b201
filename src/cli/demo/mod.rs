//! `alluvium demo`: one small story on a throwaway server, told so that somebody who has never heard
//! of event sourcing or of vector clocks understands both, and checked by itself.

mod phone;
mod tell;

use std::time::Duration;

use bson::{DateTime, oid::ObjectId};
use clap::Args;
use mongodb::Database;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{
    CommandResult, Globals,
    private::{Private, PrivateError},
};
use crate::{
    config::Config,
    daemon::Daemon,
    model::{document::Document, id::DocumentId},
    read::{ReadLimits, Reader},
    time::{SystemTime, Time},
    writer::{By, EventSourced},
};
use phone::Phone;
use tell::Teller;

/// The collection of the story.
const GAMES: &str = "games";

/// How long a document may take to be projected before the demonstration has failed.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Args, Debug)]
pub(super) struct Demo {}

/// What a game is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct GameState {
    name: String,
    gold: i64,
    level: i64,
    experience: i64,
    last_updated: DateTime,
}

/// What went otherwise than it must.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("version {version} was not projected within {} s", PATIENCE.as_secs())]
    NotProjected { version: i64 },
    #[error("the demonstration did not come out as it must: {0}")]
    Wrong(String),
}

impl Demo {
    pub(super) async fn run(self, globals: &Globals) -> CommandResult {
        if globals.config.is_some() {
            return Err(PrivateError::Config.into());
        }
        let mut teller = Teller::new(globals.json);
        teller.say("Starting a private MongoDB server and the daemon ...")?;
        let mut private = Private::start(globals, "demo", None).await?;
        // Any free port: nobody needs to find the API.
        private.config.http.listen.set_port(0);
        let outcome = perform(&private.database, &private.config, &mut teller).await;
        private.mongod.stop().await?;
        outcome?;
        teller.finish()
    }
}

/// Runs the daemon for as long as the story takes.
async fn perform(database: &Database, config: &Config, teller: &mut Teller) -> CommandResult {
    let daemon = Daemon::start(database, config).await?;
    let end = CancellationToken::new();
    let story = async {
        let outcome = Story::new(database, teller).tell().await;
        end.cancel();
        outcome
    };
    let (stopped, outcome) = tokio::join!(daemon.run_until(end.cancelled()), story);
    outcome?;
    Ok(stopped?)
}

struct Story<'a> {
    id: DocumentId,
    games: EventSourced<GameState>,
    reader: Reader,
    teller: &'a mut Teller,
}

impl<'a> Story<'a> {
    fn new(database: &Database, teller: &'a mut Teller) -> Self {
        Self {
            id: DocumentId::ObjectId(ObjectId::new()),
            games: EventSourced::new(database, GAMES),
            reader: Reader::new(database, GAMES, ReadLimits::default()),
            teller,
        }
    }

    async fn tell(mut self) -> CommandResult {
        self.teller.opening(&self.id)?;
        self.create().await?;
        let phone = Phone::buy(&self.games, &self.id).await?;
        self.teller.bought(phone.document())?;
        self.present().await?;
        self.level_up().await?;
        self.missing(phone).await
    }

    async fn create(&mut self) -> CommandResult {
        self.teller.step("game-server creates the game")?;
        let state = GameState {
            name: "Dragon's Hollow".into(),
            gold: 0,
            level: 1,
            experience: 0,
            last_updated: DateTime::now(),
        };
        self.games.create(&self.id, "game-server", &state).await?;
        self.show(1).await
    }

    async fn present(&mut self) -> CommandResult {
        self.teller.step("admin-panel gives it 50 gold and 100 experience")?;
        let by = By::client("admin-panel").event_type("present");
        let change = |game: &mut GameState| {
            game.gold += 50;
            game.experience += 100;
            game.last_updated = DateTime::now();
        };
        self.games.update(&self.id, by, change).await?;
        self.teller.say(
            "   The panel only changed a value; the writer found the difference and appended that.",
        )?;
        self.show(2).await
    }

    async fn level_up(&mut self) -> CommandResult {
        self.teller.step("mobile-client levels it up")?;
        let by = By::client("mobile-client").event_type("level-up");
        let change = |game: &mut GameState| {
            game.level += 1;
            game.last_updated = DateTime::now();
        };
        self.games.update(&self.id, by, change).await?;
        self.show(3).await
    }

    /// Shows the event at `version` and the document that the daemon has made of it.
    async fn show(&mut self, version: i64) -> CommandResult {
        let page = self.games.history(&self.id, version - 1, 1).await?;
        let event = page.events.first().ok_or(DemoError::NotProjected { version })?;
        self.teller.appended(event.version, &event.raw)?;
        let document = self.projected(version).await?;
        self.teller.projected(&document)
    }

    /// Waits until the daemon has projected `version`.
    async fn projected(&self, version: i64) -> Result<Document, Error> {
        let time = SystemTime::new();
        loop {
            let document = self.reader.document(&self.id).await?;
            if let Some(document) = document.filter(|document| document.version >= version) {
                return Ok(document);
            }
            if time.now() > PATIENCE {
                return Err(DemoError::NotProjected { version }.into());
            }
            time.sleep(Duration::from_millis(5)).await;
        }
    }

    async fn missing(mut self, mut phone: Phone) -> CommandResult {
        self.teller.step("The phone is back and asks what it is missing")?;
        let document = self.projected(3).await?;
        self.teller.clocks(phone.document(), &document)?;
        let missing = self.games.missing_events(&self.id, &phone.document().clock).await?;
        self.teller.missing(&missing)?;
        let who: Vec<(i64, &str)> =
            missing.events.iter().map(|event| (event.version, event.client.as_str())).collect();
        self.check(
            "exactly the two events, in order",
            who == [(2, "admin-panel"), (3, "mobile-client")],
        )?;
        for event in &missing.events {
            phone.apply(&event.raw)?;
        }
        let same = phone.document().to_raw() == document.to_raw();
        self.check("with them the phone has the same document, byte for byte", same)?;
        let again = self.games.missing_events(&self.id, &phone.document().clock).await?;
        self.check("after which it is missing nothing", again.events.is_empty())?;
        let total = document.clock.total();
        self.check("the clock's counts sum to the version", total == document.version)?;
        let state = self.games.get(&self.id).await?.map(|current| current.state);
        let right =
            state.is_some_and(|game| (game.gold, game.experience, game.level) == (50, 100, 2));
        self.check("the game has 50 gold, 100 experience and level 2", right)
    }

    fn check(&mut self, what: &str, holds: bool) -> CommandResult {
        if !holds {
            return Err(DemoError::Wrong(format!("not so: {what}")).into());
        }
        self.teller.checked(what)
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;
