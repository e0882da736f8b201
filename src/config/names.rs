//! Which names of databases and collections can be used: MongoDB's rules, and those that keep the
//! collections of this program apart from each other.

use super::redact::{control_problem, shown};
use crate::model::names::{BOOKKEEPING_PREFIX, EVENTS_SUFFIX, SNAPSHOTS_SUFFIX};

/// The server's limit on `<database>.<collection>`, in bytes.
const NAMESPACE_BYTES_MAX: usize = 255;

/// What is wrong with the name of a database, if anything.
pub(super) fn database_problem(name: &str) -> Option<String> {
    const FORBIDDEN: &str = "/\\. \"$*<>:|?";
    if let Some(problem) = control_problem(name) {
        Some(problem)
    } else if !(1..=63).contains(&name.len()) {
        Some(format!("the name of a database has 1 to 63 bytes, not {}", name.len()))
    } else if name.contains(|c| FORBIDDEN.contains(c)) {
        Some(format!(
            "{} is no name of a database: it cannot contain any of / \\ . \" $ * < > : | ? or a space",
            shown(name)
        ))
    } else if ["admin", "local", "config"].contains(&name) {
        Some(format!("`{name}` belongs to MongoDB itself; choose another database"))
    } else {
        None
    }
}

/// What is wrong with the name of a collection, if anything.
pub(crate) fn collection_problem(name: &str, database: &str) -> Option<String> {
    let longest = NAMESPACE_BYTES_MAX.saturating_sub(1 + database.len() + SNAPSHOTS_SUFFIX.len());
    if let Some(problem) = control_problem(name) {
        Some(problem)
    } else if name.is_empty() {
        Some("a collection needs a name".into())
    } else if name.len() > longest {
        Some(format!(
            "the name has {} bytes; with this database's name it can have {longest}",
            name.len()
        ))
    } else if name.contains('$') || name.starts_with('.') || name.ends_with('.') {
        Some(format!(
            "{} is no name of a collection: it cannot contain $, and cannot begin or end with a dot",
            shown(name)
        ))
    } else if name.starts_with("system.") || name.contains(".system.") {
        Some(format!("{} belongs to MongoDB itself; choose another name", shown(name)))
    } else if name.starts_with(BOOKKEEPING_PREFIX) {
        Some(format!(
            "{}: names that begin with `{BOOKKEEPING_PREFIX}` are kept for bookkeeping; choose another",
            shown(name)
        ))
    } else {
        let mut suffixes = [EVENTS_SUFFIX, SNAPSHOTS_SUFFIX].into_iter();
        let added = suffixes.find(|suffix| name.ends_with(suffix))?;
        Some(format!("{}: give the name without `{added}`, which is added to it", shown(name)))
    }
}

/// The longest name of an instance, in bytes.
const INSTANCE_BYTES_MAX: usize = 100;

/// What is wrong with the name of an instance, if anything.
pub(super) fn instance_problem(name: &str) -> Option<String> {
    let is_fine = (1..=INSTANCE_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    let told = || {
        format!(
            "must be 1 to {INSTANCE_BYTES_MAX} letters, digits, dots, dashes and underscores, not {}",
            shown(name)
        )
    };
    (!is_fine).then(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usable_names_pass() {
        assert_eq!(database_problem("game"), None);
        for name in ["games", "a.b", "Games-2", "spiele_ü", &"x".repeat(255 - 5 - 10)] {
            assert_eq!(collection_problem(name, "game"), None);
        }
    }

    #[test]
    fn unusable_names_are_refused() {
        for name in ["", "a.b", "a b", "a$", "a/b", "admin", "local", "config", &"x".repeat(64)] {
            assert!(database_problem(name).is_some(), "{name}");
        }
        let long = "x".repeat(255 - 5 - 9);
        for name in [
            "",
            "a$b",
            ".a",
            "a.",
            "system.x",
            "a.system.b",
            "alluvium",
            "alluvium.meta",
            "alluviumx",
            "games.events",
            "games.snapshots",
            &long,
        ] {
            assert!(collection_problem(name, "game").is_some(), "{name}");
        }
    }
}
