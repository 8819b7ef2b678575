//! ReductStore's requests, one method each. It knows no names, no rights and no order of steps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::debug;

use super::attachments;
use super::key::{EntryId, RecordId, Timestamp};
use super::own::{OwnChanges, Reach};
use super::records::{LABEL_PREFIX, Record};
use super::seen::Seen;
use super::tokens::Token;
use super::wire::{Bucket, BucketInfo, BucketList, QueryId, ServerInfo};
use crate::api::Api;
use crate::model::{Error, ErrorKind, Result};
use crate::net::{Body, Replay, Request, Response};
use crate::provider::Content;

/// Records an answer may describe: each takes a header, and HTTP/1.1 clients read about 100.
const BATCH_RECORDS: u64 = 80;
/// The headers of one answer, in bytes: well below what HTTP clients read.
const BATCH_HEADERS: u64 = 128 * 1024;
/// How long a query that is being followed outlives its last poll. The server looks for new records four times as often
/// (measured on ReductStore 1.21.5).
const FOLLOWED: Duration = Duration::from_secs(8);
/// A listing begins anew this often when its answers are lost or the entry was moved meanwhile.
const QUERY_ATTEMPTS: u32 = 3;

/// Which records of an entry are asked for.
#[derive(Clone, Debug)]
pub(super) enum Which {
    All,
    /// Those that fulfil a condition of the server's query language, as far as the server knows it.
    When(Value),
    At(Timestamp),
}

impl Which {
    fn query(&self) -> Value {
        let mut query = json!({"query_type": "QUERY", "only_metadata": true});
        match self {
            Self::All => {}
            Self::When(condition) => query["when"] = condition.clone(),
            Self::At(at) => {
                query["start"] = at.0.into();
                // The end is not included; the last of all times needs none.
                if let Some(end) = at.0.checked_add(1) {
                    query["stop"] = end.into();
                }
            }
        }
        query
    }
}

/// One server.
#[derive(Clone)]
pub(super) struct Server {
    api: Arc<Api>,
    own: Arc<OwnChanges>,
    seen: Arc<Seen>,
    refused: Arc<AtomicBool>,
}

impl Server {
    pub(super) fn new(api: Arc<Api>) -> Self {
        Self {
            api,
            own: Arc::default(),
            seen: Arc::default(),
            refused: Arc::default(),
        }
    }

    /// How buckets were when they were first asked for.
    pub(super) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// What was changed through this server's clones.
    pub(super) fn own(&self) -> &OwnChanges {
        &self.own
    }

    pub(super) fn base(&self) -> &Url {
        self.api.base()
    }

    pub(super) fn api(&self) -> &Api {
        &self.api
    }

    async fn call(&self, request: &Request) -> Result<Response> {
        let answer = self.api.call(request).await;
        if matches!(&answer, Err(error) if error.kind() == ErrorKind::Denied) {
            self.refused.store(true, Ordering::Relaxed);
        }
        answer
    }

    /// Whether the server has refused anything for want of rights since the last call.
    pub(super) fn take_refusal(&self) -> bool {
        self.refused.swap(false, Ordering::Relaxed)
    }

