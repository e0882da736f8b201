//! Files that are read again when they change, also when they are mounted secrets whose link is exchanged. What has become
//! unusable changes nothing: what was read before goes on being used, and what is wrong is told.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tokio::sync::watch;
use tracing::{info, warn};

use crate::config::redact::{named, unreadable};

/// A file that a key of the configuration names.
#[derive(Clone, Debug)]
pub(super) struct NamedFile {
    key: &'static str,
    path: PathBuf,
    /// What it holds, where not everybody should read that.
    secret: Option<&'static str>,
}

/// Why a file cannot be used. Nothing of what it holds is shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {file} {problem}", file = named(&file.display()))]
pub struct FileError {
    key: &'static str,
    file: PathBuf,
    problem: String,
}

/// Makes something of what the files hold.
pub(super) type Parse<T, const N: usize> = fn(&[NamedFile; N], [&[u8]; N]) -> Result<T, FileError>;

/// What was made of the files when they were last good. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Held<T>(watch::Receiver<Last<T>>);

#[derive(Clone, Debug)]
struct Last<T> {
    good: T,
    error: Option<FileError>,
}

/// Looks after the files.
#[derive(Debug)]
pub(super) struct Holder<T, const N: usize> {
    files: [NamedFile; N],
    parse: Parse<T, N>,
    /// What they held when they were last good.
    texts: [Vec<u8>; N],
    last: watch::Sender<Last<T>>,
}

impl FileError {
    /// The key that names the file.
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// Which file it is, and what is wrong with it.
    pub fn message(&self) -> String {
        format!("{} {}", named(&self.file.display()), self.problem)
    }
}

impl NamedFile {
    pub(super) fn new(key: &'static str, path: impl Into<PathBuf>) -> Self {
        Self { key, path: path.into(), secret: None }
    }

    /// It holds this, which not everybody should read.
    pub(super) fn holding(self, secret: &'static str) -> Self {
        Self { secret: Some(secret), ..self }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn refused(&self, problem: impl Into<String>) -> FileError {
        FileError { key: self.key, file: self.path.clone(), problem: problem.into() }
    }

    /// Warns where everybody may read it, who could not be told what is in it.
    fn warn_if_open_to_all(&self) {
        let Some(holds) = self.secret else { return };
        if fs::metadata(&self.path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
        {
            let (key, file) = (self.key, self.path.display());
            warn!(%file, "`{key}` can be read by everybody on this machine; it holds {holds}: chmod o-r");
        }
    }

    pub(super) fn read(&self) -> Result<Vec<u8>, FileError> {
        fs::read(&self.path).map_err(|error| self.refused(unreadable(&error, None)))
    }
}

/// Reads the files for the first time.
pub(super) fn hold<T: Clone, const N: usize>(
    files: [NamedFile; N],
    parse: Parse<T, N>,
) -> Result<(Held<T>, Holder<T, N>), FileError> {
    files.iter().for_each(NamedFile::warn_if_open_to_all);
    let texts = read(&files)?;
    let good = parse(&files, texts.each_ref().map(Vec::as_slice))?;
    let (last, seen) = watch::channel(Last { good, error: None });
    Ok((Held(seen), Holder { files, parse, texts, last }))
}

fn read<const N: usize>(files: &[NamedFile; N]) -> Result<[Vec<u8>; N], FileError> {
    let mut texts = [const { Vec::new() }; N];
    for (text, file) in texts.iter_mut().zip(files) {
        *text = file.read()?;
    }
    Ok(texts)
}

impl<T: Clone> Held<T> {
    pub(super) fn get(&self) -> T {
        self.0.borrow().good.clone()
    }

    /// Why the files cannot be used as they are now, while that lasts.
    pub(super) fn error(&self) -> Option<FileError> {
        self.0.borrow().error.clone()
    }
}

impl<T, const N: usize> Holder<T, N> {
    /// Looks at the files. They are judged anew each time, since a certificate also expires where it stands.
    pub(super) fn look(&mut self) {
        let parsed = read(&self.files).and_then(|texts| {
            Ok(((self.parse)(&self.files, texts.each_ref().map(Vec::as_slice))?, texts))
        });
        match parsed {
            Ok((good, texts)) => {
                if texts != self.texts || self.last.borrow().error.is_some() {
                    let files = self.files.iter().map(|file| file.path.display().to_string());
                    info!(files = files.collect::<Vec<_>>().join(", "), "read again");
                    self.files.iter().for_each(NamedFile::warn_if_open_to_all);
                    self.texts = texts;
                    self.last.send_replace(Last { good, error: None });
                }
            }
            Err(error) => {
                if self.last.borrow().error.as_ref() != Some(&error) {
                    warn!("{error}; what was read before goes on being used");
                    self.last.send_modify(|last| last.error = Some(error));
                }
            }
        }
    }
}
