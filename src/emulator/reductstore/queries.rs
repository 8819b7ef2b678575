//! Queries: a cursor over the records of one entry.
//!
//! Responsible for choosing records and for the life of a query. What a query returns is decided when it is read, so
//! it never returns a record that was removed, is being written or is broken. Not responsible for rights and HTTP.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::condition::{BatchBounds, Condition, Json, Missing};
use super::failure::Failure;
use super::storage::{Bucket, Entry, Labels, RecordBody};

/// Records in one batch at most (`RS_IO_BATCH_MAX_RECORDS`).
const BATCH_RECORDS: usize = 85;
/// A batch with content is closed by the record that goes beyond so many bytes (`RS_IO_BATCH_MAX_SIZE`; measured).
const BATCH_BYTES: usize = 8_000_000;
/// The headers of a batch, closed by the record that goes beyond so many bytes (`RS_IO_BATCH_MAX_METADATA_SIZE`).
const BATCH_HEADERS: usize = 512_000;
/// How long a query lives after it was last read, unless it says so itself.
const TTL: u64 = 60;

/// The body of `POST …/q`; members that this version no longer knows are ignored without a word (measured).
#[derive(Debug, Deserialize)]
pub(super) struct QueryRequest {
    pub(super) query_type: QueryType,
    pub(super) start: Option<u64>,
    pub(super) stop: Option<u64>,
    #[serde(default)]
    only_metadata: bool,
    ttl: Option<u64>,
    #[serde(default)]
    continuous: bool,
    #[serde(default)]
    strict: bool,
    pub(super) when: Option<Json>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum QueryType {
    Query,
    Remove,
}

impl QueryRequest {
    /// The form in a URL (`GET …/q?start&stop&ttl&continuous` and `DELETE …/q?start&stop`).
    pub(super) fn from_parameters(kind: QueryType, parameters: &BTreeMap<String, String>) -> Result<Self, Failure> {
        let number = |name: &str, kind: &str| {
            let text = parameters.get(name);
            let parsed = text.map(|text| text.parse::<u64>()).transpose();
            parsed.map_err(|_| Failure::unprocessable(format!("'{name}' must be {kind}")))
        };
        Ok(Self {
            query_type: kind,
            start: number("start", "an unix timestamp in microseconds")?,
            stop: number("stop", "an unix timestamp in microseconds")?,
            only_metadata: false,
            ttl: number("ttl", "in seconds as an unsigned integer")?,
            continuous: parameters.get("continuous").is_some_and(|text| text == "true"),
            strict: false,
            when: None,
        })
    }
}

/// What a query returns besides metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Served,
    /// `only_metadata`: asking for content ends the connection (measured).
    Withheld,
}

/// Whether a query ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Feed {
    Finite,
    Continuous,
}

/// What happens to a record that lacks a label of the condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MissingLabel {
    Skips,
    /// `strict`.
    Fails,
}

/// One record of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) ts: u64,
    pub(super) content_type: String,
    pub(super) labels: Labels,
    pub(super) content: bytes::Bytes,
}

impl Hit {
    /// The value of the header that describes the record in a batch: values with a comma are quoted (measured).
    pub(super) fn described(&self) -> String {
        let mut line = format!("{},{}", self.content.len(), self.content_type);
        for (name, value) in &self.labels {
            let quote = if value.contains(',') { "\"" } else { "" };
            line.push_str(&format!(",{name}={quote}{value}{quote}"));
        }
        line
    }

    fn header_len(&self) -> usize {
        format!("x-reduct-time-{}: {}", self.ts, self.described()).len()
    }
}

/// How much of a query is read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    One,
    /// `HEAD …/batch`, which counts records only (measured).
    BatchOfHeads,
    Batch,
    All,
}

