//! The endpoints of entries and records.
//!
//! Responsible for what lies beneath `/b/{bucket}/`: which request means a record, a query, a batch or the entry
//! itself, and for the headers that carry a record. Not responsible for the rules of storing.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

use super::failure::Failure;
use super::http::{Call, Rename, document, done, read_body};
use super::queries::{Content, Feed, Hit, Limit, Query, QueryRequest, QueryType};
use super::storage::{Labels, NewRecord, no_record};
use super::tokens::Right;
use super::{ReductStore, State};

const LABEL_PREFIX: &str = "x-reduct-label-";
const TIME_PREFIX: &str = "x-reduct-time-";
const DECLARED_LENGTH: &str = "x-reduct-content-length";
/// How long a continuous query waits for news before it answers that there are none.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) async fn answer(
    store: &ReductStore,
    call: &Call,
    bucket: &str,
    path: &str,
    body: Body,
) -> Result<Response, Failure> {
    // Entries named like an endpoint can only be reached where there is no such endpoint.
    let (entry, verb) = match path.rsplit_once('/') {
        Some((entry, verb @ ("q" | "batch" | "rename"))) => (entry, verb),
        _ => (path, ""),
    };
    match (&call.method, verb) {
        (&Method::GET | &Method::HEAD, "batch") => {
            read_body(body).await?;
            batch(store, call, bucket, entry).await
        }
        (&Method::POST, "" | "rename") => write(store, call, bucket, path, body).await,
        (method, verb) => {
            let body = read_body(body).await?;
            let state = &mut *store.lock();
            match (method, verb) {
                (&Method::GET | &Method::HEAD, "q") => {
                    let request = QueryRequest::from_parameters(QueryType::Query, &call.parameters);
                    query(state, call, bucket, entry, request)
                }
                (&Method::GET | &Method::HEAD, _) => read(state, call, bucket, path),
                (&Method::POST, "q") => {
                    let request = serde_json::from_slice(&body).map_err(|error| Failure::invalid_json(&error));
                    query(state, call, bucket, entry, request)
                }
                (&Method::DELETE, "q") => {
                    let request = QueryRequest::from_parameters(QueryType::Remove, &call.parameters);
                    query(state, call, bucket, entry, request)
                }
                (&Method::DELETE, "batch") => remove_batch(state, call, bucket, entry),
                (&Method::DELETE, _) => remove(state, call, bucket, path),
                (&Method::PATCH, "" | "rename" | "q") => relabel(state, call, bucket, path),
                (&Method::PUT, "rename") => rename(state, call, bucket, entry, &body),
                (&Method::PUT, _) => Err(Failure::nowhere()),
                (&Method::POST | &Method::PATCH, _) => Err(Failure::new(
                    StatusCode::NOT_IMPLEMENTED,
                    "This stand-in has no batched writes and label updates",
                )),
                _ => Err(Failure::MethodNotAllowed {
                    allow: "POST,GET,HEAD,PUT,PATCH,DELETE",
                }),
            }
        }
    }
}

/// Ends an upload in any case: one that is dropped half-way leaves a broken record.
struct Upload<'a> {
    store: &'a ReductStore,
    bucket: &'a str,
    entry: &'a str,
    ts: u64,
    number: u64,
    content: Option<Bytes>,
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        if let Some(bucket) = self.store.lock().storage.peek(self.bucket) {
            bucket.end_write(self.entry, self.ts, self.number, self.content.take());
        }
        self.store.shared.changed.notify_waiters();
    }
}

async fn write(store: &ReductStore, call: &Call, bucket: &str, entry: &str, body: Body) -> Result<Response, Failure> {
    let mut upload = match begin_write(store, call, bucket, entry) {
        Ok(upload) => upload,
        Err(failure) => {
            // The client is sending still and shall get to read the answer.
            let mut rest = body.into_data_stream();
            while let Some(Ok(_)) = rest.next().await {}
            return Err(failure);
        }
    };
    let mut content = BytesMut::new();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Failure::new(StatusCode::BAD_REQUEST, "The upload was cut off"))?;
        content.extend_from_slice(&chunk);
    }
    upload.content = Some(content.freeze());
    drop(upload);
    Ok(done())
}

fn begin_write<'a>(
    store: &'a ReductStore,
    call: &Call,
    bucket: &'a str,
    entry: &'a str,
) -> Result<Upload<'a>, Failure> {
    call.require(Right::Write(bucket))?;
    let ts = timestamp(call)?;
    let content_type = call
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let record = NewRecord {
        length: declared_length(&call.headers)?,
        content_type: content_type.unwrap_or("application/octet-stream").to_owned(),
        labels: labels(&call.headers)?,
    };
    let mut state = store.lock();
    state.uploads += 1;
    let number = state.uploads;
    state
        .storage
        .bucket(bucket)?
        .begin_write(bucket, entry, ts, record, number)?;
    Ok(Upload {
        store,
        bucket,
        entry,
        ts,
        number,
        content: None,
    })
}

