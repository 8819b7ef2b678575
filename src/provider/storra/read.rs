//! Downloads of whole files, checked so that no byte of another version gets through as far as Storra lets one tell.
//!
//! Ranges and conditional requests aren't documented, and there is no checksum. What is asked for is the id that a
//! version names; the answer must have its length and must not be newer than its last change. If it is, the listing
//! decides. All of that is known before the first byte, so bytes may be served as they come.

use std::ops::Range;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use reqwest::header::CONTENT_LENGTH;

use super::client::Client;
use super::names::split;
use super::snapshot::Snapshot;
use super::wire::{is_newer, last_modified, parts_of};
use crate::model::{Error, ErrorKind, ObjectId, Result};
use crate::provider::ByteStream;

/// # Errors
/// `NotFound`, `Changed`, `BadData`.
pub(super) async fn read(
    client: &Client,
    snapshot: &Snapshot,
    object: &ObjectId,
    range: Range<u64>,
) -> Result<ByteStream> {
    if range != (0..object.size) {
        let message = format!(
            "{range:?} cannot be asked for: Storra gives {:?} as a whole",
            object.key.as_str()
        );
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    let Some((id, changed)) = parts_of(&object.version) else {
        return Err(why(snapshot, object, not_there(object)).await);
    };
    let response = match client.download(id).await {
        Ok(response) => response,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(why(snapshot, object, not_there(object)).await);
        }
        Err(error) => return Err(error),
    };
    let length = response
        .header(CONTENT_LENGTH.as_str())
        .and_then(|text| text.parse::<u64>().ok());
    if length.is_some_and(|length| length != object.size) {
        let error = Error::bad_data(format!(
            "download the file: {} bytes were expected, the provider sends {}",
            object.size,
            length.unwrap_or_default()
        ));
        return Err(why(snapshot, object, error).await);
    }
    let suspicious = match (last_modified(&response.headers), changed) {
        (Some(content), Some(change)) => is_newer(content, change),
        // It may be of any time.
        (Some(_), None) => true,
        (None, _) => false,
    };
    if suspicious {
        confirm(snapshot, object).await?;
    }
    Ok(exactly(response.stream("download the file"), object.size))
}

/// All bytes, or an error where there are more or fewer.
fn exactly(body: ByteStream, len: u64) -> ByteStream {
    let wrong =
        move |seen: u64| Error::bad_data(format!("download the file: {len} bytes were promised and {seen} came"));
    stream::try_unfold((body, 0u64), move |(mut body, seen)| async move {
        match body.next().await.transpose()? {
            Some(chunk) => {
                let seen = seen + chunk.len() as u64;
                if seen > len {
                    return Err(wrong(seen));
                }
                Ok(Some((chunk, (body, seen))))
            }
            None if seen < len => Err(wrong(seen)),
            None => Ok(None::<(Bytes, _)>),
        }
    })
    .boxed()
}

fn not_there(object: &ObjectId) -> Error {
    Error::not_found(format_args!("{:?}", object.key.as_str()))
}

/// Makes sure by the listing that the object is what it was.
async fn confirm(snapshot: &Snapshot, object: &ObjectId) -> Result<()> {
    let path = object.key.as_str();
    let items = snapshot.list_folder(split(path).0).await?;
    let mut same_path = items
        .iter()
        .filter(|(known, item)| known == path && !item.is_folder())
        .peekable();
    if same_path.peek().is_none() {
        return Err(not_there(object));
    }
    if same_path.any(|(_, item)| item.has(&object.version)) {
        return Ok(());
    }
    let message = format!("{path:?} was replaced since it was opened");
    Err(Error::new(ErrorKind::Changed, message))
}

/// The reason behind an answer that didn't fit: the object changed, or the provider sent what it shouldn't have.
async fn why(snapshot: &Snapshot, object: &ObjectId, error: Error) -> Error {
    confirm(snapshot, object).await.err().unwrap_or(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::TryStreamExt;

    #[tokio::test]
    async fn the_length_is_held_to() {
        let body = |len: usize| {
            let bytes = vec![7; len];
            let chunks: Vec<_> = bytes.chunks(7).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
            stream::iter(chunks).boxed()
        };
        let read = async |len: usize| -> Result<usize> {
            let chunks: Vec<Bytes> = exactly(body(len), 50).try_collect().await?;
            Ok(chunks.concat().len())
        };
        assert_eq!(read(50).await.unwrap(), 50);
        assert!(read(49).await.is_err());
        assert!(read(51).await.is_err());
    }
}
