//! The bytes of an upload: a local file that can be read again from the start, as often as a request is replayed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use futures_util::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};

use super::ByteStream;
use crate::model::{Error, PosixAttributes, Result};

/// Bytes read from disk at a time: large enough to keep a connection busy, small enough for many uploads at once.
const CHUNK: u64 = 256 * 1024;

/// What is this short, in bytes, is read again after it was stored where nothing else proves that the service has it: that
/// takes hardly longer than a look at it.
pub const READ_BACK: u64 = 1 << 20;

/// A file's bytes, fixed for the time of the upload.
#[derive(Clone, Debug)]
pub struct Content {
    file: Arc<File>,
    len: u64,
    attributes: Option<Arc<PosixAttributes>>,
}

impl Content {
    /// The first `len` bytes of a file. They must not change until the upload ended.
    pub fn new(file: Arc<File>, len: u64) -> Self {
        Self {
            file,
            len,
            attributes: None,
        }
    }

    /// # Errors
    /// When no temporary file can be made.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let file = tempfile::tempfile()?;
        file.write_all_at(bytes, 0)?;
        Ok(Self::new(Arc::new(file), bytes.len() as u64))
    }

    /// The same bytes, with what the file is to have beside them.
    pub fn with_attributes(self, attributes: PosixAttributes) -> Self {
        Self {
            attributes: Some(Arc::new(attributes)),
            ..self
        }
    }

    /// What the file is to have beside its bytes; `None` leaves that open.
    pub fn attributes(&self) -> Option<&PosixAttributes> {
        self.attributes.as_deref()
    }

    /// In bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it is read again to prove that it is stored.
    pub fn is_read_back(&self) -> bool {
        self.len <= READ_BACK
    }

    /// All bytes from the start.
    pub fn stream(&self) -> ByteStream {
        let content = self.clone();
        stream::try_unfold(0u64, move |offset| {
            let content = content.clone();
            async move {
                if offset >= content.len {
                    return Ok(None);
                }
                let chunk = content.chunk(offset).await?;
                let next = offset + chunk.len() as u64;
                Ok(Some((chunk, next)))
            }
        })
        .boxed()
    }

    /// The SHA-256 in lower-case hexadecimal.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn sha256(&self) -> Result<String> {
        let mut hasher = Sha256::new();
        let mut chunks = self.stream();
        while let Some(chunk) = chunks.next().await {
            hasher.update(&chunk?);
        }
        Ok(hex(&hasher.finalize()))
    }

    /// Whether a stream has exactly these bytes.
    ///
    /// # Errors
    /// As the stream fails, and when the file cannot be read.
    pub async fn is_same_as(&self, mut theirs: ByteStream) -> Result<bool> {
        let mut ours = self.stream();
        let (mut left, mut right) = (Bytes::new(), Bytes::new());
        loop {
            if left.is_empty() {
                left = ours.try_next().await?.unwrap_or_default();
            }
            if right.is_empty() {
                right = theirs.try_next().await?.unwrap_or_default();
            }
            let both = left.len().min(right.len());
            if both == 0 {
                return Ok(left.is_empty() && right.is_empty());
            }
            if left.split_to(both) != right.split_to(both) {
                return Ok(false);
            }
        }
    }

    async fn chunk(&self, offset: u64) -> Result<Bytes> {
        let want = CHUNK.min(self.len - offset) as usize;
        let file = Arc::clone(&self.file);
        let read = tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; want];
            file.read_exact_at(&mut buffer, offset).map(|()| Bytes::from(buffer))
        });
        match read.await {
            Ok(bytes) => Ok(bytes?),
            Err(_) => Err(Error::internal("reading the staged file was interrupted")),
        }
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn streams_every_byte_and_again_from_the_start() {
        let bytes: Vec<u8> = (0..CHUNK as usize * 2 + 17).map(|i| (i % 251) as u8).collect();
        let content = Content::from_bytes(&bytes).unwrap();
        for _ in 0..2 {
            let parts: Vec<Bytes> = content.stream().map(|chunk| chunk.unwrap()).collect().await;
            assert_eq!(parts.concat(), bytes);
        }
    }

    #[tokio::test]
    async fn only_the_same_bytes_are_the_same() {
        let content = Content::from_bytes(b"some bytes").unwrap();
        for (parts, expected) in [
            (&["some bytes"][..], true),
            (&["so", "me", " bytes"], true),
            (&["some byte"], false),
            (&["some bytes", "!"], false),
            (&["some", " bites"], false),
            (&[], false),
        ] {
            let chunks: Vec<Result<Bytes>> = parts
                .iter()
                .map(|part| Ok(Bytes::copy_from_slice(part.as_bytes())))
                .collect();
            let same = content.is_same_as(stream::iter(chunks).boxed()).await.unwrap();
            assert_eq!(same, expected, "{parts:?}");
        }
    }

    #[tokio::test]
    async fn digest_of_nothing_is_the_known_one() {
        let digest = Content::from_bytes(b"").unwrap().sha256().await.unwrap();
        assert_eq!(
            digest,
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
