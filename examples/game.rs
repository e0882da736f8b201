//! A game as a document made of events, in nine steps, against a MongoDB replica set:
//!
//! ```text
//! cargo run -- dev                                       # in one terminal; prints the URI
//! cargo run --example game -- mongodb://127.0.0.1:27017  # in another
//! ```
//!
//! The daemon need not run: the writer appends to the log, and its reads fold what is not projected yet.

use std::{env, error::Error};

use alluvium::{
    model::{clock::Clock, id::DocumentId},
    read::{ReadLimits, Reader},
    writer::{By, EventSourced},
};
use bson::{DateTime, Document, oid::ObjectId};
use mongodb::Client;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct GameState {
    name: String,
    gold: i64,
    level: i64,
    experience: i64,
    last_updated: DateTime,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: game MONGODB_URI [DATABASE]";
    let uri = env::args().nth(1).ok_or(usage)?;
    let database = env::args().nth(2).unwrap_or_else(|| "game".into());

    // 1. Connect.
    let database = Client::with_uri_str(&uri).await?.database(&database);

    // 2. The stores. `games.events` is the log, `games` the projection; a reader joins the two.
    let reader = Reader::new(&database, "games", ReadLimits::default());

    // 3. A clock for each replica: how many events of each client it has seen. The phone is new.
    let mut phone = Clock::new();

    // 4. The writer.
    let games = EventSourced::<GameState>::new(&database, "games");

    // 5. The game server creates a game: version 1.
    let id = DocumentId::ObjectId(ObjectId::new());
    let state = GameState {
        name: "Dragon's Hollow".into(),
        gold: 0,
        level: 1,
        experience: 0,
        last_updated: DateTime::now(),
    };
    let created = games.create(&id, "game-server", &state).await?;
    println!("created {id}: version {}, clock {}", created.version, created.clock);

    // 6. The phone catches up once: it now knows what the game server has written so far.
    phone.merge(&created.clock);

    // 7. The admin panel gives a present. The closure changes a value; the event holds the difference.
    let present = By::client("admin-panel").event_type("present");
    let updated = games
        .update(&id, present, |game| {
            game.gold += 50;
            game.experience += 100;
            game.last_updated = DateTime::now();
        })
        .await?;
    let diff = updated.diff.map_or("nothing".into(), |diff| diff.to_string());
    println!("updated: version {}, clock {}: {diff}", updated.version, updated.clock);

    // 8. Another client levels the game up.
    let levelled = games
        .update(&id, By::client("mobile-client").event_type("level-up"), |game| {
            game.level += 1;
            game.last_updated = DateTime::now();
        })
        .await?;
    println!("levelled up: version {}, clock {}", levelled.version, levelled.clock);

    // 9. What is the phone missing? Exactly the events that its clock does not count.
    let missing = games.missing_events(&id, &phone).await?;
    println!("a client with the clock {phone} is missing:");
    for event in &missing.events {
        let body = Document::try_from(event.raw.as_ref())?;
        println!("  version {} by {}: {body}", event.version, event.client);
    }
    println!("and has the clock {} afterwards", missing.next_clock);
    let current = games.get(&id).await?.ok_or("the game is gone")?;
    println!("the game now: {:?}", current.state);
    let pending = reader.current(&id).await?.map_or(0, |current| current.pending);
    println!("{pending} of its {} events wait to be projected", current.version);
    Ok(())
}
