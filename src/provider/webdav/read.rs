//! Downloads, checked so that no byte of another version gets through.
//!
//! A strong entity tag does that in one request: sent as a condition, and compared with the answer's for servers that
//! ignore conditions. Without one the file is looked at before its first byte is handed on and again after its last.

use std::ops::Range;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG};

use super::client::Client;
use super::wire;
use crate::model::{Error, ErrorKind, ObjectId, Result};
use crate::net::Response;
use crate::provider::ByteStream;

/// What of an answer's body was asked for.
struct Part {
    skip: u64,
    take: u64,
    /// What the body must have.
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
    let header = (!whole).then(|| format!("bytes={}-{}", range.start, range.end - 1));
    let path = object.key.as_str();
    let answer = match client.get(path, header.clone(), Some(&object.version)).await {
        // Of a file that was just changed no condition holds; the tag of the answer tells.
        Err(error) if error.kind() == ErrorKind::Changed && confirm(&client, &object).await.is_ok() => {
            client.get(path, header, None).await
        }
        answer => answer,
    };
    let response = match answer {
        Ok(response) => response,
        // The condition didn't hold; or the file is shorter now (416); or a directory has its name.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::Changed | ErrorKind::BadData | ErrorKind::InvalidInput
            ) =>
        {
            return Err(why(&client, &object, error).await);
        }
        Err(error) => return Err(error),
    };
    let is_proved = match (wire::etag_of(&object.version), response.header(ETAG.as_str())) {
        (Some(wanted), Some(given)) => match wire::Tag::of(given, object.size) {
            Some(given) if given.version.as_str() == wanted => true,
            Some(_) => return Err(changed(&object)),
            None => false,
        },
        _ => false,
    };
    let part = match part(&response, &object, &range) {
        Ok(part) => part,
        Err(error) => return Err(why(&client, &object, error).await),
    };
    let bytes = exactly(response.stream("read the file"), part);
    if is_proved {
        return Ok(bytes);
    }
    confirm(&client, &object).await?;
    let last_look = stream::once(async move { confirm(&client, &object).await });
    let nothing = last_look.try_filter_map(|()| std::future::ready(Ok(None)));
    Ok(bytes.chain(nothing).boxed())
}

/// What the head of the answer says about its body.
fn part(response: &Response, object: &ObjectId, range: &Range<u64>) -> Result<Part> {
    let take = range.end - range.start;
    match response.status {
        StatusCode::PARTIAL_CONTENT if take != object.size => {
            let expected = format!("bytes {}-{}/{}", range.start, range.end - 1, object.size);
            let given = response.header(CONTENT_RANGE.as_str()).unwrap_or("nothing");
            if given != expected {
                return Err(Error::bad_data(format!(
                    "read the file: asked for {expected}, the server sent {given}"
                )));
            }
            Ok(Part {
                skip: 0,
                take,
                body: take,
            })
        }
        // The whole file, asked for or because ranges were ignored.
        StatusCode::OK => {
            let length = response.header(CONTENT_LENGTH.as_str()).map(str::parse);
            if length.is_some_and(|length| length != Ok(object.size)) {
                return Err(Error::bad_data(format!(
                    "read the file: {} bytes were expected, the server sends another number",
                    object.size
                )));
            }
            Ok(Part {
                skip: range.start,
                take,
                body: object.size,
            })
        }
        other => Err(Error::bad_data(format!(
            "read the file: the server answered {other} to a read"
        ))),
    }
}

/// The part of a body that is wanted, or an error where the body has another length.
fn exactly(body: ByteStream, part: Part) -> ByteStream {
    let (from, to, len) = (part.skip, part.skip + part.take, part.body);
    let wrong = move |seen: u64| Error::bad_data(format!("read the file: {len} bytes were promised and {seen} came"));
    let chunks = stream::try_unfold((body, 0u64), move |(mut body, start)| async move {
        // A tail that nobody wants isn't waited for; one that shouldn't be there is.
        if start >= to && to < len {
            return Ok(None);
        }
        let Some(chunk) = body.next().await.transpose()? else {
            return if start == len { Ok(None) } else { Err(wrong(start)) };
        };
        let seen = start + chunk.len() as u64;
        if seen > len {
            return Err(wrong(seen));
        }
        let first = from.clamp(start, seen) - start;
        let last = to.clamp(start, seen) - start;
        Ok(Some((chunk.slice(first as usize..last as usize), (body, seen))))
    });
    chunks.try_filter(|chunk| std::future::ready(!chunk.is_empty())).boxed()
}

/// # Errors
/// `NotFound`, `Changed` when it isn't this version any more.
async fn confirm(client: &Client, object: &ObjectId) -> Result<()> {
    let now = client.describe(object.key.as_str()).await?;
    if now.is_directory() {
        return Err(Error::not_found(format_args!("{:?}", object.key.as_str())));
    }
    if now.version != object.version {
        return Err(changed(object));
    }
    Ok(())
}

/// The reason for a failed read, where the file itself is the reason.
async fn why(client: &Client, object: &ObjectId, error: Error) -> Error {
    match confirm(client, object).await {
        Err(reason) if matches!(reason.kind(), ErrorKind::NotFound | ErrorKind::Changed) => reason,
        _ => error,
    }
}

fn changed(object: &ObjectId) -> Error {
    Error::new(
        ErrorKind::Changed,
        format!("{:?} was replaced since it was opened", object.key.as_str()),
    )
}
