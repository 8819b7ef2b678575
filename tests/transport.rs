//! What goes over the wire: retries, redirects, credentials, bodies that break off. Each server is one of the test's own.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Request as ServerRequest, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::any};
use keymount::api::{Api, PlainHttp};
use keymount::auth::{GivenSecrets, SecretSource, StaticToken, TokenKind, TokenPlacement};
use keymount::model::ErrorKind;
use keymount::net::{Body, Credential, PlainDialect, Request, RetryPolicy, Transport, TransportSettings};
use parking_lot::Mutex;
use reqwest::Url;

type Answer = dyn Fn(usize, &Seen) -> Response + Send + Sync;

/// One request as it arrived.
#[derive(Clone, Debug)]
struct Seen {
    method: String,
    target: String,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Clone)]
struct Script {
    seen: Arc<Mutex<Vec<Seen>>>,
    answer: Arc<Answer>,
}

struct Server {
    url: Url,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Answers with what the closure makes of the number of the request (from 0) and the request.
    async fn start(answer: impl Fn(usize, &Seen) -> Response + Send + Sync + 'static) -> Self {
        let script = Script {
            seen: Arc::default(),
            answer: Arc::new(answer),
        };
        let seen = Arc::clone(&script.seen);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let router = Router::new().fallback(any(serve)).with_state(script);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, seen, task }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }
}

async fn serve(State(script): State<Script>, request: ServerRequest) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 24).await.unwrap_or_default();
    let seen = Seen {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        headers: parts.headers,
        body,
    };
    let number = {
        let mut all = script.seen.lock();
        all.push(seen.clone());
        all.len() - 1
    };
    (script.answer)(number, &seen)
}

/// Patience without waiting: pauses of a microsecond, a budget no test uses up.
fn quick() -> TransportSettings {
    let retry = RetryPolicy {
        budget: Duration::from_secs(20),
        first_pause: Duration::from_micros(1),
        max_pause: Duration::from_micros(50),
    };
    TransportSettings {
        stall: Duration::from_secs(20),
        retry,
    }
}

async fn send(request: &Request) -> Result<Bytes, ErrorKind> {
    let transport = Transport::new(quick()).unwrap();
    let response = transport
        .send(request, &Credential::None, &PlainDialect)
        .await
        .map_err(|error| error.kind())?;
    response.bytes("read the answer").await.map_err(|error| error.kind())
}

async fn api(server: &Server, variable: &str, given: &GivenSecrets) -> Api {
    let source = SecretSource::Env(variable.to_owned());
    let token = StaticToken::open(source, TokenPlacement::Bearer, TokenKind::TOKEN, given.clone())
        .await
        .unwrap();
    let transport = Transport::new(quick()).unwrap();
    Api::new(
        server.url.clone(),
        PlainHttp::LoopbackOnly,
        transport,
        Arc::new(token),
        Arc::new(PlainDialect),
    )
    .unwrap()
}

fn given(value: &str) -> GivenSecrets {
    let mut given = GivenSecrets::default();
    given.insert("TOKEN", value.into());
    given
}

#[tokio::test]
async fn passing_faults_of_reads_are_overcome() {
    let server = Server::start(|number, _| match number {
        0 => StatusCode::BAD_GATEWAY.into_response(),
        1 => (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "0")]).into_response(),
        _ => "fine".into_response(),
    })
    .await;
    assert_eq!(send(&Request::get(server.url.clone(), "read")).await.unwrap(), "fine");
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_change_is_not_made_twice_after_a_server_error() {
    let server = Server::start(|_, _| StatusCode::INTERNAL_SERVER_ERROR.into_response()).await;
    let request = Request::new(reqwest::Method::POST, server.url.clone(), "change");
    assert_eq!(send(&request).await, Err(ErrorKind::Unreachable));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_replayed_body_starts_from_the_beginning() {
    let opened = Arc::new(AtomicUsize::new(0));
    let server = Server::start(|number, _| match number {
        0 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        _ => "stored".into_response(),
    })
    .await;
    let counter = Arc::clone(&opened);
    let open = move || {
        counter.fetch_add(1, Ordering::SeqCst);
        use futures_util::StreamExt;
        futures_util::stream::iter([Ok(Bytes::from_static(b"0123")), Ok(Bytes::from_static(b"456"))]).boxed()
    };
    let request = Request::new(reqwest::Method::PUT, server.url.clone(), "store").body(Body::Stream {
        len: 7,
        open: Arc::new(open),
    });
    assert_eq!(send(&request).await.unwrap(), "stored");
    assert_eq!(opened.load(Ordering::SeqCst), 2);
    assert!(
        server
            .seen()
            .iter()
            .all(|seen| seen.body == "0123456" && seen.headers["content-length"] == "7")
    );
}

#[tokio::test]
async fn a_wait_that_is_too_long_is_told_instead() {
    let server =
        Server::start(|_, _| (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "3600")]).into_response()).await;
    let retry_after = Some(Duration::from_secs(3600));
    assert_eq!(
        send(&Request::get(server.url.clone(), "read")).await,
        Err(ErrorKind::RateLimited { retry_after })
    );
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_short_body_is_not_a_whole_one() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let server = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        assert!(connection.read(&mut request).await.unwrap() > 0);
        connection
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
            .await
            .unwrap();
    });
    assert_eq!(send(&Request::get(url, "read")).await, Err(ErrorKind::Unreachable));
    server.await.unwrap();
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let settings = TransportSettings {
        stall: Duration::from_secs(5),
        retry: RetryPolicy {
            budget: Duration::ZERO,
            ..quick().retry
        },
    };
    let request = Request::get(format!("http://{closed}/").parse().unwrap(), "read");
    let transport = Transport::new(settings).unwrap();
    let error = transport
        .send(&request, &Credential::None, &PlainDialect)
        .await
        .map(drop)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.message().contains("cannot be reached"), "{error}");
}

