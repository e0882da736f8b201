//! Where the server's binary comes from: the one that was named, the one on PATH, the one that
//! was fetched before, or the one that is fetched now.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::{EmbeddedError, fetch};

/// The environment variable that names the `mongod` binary to use.
pub const PATH_VARIABLE: &str = "ALLUVIUM_MONGOD";

const OLDEST: (u32, u32) = (6, 0);

/// Finds a usable binary, and fetches one if there is none.
pub(super) async fn find(named: Option<&Path>) -> Result<PathBuf, EmbeddedError> {
    let variable = env::var_os(PATH_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = named.map(Path::to_path_buf).or(variable) {
        return match check(&path).await {
            Ok(()) => Ok(path),
            Err(reason) => Err(EmbeddedError::Unusable { path, reason }),
        };
    }
    if let Some(path) = on_path(env::var_os("PATH").as_deref()) {
        match check(&path).await {
            Ok(()) => return Ok(path),
            Err(reason) => tracing::debug!(path = %path.display(), reason, "passed over a mongod"),
        }
    }
    let path = fetch::cached_or_fetched().await?;
    match check(&path).await {
        Ok(()) => Ok(path),
        Err(reason) => Err(EmbeddedError::NotFound {
            reason: format!("the fetched binary {} cannot be used: {reason}", path.display()),
        }),
    }
}

fn on_path(path: Option<&OsStr>) -> Option<PathBuf> {
    env::split_paths(path?).map(|folder| folder.join("mongod")).find(|file| file.is_file())
}

/// Runs the binary, which also finds out whether its shared libraries are there.
async fn check(path: &Path) -> Result<(), String> {
    let output = Command::new(path).arg("--version").kill_on_drop(true).output().await;
    let output = output.map_err(|error| error.to_string())?;
    let printed = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`--version` failed with {}: {}", output.status, complaint.trim()));
    }
    match version(&printed) {
        Some(found) if found >= OLDEST => Ok(()),
        Some((major, minor)) => Err(format!("it is version {major}.{minor}, and 6.0 is needed")),
        None => Err("`--version` does not answer like a mongod".to_owned()),
    }
}

fn version(printed: &str) -> Option<(u32, u32)> {
    let number = printed.lines().find_map(|line| line.strip_prefix("db version v"))?;
    let mut parts = number.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_version_that_mongod_prints() {
        assert_eq!(version("db version v6.0.5\nBuild Info: {"), Some((6, 0)));
        assert_eq!(version("db version v10.2.0-rc1"), Some((10, 2)));
        assert_eq!(version("mongos version v6.0.5"), None);
    }

    #[tokio::test]
    async fn a_named_binary_that_is_no_mongod_is_an_error_and_not_passed_over() {
        let error = find(Some(Path::new("/bin/echo"))).await.unwrap_err().to_string();
        assert!(error.contains("/bin/echo") && error.contains(PATH_VARIABLE), "{error}");
    }

    #[test]
    fn looks_through_path_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let (empty, full) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::create_dir_all(&empty).unwrap();
        std::fs::create_dir_all(&full).unwrap();
        std::fs::write(full.join("mongod"), "").unwrap();
        let path = env::join_paths([&empty, &full]).unwrap();
        assert_eq!(on_path(Some(&path)), Some(full.join("mongod")));
        assert_eq!(on_path(None), None);
    }
}
