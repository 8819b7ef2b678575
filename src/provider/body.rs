//! The bytes of a download: which part of an answer's body was asked for, and whether it is all there.

use std::ops::Range;

use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderValue};

use super::ByteStream;
use crate::model::{Error, ObjectId, Result};

/// Which part of an answer's body was asked for.
pub(super) struct Wanted {
    skip: u64,
    pub(super) take: u64,
    /// What the body must have, if nothing of it is left unread.
    body: u64,
}

/// What the head of the answer says about its body.
///
/// # Errors
/// `BadData` when it isn't the answer to a read of this range.
pub(super) fn wanted(status: StatusCode, headers: &HeaderMap, object: &ObjectId, range: &Range<u64>) -> Result<Wanted> {
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
pub(super) fn exactly(body: ByteStream, wanted: &Wanted) -> ByteStream {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ObjectKey, Version};
    use bytes::Bytes;

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