#[tokio::test]
async fn the_credential_stays_at_its_origin() {
    let other = Server::start(|_, _| "elsewhere".into_response()).await;
    let target = other.url.join("stolen?x=1").unwrap();
    let origin = Server::start(move |_, seen| match seen.target.as_str() {
        "/away" => (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, target.to_string())]).into_response(),
        "/near" => (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "/there")]).into_response(),
        _ => "here".into_response(),
    })
    .await;
    let api = api(&origin, "TOKEN", &given("canary-token")).await;
    let get = async |path: &str| {
        let request = Request::get(origin.url.join(path).unwrap(), "read");
        api.call(&request).await.unwrap().bytes("read").await.unwrap()
    };
    assert_eq!(get("/away").await, "elsewhere");
    assert_eq!(get("/near").await, "here");
    assert!(
        origin
            .seen()
            .iter()
            .all(|seen| seen.headers["authorization"] == "Bearer canary-token")
    );
    assert_eq!(other.seen().len(), 1);
    assert!(
        !format!("{:?}", other.seen()).contains("canary-token"),
        "{:?}",
        other.seen()
    );
}

#[tokio::test]
async fn a_query_token_stays_at_its_origin_too() {
    let other = Server::start(|_, _| "elsewhere".into_response()).await;
    let target = other.url.to_string();
    let origin =
        Server::start(move |_, _| (StatusCode::FOUND, [(header::LOCATION, target.clone())]).into_response()).await;
    let credential = Credential::Query {
        name: "token",
        value: "canary-token".into(),
    };
    let transport = Transport::new(quick()).unwrap();
    let request = Request::get(origin.url.clone(), "read");
    transport.send(&request, &credential, &PlainDialect).await.unwrap();
    assert!(origin.seen()[0].target.contains("token=canary-token"));
    assert!(!format!("{:?}", other.seen()).contains("canary-token"));
    assert!(!format!("{request:?} {credential:?}").contains("canary-token"));
}

#[tokio::test]
async fn after_a_401_the_next_credential_is_tried_once() {
    let server = Server::start(|_, seen| {
        if seen.headers["authorization"] == "Bearer new" {
            "welcome".into_response()
        } else {
            StatusCode::UNAUTHORIZED.into_response()
        }
    })
    .await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "old").unwrap();
    let source = SecretSource::File(file.path().to_owned());
    let token = StaticToken::open(
        source,
        TokenPlacement::Bearer,
        TokenKind::TOKEN,
        GivenSecrets::default(),
    )
    .await
    .unwrap();
    let transport = Transport::new(quick()).unwrap();
    let api = Api::new(
        server.url.clone(),
        PlainHttp::LoopbackOnly,
        transport,
        Arc::new(token),
        Arc::new(PlainDialect),
    )
    .unwrap();
    let request = Request::get(server.url.clone(), "read");
    assert_eq!(
        api.call(&request).await.map(drop).unwrap_err().kind(),
        ErrorKind::NeedsLogin
    );
    assert_eq!(server.seen().len(), 1, "the same token is not tried twice");
    std::fs::write(&file, "new").unwrap();
    assert_eq!(
        api.call(&request).await.unwrap().bytes("read").await.unwrap(),
        "welcome"
    );
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_403_is_final() {
    let server = Server::start(|_, _| StatusCode::FORBIDDEN.into_response()).await;
    let api = api(&server, "TOKEN", &given("t")).await;
    let error = api
        .call(&Request::get(server.url.clone(), "read"))
        .await
        .map(drop)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(server.seen().len(), 1);
    assert_eq!(server.seen()[0].method, "GET");
}

#[tokio::test]
async fn plain_http_to_another_machine_needs_permission() {
    let transport = Transport::new(quick()).unwrap();
    let make = |url: &str, plain| {
        let token = Arc::new(keymount::auth::Anonymous);
        Api::new(
            url.parse().unwrap(),
            plain,
            transport.clone(),
            token,
            Arc::new(PlainDialect),
        )
        .map(drop)
    };
    assert!(make("http://storage.example/", PlainHttp::LoopbackOnly).is_err());
    assert!(make("http://storage.example/", PlainHttp::Anywhere).is_ok());
    assert!(make("https://storage.example/", PlainHttp::LoopbackOnly).is_ok());
    assert!(make("http://[::1]:1/", PlainHttp::LoopbackOnly).is_ok());
    assert!(make("ftp://storage.example/", PlainHttp::Anywhere).is_err());
}
