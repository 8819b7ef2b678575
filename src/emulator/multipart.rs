//! Bodies of several parts, as strictly as RFC 2046 has them: the parser would let anything follow the closing delimiter.
//!
//! Responsible for where a body ends. Not responsible for its parts.

use std::sync::Arc;
use std::task::Poll;

use axum::body::{Body, BodyDataStream};
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use parking_lot::Mutex;

/// A body that is being read by somebody else.
pub(super) struct Ending {
    read: Arc<Mutex<Read>>,
    /// The closing delimiter without what may follow it: the end of its line.
    closing: Vec<u8>,
}

struct Read {
    body: BodyDataStream,
    /// The last bytes that came, as many as matter.
    last: Vec<u8>,
    most: usize,
}

/// The request to give to a parser, and what tells afterwards whether its body ended where it should; an error without a
/// boundary.
pub(super) fn watch(request: Request) -> Result<(Request, Ending), NoBoundary> {
    let closing = closing(request.headers()).ok_or(NoBoundary)?;
    let (head, body) = request.into_parts();
    let read = Arc::new(Mutex::new(Read {
        body: body.into_data_stream(),
        last: Vec::new(),
        most: closing.len() + END_OF_LINE.len(),
    }));
    let ending = Ending {
        read: Arc::clone(&read),
        closing,
    };
    Ok((Request::from_parts(head, Body::from_stream(chunks(read))), ending))
}

/// A body whose `Content-Type` names no boundary.
#[derive(Debug)]
pub(super) struct NoBoundary;

/// RFC 2046, 5.1.1.
const END_OF_LINE: &[u8] = b"\r\n";

impl Ending {
    /// Reads what the parser left, and says whether the closing delimiter was the last thing.
    pub(super) async fn ends_cleanly(self) -> bool {
        let mut rest = std::pin::pin!(chunks(Arc::clone(&self.read)));
        while let Some(chunk) = rest.next().await {
            if chunk.is_err() {
                return false;
            }
        }
        ends_with(&self.read.lock().last, &self.closing)
    }
}

/// Whether a whole body ends with its closing delimiter.
pub(super) fn is_closed(headers: &HeaderMap, whole: &[u8]) -> bool {
    closing(headers).is_some_and(|closing| ends_with(whole, &closing))
}

fn ends_with(bytes: &[u8], closing: &[u8]) -> bool {
    bytes.strip_suffix(END_OF_LINE).unwrap_or(bytes).ends_with(closing)
}

fn closing(headers: &HeaderMap) -> Option<Vec<u8>> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let mut parameters = value
        .split(';')
        .skip(1)
        .filter_map(|parameter| parameter.split_once('='));
    let (_, boundary) = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("boundary"))?;
    Some(format!("\r\n--{}--", boundary.trim().trim_matches('"')).into_bytes())
}

fn chunks(read: Arc<Mutex<Read>>) -> impl Stream<Item = Result<Bytes, axum::Error>> + Send {
    stream::poll_fn(move |context| {
        let mut read = read.lock();
        let polled = read.body.poll_next_unpin(context);
        if let Poll::Ready(Some(Ok(chunk))) = &polled {
            read.last.extend_from_slice(chunk);
            let old = read.last.len().saturating_sub(read.most);
            read.last.drain(..old);
        }
        polled
    })
}

#[cfg(test)]
mod tests {
    use axum::extract::{FromRequest, Multipart};

    use super::*;

    async fn ends_cleanly(body: &'static str) -> bool {
        // In pieces of two bytes.
        let pieces = body
            .as_bytes()
            .chunks(2)
            .map(|piece| Ok::<_, axum::Error>(Bytes::from_static(piece)));
        let request = Request::builder()
            .header("Content-Type", "multipart/form-data; boundary=\"X\"")
            .body(Body::from_stream(stream::iter(pieces)))
            .unwrap();
        let (request, ending) = watch(request).unwrap();
        let mut parts = Multipart::from_request(request, &()).await.unwrap();
        while let Some(part) = parts.next_field().await.unwrap() {
            assert_eq!(part.bytes().await.unwrap(), "1");
        }
        ending.ends_cleanly().await
    }

    #[tokio::test]
    async fn nothing_follows_the_closing_delimiter() {
        const PART: &str = "--X\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--X--";
        assert_eq!(PART.len() % 2, 1, "the pieces cut the delimiter");
        assert!(ends_cleanly(PART).await);
        for (more, clean) in [("\r\n", true), ("\r\nmore", false), ("\r\n\r\n", false)] {
            let body: &'static str = format!("{PART}{more}").leak();
            assert_eq!(ends_cleanly(body).await, clean, "{more:?}");
        }
    }
}
