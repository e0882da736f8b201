//! Who asks, as it goes on record.

/// `cli:user@host`, as far as this machine tells; `cli:host` where the user has no name.
pub(super) fn who() -> String {
    let told = |name: &str| std::env::var(name).ok().filter(|told| !told.is_empty());
    let user = told("USER").or_else(|| told("LOGNAME")).or_else(|| {
        // A service or a container often has neither.
        let users = std::fs::read_to_string("/etc/passwd").ok()?;
        name_of(&users, rustix::process::geteuid().as_raw())
    });
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let host = told("HOSTNAME").unwrap_or(host);
    match user {
        Some(user) => format!("cli:{user}@{host}"),
        None => format!("cli:{host}"),
    }
}

/// The name of a user in the text of `/etc/passwd`.
fn name_of(users: &str, id: u32) -> Option<String> {
    let id = id.to_string();
    users.lines().find_map(|user| {
        let mut fields = user.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1) == Some(&id)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_called_as_the_machine_calls_it() {
        let users =
            "root:x:0:0:root:/root:/bin/sh\n\n:x:7:7::/:\nalice:x:1000:0::/home/alice:/bin/sh\n";
        assert_eq!(name_of(users, 1000).as_deref(), Some("alice"));
        assert_eq!(name_of(users, 0).as_deref(), Some("root"));
        assert_eq!(name_of(users, 7), None);
        assert_eq!(name_of(users, 1), None);
    }
}
