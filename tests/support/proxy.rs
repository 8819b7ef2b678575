//! A proxy in front of a real server: what it does with a request is a suite's own affair.
//!
//! What it passes on, it passes on as it is: method, address, headers (`Host` too, which signatures cover) and bodies.

use std::net::{Ipv4Addr, SocketAddr};

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::Response;

/// A running proxy; dropping it ends it.
pub struct Proxy {
    address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Also inside of another runtime.
            runtime.shutdown_background();
        }
    }
}

impl Proxy {
    pub fn run(router: axum::Router) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await
        });
        Self {
            address,
            runtime: Some(runtime),
        }
    }

    /// Its root, as a remote's `endpoint` has it.
    pub fn endpoint(&self) -> String {
        format!("http://{}/", self.address)
    }
}

/// The way to the server behind.
#[derive(Clone)]
pub struct Onward {
    server: SocketAddr,
    client: reqwest::Client,
}

impl Onward {
    /// To the server at this port of loopback.
    pub fn to(port: u16) -> Self {
        Self {
            server: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            client: reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .unwrap(),
        }
    }

    pub async fn pass(&self, head: Parts, body: Bytes) -> Response {
        let url = format!("http://{}{}", self.server, target(&head));
        let mut headers = head.headers;
        headers.remove(header::TRANSFER_ENCODING);
        headers.remove(header::CONNECTION);
        let asked = self.client.request(head.method, url).headers(headers).body(body);
        // Whoever asked sees a connection that ends, as without the proxy.
        let answer = asked.send().await.expect("the server behind the proxy");
        let mut response = Response::new(Body::empty());
        *response.status_mut() = answer.status();
        *response.headers_mut() = answer.headers().clone();
        response.headers_mut().remove(header::TRANSFER_ENCODING);
        response.headers_mut().remove(header::CONNECTION);
        *response.body_mut() = Body::from_stream(answer.bytes_stream());
        response
    }
}

/// The path and query of a request.
pub fn target(head: &Parts) -> &str {
    head.uri.path_and_query().map_or("/", |target| target.as_str())
}
