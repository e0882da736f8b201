//! A connection string that cannot leak its password: whatever prints it prints the redacted form. What no
//! daemon could work with is refused here, so that `config check` and `run` say the same.

use std::{fmt, fs, str::FromStr, time::Duration};

use mongodb::options::{ConnectionString, HostInfo, Tls, TlsOptions};

use super::redact::control_problem;

/// A MongoDB connection string. `Display` and `Debug` leave out whatever may be secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Uri {
    text: String,
    left_out: Vec<String>,
}

/// Options of a connection string that are shown with their values. All others may be secret.
const SHOWN_OPTIONS: [&str; 26] = [
    "appname",
    "authmechanism",
    "authsource",
    "compressors",
    "connecttimeoutms",
    "directconnection",
    "heartbeatfrequencyms",
    "loadbalanced",
    "localthresholdms",
    "maxconnecting",
    "maxidletimems",
    "maxpoolsize",
    "minpoolsize",
    "readconcernlevel",
    "readpreference",
    "replicaset",
    "retryreads",
    "retrywrites",
    "serverselectiontimeoutms",
    "srvservicename",
    "ssl",
    "tls",
    "tlsallowinvalidcertificates",
    "tlscafile",
    "tlscertificatekeyfile",
    "w",
];

/// The compressors that this program has.
const COMPRESSORS: [&str; 2] = ["snappy", "zstd"];

/// How many connections the daemon needs: one on which the change stream waits, and one for all else.
const POOL_SIZE_LEAST: u32 = 2;

/// The server's limit on the name of an application, in bytes.
const APP_NAME_BYTES_MAX: usize = 128;

/// The driver's shortest time between two looks at a server.
const HEARTBEAT_LEAST: Duration = Duration::from_millis(500);

/// What a connection string looks like.
const RULE: &str = "must be a MongoDB connection string, such as \
                    \"mongodb://localhost:27017/?replicaSet=rs0\"";

impl Uri {
    /// The connection string with its password, for the driver alone.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// What of it has no effect, in a sentence.
    pub fn warning(&self) -> Option<String> {
        let names = self.left_out.join(", ");
        let told = || {
            format!(
                "mongodb.uri asks for compressors that this version does not have, which are left out: {names}; \
                 it has {}",
                COMPRESSORS.join(" and ")
            )
        };
        (!names.is_empty()).then(told)
    }
}

impl FromStr for Uri {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(problem) = control_problem(text) {
            return Err(problem);
        }
        if !["mongodb://", "mongodb+srv://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Err(format!("{RULE}: it does not begin with mongodb:// or mongodb+srv://"));
        }
        let (text, left_out) = without_unknown_compressors(text);
        let parsed = ConnectionString::parse(&text).map_err(|error| malformed(&text, &error))?;
        if let Some(problem) = problem(&parsed) {
            return Err(problem);
        }
        Ok(Self { text, left_out })
    }
}

/// The driver's words may quote a part of the string, and with it a password: they are only told
/// where there is nothing to hide.
fn malformed(text: &str, error: &mongodb::error::Error) -> String {
    if let Some(option) = unknown_option(text, error) {
        return format!(
            "has the option `{option}`, which the driver does not know; mend its name, or remove it"
        );
    }
    if text.contains('@') {
        let advice = "user name and password must be percent-encoded";
        return format!("{RULE}; what is there cannot be read, and {advice}");
    }
    match redact(text) == text {
        true => format!("{RULE}, not {text:?}: {}", error.kind),
        false => format!("{RULE}, not \"{}\"", redact(text)),
    }
}

/// The option that the driver does not know, if that is what is wrong. A name can be shown where nothing of it may belong
/// to a password.
fn unknown_option<'t>(text: &'t str, error: &mongodb::error::Error) -> Option<&'t str> {
    let said = error.kind.to_string().to_ascii_lowercase();
    let (_, options) = text.split_once('?')?;
    if options.contains(['@', '?', '/']) {
        return None;
    }
    let names = options.split('&').filter_map(|option| Some(option.split_once('=')?.0));
    let mut unknown = names.filter(|name| {
        said.contains(&format!(" {} is an invalid option", name.to_ascii_lowercase()))
    });
    unknown.next()
}

