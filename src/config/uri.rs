//! A connection string that cannot leak its password: whatever prints it prints the redacted form.

use std::{fmt, str::FromStr};

use mongodb::options::ConnectionString;

/// A MongoDB connection string. `Display` and `Debug` leave out whatever may be secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Uri(String);

/// Options of a connection string whose values are secret.
const SECRET_OPTIONS: [&str; 3] =
    ["authmechanismproperties", "tlscertificatekeyfilepassword", "proxypassword"];

impl Uri {
    /// The connection string with its password, for the driver alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for Uri {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rule = "must be a MongoDB connection string, such as \
                    \"mongodb://localhost:27017/?replicaSet=rs0\"";
        match ConnectionString::parse(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            // The driver's words may quote a part of the string, and with it a password.
            Err(_) if text.contains('@') => {
                Err(format!("{rule}, not \"{}\"; a password must be percent-encoded", redact(text)))
            }
            Err(error) => Err(format!("{rule}, not \"{}\": {error}", redact(text))),
        }
    }
}

/// Replaces the password and secret options by asterisks. Of a malformed string, everything before
/// the last `@` is taken for the credentials.
fn redact(uri: &str) -> String {
    let (scheme, rest) = uri.split_once("://").map_or(("", uri), |(scheme, rest)| (scheme, rest));
    let (credentials, rest) = rest.rsplit_once('@').map_or((None, rest), |(c, r)| (Some(c), r));
    let mut shown = String::new();
    if !scheme.is_empty() {
        shown += &format!("{scheme}://");
    }
    if let Some(credentials) = credentials {
        match credentials.split_once(':') {
            Some((user, _)) => shown += &format!("{user}:***@"),
            None => shown += &format!("{credentials}@"),
        }
    }
    let Some((hosts, options)) = rest.split_once('?') else {
        return shown + rest;
    };
    let options: Vec<String> = options
        .split('&')
        .map(|option| match option.split_once('=') {
            Some((key, _)) if SECRET_OPTIONS.contains(&key.to_ascii_lowercase().as_str()) => {
                format!("{key}=***")
            }
            _ => option.to_owned(),
        })
        .collect();
    format!("{shown}{hosts}?{}", options.join("&"))
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact(&self.0))
    }
}

impl fmt::Debug for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uri({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(uri: &str, shown: &str) {
        assert_eq!(redact(uri), shown);
    }

    #[test]
    fn only_secrets_are_left_out() {
        check("mongodb://h:1/?replicaSet=rs0", "mongodb://h:1/?replicaSet=rs0");
        check("mongodb://u:secret@h:1,i:2/db?a=b", "mongodb://u:***@h:1,i:2/db?a=b");
        check("mongodb+srv://u:secret@h/", "mongodb+srv://u:***@h/");
        check("mongodb://u@h/", "mongodb://u@h/");
        check(
            "mongodb://h/?tlsCertificateKeyFilePassword=secret&tls=true",
            "mongodb://h/?tlsCertificateKeyFilePassword=***&tls=true",
        );
    }

    #[test]
    fn a_malformed_string_leaks_nothing_either() {
        for uri in [
            "mongodb://u:sec@ret:1@h",
            "u:secret@h",
            "mongodb://u:secret/@h:x",
            "mongodb://u:%secret@h",
        ] {
            let error = uri.parse::<Uri>().unwrap_err();
            assert!(!error.contains("sec") && !error.contains("ret"), "{error}");
        }
    }

    #[test]
    fn neither_display_nor_debug_shows_the_password() {
        let uri: Uri = "mongodb://u:secret@h:1/".parse().unwrap();
        assert_eq!(uri.to_string(), "mongodb://u:***@h:1/");
        assert_eq!(format!("{uri:?}"), "Uri(mongodb://u:***@h:1/)");
        assert_eq!(uri.reveal(), "mongodb://u:secret@h:1/");
    }
}
