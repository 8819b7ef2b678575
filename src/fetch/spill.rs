//! A whole object in a file without a name, until nobody has it open any more.

use std::fs::{DirBuilder, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::model::{Error, Result};

/// The file is gone when it is closed, also after a crash.
#[derive(Clone)]
pub(super) struct Spill(Arc<File>);

impl Spill {
    /// # Errors
    /// `NoSpace` and other troubles of the disk.
    pub(super) async fn create(directory: &Path) -> Result<Self> {
        let directory = directory.to_owned();
        let file = blocking(move || match tempfile::tempfile_in(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
                tempfile::tempfile_in(&directory)
            }
            other => other,
        });
        Ok(Self(Arc::new(file.await?)))
    }

    /// # Errors
    /// `NoSpace` and other troubles of the disk.
    pub(super) async fn write(&self, offset: u64, bytes: Bytes) -> Result<()> {
        write(&self.0, offset, bytes).await
    }

    /// # Errors
    /// Troubles of the disk.
    pub(super) async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        read(&self.0, range).await
    }
}

/// # Errors
/// When the file has fewer bytes, and troubles of the disk.
pub(super) async fn read(file: &Arc<File>, range: Range<u64>) -> Result<Bytes> {
    let file = Arc::clone(file);
    blocking(move || {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut bytes, range.start)?;
        Ok(bytes.into())
    })
    .await
}

/// # Errors
/// `NoSpace` and other troubles of the disk.
pub(super) async fn write(file: &Arc<File>, offset: u64, bytes: Bytes) -> Result<()> {
    let file = Arc::clone(file);
    blocking(move || file.write_all_at(&bytes, offset)).await
}

/// Does work that may wait for the disk where nobody else waits for it.
///
/// # Errors
/// Those of the work.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Error::internal("work on a local file was interrupted")),
    }
}
