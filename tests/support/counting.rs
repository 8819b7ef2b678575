//! A proxy in front of a real server that writes down what is asked.
//!
//! It passes on method, address, headers (`Host` too, which signatures cover) and bodies as they are, and changes nothing.

#![allow(dead_code, reason = "each suite uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where its proxy fails"
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::Response;
use parking_lot::Mutex;

/// One request: its method, and its path with the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub method: String,
    pub target: String,
}

/// A running proxy; dropping it ends it.
pub struct CountingProxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Clone)]
struct Way {
    server: SocketAddr,
    client: reqwest::Client,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl CountingProxy {
    /// In front of a server at this port of loopback.
    pub fn before(port: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let way = Way {
            server: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            client: reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .unwrap(),
            asked: Arc::clone(&asked),
        };
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .unwrap();
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new().fallback(pass).with_state(way);
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            address,
            asked,
            _runtime: runtime,
        }
    }

    /// The proxy's root, as a remote's `endpoint` has it.
    pub fn endpoint(&self) -> String {
        format!("http://{}/", self.address)
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
    let target = head
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str())
        .to_owned();
    way.asked.lock().push(Asked {
        method: head.method.to_string(),
        target: target.clone(),
    });
    let mut headers = head.headers;
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::CONNECTION);
    let asked = way
        .client
        .request(head.method, format!("http://{}{target}", way.server))
        .headers(headers)
        .body(to_bytes(body, usize::MAX).await.unwrap());
    let answer = match asked.send().await {
        Ok(answer) => answer,
        // Whoever asked sees a connection that ends, as without the proxy.
        Err(error) => panic!("the server behind the proxy: {error}"),
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    response.headers_mut().remove(header::TRANSFER_ENCODING);
    response.headers_mut().remove(header::CONNECTION);
    *response.body_mut() = Body::from_stream(answer.bytes_stream());
    response
}
