//! Downloads. A content has one address for ever, so no byte of another version can get in between.

use std::ops::Range;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use reqwest::header::HeaderValue;
use reqwest::{Method, StatusCode};
use sha2::{Digest, Sha256};

use super::client::Client;
use crate::model::{Error, ErrorKind, IndexedFile, ObjectId, Result};
use crate::provider::body::{exactly, wanted};
use crate::provider::content::hex;
use crate::provider::{ByteStream, Reads};

const PURPOSE: &str = "download the file";

/// # Errors
/// `BadData`, also when the content isn't there any more.
pub(super) async fn read(
    client: &Client,
    object: &ObjectId,
    file: &IndexedFile,
    range: Range<u64>,
) -> Result<ByteStream> {
    if range.start > range.end || range.end > object.size {
        let message = format!("{range:?} cannot be asked for of {} bytes", object.size);
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    if range.is_empty() {
        return Ok(stream::empty().boxed());
    }
    let whole = range == (0..object.size);
    let header = if whole { None } else { Some(header(&range)?) };
    let response = client.content(Method::GET, &file.address, header).await?;
    let wanted = wanted(response.status, &response.headers, object, &range)?;
    let bytes = exactly(response.stream(PURPOSE), &wanted);
    Ok(match &file.sha256 {
        Some(expected) if whole => checked(bytes, expected.clone()),
        _ => bytes,
    })
}

fn header(range: &Range<u64>) -> Result<HeaderValue> {
    let text = format!("bytes={}-{}", range.start, range.end - 1);
    HeaderValue::try_from(text).map_err(|_| Error::internal("a range is no header"))
}

/// Whether the service sends parts of this content. Nothing but a look at a real content tells it.
///
/// # Errors
/// When the content cannot be had.
pub(super) async fn reads(client: &Client, file: &IndexedFile) -> Result<Reads> {
    let answer = client
        .content(Method::GET, &file.address, Some(header(&(0..1))?))
        .await?;
    Ok(match answer.status {
        StatusCode::PARTIAL_CONTENT => Reads::Ranges,
        _ => Reads::WholeOnly,
    })
}

/// Hands the bytes on as they come and says at the end whether they were right.
fn checked(bytes: ByteStream, expected: String) -> ByteStream {
    let start = Some((bytes, Sha256::new()));
    stream::try_unfold((start, expected), |(state, expected)| async move {
        let Some((mut bytes, mut hasher)) = state else {
            return Ok(None);
        };
        match bytes.next().await.transpose()? {
            Some(chunk) => {
                hasher.update(&chunk);
                Ok(Some((chunk, (Some((bytes, hasher)), expected))))
            }
            None if hex(&hasher.finalize()) == expected => Ok(Some((Bytes::new(), (None, expected)))),
            None => Err(Error::bad_data(format!(
                "{PURPOSE}: what came doesn't have the file's SHA-256"
            ))),
        }
    })
    .filter(|chunk| std::future::ready(!matches!(chunk, Ok(chunk) if chunk.is_empty())))
    .boxed()
}