    /// The token that the request was made with; `None` from servers before `GET /me`.
    ///
    /// # Errors
    /// `NotFound` when nothing there speaks this API.
    pub(super) async fn me(&self) -> Result<Option<Token>> {
        const PURPOSE: &str = "ask what the token may do";
        match self.call(&Request::get(self.url(["me"]), PURPOSE)).await {
            Ok(response) => response.json(PURPOSE).await.map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // Servers before `/me` have `/info`, other servers don't.
                self.info()
                    .await
                    .map_err(|error| error.context("the address is not that of a ReductStore server"))?;
                debug!("the server doesn't tell the token's rights");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn info(&self) -> Result<ServerInfo> {
        const PURPOSE: &str = "ask the server about itself";
        let request = Request::get(self.url(["info"]), PURPOSE);
        self.call(&request).await?.json(PURPOSE).await
    }

    /// The buckets that the token may read.
    pub(super) async fn buckets(&self) -> Result<Vec<BucketInfo>> {
        const PURPOSE: &str = "list the buckets";
        let request = Request::get(self.url(["list"]), PURPOSE);
        let list: BucketList = self.call(&request).await?.json(PURPOSE).await?;
        self.seen.list(&list.buckets);
        Ok(list.buckets)
    }

    /// # Errors
    /// `NotFound`, `Denied` without the right to read it.
    pub(super) async fn bucket(&self, bucket: &str) -> Result<Bucket> {
        const PURPOSE: &str = "list the bucket";
        let request = Request::get(self.bucket_url(bucket), PURPOSE);
        let asked = Instant::now();
        let answer: Bucket = self.call(&request).await?.json(PURPOSE).await?;
        self.seen.bucket(bucket, asked, &answer);
        Ok(answer)
    }

    /// Whether a bucket exists, which every token may ask.
    pub(super) async fn has_bucket(&self, bucket: &str) -> Result<bool> {
        let request = Request::new(Method::HEAD, self.bucket_url(bucket), "look for the bucket");
        existence(self.call(&request).await)
    }

    /// # Errors
    /// `AlreadyExists`.
    pub(super) async fn create_bucket(&self, bucket: &str) -> Result<()> {
        let request = Request::new(Method::POST, self.bucket_url(bucket), "create the bucket").json(&json!({}));
        self.call(&request).await.map(drop)
    }

    /// # Errors
    /// `NotFound`, `AlreadyExists`, `NotPermitted` for a provisioned one.
    pub(super) async fn rename_bucket(&self, bucket: &str, new: &str) -> Result<()> {
        let request = Request::new(Method::PUT, self.url(["b", bucket, "rename"]), "rename the bucket")
            .replay(Replay::Once)
            .json(&json!({"new_name": new}));
        self.call(&request).await.map(drop)
    }

    /// Starts the removal of a bucket **and all in it**.
    ///
    /// # Errors
    /// `NotFound`, `NotPermitted` for a provisioned one.
    pub(super) async fn remove_bucket_with_all_in_it(&self, bucket: &str) -> Result<()> {
        let request = Request::new(Method::DELETE, self.bucket_url(bucket), "remove the bucket");
        self.call(&request).await.map(drop)
    }

    /// Makes an entry and those above it. There is no call for this: asking for the removal of no record does it
    /// (measured on ReductStore 1.21.5, not documented), and so does an attachment, which stays.
    pub(super) async fn create_entry(&self, entry: &EntryId) -> Result<()> {
        let _own = self.own.begin(entry, Reach::Tree);
        let request = Request::new(Method::POST, self.entry_url(entry, &["q"]), "create the directory")
            .replay(Replay::Idempotent)
            .json(&json!({"query_type": "REMOVE", "when": {"$eq": [0, 1]}}));
        self.call(&request).await.map(drop)
    }

    /// The other way to make an entry, for servers where the first one does nothing.
    pub(super) async fn create_entry_with_attachment(&self, entry: &EntryId, at: u64) -> Result<()> {
        let _own = self.own.begin(entry, Reach::Tree);
        let mut url = self.entry_url(entry, &["$meta"]);
        url.query_pairs_mut().append_pair("ts", &at.to_string());
        let request = Request::new(Method::POST, url, "create the directory")
            .header(
                HeaderName::from_static("x-reduct-label-key"),
                HeaderValue::from_static(attachments::DIRECTORY),
            )
            .body(Body::Bytes(Bytes::from_static(b"{}")));
        self.call(&request).await.map(drop)
    }

    /// Stores a text under a key; a former one of this key goes.
    pub(super) async fn attach(&self, meta: &EntryId, at: Timestamp, key: &str, text: &str) -> Result<()> {
        let id = RecordId {
            entry: meta.clone(),
            at,
        };
        let content_type = if serde_json::from_str::<Value>(text).is_ok() {
            "application/json"
        } else {
            "text/plain"
        };
        let (label, key) = label_header(attachments::KEY, key)?;
        let request = Request::new(Method::POST, self.record_url(&id), "store the attachment")
            .header(CONTENT_TYPE, HeaderValue::from_static(content_type))
            .header(label, key)
            .body(Body::Bytes(Bytes::copy_from_slice(text.as_bytes())));
        self.call(&request).await.map(drop)
    }

    /// Removes an attachment: the server deletes none, but takes this label for it (measured on ReductStore 1.21.5).
    ///
    /// # Errors
    /// `NotFound`.
    pub(super) async fn detach(&self, id: &RecordId) -> Result<()> {
        let changes = BTreeMap::from([("remove".to_owned(), "true".to_owned())]);
        self.patch_labels(id, &changes).await
    }

    /// # Errors
    /// `NotFound`, `AlreadyExists`.
    pub(super) async fn rename_entry(&self, entry: &EntryId, new_path: &str) -> Result<()> {
        let renamed = EntryId {
            bucket: entry.bucket.clone(),
            path: new_path.to_owned(),
        };
        let _own = (
            self.own.begin(entry, Reach::Tree),
            self.own.begin(&renamed, Reach::Tree),
        );
        let request = Request::new(Method::PUT, self.entry_url(entry, &["rename"]), "rename the directory")
            .replay(Replay::Once)
            .json(&json!({"new_name": new_path}));
        self.call(&request).await.map(drop)
    }

    /// Starts the removal of an entry, **all its records and all entries below it**.
    ///
    /// # Errors
    /// `NotFound`.
    pub(super) async fn remove_entry_with_all_in_it(&self, entry: &EntryId) -> Result<()> {
        let _own = self.own.begin(entry, Reach::Tree);
        let request = Request::new(Method::DELETE, self.entry_url(entry, &[]), "remove the directory");
        self.call(&request).await.map(drop)
    }

    /// Describes the records of an entry. Broken ones and those being written are left out by the server.
    ///
    /// # Errors
    /// `NotFound` when there is no such entry.
    pub(super) async fn records(&self, entry: &EntryId, which: &Which) -> Result<Vec<Record>> {
        let mut attempt = 1;
        loop {
            let id = self.start_query(entry, which).await?;
            match self.collect(entry, id).await {
                // Each answer takes its records out of the query: after a lost one only a new query is complete.
                Err(error)
                    if attempt < QUERY_ATTEMPTS
                        && matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::NotFound) =>
                {
                    debug!(%entry, attempt, %error, "listing anew");
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    async fn start_query(&self, entry: &EntryId, which: &Which) -> Result<QueryId> {
        let plain = which.query();
        let mut bounded = plain.clone();
        bounded["when"]["#batch_records"] = BATCH_RECORDS.into();
        bounded["when"]["#batch_metadata_size"] = BATCH_HEADERS.into();
        match self.ask(entry, &bounded).await {
            // Older servers don't know the directives; their batches have 85 records at most.
            Err(error) if error.kind() == ErrorKind::InvalidInput => self.ask(entry, &plain).await,
            outcome => outcome,
        }
    }

    async fn ask(&self, entry: &EntryId, query: &Value) -> Result<QueryId> {
        const PURPOSE: &str = "list the files";
        let request = Request::new(Method::POST, self.entry_url(entry, &["q"]), PURPOSE)
            .replay(Replay::Idempotent)
            .json(query);
        self.call(&request).await?.json(PURPOSE).await
    }

    /// Begins to follow what is stored in an entry after a moment. The query lives as long as it is polled.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` from a server that doesn't know such queries.
    pub(super) async fn follow(&self, entry: &EntryId, after: Timestamp) -> Result<QueryId> {
        let query = json!({
            "query_type": "QUERY",
            "only_metadata": true,
            "continuous": true,
            "ttl": FOLLOWED.as_secs(),
            "start": after.0.saturating_add(1),
        });
        self.ask(entry, &query).await
    }

    /// What was stored since the last poll. The server answers with nothing after a quarter of `FOLLOWED`.
    ///
    /// # Errors
    /// `NotFound` when the query or its entry is gone.
    pub(super) async fn poll(&self, entry: &EntryId, query: QueryId) -> Result<Vec<Record>> {
        let response = self.call(&self.next_batch(entry, query)).await?;
        if response.status == StatusCode::NO_CONTENT {
            return Ok(Vec::new());
        }
        Record::from_batch(&response.headers)
            .ok_or_else(|| Error::bad_data("follow the changes: a record's description cannot be read"))
    }

    fn next_batch(&self, entry: &EntryId, query: QueryId) -> Request {
        let mut url = self.entry_url(entry, &["batch"]);
        url.query_pairs_mut().append_pair("q", &query.id.to_string());
        Request::new(Method::HEAD, url, "list the files").replay(Replay::Once)
    }

    async fn collect(&self, entry: &EntryId, query: QueryId) -> Result<Vec<Record>> {
        let request = self.next_batch(entry, query);
        let mut records = Vec::new();
        loop {
            let response = self.call(&request).await?;
            if response.status == StatusCode::NO_CONTENT {
                return Ok(records);
            }
            let batch = Record::from_batch(&response.headers)
                .ok_or_else(|| Error::bad_data("list the files: a record's description cannot be read"))?;
            records.extend(batch);
            if response.header("x-reduct-last") == Some("true") {
                return Ok(records);
            }
        }
    }

    /// Describes one record.
    ///
    /// # Errors
    /// `NotFound`; `BadData` for a broken one; `Busy` while it is being written.
    pub(super) async fn head(&self, id: &RecordId) -> Result<Record> {
        let request = Request::new(Method::HEAD, self.record_url(id), "look at the file");
        described(id, &self.call(&request).await?)
    }

    /// Looks at the latest record of an entry.
    ///
    /// # Errors
    /// As `head`; `NotFound` without any record.
    pub(super) async fn head_latest(&self, entry: &EntryId) -> Result<()> {
        let request = Request::new(Method::HEAD, self.entry_url(entry, &[]), "look at the latest file");
        self.call(&request).await.map(drop)
    }

    /// Opens one record: its description, and its bytes yet to be read.
    ///
    /// # Errors
    /// As `head`.
    pub(super) async fn get(&self, id: &RecordId) -> Result<(Record, Response)> {
        let request = Request::get(self.record_url(id), "read the file");
        let response = self.call(&request).await?;
        Ok((described(id, &response)?, response))
    }

    /// Writes a record with the description's content type and labels.
    ///
    /// # Errors
    /// `AlreadyExists` when there is a record of this time, `Quota`, `TooLarge`, `NoSpace`.
    pub(super) async fn write(&self, entry: &EntryId, record: &Record, content: &Content) -> Result<()> {
        let _own = self.own.begin(entry, Reach::Records);
        self.own.stored(entry, record.at);
        let id = RecordId {
            entry: entry.clone(),
            at: record.at,
        };
        let content_type = HeaderValue::try_from(record.content_type.as_str())
            .unwrap_or(HeaderValue::from_static("application/octet-stream"));
        let bytes = content.clone();
        let mut request = Request::new(Method::POST, self.record_url(&id), "store the file")
            .header(CONTENT_TYPE, content_type)
            .body(Body::Stream {
                len: content.len(),
                open: Arc::new(move || bytes.stream()),
            });
        for (label, value) in &record.labels {
            let (name, value) = label_header(label, value)?;
            request = request.header(name, value);
        }
        self.call(&request).await.map(drop)
    }

    /// Changes labels; the empty text removes one.
    ///
    /// # Errors
    /// `NotFound`.
    pub(super) async fn patch_labels(&self, id: &RecordId, changes: &BTreeMap<String, String>) -> Result<()> {
        let mut request =
            Request::new(Method::PATCH, self.record_url(id), "change the file's labels").replay(Replay::Idempotent);
        for (label, value) in changes {
            let (name, value) = label_header(label, value)?;
            request = request.header(name, value);
        }
        self.call(&request).await.map(drop)
    }

    /// Removes one record and nothing else.
    ///
    /// `DELETE …/{entry}?ts=` would remove the whole entry if the query got lost on its way (a redirect, a proxy). The
    /// batch form has its own path and names the time in a header: whatever is lost, it cannot remove more.
    ///
    /// # Errors
    /// `NotFound`.
    pub(super) async fn remove_record(&self, id: &RecordId, replay: Replay) -> Result<()> {
        let _own = self.own.begin(&id.entry, Reach::Records);
        const PURPOSE: &str = "remove the file";
        let time = HeaderName::try_from(format!("x-reduct-time-{}", id.at.0))
            .map_err(|error| Error::internal("a timestamp is no header").with_source(error))?;
        let request = Request::new(Method::DELETE, self.entry_url(&id.entry, &["batch"]), PURPOSE)
            .replay(replay)
            .header(time, HeaderValue::from_static(""));
        let response = self.call(&request).await?;
        let refusal = response.header(&format!("x-reduct-error-{}", id.at.0));
        match refusal.map(|text| text.split_once(',').unwrap_or((text, ""))) {
            None => Ok(()),
            Some(("404", _)) => Err(Error::not_found(format!("{PURPOSE}: the record"))),
            Some((status, words)) => Err(Error::new(
                if status == "409" {
                    ErrorKind::Busy
                } else {
                    ErrorKind::BadData
                },
                format!("{PURPOSE}: the provider answered {status} {words:?}"),
            )),
        }
    }

    fn url<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        self.api.url(["api", "v1"].into_iter().chain(segments))
    }

    /// Without a slash at the end, which the server doesn't know (measured on ReductStore 1.21.5).
    pub(super) fn tokens_url(&self) -> Url {
        self.url(["tokens"])
    }

    /// # Errors
    /// `InvalidInput` for names that no address can hold.
    pub(super) fn token_url(&self, name: &str) -> Result<Url> {
        if matches!(name, "" | "." | "..") {
            let why = format!("{name:?} cannot be a token's name");
            return Err(Error::new(ErrorKind::InvalidInput, why));
        }
        Ok(self.url(["tokens", name]))
    }

    fn bucket_url(&self, bucket: &str) -> Url {
        self.url(["b", bucket])
    }

    fn entry_url(&self, entry: &EntryId, tail: &[&str]) -> Url {
        let segments = ["b", &entry.bucket].into_iter().chain(entry.path.split('/'));
        self.url(segments.chain(tail.iter().copied()))
    }

    fn record_url(&self, id: &RecordId) -> Url {
        let mut url = self.entry_url(&id.entry, &[]);
        url.query_pairs_mut().append_pair("ts", &id.at.0.to_string());
        url
    }
}

fn existence(outcome: Result<Response>) -> Result<bool> {
    match outcome {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn described(id: &RecordId, response: &Response) -> Result<Record> {
    Record::from_headers(id.at, &response.headers)
        .ok_or_else(|| Error::bad_data("look at the file: the answer doesn't tell its length"))
}

fn label_header(label: &str, value: &str) -> Result<(HeaderName, HeaderValue)> {
    let invalid = || {
        let message = format!("the label {label:?} cannot be sent to ReductStore");
        Error::new(ErrorKind::InvalidInput, message)
    };
    Ok((
        HeaderName::try_from(format!("{LABEL_PREFIX}{label}")).map_err(|_| invalid())?,
        HeaderValue::try_from(value).map_err(|_| invalid())?,
    ))
}
