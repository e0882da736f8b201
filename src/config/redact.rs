//! What of a value may be shown. Values end up in the wrong key, and a connection string in the wrong key
//! still holds its password.

use std::{fmt::Display, io};

use serde_json::Value;

/// What connection strings and other secrets look like.
const SUSPICIOUS: [&str; 8] = ["://", "@", "mongodb", "password", "passwd", "pwd", "secret", TOKEN];

/// What tokens begin with.
const TOKEN: &str = "alluvium_";

/// Longer than any sensible value of a key that is not a connection string.
const SHOWN_MAX: usize = 256;

/// A text for a message: in quotes, or only described where it may hold a password.
pub(super) fn shown(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let is_suspicious = SUSPICIOUS.iter().any(|part| lower.contains(part))
        || (lower.contains('?') && lower.contains('='))
        || text.len() > SHOWN_MAX;
    if is_suspicious {
        format!("a text of {} bytes, not shown since it may hold a password", text.len())
    } else {
        format!("{text:?}")
    }
}

/// Why a file cannot be read, and what to do: where not the rights are missing, what is said `otherwise`.
pub(crate) fn unreadable(error: &io::Error, otherwise: Option<&str>) -> String {
    let advice = match error.kind() {
        io::ErrorKind::PermissionDenied => Some("let the user that alluvium runs as read it"),
        _ => otherwise,
    };
    let advice = advice.map(|advice| format!("; {advice}")).unwrap_or_default();
    format!("cannot be read: {error}{advice}")
}

/// The path of a file, or the name of a key, for a message: as it is, or only described where a connection string or a token
/// stands in its place.
pub(crate) fn named(what: &impl Display) -> String {
    let text = what.to_string();
    match text.contains("://") || text.contains(TOKEN) {
        true => format!("(a text of {} bytes, not shown since it may hold a password)", text.len()),
        false => text,
    }
}

/// A value for a message.
pub(super) fn shown_value(value: &Value) -> String {
    match value {
        Value::String(text) => shown(text),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a table".into(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// The first character that no name and no connection string has, in words and with its place.
pub(super) fn control_problem(text: &str) -> Option<String> {
    let (at, found) = text.char_indices().find(|(_, c)| c.is_control())?;
    let name = match found {
        '\n' => "a line feed".into(),
        '\r' => "a carriage return".into(),
        '\t' => "a tab".into(),
        '\0' => "a NUL byte".into(),
        other => format!("the control character U+{:04X}", u32::from(other)),
    };
    let is_last = text.get(at..).is_some_and(|rest| rest.trim_end().is_empty());
    let place = match at {
        0 => "begins with",
        _ if is_last => "ends with",
        _ => "contains",
    };
    Some(format!("{place} {name}, perhaps from the file that it was read from; remove it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_hold_a_password_is_not_shown() {
        for text in [
            "mongodb://u:hunter2@h/",
            "u:hunter2@h",
            "mongodb:hunter2",
            "?password=hunter2",
            "h/?x=hunter2",
            "Password hunter2",
            "alluvium_hunter2",
        ] {
            assert!(!shown(text).contains("hunter2"), "{text}");
            assert!(!shown_value(&Value::from(vec![text])).contains("hunter2"), "{text}");
        }
        assert_eq!(shown("0.0.0.0:80"), "\"0.0.0.0:80\"");
        assert_eq!(shown_value(&Value::from(5)), "5");
    }

    #[test]
    fn control_characters_are_named_with_their_place() {
        for (text, said) in [
            ("game\n", "ends with a line feed"),
            ("game\r\n", "ends with a carriage return"),
            ("\tgame", "begins with a tab"),
            ("ga\u{7f}me", "contains the control character U+007F"),
        ] {
            assert!(control_problem(text).unwrap().starts_with(said), "{text:?}");
        }
        assert_eq!(control_problem("spiele ü"), None);
    }
}
