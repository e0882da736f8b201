//! The few things that an archive asks of the place where it is kept, and how a directory and a bucket do them.

use std::{error::Error, io, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use object_store::{
    ClientOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig,
    aws::AmazonS3Builder, local::LocalFileSystem, path::Path, prefix::PrefixStore,
};
use tokio::sync::OnceCell;

use super::error::{ArchiveError, Result};
use crate::model::place::Place;

/// How long one request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// How often a request that fails is made again.
const RETRIES_MAX: usize = 3;

/// Objects by name. What was created is never overwritten.
pub trait Objects: Send + Sync + 'static {
    /// Makes an object; `false` when there is one of that name, which then stays as it is.
    fn create<'a>(&'a self, name: &'a str, bytes: Vec<u8>) -> BoxFuture<'a, Result<bool>>;

    /// The bytes of an object; `None` when there is none.
    fn read<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>>>;

    /// Deletes an object, if it is there.
    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>>;
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

    fn trouble(&self, error: &object_store::Error) -> ArchiveError {
        ArchiveError::Away(format!("{}: {error}; {}", self.place, advice(error)))
    }
}

fn open(place: &Place) -> Result<Arc<dyn ObjectStore>> {
    let away = |error: &(dyn Error + 'static)| {
        ArchiveError::Away(format!("{place}: {error}; {}", advice(error)))
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
                retry_timeout: REQUEST_LIMIT,
                ..RetryConfig::default()
            };
            let allow_http = std::env::var("AWS_ALLOW_HTTP").is_ok_and(|value| value == "true");
            let options =
                ClientOptions::new().with_timeout(REQUEST_LIMIT).with_allow_http(allow_http);
            let store = AmazonS3Builder::from_env()
                .with_bucket_name(bucket)
                .with_client_options(options)
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

/// What an operator can do about an error.
fn advice(error: &(dyn Error + 'static)) -> &'static str {
    use object_store::Error::{PermissionDenied, Unauthenticated};
    let mut cause = Some(error);
    while let Some(error) = cause {
        match error.downcast_ref::<object_store::Error>() {
            Some(Unauthenticated { .. }) => {
                return "its credentials are wrong or have expired: renew them in the environment and start again";
            }
            Some(PermissionDenied { .. }) => {
                return "allow this program to read and write there";
            }
            _ => {}
        }
        match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                return "make room there";
            }
            Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
                return "allow this program to read and write there";
            }
            Some(io::ErrorKind::NotFound) => return "make or mount the directory",
            _ => {}
        }
        cause = error.source();
    }
    "see that it is there and can be reached"
}

impl Objects for Kept {
    fn create<'a>(&'a self, name: &'a str, bytes: Vec<u8>) -> BoxFuture<'a, Result<bool>> {
        async move {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            let path = Path::from(name);
            match self.store().await?.put_opts(&path, bytes.into(), options).await {
                Ok(_) => Ok(true),
                Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
                Err(error) => Err(self.trouble(&error)),
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
                        Err(error) => Err(self.trouble(&error)),
                    },
                    Err(object_store::Error::NotFound { .. }) => Ok(None),
                    Err(error) => Err(self.trouble(&error)),
                }
            };
            read.await
        }
        .boxed()
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            match self.store().await?.delete(&Path::from(name)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(self.trouble(&error)),
            }
        }
        .boxed()
    }
}
