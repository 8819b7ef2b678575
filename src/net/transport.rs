//! Sends requests: attempts, redirects, time without progress, and answers as streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, stream};
use reqwest::header::{HeaderMap, HeaderValue, LOCATION};
use reqwest::{StatusCode, Url};
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tracing::debug;

use super::gate::{Gate, Pass};
use super::redirect::{self, MAX_REDIRECTS};
use super::request::FilePart;
use super::retry::Reach;
use super::throttle::Throttle;
use super::{Body, Credential, Dialect, Metering, RateBucket, Request, RetryPolicy, error_for};
use crate::model::{Bandwidth, Error, ErrorKind, Progress, Result};

/// The longest error body that is read for its message, in bytes.
const MAX_REFUSAL: usize = 64 * 1024;
/// The longest document (a listing) that is held in memory, in bytes.
const MAX_DOCUMENT: usize = 64 * 1024 * 1024;

/// The headers of one HTTP/2 answer, in bytes: ReductStore describes its records in headers, and 16 KiB, the client's own
/// limit, are soon full.
const MAX_HEADERS: u32 = 1024 * 1024;

/// A body of at most so many bytes, such as a question in JSON, is sent in one piece and not slowed.
const SMALL: usize = 16 * 1024;

/// How often an upload is looked at for progress.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug)]
pub struct TransportSettings {
    /// How long nothing may move in either direction.
    pub stall: Duration,
    pub retry: RetryPolicy,
}

impl TransportSettings {
    /// For operations with this deadline without progress: a request gives up earlier, so that there is time left for
    /// what comes of it, as showing what is known.
    pub fn within(deadline: Duration) -> Self {
        Self {
            stall: deadline * 3 / 4,
            retry: RetryPolicy::within(deadline),
        }
    }
}

/// A pool of connections with one policy of patience.
#[derive(Clone)]
pub struct Transport {
    client: reqwest::Client,
    settings: TransportSettings,
    throttle: Option<Arc<Throttle>>,
    /// Closed by a service's "not now".
    gate: Arc<Gate>,
}

struct Failure {
    error: Error,
    reach: Reach,
}

