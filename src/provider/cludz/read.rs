//! Downloads, checked so that no byte of another version gets through.
//!
//! Cludz documents no conditional requests and no ETag. A whole file is compared with its SHA-256. A part is compared
//! by looking at the file *after* it arrived; only then it is handed on. What is too large to hold back is looked at
//! before its first byte is handed on, and again, or hashed, at its end.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};

use super::client::{Client, split};
use super::wire::sha256_of;
use crate::model::{Action, Error, ErrorKind, ObjectId, Result};
use crate::provider::ByteStream;
use crate::provider::content::hex;

/// The longest answer that is held back until it is checked, in bytes.
const HELD_BACK: u64 = 4 * 1024 * 1024;

/// Which part of an answer's body was asked for.
struct Wanted {
    skip: u64,
    take: u64,
    /// What the body must have, if nothing of it is left unread.
    body: u64,
}

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

/// What the head of the answer says about its body.
fn wanted(status: StatusCode, headers: &HeaderMap, object: &ObjectId, range: &Range<u64>) -> Result<Wanted> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let take = range.end - range.start;
    let whole = take == object.size;
    match status {
        StatusCode::PARTIAL_CONTENT if !whole => {
            let expected = format!("bytes {}-{}/{}", range.start, range.end - 1, object.size);
            let given = text(CONTENT_RANGE).unwrap_or("nothing");
            if given != expected {
                return Err(Error::bad_data(format!(
                    "download the file: asked for {expected}, the provider sent {given}"
                )));
            }
            Ok(Wanted {
                skip: 0,
                take,
                body: take,
            })
        }
        // The whole file, asked for or because ranges were ignored.
        StatusCode::OK => {
            let length = text(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
            let fits = match length {
                Some(length) => length == object.size,
                None => whole,
            };
            if !fits {
                return Err(Error::bad_data(format!(
                    "download the file: {} bytes were expected, the provider sends {}",
                    object.size,
                    length.map_or("an unknown number".to_owned(), |length| length.to_string())
                )));
            }
            Ok(Wanted {
                skip: range.start,
                take,
                body: object.size,
            })
        }
        other => Err(Error::bad_data(format!(
            "download the file: the provider answered {other} to a read"
        ))),
    }
}

/// The part of a body that is wanted, or an error where the body has another length.
fn exactly(body: ByteStream, wanted: &Wanted) -> ByteStream {
    struct State {
        body: ByteStream,
        seen: u64,
    }
    let (from, to, len) = (wanted.skip, wanted.skip + wanted.take, wanted.body);
    let wrong =
        move |seen: u64| Error::bad_data(format!("download the file: {len} bytes were promised and {seen} came"));
    let parts = stream::try_unfold(State { body, seen: 0 }, move |mut state| async move {
        // A tail that nobody wants isn't waited for; one that shouldn't be there is.
        if state.seen >= to && to < len {
            return Ok(None);
        }
        let Some(chunk) = state.body.next().await.transpose()? else {
            return if state.seen == len {
                Ok(None)
            } else {
                Err(wrong(state.seen))
            };
        };
        let start = state.seen;
        state.seen += chunk.len() as u64;
        if state.seen > len {
            return Err(wrong(state.seen));
        }
        let first = from.clamp(start, state.seen) - start;
        let last = to.clamp(start, state.seen) - start;
        Ok(Some((chunk.slice(first as usize..last as usize), state)))
    });
    parts.try_filter(|chunk| std::future::ready(!chunk.is_empty())).boxed()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ObjectKey, Version};

    fn object(size: u64) -> ObjectId {
        ObjectId {
            key: ObjectKey::new("f"),
            version: Version::new("v"),
            size,
        }
    }

    fn head(status: u16, headers: &[(&'static str, &str)], range: Range<u64>) -> Option<(u64, u64, u64)> {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        wanted(StatusCode::from_u16(status).unwrap(), &headers, &object(100), &range)
            .ok()
            .map(|wanted| (wanted.skip, wanted.take, wanted.body))
    }

    #[test]
    fn only_the_exact_range_is_taken() {
        assert_eq!(
            head(206, &[("content-range", "bytes 10-19/100")], 10..20),
            Some((0, 10, 10))
        );
        for wrong in [
            "bytes 10-19/101",
            "bytes 9-18/100",
            "bytes 10-20/100",
            "bytes 10-19/*",
            "",
        ] {
            assert_eq!(head(206, &[("content-range", wrong)], 10..20), None, "{wrong:?}");
        }
        assert_eq!(head(206, &[], 10..20), None);
        assert_eq!(head(206, &[("content-range", "bytes 0-99/100")], 0..100), None);
        assert_eq!(head(204, &[], 10..20), None);
    }

    #[test]
    fn an_ignored_range_is_cut_only_from_a_body_of_the_right_length() {
        assert_eq!(head(200, &[("content-length", "100")], 10..20), Some((10, 10, 100)));
        assert_eq!(head(200, &[("content-length", "99")], 10..20), None);
        assert_eq!(head(200, &[], 10..20), None);
        assert_eq!(head(200, &[], 0..100), Some((0, 100, 100)));
    }

    #[tokio::test]
    async fn the_wanted_part_is_cut_out_and_the_length_held_to() {
        let body = |len: u8| {
            stream::iter(
                (0..len)
                    .collect::<Vec<u8>>()
                    .chunks(7)
                    .map(|c| Ok(Bytes::copy_from_slice(c)))
                    .collect::<Vec<_>>(),
            )
            .boxed()
        };
        let part = async |len: u8, skip: u64, take: u64| -> Result<Vec<u8>> {
            let wanted = Wanted { skip, take, body: 50 };
            let chunks: Vec<Bytes> = exactly(body(len), &wanted).try_collect().await?;
            Ok(chunks.concat())
        };
        assert_eq!(part(50, 0, 50).await.unwrap(), (0..50).collect::<Vec<u8>>());
        assert_eq!(part(50, 6, 9).await.unwrap(), (6..15).collect::<Vec<u8>>());
        assert_eq!(part(50, 49, 1).await.unwrap(), [49]);
        assert!(part(49, 0, 50).await.is_err());
        assert!(part(51, 0, 50).await.is_err());
        assert!(part(49, 40, 10).await.is_err());
    }
}
