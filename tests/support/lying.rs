//! A proxy in front of a real server that says of an upload what isn't so.
//!
//! Only requests whose body has the words of a test in it are lied about. All others are passed on as they are.

#![allow(dead_code, reason = "each suite uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where its proxy fails"
)]

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use keymount::provider::hex;
use md5::{Digest, Md5};
use parking_lot::Mutex;

use crate::proxy::{Onward, Proxy, target};

/// What an upload is recognised by, and what is stored in its place: as long, and something else.
pub const TRUTH: &str = "what was written here, every word";
pub const FORGED: &str = "something else that nobody wrote.";

/// What comes of an upload, and what is said of it: success, in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// The server never hears of it.
    Nothing(Told),
    /// The server gets other bytes.
    Another(Told),
}

/// The entity tag in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The server's own; of what it never heard of, one that nothing has.
    Servers,
    /// The MD5 of what was sent, as S3 services make it.
    AsSent,
}

/// A running proxy; dropping it ends it.
pub struct LyingProxy {
    proxy: Proxy,
    lie: Arc<Mutex<Option<Lie>>>,
    told: Arc<Mutex<u32>>,
}

#[derive(Clone)]
struct Way {
    onward: Onward,
    lie: Arc<Mutex<Option<Lie>>>,
    told: Arc<Mutex<u32>>,
}

impl LyingProxy {
    /// In front of a server at this port of loopback; honest until told otherwise.
    pub fn before(port: u16) -> Self {
        let (lie, told) = (Arc::default(), Arc::default());
        let way = Way {
            onward: Onward::to(port),
            lie: Arc::clone(&lie),
            told: Arc::clone(&told),
        };
        Self {
            proxy: Proxy::run(axum::Router::new().fallback(pass).with_state(way)),
            lie,
            told,
        }
    }

    /// The proxy's root, as a remote's `endpoint` has it.
    pub fn endpoint(&self) -> String {
        self.proxy.endpoint()
    }

    pub fn lies(&self, lie: Lie) {
        *self.lie.lock() = Some(lie);
        *self.told.lock() = 0;
    }

    pub fn is_honest(&self) {
        *self.lie.lock() = None;
    }

    /// How often it has lied since it began to.
    pub fn told(&self) -> u32 {
        *self.told.lock()
    }
}

fn replaced(body: &Bytes) -> Option<Bytes> {
    let truth = TRUTH.as_bytes();
    let at = body.windows(truth.len()).position(|words| words == truth)?;
    let forged = [&body[..at], FORGED.as_bytes(), &body[at + truth.len()..]].concat();
    Some(forged.into())
}

async fn pass(State(way): State<Way>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let tag = HeaderValue::try_from(format!("\"{}\"", hex(&Md5::digest(&body)))).unwrap();
    let lie = (*way.lie.lock()).zip(replaced(&body));
    if lie.is_some() {
        *way.told.lock() += 1;
    }
    let (sent, tag) = match lie {
        None => (body, None),
        Some((Lie::Nothing(told), _)) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = match head.method.as_str() {
                "PUT" if !target(&head).contains("bucket") => StatusCode::CREATED,
                _ => StatusCode::OK,
            };
            let made_up = HeaderValue::from_static("\"0123456789abcdef0123456789abcdef\"");
            let tag = if told == Told::AsSent { tag } else { made_up };
            response.headers_mut().insert(header::ETAG, tag);
            return response;
        }
        Some((Lie::Another(told), forged)) => (forged, Some(tag).filter(|_| told == Told::AsSent)),
    };
    let mut response = way.onward.pass(head, sent).await;
    if let Some(tag) = tag {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}
