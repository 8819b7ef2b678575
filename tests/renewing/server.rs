//! A service that gives tokens and a file. Every refresh token is good once; when an old one comes again, somebody stole
//! it, and everything is revoked (RFC 9700, 4.14.2).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use keymount::auth::renewing::Clock;
use parking_lot::Mutex;
use reqwest::Url;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Semaphore, watch};

/// What a request for a token gets instead of a token.
#[derive(Clone, Debug)]
pub enum Fault {
    Status(u16),
    /// 429 with `Retry-After` in seconds.
    Busy(u64),
    Garbage,
    Truncated,
    /// A token that doesn't say how long it lives.
    WithoutLife,
    /// The answer is ready and held until `release`.
    Held,
    InvalidGrant,
}

#[derive(Default, Clone, Debug)]
pub struct Counts {
    pub token_calls: u64,
    pub tokens: u64,
    /// Old refresh tokens that came again.
    pub reuses: u64,
    pub files: u64,
    pub refused_files: u64,
}

pub struct Shared {
    clock: Arc<dyn Clock>,
    inside: Mutex<Inside>,
    gate: Semaphore,
    /// Answers that are held now.
    pub held: watch::Sender<usize>,
    /// Raised by the test; those who wait for it then ask for the file.
    pub round: watch::Sender<u64>,
}

struct Inside {
    life: Option<Duration>,
    scopes: Option<String>,
    rotating: bool,
    refresh: String,
    dead: bool,
    /// Access tokens and when they end by the time since boot.
    access: BTreeMap<String, Option<Duration>>,
    number: u64,
    faults: VecDeque<Fault>,
    counts: Counts,
}

/// The service while it runs.
pub struct Server {
    pub shared: Arc<Shared>,
    pub base: Url,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub async fn start(clock: Arc<dyn Clock>, life: Option<Duration>) -> Self {
        let shared = Arc::new(Shared {
            clock,
            inside: Mutex::new(Inside {
                life,
                scopes: None,
                rotating: true,
                refresh: "refresh-0".into(),
                dead: false,
                access: BTreeMap::new(),
                number: 0,
                faults: VecDeque::new(),
                counts: Counts::default(),
            }),
            gate: Semaphore::new(0),
            held: watch::Sender::new(0),
            round: watch::Sender::new(0),
        });
        let router = Router::new()
            .route("/token", post(token))
            .route("/file", get(file).put(file))
            .route("/round/{after}", get(round))
            .with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { shared, base, task }
    }

    pub fn counts(&self) -> Counts {
        self.shared.inside.lock().counts.clone()
    }

    pub fn fault(&self, fault: Fault) {
        self.shared.inside.lock().faults.push_back(fault);
    }

    pub fn release(&self) {
        self.shared.gate.add_permits(1);
    }

    /// No access token works any more; the grant does.
    pub fn expire(&self) {
        self.shared.inside.lock().access.clear();
    }

    /// The grant is over, and with it everything got by it.
    pub fn revoke(&self) {
        let mut inside = self.shared.inside.lock();
        inside.dead = true;
        inside.access.clear();
    }

    /// A person granted again; gives the new refresh token.
    pub fn grant(&self) -> String {
        let mut inside = self.shared.inside.lock();
        inside.dead = false;
        inside.number += 1;
        inside.refresh = format!("refresh-{}", inside.number);
        inside.refresh.clone()
    }

    pub fn scopes(&self, scopes: &str) {
        self.shared.inside.lock().scopes = Some(scopes.to_owned());
    }

    /// Refresh tokens stay as they are.
    pub fn stop_rotating(&self) {
        self.shared.inside.lock().rotating = false;
    }

    /// The refresh token that is good now.
    pub fn refresh(&self) -> String {
        self.shared.inside.lock().refresh.clone()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    refresh_token: String,
}

fn invalid_grant() -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response()
}

async fn token(State(shared): State<Arc<Shared>>, Json(asked): Json<Asked>) -> Response {
    let fault = {
        let mut inside = shared.inside.lock();
        inside.counts.token_calls += 1;
        inside.faults.pop_front()
    };
    match fault {
        Some(Fault::Status(status)) => return StatusCode::from_u16(status).unwrap().into_response(),
        Some(Fault::Busy(seconds)) => {
            return (
                StatusCode::TOO_MANY_REQUESTS,
                [(header::RETRY_AFTER, seconds.to_string())],
            )
                .into_response();
        }
        Some(Fault::Garbage) => return "<html>welcome</html>".into_response(),
        Some(Fault::Truncated) => return "{\"access_token\": \"acc".into_response(),
        Some(Fault::InvalidGrant) => return invalid_grant(),
        Some(Fault::WithoutLife | Fault::Held) | None => {}
    }
    let answer = {
        let mut guard = shared.inside.lock();
        let inside = &mut *guard;
        if asked.refresh_token != inside.refresh {
            inside.counts.reuses += 1;
            inside.dead = true;
            inside.access.clear();
        }
        if inside.dead {
            return invalid_grant();
        }
        inside.number += 1;
        inside.counts.tokens += 1;
        let number = inside.number;
        if inside.rotating {
            inside.refresh = format!("refresh-{number}");
        }
        let life = match fault {
            Some(Fault::WithoutLife) => None,
            _ => inside.life,
        };
        let end = life.map(|life| shared.clock.now().boot + life);
        inside.access.insert(format!("access-{number}"), end);
        let mut answer = json!({"access_token": format!("access-{number}")});
        if inside.rotating {
            answer["refresh_token"] = inside.refresh.clone().into();
        }
        if let Some(life) = life {
            answer["expires_in"] = life.as_secs().into();
        }
        if let Some(scopes) = &inside.scopes {
            answer["scope"] = scopes.clone().into();
        }
        answer
    };
    if matches!(fault, Some(Fault::Held)) {
        shared.held.send_modify(|held| *held += 1);
        shared.gate.acquire().await.unwrap().forget();
        shared.held.send_modify(|held| *held -= 1);
    }
    Json(answer).into_response()
}

async fn file(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let now = shared.clock.now().boot;
    let mut inside = shared.inside.lock();
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let good = token
        .and_then(|token| inside.access.get(token))
        .is_some_and(|end| end.is_none_or(|end| now < end));
    if good {
        inside.counts.files += 1;
        "content".into_response()
    } else {
        inside.counts.refused_files += 1;
        StatusCode::UNAUTHORIZED.into_response()
    }
}

/// Answers as soon as the round is a later one than `after`.
async fn round(State(shared): State<Arc<Shared>>, Path(after): Path<u64>) -> String {
    let mut round = shared.round.subscribe();
    let now = *round.wait_for(|round| *round > after).await.unwrap();
    now.to_string()
}
