//! A scene of a document about which another instance has done something.

use std::time::Duration;

use bson::doc;

use super::{
    plan::Help,
    regressions::{Scene, create, update},
    store::version_of,
};

#[test]
fn a_document_that_was_skipped_elsewhere_moves_on_with_its_next_event() {
    for seed in 0..20 {
        let mut scene = Scene::new(seed, None);
        let poison = doc! { "op": "update", "patch": { "$inc": { "name": 1 } } };
        scene.append(&[(1, create()), (2, poison)]);
        scene.until("it is parked", |world| {
            Scene::row(world).is_some_and(|row| row.get("quarantine").unwrap().is_some())
        });
        scene.operate(Help::Skip, Vec::new());
        scene.until_version(2);
        scene.append(&[(3, update())]);
        scene.within(Duration::from_secs(20), "it moves on", |world| {
            Scene::row(world).and_then(|row| version_of(&row)) == Some(3)
        });
    }
}