/// `Content-Length` wins over the header that chunked bodies need (measured).
fn declared_length(headers: &HeaderMap) -> Result<u64, Failure> {
    let number = |name: &str| {
        headers
            .get(name)
            .map(|value| value.to_str().ok().and_then(|text| text.parse().ok()))
    };
    if let Some(length) = number(header::CONTENT_LENGTH.as_str()) {
        return length.ok_or_else(|| Failure::unprocessable("content-length header must be a number"));
    }
    match number(DECLARED_LENGTH) {
        Some(length) => length.ok_or_else(|| Failure::unprocessable("x-reduct-content-length header must be a number")),
        None => Err(Failure::unprocessable("content-length header is required")),
    }
}

fn labels(headers: &HeaderMap) -> Result<Labels, Failure> {
    let sent = headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().strip_prefix(LABEL_PREFIX)?, value)));
    sent.map(|(name, value)| match value.to_str() {
        Ok(value) => Ok((name.to_owned(), value.to_owned())),
        Err(_) => {
            let detail = format!("Label values for {LABEL_PREFIX}{name} must be valid UTF-8 strings");
            Err(Failure::unprocessable(detail))
        }
    })
    .collect()
}

fn timestamp(call: &Call) -> Result<u64, Failure> {
    let text = call
        .parameters
        .get("ts")
        .ok_or_else(|| Failure::unprocessable("'ts' parameter is required"))?;
    text.parse()
        .map_err(|_| Failure::unprocessable("'ts' must be an unix timestamp in microseconds"))
}

fn query_id(text: &str) -> Result<u64, Failure> {
    text.parse()
        .map_err(|_| Failure::unprocessable("'query' must be a number"))
}

/// One record: by its time, as the next of a query, or the latest.
fn read(state: &mut State, call: &Call, bucket: &str, entry: &str) -> Result<Response, Failure> {
    call.require(Right::Read(bucket))?;
    let State { storage, queries, .. } = state;
    let storage = storage.bucket(bucket)?;
    let ts = match (call.parameters.contains_key("ts"), call.parameters.get("q")) {
        (true, _) => timestamp(call)?,
        (false, Some(id)) => {
            let id = query_id(id)?;
            storage.entry(bucket, entry)?;
            let query = queries.get_mut(id, bucket, entry)?;
            let (hits, _) = query.take(storage, Limit::One)?;
            let hit = hits.into_iter().next().ok_or_else(Failure::no_content)?;
            if query.content == Content::Withheld && call.method == Method::GET {
                return Err(Failure::Broken);
            }
            hit.ts
        }
        (false, None) => {
            let latest = storage.entry(bucket, entry)?.records.keys().next_back().copied();
            latest.ok_or_else(|| no_record(bucket, entry, 0))?
        }
    };
    let (record, content) = storage.readable(bucket, entry, ts)?;
    let mut headers = HeaderMap::new();
    for (name, value) in &record.labels {
        if let Ok(name) = HeaderName::try_from(format!("{LABEL_PREFIX}{name}")) {
            headers.insert(name, text_header(value));
        }
    }
    headers.insert(header::CONTENT_TYPE, text_header(&record.content_type));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(content.len()));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    headers.insert("x-reduct-time", HeaderValue::from(ts));
    headers.insert("x-reduct-entry", text_header(entry));
    let mut response = Response::new(Body::from(content));
    *response.headers_mut() = headers;
    Ok(response)
}

/// Opens a query or removes what one finds.
fn query(
    state: &mut State,
    call: &Call,
    bucket: &str,
    entry: &str,
    request: Result<QueryRequest, Failure>,
) -> Result<Response, Failure> {
    let request = request?;
    match request.query_type {
        QueryType::Query => {
            call.require(Right::Read(bucket))?;
            let found = state.storage.bucket(bucket)?.entry(bucket, entry)?;
            let query = Query::new(bucket, entry, found, &request)?;
            let id = state.queries.open(query);
            Ok(document(&json!({"id": id})))
        }
        QueryType::Remove => {
            call.require(Right::Write(bucket))?;
            let storage = state.storage.bucket(bucket)?;
            if request.start.is_none() && request.stop.is_none() && request.when.is_none() {
                return Err(Failure::unprocessable(
                    "Define at least one query parameter to delete records",
                ));
            }
            // Asking for a removal makes the entry (measured; the only way to make an empty one).
            let found = storage.entry_or_new(bucket, entry)?;
            let mut query = Query::new(bucket, entry, found, &request)?;
            let (hits, _) = query.take(storage, Limit::All)?;
            for hit in &hits {
                storage.remove_record(bucket, entry, hit.ts)?;
            }
            Ok(document(&json!({"removed_records": hits.len()})))
        }
    }
}

