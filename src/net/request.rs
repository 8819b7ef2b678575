//! What is sent: a request that can be built again for every attempt.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use tokio::sync::Semaphore;

use super::RateBucket;
use crate::model::Error;

type StreamFactory = dyn Fn() -> futures_util::stream::BoxStream<'static, Result<Bytes, Error>> + Send + Sync;

/// A body that starts anew with every attempt.
#[derive(Clone)]
pub enum Body {
    Empty,
    Bytes(Bytes),
    /// A stream of known length, made again by calling.
    Stream {
        len: u64,
        open: Arc<StreamFactory>,
    },
    /// `multipart/form-data`: text fields, then one file.
    Multipart {
        fields: Vec<(String, String)>,
        file: FilePart,
    },
}

/// The file of a multipart body.
#[derive(Clone)]
pub struct FilePart {
    pub field: String,
    pub file_name: String,
    pub content_type: String,
    /// In bytes.
    pub len: u64,
    pub open: Arc<StreamFactory>,
}

/// Whether an attempt whose outcome is unknown may be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// Twice has the effect of once: every failure of the way there and back may be tried again.
    Idempotent,
    /// Only failures that happened before the server saw the request may be tried again.
    Once,
}

/// Whether the service limits how often such a request may be sent.
#[derive(Clone, Debug, Default)]
pub enum Metering {
    #[default]
    Free,
    /// Every attempt is counted in this bucket, and waits or fails when it is full.
    Counted(Arc<RateBucket>),
    /// The first attempt was counted before, by `Transport::reserve`.
    Prepaid(Arc<RateBucket>),
}

impl Metering {
    pub(super) fn bucket(&self) -> Option<&RateBucket> {
        match self {
            Self::Free => None,
            Self::Counted(bucket) | Self::Prepaid(bucket) => Some(bucket),
        }
    }
}

/// How a request proves who sends it. Sent to the origin it was made for and to no other.
#[derive(Clone)]
pub enum Credential {
    None,
    Header {
        name: HeaderName,
        value: HeaderValue,
    },
    Query {
        name: &'static str,
        value: secrecy::SecretString,
    },
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Header { name, .. } => write!(f, "Header({name}: ***)"),
            Self::Query { name, .. } => write!(f, "Query({name}=***)"),
        }
    }
}

/// One request, complete but for the credential.
#[derive(Clone)]
pub struct Request {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Body,
    pub replay: Replay,
    pub metering: Metering,
    /// Of the requests that share one, a single attempt at a time is at the service.
    pub turn: Option<Arc<Semaphore>>,
    /// What a person would call it, for messages: `list the folder`.
    pub purpose: &'static str,
}

impl Request {
    /// A request without body. GET, HEAD, PUT and DELETE count as idempotent (RFC 9110, 9.2.2), POST and PATCH don't.
    pub fn new(method: Method, url: Url, purpose: &'static str) -> Self {
        let replay = if method.is_idempotent() {
            Replay::Idempotent
        } else {
            Replay::Once
        };
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: Body::Empty,
            replay,
            metering: Metering::Free,
            turn: None,
            purpose,
        }
    }

    pub fn get(url: Url, purpose: &'static str) -> Self {
        Self::new(Method::GET, url, purpose)
    }

    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    pub fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// JSON with its content type.
    pub fn json(mut self, value: &serde_json::Value) -> Self {
        self.headers.insert(
            reqwest::header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        self.body = Body::Bytes(Bytes::from(value.to_string()));
        self
    }

    pub fn replay(mut self, replay: Replay) -> Self {
        self.replay = replay;
        self
    }

    pub fn metering(mut self, metering: Metering) -> Self {
        self.metering = metering;
        self
    }

    /// `turn` has one permit.
    pub fn turn(mut self, turn: Arc<Semaphore>) -> Self {
        self.turn = Some(turn);
        self
    }
}

impl fmt::Debug for Request {
    /// Without headers, query and body: they may hold what must not be logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}{}",
            self.method,
            self.url.origin().ascii_serialization(),
            self.url.path()
        )
    }
}
