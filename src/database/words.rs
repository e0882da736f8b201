//! A driver's error in words for people: no dump of a command, of a reply or of what the driver knows about
//! the servers.

use mongodb::error::{Error, ErrorKind, WriteFailure};

use super::{code, reply};

/// The longest message, in characters.
const CHARS_MAX: usize = 400;

/// What went wrong, in words.
pub(super) fn of(error: &Error) -> String {
    match *error.kind {
        ErrorKind::Command(ref command) if command.code == code::NO_INDEX => {
            "the server runs with `notablescan`, and refuses a query that no index serves"
                .to_owned()
        }
        ErrorKind::Command(ref command) => brief(&command.message),
        ErrorKind::Authentication { ref message, .. } => brief(message),
        ErrorKind::Write(WriteFailure::WriteError(ref write)) => brief(&write.message),
        ErrorKind::Write(WriteFailure::WriteConcernError(ref concern)) => brief(&concern.message),
        ErrorKind::InsertMany(ref insert) => {
            let first = insert.write_errors.as_ref().and_then(|errors| errors.first());
            let concern = insert.write_concern_error.as_ref();
            let said = first.map(|write| write.message.as_str());
            let said = said.or(concern.map(|concern| concern.message.as_str()));
            said.map_or_else(|| brief(&error.kind.to_string()), brief)
        }
        ErrorKind::Io(ref error) => format!("the connection broke: {error}"),
        ErrorKind::ServerSelection { .. } => {
            "no server that can be written to could be found in time".to_owned()
        }
        ErrorKind::ConnectionPoolCleared { .. } => {
            "the connection was given up because another one to the same server had failed"
                .to_owned()
        }
        // What was sent or answered stands in the driver's words, and nobody's data belong here.
        _ if reply::is_unread(error) => "the server's answer could not be read".to_owned(),
        ref other => brief(&other.to_string()),
    }
}

/// The message without what it repeats in braces: of a command only its name stays, and nothing of a key or a document,
/// which are somebody's data.
pub(super) fn brief(message: &str) -> String {
    let whole = match message.split_once('{') {
        Some((before, command)) if before.ends_with("command ") => {
            let first = command.split([',', '}']).next().unwrap_or_default();
            let right = forbidden(before, command).map(|right| format!(", which needs {right}"));
            format!("{before}{{{} }}{}", first.trim_end(), right.unwrap_or_default())
        }
        Some((before, _)) => format!("{before}{{ … }}"),
        None => message.to_owned(),
    };
    match whole.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{} …", whole.get(..end).unwrap_or_default()),
        None => whole,
    }
}

/// The actions that a command needs which was forbidden, and on what: as roles name them, which the server does not say.
fn forbidden(before: &str, command: &str) -> Option<String> {
    // It may have been told already.
    if let Some((_, told)) = command.split_once("}, which needs ") {
        return Some(told.to_owned());
    }
    let database = before.strip_prefix("not authorized on ")?.split(' ').next()?;
    let (verb, rest) = command.trim_start().split_once(':')?;
    let collection = rest.trim_start().strip_prefix('"').and_then(|name| name.split('"').next());
    let actions = match verb {
        "aggregate" if command.contains("$changeStream") => "`changeStream` and `find`",
        "find" | "aggregate" | "count" => "`find`",
        "insert" => "`insert`",
        "update" if command.contains("upsert: true") => "`update` and `insert`",
        "update" => "`update`",
        "findAndModify" => "`find` and `update`",
        "delete" => "`remove`",
        "create" => "`createCollection` or `insert`",
        "createIndexes" => "`createIndex`",
        "collMod" => "`collMod`",
        "listCollections" => "`listCollections`",
        _ => return None,
    };
    Some(match collection {
        Some(collection) => format!("{actions} on `{database}.{collection}`"),
        None => format!("{actions} on the database `{database}`"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forbidden_is_told_with_the_action_that_is_missing() {
        for (command, expected) in [
            ("{ insert: \"alluvium.jobs\", ordered: true }", "`insert` on `game.alluvium.jobs`"),
            ("{ delete: \"games.events\", deletes: [] }", "`remove` on `game.games.events`"),
            (
                "{ update: \"a\", updates: [ { upsert: true } ] }",
                "`update` and `insert` on `game.a`",
            ),
            (
                "{ aggregate: 1, pipeline: [ { $changeStream: {} } ] }",
                "`changeStream` and `find` on the database `game`",
            ),
        ] {
            let told = brief(&format!("not authorized on game to execute command {command}"));
            let (_, right) = told.split_once(", which needs ").unwrap();
            assert_eq!(right, expected, "{told}");
        }
        let other = brief("not authorized on admin to execute command { shutdown: 1 }");
        assert_eq!(other, "not authorized on admin to execute command { shutdown: 1 }");
    }

    #[test]
    fn a_command_that_is_repeated_is_named_only() {
        let said = "not authorized on game to execute command { find: \"games\", filter: {}, lsid: { id: UUID(\"x\") }, $db: \"game\" }";
        let told = "not authorized on game to execute command { find: \"games\" }, which needs `find` on `game.games`";
        assert_eq!(brief(said), told);
        assert_eq!(brief("command { ping: 1 } failed"), "command { ping: 1 }");
        assert_eq!(brief("E11000 duplicate key"), "E11000 duplicate key");
    }

    #[test]
    fn the_data_that_is_repeated_is_not_told() {
        let said = "E11000 duplicate key error collection: g.games index: state.mail_1 dup key: { state.mail: \"a}b\" }";
        let told =
            "E11000 duplicate key error collection: g.games index: state.mail_1 dup key: { … }";
        assert_eq!(brief(said), told);
        assert_eq!(
            brief("Can't extract geo keys: { _id: 1, state: { at: 5"),
            "Can't extract geo keys: { … }"
        );
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        assert_eq!(brief(&"ü".repeat(500)), format!("{} …", "ü".repeat(400)));
    }
}
