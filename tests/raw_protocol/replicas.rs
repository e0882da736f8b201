//! The client of `examples`: replicas that work offline end with the bytes of the projected row.

use bson::{Document, RawDocumentBuf};
use serde_json::json;

use crate::{
    common::{TestDatabase, database, free_port},
    projected, projecting_on, run, script,
};

/// What the scenes of `replicas.py` lead to: the documents, two replicas each.
const DOCUMENTS: [&str; 8] =
    ["meets", "answer", "unfit", "unknown", "skipped", "away", "gap", "news"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_work_offline_end_with_the_bytes_of_the_row() {
    let test = database().await;
    let port = free_port();
    let settings = "gap_grace = \"0s\"\nmax_state_bytes = \"4KiB\"\n";
    let mut daemon = projecting_on(&test, port, settings).await;
    let TestDatabase { uri, name, .. } = &test;
    let api = format!("http://127.0.0.1:{port}");
    let replicas = run("python3", &["-B", &script("replicas.py"), uri, name, &api]);
    let documents: Vec<&str> = replicas.iter().map(|found| found["d"].as_str().unwrap()).collect();
    assert_eq!(documents, DOCUMENTS.map(|document| [document; 2]).concat());
    for replica in &replicas {
        let id = replica["d"].as_str().unwrap();
        let row = projected(&test, id, replica["version"].as_i64().unwrap()).await;
        let clock = row.get_document("clock").unwrap().clone();
        assert_eq!(bson::Bson::from(clock).into_relaxed_extjson(), replica["clock"], "{id}");
        assert_eq!(hex(row.get_document("state").unwrap()), replica["state"], "{id}: {row}");
    }
    assert!(daemon.stop().await.success());
}

#[test]
fn the_fold_of_the_example_is_that_of_the_test_vectors() {
    let vectors = include_str!("../../examples/patches.json");
    let count = serde_json::from_str::<Vec<serde_json::Value>>(vectors).unwrap().len();
    let found = run("python3", &["-B", &script("vectors.py")]);
    assert_eq!(found, [json!({ "cases": count })]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_of_the_readme_does_what_it_says() {
    let test = database().await;
    let port = free_port();
    let mut daemon = projecting_on(&test, port, "").await;
    let TestDatabase { uri, name, .. } = &test;
    let readme = include_str!("../../README.md");
    let program = readme.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let mut adapted = program.to_owned();
    for (printed, ours) in [
        ("mongodb://127.0.0.1:PORT/?replicaSet=...", uri.clone()),
        (".game[", format!("[\"{name}\"][")),
        ("http://127.0.0.1:8750", format!("http://127.0.0.1:{port}")),
    ] {
        assert!(adapted.contains(printed), "{printed} is not in:\n{program}");
        adapted = adapted.replace(printed, &ours);
    }
    let said = run("python3", &["-c", &adapted]);
    assert_eq!((&said[0]["version"], &said[0]["state"]), (&json!(2), &json!({ "gold": 5 })));
    let missing = said[1]["events"].as_array().unwrap();
    assert_eq!((missing.len(), &missing[0]["client"]), (1, &json!("phone")));
    assert!(daemon.stop().await.success());
}

fn hex(document: &Document) -> String {
    let raw = RawDocumentBuf::try_from(document).unwrap();
    raw.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}
