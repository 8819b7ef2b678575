//! Downloads, whole and checked.
//!
//! CloudSync documents neither ranges nor conditional requests nor ETags, but the SHA-256 of every file. So a file is
//! asked for as a whole, and at its end the bytes must have the length and the hash of the version that was wanted.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::StatusCode;
use reqwest::header::CONTENT_LENGTH;
use sha2::{Digest, Sha256};

use super::client::Client;
use super::key::Key;
use super::wire::sha256_of;
use crate::model::{Error, ErrorKind, ObjectId, Result};
use crate::provider::ByteStream;
use crate::provider::content::hex;

/// Which file of which workspace.
#[derive(Clone)]
struct Origin {
    client: Arc<Client>,
    object: ObjectId,
    workspace: String,
    id: String,
}

/// # Errors
/// `NotFound`, `Changed`, `BadData`, `IsADirectory`.
pub(super) async fn read(client: Arc<Client>, object: ObjectId) -> Result<ByteStream> {
    let Key::Item { workspace, id } = Key::parse(&object.key)? else {
        return Err(Error::new(
            ErrorKind::IsADirectory,
            "a workspace can't be read as a file",
        ));
    };
    let response = client.download(&workspace, &id).await;
    let origin = Origin {
        client,
        object,
        workspace,
        id,
    };
    let response = match response {
        Ok(response) => response,
        // A folder has its id's place, or the like.
        Err(error) if error.kind() == ErrorKind::InvalidInput => return Err(origin.why(error).await),
        Err(error) => return Err(error),
    };
    let size = origin.object.size;
    let promised = response
        .header(CONTENT_LENGTH.as_str())
        .and_then(|length| length.parse::<u64>().ok());
    if response.status != StatusCode::OK || promised.is_some_and(|promised| promised != size) {
        let error = Error::bad_data(format!(
            "download the file: {size} bytes were expected, the provider answered {} with {}",
            response.status,
            promised.map_or("an unknown number".to_owned(), |length| length.to_string())
        ));
        return Err(origin.why(error).await);
    }
    Ok(checked_at_end(origin, response.stream("download the file")))
}

/// Hands the bytes on as they come and says at the end whether they were right.
fn checked_at_end(origin: Origin, bytes: ByteStream) -> ByteStream {
    enum State {
        Running {
            bytes: ByteStream,
            hasher: Sha256,
            seen: u64,
        },
        Ended,
    }
    let start = State::Running {
        bytes,
        hasher: Sha256::new(),
        seen: 0,
    };
    stream::try_unfold((start, origin), |(state, origin)| async move {
        let State::Running {
            mut bytes,
            mut hasher,
            mut seen,
        } = state
        else {
            return Ok(None);
        };
        let size = origin.object.size;
        let wrong = |seen| Error::bad_data(format!("download the file: {size} bytes were expected and {seen} came"));
        match bytes.next().await.transpose()? {
            Some(chunk) => {
                seen += chunk.len() as u64;
                if seen > size {
                    return Err(origin.why(wrong(seen)).await);
                }
                hasher.update(&chunk);
                let running = State::Running { bytes, hasher, seen };
                Ok(Some((chunk, (running, origin))))
            }
            None if seen < size => Err(origin.why(wrong(seen)).await),
            None => {
                match sha256_of(&origin.object.version) {
                    Some(expected) if hex(&hasher.finalize()) == expected => {}
                    Some(_) => {
                        let error = Error::bad_data("download the file: what came doesn't have the file's SHA-256");
                        return Err(origin.why(error).await);
                    }
                    None => origin.confirm().await?,
                }
                Ok(Some((Bytes::new(), (State::Ended, origin))))
            }
        }
    })
    .try_filter(|chunk| std::future::ready(!chunk.is_empty()))
    .boxed()
}

impl Origin {
    /// Makes sure that the file is what it was.
    async fn confirm(&self) -> Result<()> {
        let now = self.client.item(&self.workspace, &self.id).await?;
        if now.is_folder() {
            return Err(Error::not_found(format_args!("{:?}", now.name)));
        }
        if now.content_version() != self.object.version || now.size() != self.object.size {
            let message = format!("{:?} was replaced since it was opened", now.name);
            return Err(Error::new(ErrorKind::Changed, message));
        }
        Ok(())
    }

    /// The reason behind an answer that didn't fit: the file changed, or the provider sent what it shouldn't have.
    async fn why(&self, error: Error) -> Error {
        self.confirm().await.err().unwrap_or(error)
    }
}
