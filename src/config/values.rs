//! How the values of keys are written: durations and sizes as text with a unit, so that a number
//! never leaves its reader guessing.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use bytesize::ByteSize;
use serde_json::Value;

use super::{redact::shown_value, uri::Uri};

/// A kind of value that a key can have.
pub(super) trait Setting: Sized {
    /// Reads it; the error says what the key must be.
    fn parse(value: &Value) -> Result<Self, String>;

    /// As it would stand in the file.
    fn show(&self) -> String;
}

impl Setting for String {
    fn parse(value: &Value) -> Result<Self, String> {
        value
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| format!("must be text, not {}", shown_value(value)))
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}

impl Setting for PathBuf {
    fn parse(value: &Value) -> Result<Self, String> {
        let rule = "must be the path of a file";
        let path = value.as_str().filter(|path| !path.is_empty()).map(Self::from);
        path.ok_or_else(|| format!("{rule}, not {}", shown_value(value)))
    }

    fn show(&self) -> String {
        format!("\"{}\"", self.display())
    }
}

impl Setting for bool {
    fn parse(value: &Value) -> Result<Self, String> {
        let given = value.as_bool().or_else(|| value.as_str()?.parse().ok());
        given.ok_or_else(|| format!("must be true or false, not {}", shown_value(value)))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for Uri {
    fn parse(value: &Value) -> Result<Self, String> {
        // The value is not shown: it may hold a password.
        value.as_str().ok_or("must be text, a MongoDB connection string")?.parse()
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}

impl Setting for Duration {
    fn parse(value: &Value) -> Result<Self, String> {
        let rule = "must be a duration with its unit, such as \"250ms\", \"30s\" or \"6h\"";
        let duration = value.as_str().and_then(|text| humantime::parse_duration(text).ok());
        duration.ok_or_else(|| format!("{rule}, not {}", shown_value(value)))
    }

    fn show(&self) -> String {
        format!("\"{}\"", humantime::format_duration(*self))
    }
}

/// A size in bytes.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub(super) struct Bytes(pub(super) u64);

impl Setting for Bytes {
    fn parse(value: &Value) -> Result<Self, String> {
        let rule = "must be a size with its unit, such as \"64MiB\" or \"512KiB\"";
        let text = value.as_str().unwrap_or_default().trim();
        let has_unit = !text.bytes().all(|byte| byte.is_ascii_digit());
        let size = text.parse::<ByteSize>().ok().filter(|_| has_unit);
        size.map(|size| Self(size.as_u64()))
            .ok_or_else(|| format!("{rule}, not {}", shown_value(value)))
    }

    fn show(&self) -> String {
        format!("\"{}\"", ByteSize(self.0).display().iec()).replace(".0 ", " ")
    }
}

impl Setting for u32 {
    fn parse(value: &Value) -> Result<Self, String> {
        let number = match value {
            Value::String(text) => text.parse().ok(),
            _ => value.as_u64().and_then(|number| Self::try_from(number).ok()),
        };
        number.ok_or_else(|| format!("must be a whole number, not {}", shown_value(value)))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for SocketAddr {
    fn parse(value: &Value) -> Result<Self, String> {
        let rule = "must be an IP address and a port, such as \"127.0.0.1:8750\" or \"[::1]:8750\"";
        let address = value.as_str().and_then(|text| text.parse().ok());
        address.ok_or_else(|| format!("{rule}, not {}", shown_value(value)))
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}
