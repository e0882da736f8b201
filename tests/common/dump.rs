//! Dumps of a database as `mongodump` makes them, by the driver: BSON, a file for each collection. `collections.bson` tells how
//! the collections were made.

#![allow(dead_code, reason = "every test binary uses a part of this")]
#![allow(unreachable_pub, reason = "a helper is as public as its test binary")]

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use bson::{Document, RawDocumentBuf, doc};
use futures::TryStreamExt;
use mongodb::Database;

/// How the collections were made, as `listCollections` tells it.
const COLLECTIONS: &str = "collections.bson";

/// The UUIDs of restored collections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identities {
    /// Those that they had, as with `mongorestore --preserveUUID`.
    Kept,
    /// Others.
    New,
}

/// Dumps all collections, one after the other.
pub async fn dump(db: &Database, folder: &Path) {
    for name in begin(db, folder).await {
        dump_collection(db, folder, &name).await;
    }
}

/// Notes how the collections were made, and gives their names.
pub async fn begin(db: &Database, folder: &Path) -> Vec<String> {
    fs::create_dir_all(folder).unwrap();
    let listed = db.run_cursor_command(doc! { "listCollections": 1 }).await.unwrap();
    let mut listed: Vec<Document> = listed.try_collect().await.unwrap();
    listed.sort_by(|one, other| one.get_str("name").unwrap().cmp(other.get_str("name").unwrap()));
    write_file(&folder.join(COLLECTIONS), listed.iter().map(|made| made.to_vec().unwrap()));
    listed.iter().map(|made| made.get_str("name").unwrap().to_owned()).collect()
}

/// Dumps one collection.
pub async fn dump_collection(db: &Database, folder: &Path, name: &str) {
    let rows = db.collection::<RawDocumentBuf>(name).find(doc! {}).await.unwrap();
    let rows: Vec<RawDocumentBuf> = rows.try_collect().await.unwrap();
    write_file(&file(folder, name), rows.iter().map(|row| row.as_bytes().to_vec()));
}

/// What a dump has of a collection.
pub fn dumped(folder: &Path, collection: &str) -> Vec<Document> {
    read_file(&file(folder, collection))
}

/// Makes the database what a dump has.
pub async fn restore(db: &Database, folder: &Path, identities: Identities) {
    db.drop().await.unwrap();
    for collection in read_file(&folder.join(COLLECTIONS)) {
        let name = collection.get_str("name").unwrap();
        let mut create = doc! { "create": name };
        create.extend(collection.get_document("options").unwrap().clone());
        if let Ok(index) = collection.get_document("idIndex") {
            create.insert("idIndex", index.clone());
        }
        let mut made = doc! { "op": "c", "ns": format!("{}.$cmd", db.name()), "o": create };
        if identities == Identities::Kept {
            made.insert("ui", collection.get_document("info").unwrap().get("uuid").unwrap());
        }
        let admin = db.client().database("admin");
        admin.run_command(doc! { "applyOps": [made] }).await.unwrap();
        let rows = dumped(folder, name);
        if !rows.is_empty() {
            db.collection(name).insert_many(rows).await.unwrap();
        }
    }
}

fn file(folder: &Path, collection: &str) -> PathBuf {
    folder.join(format!("{collection}.bson"))
}

fn write_file(path: &Path, documents: impl Iterator<Item = Vec<u8>>) {
    let mut file = File::create(path).unwrap();
    documents.for_each(|document| file.write_all(&document).unwrap());
}

fn read_file(path: &Path) -> Vec<Document> {
    let bytes = fs::read(path).unwrap();
    let mut rest = bytes.as_slice();
    let mut documents = Vec::new();
    while let Some(length) = rest.first_chunk() {
        let length = usize::try_from(i32::from_le_bytes(*length)).unwrap();
        documents.push(Document::from_reader(&rest[..length]).unwrap());
        rest = &rest[length..];
    }
    documents
}
