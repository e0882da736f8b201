//! Another version comes: instances are replaced one after the other under load, and data in a newer format is left alone.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::*;
use crate::common::{wait_for, wait_until};

const DOCUMENTS: i64 = 20;

/// An instance of the program that this variable names: any build; this one, if it names none.
fn of(variable: &str, scene: &Scene) -> Daemon {
    let program = std::env::var(variable);
    let program = program.as_deref().unwrap_or(env!("CARGO_BIN_EXE_alluvium"));
    Daemon::of(program, &config(scene, "5s"))
}

/// Replaces instances one after the other, each once the new one is ready.
async fn replace(all: &mut [Daemon; 2], new: impl Fn() -> Daemon) {
    for one in all {
        let mut replacing = new();
        replacing.ready().await;
        assert!(one.stop().await.success(), "{}", one.log());
        *one = replacing;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_replaced_by_others_and_back_while_writers_go_on() {
    let scene = Scene::new().await;
    let (old, new) = (|| of("ALLUVIUM_OLD", &scene), || of("ALLUVIUM_NEW", &scene));
    let mut all = [old(), old()];
    for one in &mut all {
        one.ready().await;
    }
    let (written, is_over) = (AtomicI64::new(0), AtomicBool::new(false));
    let writers = async {
        while !is_over.load(Ordering::Relaxed) {
            let version = written.load(Ordering::Relaxed) + 1;
            scene.write_on(DOCUMENTS, version..=version).await;
            written.store(version, Ordering::Relaxed);
        }
    };
    let updates = async {
        for round in 0..2 {
            replace(&mut all, new).await;
            // What was written by now is projected by the new ones alone.
            let least = written.load(Ordering::Relaxed) + 1;
            wait_until("the new ones project", async || {
                let row = scene.row("d0").await;
                row.is_some_and(|row| row.get_i64("version").unwrap() >= least)
            })
            .await;
            if round == 0 {
                replace(&mut all, old).await;
            }
        }
        is_over.store(true, Ordering::Relaxed);
    };
    tokio::join!(writers, updates);
    scene.level("games").await;
    for one in &mut all {
        assert!(one.stop().await.success());
    }
    let events = written.load(Ordering::Relaxed) * DOCUMENTS;
    assert_eq!(scene.judged().await.events as i64, events);
    println!("{events} events meanwhile");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_in_a_newer_format_is_left_alone_by_a_start_and_by_every_command() {
    let scene = Scene::new().await;
    scene.append([event("a", 1)]).await;
    let newer = doc! { "_id": "format", "version": FORMAT + 1 };
    scene.collection("alluvium.meta").insert_one(newer).await.unwrap();
    let sentence = format!("the data is in format {}", FORMAT + 1);
    let mut started = daemon(&scene, "5s");
    assert_eq!(started.ended().await.code(), Some(1));
    wait_for("it has said why", async || started.log().contains(&sentence).then_some(())).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alluvium.toml");
    std::fs::write(&file, config(&scene, "5s")).unwrap();
    for line in ["init", "get games a", "history games a", "append games b --client x --op delete"]
    {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_alluvium"));
        command.args(line.split(' ')).arg("--config").arg(&file);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{line}: {said}");
        assert!(said.contains(&sentence), "{line}: {said}");
        assert!(said.contains("install the version of alluvium that wrote it"), "{line}: {said}");
    }
    let mut names = scene.db.list_collection_names().await.unwrap();
    names.sort();
    assert_eq!(names, ["alluvium.meta", "games.events"], "something was made");
    assert_eq!(scene.collection("games.events").count_documents(doc! {}).await.unwrap(), 1);
}
