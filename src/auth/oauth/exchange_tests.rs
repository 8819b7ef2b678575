use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use parking_lot::Mutex;
use reqwest::Url;
use serde_json::{Value, json};

use super::*;
use crate::auth::oauth::{AuthorizationServer, OauthSpec, TokenBodies};
use crate::auth::{SecretSource, StoreSpec, StoredSecret};
use crate::net::PlainHttp;

const REFRESH: &str = "canary-refresh-token";
const SECRET: &str = "canary-client-secret";

type Answer = (StatusCode, Vec<(&'static str, &'static str)>, String);

/// Says what it was told to, and remembers what it was asked.
#[derive(Clone, Default)]
struct Server {
    asked: Arc<Mutex<Vec<(HeaderMap, String)>>>,
}

impl Server {
    async fn answering(answer: Answer) -> (Self, Url) {
        let server = Self::default();
        let asked = Arc::clone(&server.asked);
        let respond = move |headers: HeaderMap, body: Bytes| {
            asked
                .lock()
                .push((headers, String::from_utf8_lossy(&body).into_owned()));
            let (status, told, body) = answer.clone();
            async move {
                let mut headers = HeaderMap::new();
                for (name, value) in told {
                    headers.insert(name, value.parse().unwrap());
                }
                (status, headers, body)
            }
        };
        let url = serve(Router::new().route("/oauth/token", post(respond))).await;
        (server, url)
    }

    fn body(&self) -> (HeaderMap, String) {
        self.asked.lock().last().cloned().unwrap()
    }
}

async fn serve(router: Router) -> Url {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url.parse().unwrap()
}

fn spec(server: AuthorizationServer) -> OauthSpec {
    OauthSpec {
        server,
        client_id: "keymount-test".into(),
        client_secret: Some(SecretSource::Env("CLIENT_SECRET".into())),
        scopes: None,
        kept: StoredSecret {
            remote: "drive".into(),
            field: "grant".into(),
            store: StoreSpec::Keyring,
        },
    }
}

fn known(base: &Url, bodies: TokenBodies) -> AuthorizationServer {
    AuthorizationServer::Known {
        authorize: base.join("oauth/authorize").unwrap(),
        token: base.join("oauth/token").unwrap(),
        bodies,
        metadata: base.clone(),
    }
}

fn given() -> GivenSecrets {
    let mut given = GivenSecrets::default();
    given.insert("CLIENT_SECRET", SECRET.into());
    given
}

fn client(server: AuthorizationServer) -> OauthClient {
    OauthClient::new(spec(server), PlainHttp::LoopbackOnly).unwrap()
}

async fn ask(server: AuthorizationServer) -> Result<Granted, ExchangeError> {
    client(server).exchange(Some(&REFRESH.into()), &given()).await
}

fn ok(body: Value) -> Answer {
    (
        StatusCode::OK,
        vec![("content-type", "application/json")],
        body.to_string(),
    )
}

fn refused(status: StatusCode, body: &str) -> Answer {
    (status, vec![("content-type", "application/json")], body.to_owned())
}

fn full() -> Value {
    json!({
        "access_token": "at_live_1",
        "refresh_token": "rt_live_2",
        "token_type": "Bearer",
        "expires_in": 3600,
        "scope": "files:read files:write"
    })
}

#[tokio::test]
async fn a_token_is_renewed_as_cloudsync_documents_it() {
    let (server, url) = Server::answering(ok(full())).await;
    let granted = ask(known(&url, TokenBodies::Json)).await.unwrap();
    assert_eq!(granted.access.expose_secret(), "at_live_1");
    assert_eq!(granted.refresh.unwrap().expose_secret(), "rt_live_2");
    assert_eq!(granted.life, Some(Duration::from_secs(3600)));
    assert_eq!(granted.scopes.unwrap().to_string(), "files:read files:write");
    let (headers, body) = server.body();
    assert_eq!(headers["content-type"], "application/json");
    assert!(!headers.contains_key("authorization"));
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap(),
        json!({
            "grant_type": "refresh_token",
            "client_id": "keymount-test",
            "client_secret": SECRET,
            "refresh_token": REFRESH
        })
    );
}

