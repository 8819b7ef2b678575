//! Carries opendal's requests through keymount's own transport: its retries, deadlines, redirects and roots hold here too.
//!
//! What a status means is said where it is said for every provider, so opendal sees refusals as errors that hold ours.
//! Answers are checked for what opendal doesn't check: the entity tag and the range of a read.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, stream};
use opendal::{Buffer, HttpBody, HttpTransport};
use parking_lot::Mutex;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, IF_MATCH, IF_NONE_MATCH, RANGE};
use reqwest::{Method, Url};

use super::errors::{theirs, unexpected};
use crate::api::Api;
use crate::model::{Error, ErrorKind, Result};
use crate::net::{Body, Metering, Replay, Request, Response};

/// AWS: the header that holds a temporary credential's token.
const SECURITY_TOKEN: &str = "x-amz-security-token";

/// Bytes that are sent at once.
const SHORT: usize = 64 * 1024;

/// The way to one endpoint, and to the services that hand out temporary credentials.
pub(super) struct Wire {
    api: Arc<Api>,
}

impl Wire {
    pub(super) fn new(api: Arc<Api>) -> Self {
        Self { api }
    }

    async fn exchange(&self, request: http::Request<Buffer>) -> Result<http::Response<HttpBody>> {
        let request = ours(request)?;
        // The request is signed already, for nobody but its address.
        let response = self.api.call_bare(&request).await?;
        if request.method == Method::GET {
            check(&request.headers, &response)?;
        }
        answer(response, request.purpose)
    }
}

impl HttpTransport for Wire {
    async fn fetch(&self, request: http::Request<Buffer>) -> opendal::Result<http::Response<HttpBody>> {
        self.exchange(request).await.map_err(theirs)
    }
}

fn ours(request: http::Request<Buffer>) -> Result<Request> {
    let (parts, body) = request.into_parts();
    let url = Url::parse(&parts.uri.to_string()).map_err(|_| Error::internal("a malformed address of S3"))?;
    let mut headers = parts.headers;
    if let Some(token) = headers.get_mut(SECURITY_TOKEN) {
        token.set_sensitive(true);
    }
    // Under a condition a second attempt fails where the first one's answer was lost: the caller looks instead.
    let is_conditional = headers.contains_key(IF_MATCH) || headers.contains_key(IF_NONE_MATCH);
    let is_read = matches!(parts.method, Method::GET | Method::HEAD);
    let replay = if parts.method.is_idempotent() && (is_read || !is_conditional) {
        Replay::Idempotent
    } else {
        Replay::Once
    };
    Ok(Request {
        purpose: purpose(&parts.method),
        method: parts.method,
        url,
        body: sent(body, &mut headers),
        headers,
        replay,
        metering: Metering::Free,
        turn: None,
    })
}

/// A long body goes piece by piece: each piece that leaves is a sign of life, and none is copied.
fn sent(body: Buffer, headers: &mut HeaderMap) -> Body {
    match body.len() {
        0 => Body::Empty,
        len if len <= SHORT => Body::Bytes(body.to_bytes()),
        len => {
            // The transport names it.
            headers.remove(CONTENT_LENGTH);
            let pieces: Vec<Bytes> = Iterator::collect(body);
            Body::Stream {
                len: len as u64,
                open: Arc::new(move || stream::iter(pieces.clone().into_iter().map(Ok)).boxed()),
            }
        }
    }
}

/// What a person would call it, as far as the method tells.
fn purpose(method: &Method) -> &'static str {
    match *method {
        Method::GET => "read from the bucket",
        Method::HEAD => "look it up in the bucket",
        Method::DELETE => "remove it from the bucket",
        _ => "write to the bucket",
    }
}

/// Whether what was read is what was asked for, for servers that ignore conditions or ranges.
fn check(asked: &HeaderMap, response: &Response) -> Result<()> {
    let text = |name| {
        asked
            .get(name)
            .and_then(|value: &reqwest::header::HeaderValue| value.to_str().ok())
    };
    if let (Some(wanted), Some(given)) = (text(IF_MATCH), response.header(ETAG.as_str()))
        && wanted != given
    {
        return Err(Error::new(
            ErrorKind::Changed,
            "read from the bucket: it was replaced since it was opened",
        ));
    }
    let Some(range) = text(RANGE).and_then(|range| range.strip_prefix("bytes=")) else {
        return Ok(());
    };
    let given = response.header(CONTENT_RANGE.as_str()).unwrap_or("nothing");
    let fits = given
        .strip_prefix("bytes ")
        .and_then(|given| given.split_once('/'))
        .is_some_and(|(given, _)| given == range);
    // Some services send a part with 200, and say which part it is all the same.
    if !fits {
        return Err(Error::bad_data(format!(
            "read from the bucket: asked for bytes {range}, the service sent {given}"
        )));
    }
    Ok(())
}

fn answer(response: Response, purpose: &'static str) -> Result<http::Response<HttpBody>> {
    let (status, headers) = (response.status, response.headers.clone());
    let length = response
        .header(CONTENT_LENGTH.as_str())
        .and_then(|length| length.parse::<u64>().ok());
    let body = response
        .stream(purpose)
        .map(|chunk| chunk.map(Buffer::from).map_err(theirs));
    // The answer to HEAD has a length and no body.
    let length = length.filter(|_| purpose != self::purpose(&Method::HEAD));
    let mut answer = http::Response::new(HttpBody::new(Shared(Mutex::new(body.boxed())), length));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    Ok(answer)
}

/// A stream that may be looked at from several threads, as opendal asks for, though only one ever does.
struct Shared(Mutex<BoxStream<'static, opendal::Result<Buffer>>>);

impl Stream for Shared {
    type Item = opendal::Result<Buffer>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.get_mut().poll_next_unpin(context)
    }
}

/// Bytes of opendal as ours.
pub(super) fn bytes_of(chunk: std::io::Result<Bytes>) -> Result<Bytes> {
    chunk.map_err(|error| unexpected(&error))
}