/// Any answer, whatever its status, with its whole body.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Transport {
    /// # Errors
    /// `Internal` when the platform's certificate roots cannot be loaded.
    pub fn new(settings: TransportSettings) -> Result<Self> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("keymount/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(settings.stall.min(Duration::from_secs(10)))
            .tcp_keepalive(Duration::from_secs(15))
            .pool_idle_timeout(Duration::from_secs(60))
            .http2_max_header_list_size(MAX_HEADERS)
            .build()
            .map_err(|error| Error::internal("the HTTP client cannot be set up").with_source(error))?;
        Ok(Self {
            client,
            settings,
            throttle: None,
            gate: Arc::default(),
        })
    }

    /// The same connections with a limit on how fast content moves; clones share it.
    pub fn limited(self, bandwidth: Bandwidth) -> Self {
        Self {
            throttle: Throttle::new(bandwidth).map(Arc::new),
            ..self
        }
    }

    /// Sends until an answer in 2xx came or the failure is final.
    ///
    /// # Errors
    /// By `net::status` for answers, `Unreachable` and `TimedOut` for what happens on the way.
    pub async fn send(&self, request: &Request, credential: &Credential, dialect: &dyn Dialect) -> Result<Response> {
        let start = Instant::now();
        let policy = &self.settings.retry;
        let limit = start + policy.longest_wait();
        let mut attempt = 1;
        let mut refusal = None;
        loop {
            let passes = match self.admitted(request, attempt, limit).await {
                Ok(passes) => passes,
                // The service's own words say more.
                Err(error) => return Err(refusal.unwrap_or(error)),
            };
            let Failure { error, reach } = match self.attempt(request, credential).await {
                Ok(response) => {
                    if let Some(bucket) = request.metering.bucket() {
                        bucket.learn(response.status, &response.headers);
                    }
                    if response.status.is_success() {
                        passes.answered();
                        return Ok(response);
                    }
                    let status = response.status;
                    let error = response.refusal(request, dialect).await;
                    passes.judge(status, &error, request, policy);
                    Failure {
                        error,
                        reach: Reach::Answered,
                    }
                }
                Err(failure) => failure,
            };
            let pause = policy.pause(error.kind(), reach, request.replay, attempt, start.elapsed());
            let Some(pause) = pause else { return Err(error) };
            debug!(?request, attempt, ?pause, %error, "trying again");
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            refusal = matches!(error.kind(), ErrorKind::RateLimited { .. }).then_some(error);
            attempt += 1;
        }
    }

    /// Waits until the service takes requests, and such ones, and counts this one where they are limited.
    async fn admitted<'a>(&'a self, request: &'a Request, attempt: u32, limit: Instant) -> Result<Passes<'a>> {
        let service = self
            .gate
            .pass(limit)
            .await
            .map_err(|wait| closed(wait, request.purpose))?;
        let (bucket, paid) = match &request.metering {
            Metering::Free => return Ok(Passes::new(service, None)),
            Metering::Counted(bucket) => (bucket, false),
            Metering::Prepaid(bucket) => (bucket, attempt == 1),
        };
        if paid {
            let pass = bucket.gate.pass(limit).await;
            return Ok(Passes::new(
                service,
                Some(pass.map_err(|wait| full(bucket, wait, request.purpose))?),
            ));
        }
        let pass = counted(bucket, 1, limit, request.purpose).await?;
        Ok(Passes::new(service, Some(pass)))
    }

    /// Sends once, follows no redirect, and takes every status for an answer: for requests whose refusals are part of a
    /// protocol, and that carry their secrets in the body.
    ///
    /// `patience` is for all of it; `limit` is the longest body in bytes.
    ///
    /// # Errors
    /// `Unreachable` and `TimedOut` for what happens on the way, `BadData` for a longer body.
    pub async fn send_once(&self, request: &Request, patience: Duration, limit: usize) -> Result<Answer> {
        let asking = async {
            let response = self
                .exchange(request, request.url.clone(), &Credential::None, true)
                .await
                .map_err(|failure| failure.error)?;
            let response = Response::new(response, self.settings.stall, None);
            let (status, headers) = (response.status, response.headers.clone());
            match response.up_to(limit, request.purpose).await? {
                (body, true) => Ok(Answer { status, headers, body }),
                (_, false) => Err(Error::bad_data(format!("{}: the answer is too long", request.purpose))),
            }
        };
        tokio::time::timeout(patience, asking)
            .await
            .unwrap_or_else(|_| Err(timed_out(request.purpose, patience)))
    }

    /// Counts several requests before the first is sent, so that none of them is held up once they are begun. They are
    /// then sent as `Metering::Prepaid`.
    ///
    /// # Errors
    /// `RateLimited` when they don't fit soon enough.
    pub async fn reserve(&self, bucket: &RateBucket, requests: u32, purpose: &'static str) -> Result<()> {
        let limit = Instant::now() + self.settings.retry.longest_wait();
        counted(bucket, requests, limit, purpose).await.map(drop)
    }

    async fn attempt(&self, request: &Request, credential: &Credential) -> Result<Response, Failure> {
        let _turn = match &request.turn {
            Some(turn) => {
                let turn = turn.acquire().await;
                Progress::tick();
                turn.ok()
            }
            None => None,
        };
        let not_sent = |error| Failure {
            error,
            reach: Reach::NotSent,
        };
        let origin = request.url.origin();
        let mut url = request.url.clone();
        let mut carried = credential.clone();
        for _ in 0..=MAX_REDIRECTS {
            let is_home = url.origin() == origin;
            let response = self.exchange(request, url.clone(), &carried, is_home).await?;
            if !is_redirect(response.status()) {
                return Ok(Response::new(response, self.settings.stall, self.throttle.clone()));
            }
            let location = response
                .headers()
                .get(LOCATION)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned);
            let hop = redirect::follow(&url, &request.method, response.status(), location.as_deref())
                .map_err(|error| not_sent(error.context(request.purpose)))?;
            if !hop.keep_credential || hop.url.origin() != origin {
                carried = Credential::None;
            }
            url = hop.url;
        }
        Err(not_sent(Error::bad_data(format!(
            "{}: the provider redirects without end",
            request.purpose
        ))))
    }

    async fn exchange(
        &self,
        request: &Request,
        mut url: Url,
        credential: &Credential,
        is_home: bool,
    ) -> Result<reqwest::Response, Failure> {
        // What the caller itself marked as sensitive, a signature, is a credential as well and stays at home.
        let travels = |value: &HeaderValue| is_home || !value.is_sensitive();
        let headers = request.headers.iter().filter(|(_, value)| travels(value));
        let mut headers: HeaderMap = headers.map(|(name, value)| (name.clone(), value.clone())).collect();
        match credential {
            Credential::None => {}
            Credential::Header { name, value } => {
                let mut value = value.clone();
                value.set_sensitive(true);
                headers.insert(name.clone(), value);
            }
            Credential::Query { name, value } => {
                url.query_pairs_mut().append_pair(name, value.expose_secret());
            }
        }
        let moved = Arc::new(AtomicU64::new(0));
        let builder = self.client.request(request.method.clone(), url).headers(headers);
        let builder = match &request.body {
            Body::Empty => builder,
            Body::Bytes(bytes) if bytes.len() > SMALL && self.limits_uploads() => {
                let body = stream::iter([Ok(bytes.clone())]).boxed();
                builder
                    .header(reqwest::header::CONTENT_LENGTH, HeaderValue::from(bytes.len()))
                    .body(reqwest::Body::wrap_stream(self.watched(body, Arc::clone(&moved))))
            }
            Body::Bytes(bytes) => builder.body(bytes.clone()),
            Body::Stream { len, open } => builder
                .header(reqwest::header::CONTENT_LENGTH, HeaderValue::from(*len))
                .body(reqwest::Body::wrap_stream(self.watched(open(), Arc::clone(&moved)))),
            Body::Multipart { fields, file } => {
                let form = fields
                    .iter()
                    .fold(reqwest::multipart::Form::new(), |form, (name, value)| {
                        form.text(name.clone(), value.clone())
                    });
                builder.multipart(form.part(
                    file.field.clone(),
                    self.part(file, Arc::clone(&moved)).map_err(|error| Failure {
                        error,
                        reach: Reach::NotSent,
                    })?,
                ))
            }
        };
        let mut sending = std::pin::pin!(builder.send());
        let (mut seen, mut last_move) = (0, Instant::now());
        loop {
            match tokio::time::timeout(self.settings.stall.min(LOOK_EVERY), sending.as_mut()).await {
                Ok(Ok(response)) => {
                    Progress::tick();
                    return Ok(response);
                }
                Ok(Err(error)) => return Err(failure(request, error)),
                Err(_) if moved.load(Ordering::Relaxed) > seen => {
                    (seen, last_move) = (moved.load(Ordering::Relaxed), Instant::now());
                    Progress::tick();
                }
                Err(_) if last_move.elapsed() < self.settings.stall => {}
                Err(_) => {
                    let error = timed_out(request.purpose, self.settings.stall);
                    return Err(Failure {
                        error,
                        reach: Reach::Unknown,
                    });
                }
            }
        }
    }
}

