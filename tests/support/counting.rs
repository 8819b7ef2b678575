//! A proxy in front of a real server that writes down what is asked, and changes nothing.

#![allow(dead_code, reason = "each suite uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where its proxy fails"
)]

use std::sync::Arc;

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::response::Response;
use parking_lot::Mutex;

use crate::proxy::{Onward, Proxy, target};

/// One request: its method, and its path with the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub method: String,
    pub target: String,
}

/// A running proxy; dropping it ends it.
pub struct CountingProxy {
    proxy: Proxy,
    asked: Arc<Mutex<Vec<Asked>>>,
}

#[derive(Clone)]
struct Way {
    onward: Onward,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl CountingProxy {
    /// In front of a server at this port of loopback.
    pub fn before(port: u16) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let way = Way {
            onward: Onward::to(port),
            asked: Arc::clone(&asked),
        };
        Self {
            proxy: Proxy::run(axum::Router::new().fallback(pass).with_state(way)),
            asked,
        }
    }

    /// The proxy's root, as a remote's `endpoint` has it.
    pub fn endpoint(&self) -> String {
        self.proxy.endpoint()
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }

    pub fn forget(&self) {
        self.asked.lock().clear();
    }
}

async fn pass(State(way): State<Way>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    way.asked.lock().push(Asked {
        method: head.method.to_string(),
        target: target(&head).to_owned(),
    });
    way.onward.pass(head, to_bytes(body, usize::MAX).await.unwrap()).await
}