async fn batch(store: &ReductStore, call: &Call, bucket: &str, entry: &str) -> Result<Response, Failure> {
    call.require(Right::Read(bucket))?;
    let id = call.parameters.get("q");
    let id = query_id(id.ok_or_else(|| Failure::unprocessable("'q' parameter is required for batched reads"))?)?;
    let limit = if call.method == Method::HEAD {
        Limit::BatchOfHeads
    } else {
        Limit::Batch
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut changed = std::pin::pin!(store.shared.changed.notified());
        // Registered before the look at the records, so that one in between isn't missed.
        changed.as_mut().enable();
        let (hits, last, content, feed) = {
            let State { storage, queries, .. } = &mut *store.lock();
            let storage = storage.bucket(bucket)?;
            storage.entry(bucket, entry)?;
            let query = queries.get_mut(id, bucket, entry)?;
            let (hits, last) = query.take(storage, limit)?;
            (hits, last, query.content, query.feed)
        };
        if !hits.is_empty() {
            if content == Content::Withheld && call.method == Method::GET {
                return Err(Failure::Broken);
            }
            return Ok(batch_response(&hits, last));
        }
        if feed == Feed::Finite || timeout_at(deadline, changed).await.is_err() {
            return Err(Failure::no_content());
        }
    }
}

fn batch_response(hits: &[Hit], last: bool) -> Response {
    let mut content = BytesMut::new();
    let mut headers = HeaderMap::new();
    for hit in hits {
        content.extend_from_slice(&hit.content);
        if let Ok(name) = HeaderName::try_from(format!("{TIME_PREFIX}{}", hit.ts)) {
            headers.insert(name, text_header(&hit.described()));
        }
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(content.len()));
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(
        "x-reduct-last",
        HeaderValue::from_static(if last { "true" } else { "false" }),
    );
    let mut response = Response::new(Body::from(content.freeze()));
    *response.headers_mut() = headers;
    response
}

fn relabel(state: &mut State, call: &Call, bucket: &str, entry: &str) -> Result<Response, Failure> {
    call.require(Right::Write(bucket))?;
    let ts = timestamp(call)?;
    let labels = labels(&call.headers)?;
    state
        .storage
        .bucket(bucket)?
        .relabel(bucket, entry, ts, labels)
        .map(|()| done())
}

/// A record if there is any query string at all, else the entry with all beneath it.
fn remove(state: &mut State, call: &Call, bucket: &str, entry: &str) -> Result<Response, Failure> {
    call.require(Right::Write(bucket))?;
    let removal = state.storage.removal();
    if call.parameters.is_empty() {
        return state
            .storage
            .bucket(bucket)?
            .remove_entry(bucket, entry, removal)
            .map(|()| done());
    }
    let ts = timestamp(call)?;
    state
        .storage
        .bucket(bucket)?
        .remove_record(bucket, entry, ts)
        .map(|()| done())
}

/// Records named by headers; failures are reported one by one (measured).
fn remove_batch(state: &mut State, call: &Call, bucket: &str, entry: &str) -> Result<Response, Failure> {
    call.require(Right::Write(bucket))?;
    let storage = state.storage.bucket(bucket)?;
    storage.entry(bucket, entry)?;
    let named = call
        .headers
        .keys()
        .filter_map(|name| Some((name, name.as_str().strip_prefix(TIME_PREFIX)?)));
    let times: Vec<u64> = named
        .map(|(name, ts)| {
            let detail = || format!("Invalid header '{name}': must be an unix timestamp in microseconds");
            ts.parse().map_err(|_| Failure::unprocessable(detail()))
        })
        .collect::<Result<_, _>>()?;
    let mut response = done();
    for ts in times {
        let failure = match storage.remove_record(bucket, entry, ts) {
            Ok(()) => continue,
            Err(Failure::Service {
                status: StatusCode::NOT_FOUND,
                ..
            }) => no_record(bucket, entry, ts),
            Err(other) => other,
        };
        if let Ok(name) = HeaderName::try_from(format!("x-reduct-error-{ts}")) {
            response.headers_mut().insert(name, text_header(&failure.in_one_line()));
        }
    }
    Ok(response)
}

fn rename(state: &mut State, call: &Call, bucket: &str, entry: &str, body: &Bytes) -> Result<Response, Failure> {
    let Rename { new_name } = serde_json::from_slice(body).map_err(|error| Failure::invalid_json(&error))?;
    call.require(Right::Write(bucket))?;
    state
        .storage
        .bucket(bucket)?
        .rename_entry(bucket, entry, &new_name)
        .map(|()| done())
}

/// Text that came in as a header or was made of such.
fn text_header(text: &str) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
