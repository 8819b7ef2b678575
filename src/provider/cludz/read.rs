//! Downloads, checked so that no byte of another version gets through.
//!
//! Cludz documents no conditional requests and no ETag. A whole file is compared with its SHA-256. A part is compared
//! by looking at the file *after* it arrived; only then it is handed on. What is too large to hold back is looked at
//! before its first byte is handed on, and again, or hashed, at its end.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::header::HeaderValue;
use sha2::{Digest, Sha256};

use super::client::{Client, split};
use super::wire::sha256_of;
use crate::model::{Action, Error, ErrorKind, ObjectId, Result};
use crate::provider::ByteStream;
use crate::provider::body::{exactly, wanted};
use crate::provider::content::hex;

/// The longest answer that is held back until it is checked, in bytes.
const HELD_BACK: u64 = 4 * 1024 * 1024;

/// # Errors
/// `NotFound`, `Changed`, `BadData`.
pub(super) async fn read(client: Arc<Client>, object: ObjectId, range: Range<u64>) -> Result<ByteStream> {
    if range.start > range.end || range.end > object.size {
        let message = format!("{range:?} cannot be asked for of {} bytes", object.size);
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    let whole = range == (0..object.size);
    if range.is_empty() && !whole {
        return Ok(stream::empty().boxed());
    }
    let header = if whole {
        None
    } else {
        let text = format!("bytes={}-{}", range.start, range.end - 1);
        Some(HeaderValue::try_from(text).map_err(|_| Error::internal("a range is no header"))?)
    };
    let path = object.key.as_str();
    let answer = client.download(path, header).await;
    let response = match client.noting(split(path).0, Action::Read, answer) {
        Ok(response) => response,
        // 416 when the file is shorter now; 400 when a folder has its place.
        Err(error) if matches!(error.kind(), ErrorKind::BadData | ErrorKind::InvalidInput) => {
            return Err(why(&client, &object, error).await);
        }
        Err(error) => return Err(error),
    };
    let wanted = match wanted(response.status, &response.headers, &object, &range) {
        Ok(wanted) => wanted,
        Err(error) => return Err(why(&client, &object, error).await),
    };
    let bytes = exactly(response.stream("download the file"), &wanted);
    let digest = sha256_of(&object.version).filter(|_| whole).map(str::to_owned);
    if wanted.take <= HELD_BACK {
        held_back(&client, &object, bytes, digest).await
    } else {
        confirm(&client, &object).await?;
        Ok(checked_at_end(client, object, bytes, digest))
    }
}

/// Collects the bytes, checks them and only then hands them on.
async fn held_back(
    client: &Client,
    object: &ObjectId,
    bytes: ByteStream,
    digest: Option<String>,
) -> Result<ByteStream> {
    let chunks: Vec<Bytes> = match bytes.try_collect().await {
        Ok(chunks) => chunks,
        Err(error) if error.kind() == ErrorKind::BadData => return Err(why(client, object, error).await),
        Err(error) => return Err(error),
    };
    match digest {
        Some(expected) => {
            let mut hasher = Sha256::new();
            chunks.iter().for_each(|chunk| hasher.update(chunk));
            if hex(&hasher.finalize()) != expected {
                return Err(why(client, object, wrong_checksum()).await);
            }
        }
        None => confirm(client, object).await?,
    }
    Ok(stream::iter(chunks.into_iter().map(Ok)).boxed())
}

/// Hands the bytes on as they come and says at the end whether they were right.
fn checked_at_end(client: Arc<Client>, object: ObjectId, bytes: ByteStream, digest: Option<String>) -> ByteStream {
    enum State {
        Running {
            bytes: ByteStream,
            hasher: Sha256,
            digest: Option<String>,
        },
        Ended,
    }
    let start = State::Running {
        bytes,
        hasher: Sha256::new(),
        digest,
    };
    let origin = (client, object);
    stream::try_unfold((start, origin), |(state, origin)| async move {
        let State::Running {
            mut bytes,
            mut hasher,
            digest,
        } = state
        else {
            return Ok(None);
        };
        let (client, object) = &origin;
        match bytes.next().await {
            Some(Ok(chunk)) => {
                if digest.is_some() {
                    hasher.update(&chunk);
                }
                let running = State::Running { bytes, hasher, digest };
                Ok(Some((chunk, (running, origin))))
            }
            Some(Err(error)) if error.kind() == ErrorKind::BadData => Err(why(client, object, error).await),
            Some(Err(error)) => Err(error),
            None => {
                match digest {
                    Some(expected) if hex(&hasher.finalize()) != expected => {
                        return Err(why(client, object, wrong_checksum()).await);
                    }
                    Some(_) => {}
                    None => confirm(client, object).await?,
                }
                Ok(Some((Bytes::new(), (State::Ended, origin))))
            }
        }
    })
    .try_filter(|chunk| std::future::ready(!chunk.is_empty()))
    .boxed()
}

fn wrong_checksum() -> Error {
    Error::bad_data("download the file: what came doesn't have the file's SHA-256")
}

/// Makes sure that the object is what it was.
async fn confirm(client: &Client, object: &ObjectId) -> Result<()> {
    let now = client.detail(object.key.as_str()).await?;
    if now.is_directory() {
        return Err(Error::not_found(format_args!("{:?}", object.key.as_str())));
    }
    if now.version != object.version || now.size != object.size {
        let message = format!("{:?} was replaced since it was opened", object.key.as_str());
        return Err(Error::new(ErrorKind::Changed, message));
    }
    Ok(())
}

/// The reason behind an answer that didn't fit: the object changed, or the provider sent what it shouldn't have.
async fn why(client: &Client, object: &ObjectId, error: Error) -> Error {
    confirm(client, object).await.err().unwrap_or(error)
}
