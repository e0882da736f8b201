//! Rights in MongoDB: the roles that `alluvium init --roles` prints are enough for everything that is done with them, allow
//! nothing else, and where one is missing it is told which. On a server that demands a login and TLS.

#[path = "../common/mod.rs"]
mod common;
#[path = "../judge/mod.rs"]
mod judge;
#[path = "../common/scene.rs"]
mod scene;

mod allowed;
mod everything;
mod logins;
mod missing;
mod secured;

/// One collection, as it comes.
const GAMES: &str = "[[collections]]\nname = \"games\"\n";