impl Transport {
    fn limits_uploads(&self) -> bool {
        self.throttle.as_ref().is_some_and(|throttle| throttle.limits_uploads())
    }

    /// Counts a body's chunks as they are taken for sending, no faster than they may go.
    fn watched(
        &self,
        body: BoxStream<'static, Result<Bytes>>,
        moved: Arc<AtomicU64>,
    ) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        let body = match &self.throttle {
            Some(throttle) => Arc::clone(throttle).upload(body),
            None => body,
        };
        // The stream is polled by the connection's task, so the operation's own counter is looked up at the receiving end.
        body.inspect(move |_| {
            moved.fetch_add(1, Ordering::Relaxed);
        })
    }

    fn part(&self, file: &FilePart, moved: Arc<AtomicU64>) -> Result<reqwest::multipart::Part> {
        let body = reqwest::Body::wrap_stream(self.watched((file.open)(), moved));
        reqwest::multipart::Part::stream_with_length(body, file.len)
            .file_name(file.file_name.clone())
            .mime_str(&file.content_type)
            .map_err(|error| Error::internal("a content type is malformed").with_source(error))
    }
}

/// Leave to send, from the service and, where such requests are limited, from their bucket.
struct Passes<'a> {
    service: Pass<'a>,
    bucket: Option<Pass<'a>>,
}

