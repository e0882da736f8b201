//! Who asks, as it goes on record.

/// `cli:user@host`, as far as the environment tells.
pub(super) fn who() -> String {
    let told = |name: &str| std::env::var(name).ok().filter(|told| !told.is_empty());
    let user = told("USER").or_else(|| told("LOGNAME")).unwrap_or_else(|| "?".into());
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let host = told("HOSTNAME").unwrap_or(host);
    format!("cli:{user}@{host}")
}