impl Limit {
    fn is_reached(self, hits: &[Hit], bounds: BatchBounds) -> bool {
        let bytes = || hits.iter().map(|hit| hit.content.len()).sum::<usize>();
        let is_full = || {
            let headers = hits.iter().map(Hit::header_len).sum::<usize>();
            hits.len() >= bounds.records.unwrap_or(BATCH_RECORDS) || headers > bounds.headers.unwrap_or(BATCH_HEADERS)
        };
        match self {
            Self::One => !hits.is_empty(),
            Self::BatchOfHeads => is_full(),
            Self::Batch => is_full() || bytes() > BATCH_BYTES,
            Self::All => false,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Query {
    bucket: String,
    entry: String,
    /// The timestamp to go on from; nothing after the greatest one.
    next: Option<u64>,
    stop: Option<u64>,
    condition: Condition,
    missing_label: MissingLabel,
    pub(super) content: Content,
    pub(super) feed: Feed,
    /// A record that was looked at to learn whether the former batch was the last.
    ahead: VecDeque<u64>,
    ttl: Duration,
    expires: Instant,
}

impl Query {
    /// A query over the entry as it is now; without bounds it goes from its oldest to its latest record, and a bound
    /// beyond the other end is an error (measured).
    pub(super) fn new(bucket: &str, name: &str, entry: &Entry, request: &QueryRequest) -> Result<Self, Failure> {
        let feed = if request.continuous {
            Feed::Continuous
        } else {
            Feed::Finite
        };
        let start = request.start.unwrap_or(entry.first());
        let stop = match feed {
            Feed::Finite => request.stop.or(entry.last().checked_add(1)),
            Feed::Continuous => request.stop,
        };
        if stop.is_some_and(|stop| start > stop) {
            return Err(Failure::unprocessable("Start time must be before stop time"));
        }
        let ttl = Duration::from_secs(request.ttl.unwrap_or(TTL));
        Ok(Self {
            bucket: bucket.to_owned(),
            entry: name.to_owned(),
            next: Some(start),
            stop,
            condition: request
                .when
                .as_ref()
                .map(Condition::parse)
                .transpose()?
                .unwrap_or_default(),
            missing_label: if request.strict {
                MissingLabel::Fails
            } else {
                MissingLabel::Skips
            },
            content: if request.only_metadata {
                Content::Withheld
            } else {
                Content::Served
            },
            feed,
            ahead: VecDeque::new(),
            ttl,
            expires: Instant::now() + ttl,
        })
    }

    /// Further records up to a limit, and whether they are the last for now.
    pub(super) fn take(&mut self, storage: &mut Bucket, limit: Limit) -> Result<(Vec<Hit>, bool), Failure> {
        self.expires = Instant::now() + self.ttl;
        let mut hits: Vec<Hit> = Vec::new();
        while !limit.is_reached(&hits, self.condition.batch) {
            let Some(ts) = self.advance(storage)? else { break };
            if let Ok((record, content)) = storage.readable(&self.bucket, &self.entry, ts) {
                let (content_type, labels) = (record.content_type.clone(), record.labels.clone());
                hits.push(Hit {
                    ts,
                    content_type,
                    labels,
                    content,
                });
            }
        }
        if let Some(ts) = self.advance(storage)? {
            self.ahead.push_front(ts);
        }
        Ok((hits, self.ahead.is_empty()))
    }

    fn advance(&mut self, storage: &mut Bucket) -> Result<Option<u64>, Failure> {
        if let Some(ts) = self.ahead.pop_front() {
            return Ok(Some(ts));
        }
        let entry = storage.entry(&self.bucket, &self.entry)?;
        while let Some(from) = self.next {
            let Some((&ts, record)) = entry.records.range(from..).next() else {
                return Ok(None);
            };
            if self.stop.is_some_and(|stop| ts >= stop) {
                return Ok(None);
            }
            self.next = ts.checked_add(1);
            if !matches!(record.body, RecordBody::Complete(_)) {
                continue;
            }
            match self.condition.holds(&record.labels) {
                Ok(true) => return Ok(Some(ts)),
                Err(Missing(label)) if self.missing_label == MissingLabel::Fails => {
                    self.next = None;
                    return Err(Failure::not_found(format!("Reference '{label}' not found")));
                }
                Ok(false) | Err(Missing(_)) => {}
            }
        }
        Ok(None)
    }
}

/// Every query that is open.
#[derive(Debug, Clone, Default)]
pub(super) struct Queries {
    open: BTreeMap<u64, Query>,
    latest: u64,
}

impl Queries {
    pub(super) fn open(&mut self, query: Query) -> u64 {
        self.latest += 1;
        self.open.insert(self.latest, query);
        self.latest
    }

    pub(super) fn get_mut(&mut self, id: u64, bucket: &str, entry: &str) -> Result<&mut Query, Failure> {
        let now = Instant::now();
        self.open.retain(|_, query| query.expires > now);
        let query = self
            .open
            .get_mut(&id)
            .filter(|query| query.bucket == bucket && query.entry == entry);
        query.ok_or_else(|| {
            let detail = format!("Query {id} not found and it might have expired. Check TTL in your query request.");
            Failure::not_found(detail)
        })
    }

    pub(super) fn expire_all(&mut self) {
        self.open.clear();
    }
}