/// What the driver or the server would refuse in a string that is well formed.
fn problem(parsed: &ConnectionString) -> Option<String> {
    let hosts = match &parsed.host_info {
        HostInfo::HostIdentifiers(hosts) => hosts.len(),
        _ => 1,
    };
    #[expect(deprecated, reason = "the driver refuses it only when it connects")]
    let socket_timeout = parsed.socket_timeout;
    let app_name = parsed.app_name.as_ref().map_or(0, String::len);
    let checks = [
        (
            parsed.load_balanced == Some(true),
            "has loadBalanced=true, which is for clusters that this version does not support; remove it".to_owned(),
        ),
        (
            parsed.max_pool_size.is_some_and(|size| size < POOL_SIZE_LEAST),
            format!(
                "has maxPoolSize={}; at least {POOL_SIZE_LEAST} are needed, since the change stream keeps one \
                 connection for itself",
                parsed.max_pool_size.unwrap_or_default()
            ),
        ),
        (
            parsed.max_connecting == Some(0),
            "has maxConnecting=0; it must be at least 1".to_owned(),
        ),
        (
            parsed.min_pool_size > Some(parsed.max_pool_size.unwrap_or(u32::MAX)),
            "has a minPoolSize above its maxPoolSize; lower the one or raise the other".to_owned(),
        ),
        (
            app_name > APP_NAME_BYTES_MAX,
            format!("has an appName of {app_name} bytes; MongoDB takes {APP_NAME_BYTES_MAX}"),
        ),
        (
            parsed.heartbeat_frequency.is_some_and(|pause| pause < HEARTBEAT_LEAST),
            format!("has a heartbeatFrequencyMS below {}", HEARTBEAT_LEAST.as_millis()),
        ),
        (
            socket_timeout.is_some(),
            "has socketTimeoutMS, which the driver does not support; remove it".to_owned(),
        ),
        (
            parsed.direct_connection == Some(true) && hosts > 1,
            "has directConnection=true and several hosts; name one, or remove it".to_owned(),
        ),
    ];
    let found = checks.into_iter().find_map(|(is_wrong, what)| is_wrong.then_some(what));
    found.or_else(|| tls_problem(parsed.tls.as_ref()))
}

/// A file that is named and cannot be read.
fn tls_problem(tls: Option<&Tls>) -> Option<String> {
    let Some(Tls::Enabled(TlsOptions { ca_file_path, cert_key_file_path, .. })) = tls else {
        return None;
    };
    let files = [("tlsCAFile", ca_file_path), ("tlsCertificateKeyFile", cert_key_file_path)];
    files.into_iter().find_map(|(option, path)| {
        let path = path.as_ref()?;
        let error = fs::read(path).err()?;
        Some(format!("has {option}={}, which cannot be read: {error}", path.display()))
    })
}

/// Drivers leave out what they do not know, where this one refuses the whole string.
fn without_unknown_compressors(text: &str) -> (String, Vec<String>) {
    let Some((hosts, options)) = text.split_once('?') else { return (text.to_owned(), Vec::new()) };
    let mut left_out = Vec::new();
    let mut kept = Vec::new();
    for option in options.split('&') {
        let names = option
            .split_once('=')
            .filter(|(key, _)| key.eq_ignore_ascii_case("compressors"))
            .map(|(_, names)| names);
        let Some(names) = names else {
            kept.push(option.to_owned());
            continue;
        };
        let (known, unknown): (Vec<&str>, Vec<&str>) =
            names.split(',').partition(|name| COMPRESSORS.contains(name));
        left_out.extend(unknown.into_iter().map(str::to_owned));
        if !known.is_empty() {
            kept.push(format!("compressors={}", known.join(",")));
        }
    }
    match kept.is_empty() {
        true => (hosts.to_owned(), left_out),
        false => (format!("{hosts}?{}", kept.join("&")), left_out),
    }
}