#[tokio::test]
async fn a_token_is_renewed_as_the_standard_says() {
    let (server, url) = Server::answering(ok(json!({"access_token": "a", "token_type": "bearer"}))).await;
    let granted = ask(known(&url, TokenBodies::Form)).await.unwrap();
    assert!(granted.refresh.is_none() && granted.life.is_none() && granted.scopes.is_none());
    let (headers, body) = server.body();
    assert_eq!(headers["content-type"], "application/x-www-form-urlencoded");
    assert!(body.contains("grant_type=refresh_token") && body.contains(&format!("refresh_token={REFRESH}")));
}

#[tokio::test]
async fn what_is_over_is_dead_and_says_the_repair() {
    for (code, words) in [
        ("invalid_grant", "the login is over"),
        ("invalid_client", "client_id and client_secret"),
        ("unauthorized_client", "does not let this client_id"),
    ] {
        for body in [
            json!({"error": code, "error_description": format!("{REFRESH} is unknown")}),
            json!({"error": {"code": code, "message": format!("not {SECRET}")}}),
        ] {
            let (_, url) = Server::answering(refused(StatusCode::BAD_REQUEST, &body.to_string())).await;
            let Err(ExchangeError::Dead(error)) = ask(known(&url, TokenBodies::Json)).await else {
                panic!("{code} is final")
            };
            let text = error.message();
            assert_eq!(error.kind(), ErrorKind::NeedsLogin);
            assert!(text.contains(words) && text.contains(code), "{text}");
            assert!(text.ends_with("run: keymount login drive"), "{text}");
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        }
    }
}

#[tokio::test]
async fn what_may_pass_passes_with_its_reason() {
    let json = ("content-type", "application/json");
    let truncated = full().to_string();
    let truncated = &truncated[..truncated.len() - 5];
    let mut other_type = full();
    other_type["token_type"] = "mac".into();
    let mut broken = full();
    broken["access_token"] = "a\nb".into();
    let answers: Vec<(Answer, &str)> = vec![
        ((StatusCode::INTERNAL_SERVER_ERROR, vec![], "oops".into()), "500"),
        ((StatusCode::BAD_GATEWAY, vec![], "<html>canary</html>".into()), "502"),
        ((StatusCode::NOT_FOUND, vec![], "<html>canary</html>".into()), "404"),
        (
            (
                StatusCode::FOUND,
                vec![("location", "http://127.0.0.1:1/")],
                String::new(),
            ),
            "leads elsewhere",
        ),
        ((StatusCode::OK, vec![json], "canary".into()), "makes no sense"),
        ((StatusCode::OK, vec![json], truncated.to_owned()), "makes no sense"),
        ((StatusCode::OK, vec![json], String::new()), "makes no sense"),
        (
            (StatusCode::OK, vec![("content-type", "text/html")], full().to_string()),
            "makes no sense",
        ),
        (ok(json!({"token_type": "Bearer"})), "makes no sense"),
        (
            ok(json!({"access_token": "", "token_type": "Bearer"})),
            "no header can hold",
        ),
        (ok(json!({"access_token": "a"})), "makes no sense"),
        (ok(other_type), "another type than Bearer"),
        (ok(broken), "no header can hold"),
        (
            refused(StatusCode::BAD_REQUEST, r#"{"error":"invalid_scope"}"#),
            "invalid_scope",
        ),
        (
            ok(json!({"access_token": "x".repeat(300_000), "token_type": "Bearer"})),
            "too long",
        ),
    ];
    for (answer, part) in answers {
        let (server, url) = Server::answering(answer).await;
        let Err(ExchangeError::Passing { error, retry_after }) = ask(known(&url, TokenBodies::Json)).await else {
            panic!("{part} may pass")
        };
        assert!(error.message().contains(part), "{part}: {error}");
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        assert_eq!(retry_after, None);
        assert_eq!(server.asked.lock().len(), 1, "one request for each call");
    }
}

#[tokio::test]
async fn the_wait_that_the_server_asks_for_is_told() {
    for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE] {
        let body = r#"{"error":"invalid_grant"}"#.to_owned();
        let (_, url) = Server::answering((status, vec![("retry-after", "17")], body)).await;
        let Err(ExchangeError::Passing { retry_after, .. }) = ask(known(&url, TokenBodies::Json)).await else {
            panic!("{status} may pass")
        };
        assert_eq!(retry_after, Some(Duration::from_secs(17)));
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_may_come_back() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: Url = format!("http://{}", gone.local_addr().unwrap()).parse().unwrap();
    drop(gone);
    let Err(ExchangeError::Passing { error, .. }) = ask(known(&url, TokenBodies::Json)).await else {
        panic!("it may pass")
    };
    assert_eq!(error.kind(), ErrorKind::Unreachable);
}

#[tokio::test]
async fn without_a_refresh_token_or_a_secret_nothing_is_asked() {
    let (server, url) = Server::answering(ok(full())).await;
    let client = client(known(&url, TokenBodies::Json));
    let without = client.exchange(None, &given()).await;
    assert!(matches!(without, Err(ExchangeError::Dead(error)) if error.message().contains("keymount login drive")));
    let unread = client.exchange(Some(&REFRESH.into()), &GivenSecrets::default()).await;
    assert!(matches!(unread, Err(ExchangeError::Passing { .. })));
    assert_eq!(server.asked.lock().len(), 0);
}

#[tokio::test]
async fn the_basis_is_the_application_and_its_server() {
    let at = |url: &str| known(&url.parse().unwrap(), TokenBodies::Json);
    let basis = |spec: OauthSpec| async {
        let client = OauthClient::new(spec, PlainHttp::LoopbackOnly).unwrap();
        client.basis(&GivenSecrets::default()).await.unwrap()
    };
    let one = basis(spec(at("https://a.example"))).await;
    assert_eq!(one, basis(spec(at("https://a.example"))).await);
    assert_ne!(one, basis(spec(at("https://b.example"))).await);
    let mut other = spec(at("https://a.example"));
    other.client_id = "another".into();
    assert_ne!(one, basis(other).await);
    let mut scoped = spec(at("https://a.example"));
    scoped.scopes = Some("files:read".parse().unwrap());
    assert_eq!(one, basis(scoped).await);
}

#[tokio::test]
async fn secrets_go_in_the_clear_only_to_this_machine() {
    let at = |url: &str| spec(known(&url.parse().unwrap(), TokenBodies::Json));
    let Err(error) = OauthClient::new(at("http://a.example"), PlainHttp::LoopbackOnly) else {
        panic!("plain http to another machine")
    };
    assert!(error.message().contains("insecure = true"), "{error}");
    assert!(OauthClient::new(at("http://a.example"), PlainHttp::Anywhere).is_ok());
    let issuer = spec(AuthorizationServer::Issuer("http://a.example".parse().unwrap()));
    assert!(OauthClient::new(issuer, PlainHttp::LoopbackOnly).is_err());
}

/// An issuer whose metadata says this about itself; `{}` stands for its address.
async fn issuer(path: &'static str, metadata: &'static str) -> (Arc<Mutex<u32>>, Url) {
    let looked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&looked);
    let describe = move |headers: HeaderMap| {
        *count.lock() += 1;
        let own = format!("http://{}", headers["host"].to_str().unwrap());
        async move { metadata.replace("{}", &own) }
    };
    let renew = |headers: HeaderMap| async move {
        // RFC 6749, 2.3.1: `keymount-test:canary-client-secret`.
        assert_eq!(
            headers["authorization"],
            "Basic a2V5bW91bnQtdGVzdDpjYW5hcnktY2xpZW50LXNlY3JldA=="
        );
        ([("content-type", "application/json")], full().to_string())
    };
    let url = serve(Router::new().route(path, get(describe)).route("/t", post(renew))).await;
    (looked, url)
}

