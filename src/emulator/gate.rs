//! What stands between the wire and a service: it records every request and carries out injected faults.
//!
//! Not responsible for which request gets a fault (see [`super::faults`]) nor for any provider's answers.

use std::future::poll_fn;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};

use super::faults::{Fault, Faults};
use super::recorder::{Entry, Log, without_credential};
use super::wire::Line;
use super::{AuthenticatedAs, Service};

/// Sent by [`Fault::Garbage`].
const GARBAGE: &[u8] = b"\x00\xff\xfe{]\x80 not what you asked for \xc3\x28";

#[derive(Clone)]
pub(super) struct Gate<S> {
    service: S,
    log: Arc<Log>,
    faults: Arc<Faults>,
}

impl<S: Service> Gate<S> {
    pub(super) fn new(service: S, log: Arc<Log>, faults: Arc<Faults>) -> Self {
        Self { service, log, faults }
    }

    pub(super) fn into_router(self) -> Router {
        Router::new()
            .fallback(pass::<S>)
            .layer(DefaultBodyLimit::disable())
            .with_state(self)
    }
}

async fn pass<S: Service>(
    State(gate): State<Gate<S>>,
    ConnectInfo(line): ConnectInfo<Line>,
    request: Request,
) -> Response {
    let method = request.method().clone();
    let target = without_credential(request.uri());
    let entry = gate.log.arrived(&method, &target);
    let request = count_incoming(request, entry.clone());

    let mut fault = gate.faults.take(&method, &target, false);
    while let Some(Fault::Hold(released)) = fault {
        released.notified().await;
        fault = gate.faults.take(&method, &target, true);
    }

    let Some(response) = act(&gate.service, fault, request, &line).await else {
        line.cut();
        return Response::new(Body::empty());
    };
    let name = response
        .extensions()
        .get::<AuthenticatedAs>()
        .map(|name| name.0.clone());
    gate.log.answered(&entry, response.status().as_u16(), name);
    count_outgoing(response, entry)
}

/// The answer, or nothing if the connection is to be dropped.
async fn act<S: Service>(service: &S, fault: Option<Fault>, request: Request, line: &Line) -> Option<Response> {
    let service = service.clone();
    match fault {
        None | Some(Fault::Hold(_)) => Some(service.answer(request).await),
        Some(Fault::Status { status, headers, body }) => {
            drain(request).await;
            Some(canned(status, &headers, body))
        }
        Some(Fault::StatusAfterEffect { status, headers, body }) => {
            service.answer(request).await;
            Some(canned(status, &headers, body))
        }
        Some(Fault::DropConnection) => {
            drain(request).await;
            None
        }
        Some(Fault::DropAfterEffect) => {
            service.answer(request).await;
            None
        }
        Some(Fault::Garbage) => {
            drain(request).await;
            Some(Response::new(Body::from(GARBAGE)))
        }
        Some(Fault::LieAboutSuccess) => Some(service.fork().answer(request).await),
        Some(Fault::WrongRange) => Some(service.answer(with_shifted_range(request)).await),
        Some(Fault::TruncateBody { after }) => Some(truncated(service.answer(request).await, after, line.clone())),
    }
}

fn canned(status: u16, headers: &[(String, String)], body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// Reads the body to its end, so that the client gets to read the answer before its own writing fails.
async fn drain(request: Request) {
    let mut body = request.into_body().into_data_stream();
    while let Some(Ok(_)) = body.next().await {}
}

fn count_incoming(request: Request, entry: Entry) -> Request {
    request.map(|body| {
        Body::from_stream(body.into_data_stream().inspect(move |chunk| {
            if let Ok(chunk) = chunk {
                entry.update(|recorded| recorded.bytes_in += chunk.len() as u64);
            }
        }))
    })
}

fn count_outgoing(mut response: Response, entry: Entry) -> Response {
    declare_length(&mut response);
    response.map(|body| {
        Body::from_stream(body.into_data_stream().inspect(move |chunk| {
            if let Ok(chunk) = chunk {
                entry.update(|recorded| recorded.bytes_out += chunk.len() as u64);
            }
        }))
    })
}

/// Writes the length down that the server would take from the body, before the body becomes a mere stream.
fn declare_length(response: &mut Response) {
    let has_no_body = response.status().is_informational()
        || response.status() == StatusCode::NO_CONTENT
        || response.status() == StatusCode::NOT_MODIFIED;
    if has_no_body || response.headers().contains_key(header::CONTENT_LENGTH) {
        return;
    }
    if let Some(length) = response.body().size_hint().exact() {
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
}

fn truncated(mut response: Response, after: usize, line: Line) -> Response {
    declare_length(&mut response);
    response.map(|body| Body::from_stream(short_stream(body, after, line)))
}

/// The first `after` bytes of `body`; then, once they are on the wire, an error, which ends the connection.
fn short_stream(body: Body, after: usize, line: Line) -> impl Stream<Item = Result<Bytes, axum::Error>> {
    let whole = body.into_data_stream();
    stream::unfold((whole, after, Some(line)), |(mut whole, left, line)| async move {
        let line = line?;
        if left > 0 {
            match whole.next().await {
                Some(Ok(chunk)) => {
                    let part = chunk.slice(..left.min(chunk.len()));
                    let left = left - part.len();
                    return Some((Ok(part), (whole, left, Some(line))));
                }
                Some(Err(error)) => return Some((Err(error), (whole, 0, None))),
                None => {}
            }
        }
        let seen = line.flushes();
        poll_fn(|context| line.poll_flushed(seen, context)).await;
        Some((
            Err(axum::Error::new(std::io::Error::other("cut short on purpose"))),
            (whole, 0, None),
        ))
    })
}

/// Moves the range asked for by one byte: towards the start where there is room, else away from it.
fn with_shifted_range(mut request: Request) -> Request {
    if let Some(shifted) = shifted_range(request.headers()) {
        request.headers_mut().insert(header::RANGE, shifted);
    }
    request
}

fn shifted_range(headers: &HeaderMap) -> Option<HeaderValue> {
    let (first, last) = headers
        .get(header::RANGE)?
        .to_str()
        .ok()?
        .strip_prefix("bytes=")?
        .split_once('-')?;
    let first: u64 = first.parse().ok()?;
    let last: Option<u64> = last.parse().ok();
    let moved = |at: u64| if first > 0 { at - 1 } else { at + 1 };
    let last = last.map_or_else(String::new, |last| moved(last).to_string());
    HeaderValue::try_from(format!("bytes={}-{last}", moved(first))).ok()
}
