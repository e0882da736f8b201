//! Where an archive is: a directory, or a prefix in a bucket.

use std::{fmt, path::PathBuf, str::FromStr};

/// Where an archive is, as the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A directory: `file:///var/lib/alluvium/archive`.
    Directory(PathBuf),
    /// A prefix in a bucket: `s3://bucket/prefix`.
    Bucket {
        /// The bucket.
        bucket: String,
        /// What the names of all its objects begin with; it may be empty.
        prefix: String,
    },
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rule = "an archive is \"file:///an/absolute/directory\" or \"s3://bucket/prefix\"";
        if let Some(path) = text.strip_prefix("file://") {
            let is_plain = path.starts_with('/')
                && path.len() > 1
                && !path.split('/').any(|name| name == "..")
                && !path.contains(['?', '#', '%', '\0']);
            if path.starts_with(|first: char| first.is_ascii_alphanumeric()) {
                return Err(format!(
                    "file:// takes an absolute path, with three slashes: file:///{path}"
                ));
            }
            return match is_plain {
                true => Ok(Self::Directory(path.into())),
                false => Err(format!("{rule}; the path must be absolute and plain")),
            };
        }
        let Some(rest) = text.strip_prefix("s3://") else {
            return Err(rule.to_owned());
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(is_name) {
            return Err(format!(
                "{rule}; the name of a bucket has 3 to 63 lower case letters, digits, `-` and `.`"
            ));
        }
        let prefix = prefix.trim_end_matches('/');
        let is_part = |part: &str| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.=".contains(c);
            !part.is_empty() && ![".", ".."].contains(&part) && part.chars().all(is_plain)
        };
        if !prefix.is_empty() && !prefix.split('/').all(is_part) {
            return Err(format!(
                "{rule}; the prefix has letters, digits, `-`, `_`, `=` and `.` between its slashes"
            ));
        }
        Ok(Self::Bucket { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "file://{}", path.display()),
            Self::Bucket { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::Bucket { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_directory_or_a_prefix_and_nothing_else() {
        for good in ["file:///var/lib/a", "s3://bucket", "s3://my.bucket-1/a/b_c"] {
            assert_eq!(good.parse::<Place>().unwrap().to_string(), good);
        }
        assert_eq!("s3://bucket/a/".parse::<Place>().unwrap().to_string(), "s3://bucket/a");
        for bad in [
            "",
            "/var",
            "file://",
            "file:///",
            "file://host",
            "file:///a/../b",
            "file:///a%20b",
            "s3://",
            "s3://B",
            "s3://bucket//a",
            "s3://bucket/../a",
            "s3://bucket/a?b",
            "http://x",
        ] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
        let told = "file://var/lib/x".parse::<Place>().unwrap_err();
        assert!(told.contains("with three slashes: file:///var/lib/x"), "{told}");
    }
}