/// Replaces the password and whatever else may be secret by asterisks. Of a malformed string, everything before
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
            Some((key, _)) if SHOWN_OPTIONS.contains(&key.to_ascii_lowercase().as_str()) => {
                option.to_owned()
            }
            Some((key, _)) => format!("{key}=***"),
            None => "***".to_owned(),
        })
        .collect();
    format!("{shown}{hosts}?{}", options.join("&"))
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact(&self.text))
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

    #[track_caller]
    fn refused(uri: &str, part: &str) {
        let error = uri.parse::<Uri>().unwrap_err();
        assert!(error.contains(part), "{uri}: `{error}` does not say `{part}`");
    }

    #[test]
    fn only_secrets_are_left_out() {
        check("mongodb://h:1/?replicaSet=rs0", "mongodb://h:1/?replicaSet=rs0");
        check("mongodb://u:secret@h:1,i:2/db?w=2", "mongodb://u:***@h:1,i:2/db?w=2");
        check("mongodb+srv://u:secret@h/", "mongodb+srv://u:***@h/");
        check("mongodb://u@h/", "mongodb://u@h/");
        check(
            "mongodb://h/?tlsCertificateKeyFilePassword=secret&tls=true",
            "mongodb://h/?tlsCertificateKeyFilePassword=***&tls=true",
        );
        check("mongodb://h/?secret", "mongodb://h/?***");
    }

    #[test]
    fn a_malformed_string_leaks_nothing_either() {
        for uri in [
            "mongodb://u:sec@ret:1@h",
            "u:secret@h",
            "mongodb://u:secret/@h:x",
            "mongodb://u:%secret@h",
            "mongodb://?password=secret",
            "mongodb://h/?password=secret&maxPoolSize=x",
            "mongodb://u:secret@h/\n",
            "mongodb+srv://u:secret@h:1/",
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

    #[test]
    fn what_no_daemon_could_work_with_is_refused() {
        refused("mongodb://h/?maxPoolSize=1", "has maxPoolSize=1; at least 2 are needed");
        refused("mongodb://h/?maxPoolSize=0", "has maxPoolSize=0; at least 2 are needed");
        refused("mongodb://h/?maxPoolSize=4&minPoolSize=5", "minPoolSize above its maxPoolSize");
        refused("mongodb://h/?loadBalanced=true", "loadBalanced=true, which is for clusters");
        refused("mongodb://h,i/?directConnection=true", "several hosts");
        refused("mongodb://h/?maxConnecting=0", "maxConnecting=0");
        let unknown = "mongodb://u:secret@h/?w=1&replicaSett=rs0".parse::<Uri>().unwrap_err();
        assert!(unknown.starts_with("has the option `replicaSett`, which"), "{unknown}");
        refused("mongodb://h/?tls=true&tlsCAFile=/nonexistent", "tlsCAFile=/nonexistent");
        let long = format!("mongodb://h/?appName={}", "a".repeat(129));
        refused(&long, "has an appName of 129 bytes");
        for good in ["maxPoolSize=2", "minPoolSize=5", &format!("appName={}", "a".repeat(128))] {
            assert!(format!("mongodb://h/?{good}").parse::<Uri>().is_ok(), "{good}");
        }
    }

    #[test]
    fn unknown_compressors_are_left_out_and_told() {
        let uri: Uri = "mongodb://h/?compressors=snappy,zlib&w=1".parse().unwrap();
        assert_eq!(uri.reveal(), "mongodb://h/?compressors=snappy&w=1");
        assert!(uri.warning().unwrap().contains("left out: zlib;"));
        let uri: Uri = "mongodb://h/?compressors=zlib".parse().unwrap();
        assert_eq!(uri.reveal(), "mongodb://h/");
        let uri: Uri = "mongodb://h/?compressors=zstd,snappy".parse().unwrap();
        assert_eq!((uri.reveal(), uri.warning()), ("mongodb://h/?compressors=zstd,snappy", None));
    }
}