impl<'a> Passes<'a> {
    fn new(service: Pass<'a>, bucket: Option<Pass<'a>>) -> Self {
        if service.waited || bucket.as_ref().is_some_and(|bucket| bucket.waited) {
            // Who may go on after a wait has got further.
            Progress::tick();
        }
        Self { service, bucket }
    }

    fn answered(self) {
        self.service.answered();
        if let Some(bucket) = self.bucket {
            bucket.answered();
        }
    }

    /// Closes what a refusal for now is about: where such requests are limited, 429 is about them alone.
    fn judge(self, status: StatusCode, error: &Error, request: &Request, policy: &RetryPolicy) {
        let ErrorKind::RateLimited { retry_after } = error.kind() else {
            return self.answered();
        };
        match (self.bucket, request.metering.bucket()) {
            (Some(pass), Some(bucket)) if status == StatusCode::TOO_MANY_REQUESTS => {
                pass.refused(bucket.believed(retry_after), policy);
                self.service.answered();
            }
            _ => self.service.refused(retry_after, policy),
        }
    }
}

/// Waits until so many requests fit, and counts them.
///
/// # Errors
/// `RateLimited` when they don't fit before `limit`.
async fn counted<'a>(bucket: &'a RateBucket, requests: u32, limit: Instant, purpose: &str) -> Result<Pass<'a>> {
    loop {
        let pass = bucket
            .gate
            .pass(limit)
            .await
            .map_err(|wait| full(bucket, wait, purpose))?;
        let wait = match bucket.take(requests) {
            Ok(pause) => {
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                return Ok(pass);
            }
            Err(wait) => wait,
        };
        // Somebody else may try meanwhile.
        drop(pass);
        if Instant::now() + wait > limit {
            return Err(full(bucket, wait, purpose));
        }
        debug!(purpose, ?wait, "waiting");
        tokio::time::sleep(wait).await;
        Progress::tick();
    }
}

