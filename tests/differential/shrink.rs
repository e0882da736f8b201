//! Smaller cases made out of one that fails.

use bson::{Bson, Document};

use crate::generate::Case;

/// Every case that is one step smaller.
pub(crate) fn candidates(case: &Case) -> Vec<Case> {
    let mut smaller = Vec::new();
    for filters in without_one(&case.filters) {
        smaller.push(Case { filters, ..case.clone() });
    }
    for (at, filter) in case.filters.iter().enumerate() {
        for document in documents(filter) {
            let mut filters = case.filters.clone();
            filters[at] = document;
            smaller.push(Case { filters, ..case.clone() });
        }
    }
    for patch in documents(&case.patch).into_iter().filter(is_patch) {
        smaller.push(Case { patch, ..case.clone() });
    }
    for state in documents(&case.state) {
        smaller.push(Case { state, ..case.clone() });
    }
    smaller
}

/// Whether the server takes the document for operators and not for a replacement.
pub(crate) fn is_patch(patch: &Document) -> bool {
    patch.keys().next().is_some_and(|name| name.starts_with('$'))
}

fn documents(document: &Document) -> Vec<Document> {
    let entries: Vec<_> = document.clone().into_iter().collect();
    let mut smaller: Vec<Document> =
        without_one(&entries).into_iter().map(|entries| entries.into_iter().collect()).collect();
    for (at, (_, value)) in entries.iter().enumerate() {
        for value in values(value) {
            let mut entries = entries.clone();
            entries[at].1 = value;
            smaller.push(entries.into_iter().collect());
        }
    }
    smaller
}

fn values(value: &Bson) -> Vec<Bson> {
    match value {
        Bson::Document(document) => {
            let inner = documents(document).into_iter().map(Bson::Document);
            inner.chain(document.values().cloned()).collect()
        }
        Bson::Array(items) => {
            let mut smaller: Vec<_> = without_one(items).into_iter().map(Bson::Array).collect();
            for (at, item) in items.iter().enumerate() {
                for item in values(item) {
                    let mut items = items.clone();
                    items[at] = item;
                    smaller.push(Bson::Array(items));
                }
            }
            smaller
        }
        Bson::Int32(0 | 1) | Bson::Null => Vec::new(),
        Bson::String(text) if text.is_empty() => Vec::new(),
        Bson::String(text) => {
            let shorter: String = text.chars().take(text.chars().count() / 2).collect();
            vec![Bson::String(shorter), Bson::Int32(1)]
        }
        _ => vec![Bson::Int32(0), Bson::Int32(1)],
    }
}

fn without_one<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    let without = |at: usize| {
        let mut rest = items.to_vec();
        rest.remove(at);
        rest
    };
    (0..items.len()).map(without).collect()
}