#[tokio::test]
async fn an_issuer_says_where_its_tokens_are() {
    for path in [
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server",
    ] {
        let (looked, url) = issuer(path, r#"{"issuer": "{}", "token_endpoint": "{}/t"}"#).await;
        for _ in 0..2 {
            let granted = ask(AuthorizationServer::Issuer(url.clone())).await.unwrap();
            assert_eq!(granted.access.expose_secret(), "at_live_1");
        }
        assert_eq!(*looked.lock(), 1, "what was read is kept");
    }
}

#[tokio::test]
async fn an_issuer_that_is_another_one_gets_nothing() {
    for (metadata, part) in [
        (
            r#"{"issuer": "https://evil.example", "token_endpoint": "{}/t"}"#,
            "another authorization server",
        ),
        (
            r#"{"issuer": "{}", "token_endpoint": "http://evil.example/t"}"#,
            "not encrypted",
        ),
        (r#"{"issuer": "{}"}"#, "does not say where"),
        ("<html>", "does not exist"),
    ] {
        let (_, url) = issuer("/.well-known/openid-configuration", metadata).await;
        let Err(ExchangeError::Passing { error, .. }) = ask(AuthorizationServer::Issuer(url)).await else {
            panic!("{metadata} is refused")
        };
        assert!(error.message().contains(part), "{error}");
    }
}