/// The service asked for a wait that is too long for this request.
fn closed(wait: Duration, purpose: &str) -> Error {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let kind = ErrorKind::RateLimited {
        retry_after: Some(wait),
    };
    let message = format!("{purpose}: the provider takes no requests for now; it is asked again in {seconds} s");
    Error::new(kind, message)
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The bucket is full, as an answer of the service would say it.
fn full(bucket: &RateBucket, wait: Duration, purpose: &str) -> Error {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Error::new(
        ErrorKind::RateLimited {
            retry_after: Some(wait),
        },
        format!(
            "{purpose}: the provider's limit for {} is reached; the next one is possible in {seconds} s",
            bucket.what()
        ),
    )
}

fn timed_out(purpose: &str, stall: Duration) -> Error {
    Error::new(
        ErrorKind::TimedOut,
        format!("{purpose}: nothing moved for {} s", stall.as_secs()),
    )
}

fn failure(request: &Request, error: reqwest::Error) -> Failure {
    // The URL may hold a token; the message names only what was wanted.
    let error = error.without_url();
    let reach = if error.is_connect() || error.is_builder() {
        Reach::NotSent
    } else {
        Reach::Unknown
    };
    let host = request.url.origin().ascii_serialization();
    let what = if error.is_connect() {
        "cannot be reached"
    } else {
        "broke the connection off"
    };
    let cause = root_cause(&error);
    let message = format!("{}: {host} {what} ({cause})", request.purpose);
    Failure {
        error: Error::new(ErrorKind::Unreachable, message).with_source(error),
        reach,
    }
}

/// The innermost message: the outer ones only say that something failed.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// An answer whose body hasn't been read yet.
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    inner: reqwest::Response,
    stall: Duration,
    throttle: Option<Arc<Throttle>>,
}

impl Response {
    fn new(inner: reqwest::Response, stall: Duration, throttle: Option<Arc<Throttle>>) -> Self {
        Self {
            status: inner.status(),
            headers: inner.headers().clone(),
            inner,
            stall,
            throttle,
        }
    }

    /// A header's text, if it is visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as it arrives; an early end is `Unreachable`, a pause longer than the deadline `TimedOut`.
    pub fn stream(self, purpose: &'static str) -> BoxStream<'static, Result<Bytes>> {
        let stall = self.stall;
        stream::try_unfold((self.inner, self.throttle), move |(mut inner, throttle)| async move {
            match tokio::time::timeout(stall, inner.chunk()).await {
                Ok(Ok(Some(chunk))) => {
                    Progress::tick();
                    if let Some(throttle) = &throttle {
                        throttle.downloaded(chunk.len()).await;
                    }
                    Ok(Some((chunk, (inner, throttle))))
                }
                Ok(Ok(None)) => Ok(None),
                Ok(Err(error)) => {
                    let error = error.without_url();
                    let message = format!("{purpose}: the answer broke off ({})", root_cause(&error));
                    Err(Error::new(ErrorKind::Unreachable, message).with_source(error))
                }
                Err(_) => Err(timed_out(purpose, stall)),
            }
        })
        .boxed()
    }

    /// The whole body.
    ///
    /// # Errors
    /// `BadData` beyond 64 MiB, and as `stream`.
    pub async fn bytes(self, purpose: &'static str) -> Result<Bytes> {
        let (bytes, complete) = self.up_to(MAX_DOCUMENT, purpose).await?;
        if complete {
            Ok(bytes)
        } else {
            Err(Error::bad_data(format!("{purpose}: the answer is too long")))
        }
    }

    /// The body read as JSON.
    ///
    /// # Errors
    /// `BadData` when it isn't the JSON that was expected, and as `bytes`.
    pub async fn json<T: DeserializeOwned>(self, purpose: &'static str) -> Result<T> {
        let bytes = self.bytes(purpose).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::bad_data(format!("{purpose}: the answer is not what was expected ({error})")))
    }

    async fn up_to(self, limit: usize, purpose: &'static str) -> Result<(Bytes, bool)> {
        let mut body = self.stream(purpose);
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await {
            let chunk = chunk?;
            let room = limit - bytes.len();
            bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if chunk.len() > room {
                return Ok((bytes.into(), false));
            }
        }
        Ok((bytes.into(), true))
    }

    async fn refusal(self, request: &Request, dialect: &dyn Dialect) -> Error {
        let (status, headers) = (self.status, self.headers.clone());
        // What cannot be read of the message is missing from the message; the status still says what happened.
        let body = self
            .up_to(MAX_REFUSAL, request.purpose)
            .await
            .map(|(bytes, _)| bytes)
            .unwrap_or_default();
        error_for(
            status,
            &headers,
            dialect.explain(status, &headers, &body),
            request.purpose,
        )
    }
}
