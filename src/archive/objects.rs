//! The few things that an archive asks of the place where it is kept, and how a directory and a bucket do them.

use std::{error::Error, io, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig, aws::AmazonS3Builder,
    local::LocalFileSystem, path::Path, prefix::PrefixStore,
};
use tokio::sync::OnceCell;

use super::{
    error::{ArchiveError, Result},
    trouble,
};
use crate::model::place::Place;

/// How often a request that fails is made again, and for how long.
const RETRIES_MAX: usize = 3;
const RETRY_LIMIT: Duration = Duration::from_secs(30);

/// Where segments are.
const SEGMENTS: &str = "segments";

/// Objects by name. What was created is never overwritten.
pub trait Objects: Send + Sync + 'static {
    /// Makes an object; `false` when there is one of that name, which then stays as it is.
    fn create<'a>(&'a self, name: &'a str, bytes: Vec<u8>) -> BoxFuture<'a, Result<bool>>;

    /// The bytes of an object; `None` when there is none.
    fn read<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>>>;

    /// Deletes an object, if it is there.
    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Deletes what writers have left that were killed, if it is so old; how many there were. A writer that lives, and whose
    /// object goes by this, fails. Where objects are made in one piece nothing is ever left.
    fn sweep(&self, _age: Duration) -> BoxFuture<'_, Result<u64>> {
        async { Ok(0) }.boxed()
    }
}

/// A directory or a bucket. It is opened at its first use, so that one that is away for a while is found later.
pub(super) struct Kept {
    place: Place,
    store: OnceCell<Arc<dyn ObjectStore>>,
}

impl Kept {
    pub(super) fn new(place: Place) -> Self {
        Self { place, store: OnceCell::new() }
    }

    async fn store(&self) -> Result<&Arc<dyn ObjectStore>> {
        let place = self.place.clone();
        self.store.get_or_try_init(|| async move { open(&place) }).await
    }

    fn trouble(&self, name: &str, error: &object_store::Error) -> ArchiveError {
        let (place, told) = (&self.place, trouble::told(error, to_look_at(&self.place)));
        ArchiveError::Away(format!("{place}/{name}: {told}"))
    }
}

/// What an operator can look at when a place cannot be used, and the error does not say more.
fn to_look_at(place: &Place) -> &'static str {
    match place {
        Place::Directory(_) => "see that it is there and can be reached",
        Place::Bucket { .. } => {
            "see that the server can be reached (AWS_ENDPOINT_URL), and that there are credentials in the environment \
             (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role)"
        }
    }
}

/// `object_store` writes a file under its name with `#` and a number first, and links it to its name when it is whole.
async fn sweep(directory: &std::path::Path, age: Duration) -> io::Result<u64> {
    let mut swept = 0;
    for directory in [directory, &directory.join(SEGMENTS)] {
        let mut entries = match tokio::fs::read_dir(directory).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        while let Some(entry) = entries.next_entry().await? {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| Some(name.rsplit_once('#')?.1));
            if !number.is_some_and(|number| {
                !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
            }) {
                continue;
            }
            let swept_one = async {
                let is_old =
                    entry.metadata().await?.modified()?.elapsed().unwrap_or_default() >= age;
                if is_old {
                    tokio::fs::remove_file(entry.path()).await?;
                }
                io::Result::Ok(is_old)
            };
            match swept_one.await {
                Ok(is_swept) => swept += u64::from(is_swept),
                // Its writer was done with it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(swept)
}

fn open(place: &Place) -> Result<Arc<dyn ObjectStore>> {
    let away = |error: &(dyn Error + 'static)| {
        ArchiveError::Away(format!("{place}: {}", trouble::told(error, to_look_at(place))))
    };
    match place {
        Place::Directory(path) => {
            // Only the last directory is made: one whose parent is missing is not mounted, or misspelled.
            match std::fs::create_dir(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(away(&error));
                }
                _ => {}
            }
            let store = LocalFileSystem::new_with_prefix(path).map_err(|error| away(&error))?;
            Ok(Arc::new(store.with_fsync(true)))
        }
        Place::Bucket { bucket, prefix } => {
            // A process that has one already keeps it.
            let _kept = rustls::crypto::ring::default_provider().install_default();
            let retry = RetryConfig {
                max_retries: RETRIES_MAX,
                retry_timeout: RETRY_LIMIT,
                ..RetryConfig::default()
            };
            let store = AmazonS3Builder::from_env()
                .with_bucket_name(bucket)
                .with_retry(retry)
                .build()
                .map_err(|error| away(&error))?;
            Ok(match prefix.as_str() {
                "" => Arc::new(store),
                prefix => Arc::new(PrefixStore::new(store, prefix)),
            })
        }
    }
}

impl Objects for Kept {
    fn create<'a>(&'a self, name: &'a str, bytes: Vec<u8>) -> BoxFuture<'a, Result<bool>> {
        async move {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            let path = Path::from(name);
            match self.store().await?.put_opts(&path, bytes.into(), options).await {
                Ok(_) => Ok(true),
                Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
                Err(error) => Err(self.trouble(name, &error)),
            }
        }
        .boxed()
    }

    fn read<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>>> {
        async move {
            let read = async {
                let found = self.store().await?.get(&Path::from(name)).await;
                match found {
                    Ok(found) => match found.bytes().await {
                        Ok(bytes) => Ok(Some(bytes.to_vec())),
                        Err(error) => Err(self.trouble(name, &error)),
                    },
                    Err(error) if trouble::is_missing(&error) => Ok(None),
                    Err(error) => Err(self.trouble(name, &error)),
                }
            };
            read.await
        }
        .boxed()
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            match self.store().await?.delete(&Path::from(name)).await {
                Ok(()) => Ok(()),
                Err(error) if trouble::is_missing(&error) => Ok(()),
                Err(error) => Err(self.trouble(name, &error)),
            }
        }
        .boxed()
    }

    fn sweep(&self, age: Duration) -> BoxFuture<'_, Result<u64>> {
        async move {
            let Place::Directory(path) = &self.place else { return Ok(0) };
            sweep(path, age).await.map_err(|error| {
                let told = trouble::told(&error, to_look_at(&self.place));
                ArchiveError::Away(format!("{}: {told}", self.place))
            })
        }
        .boxed()
    }
}
