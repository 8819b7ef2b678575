//! The routes. Each mount has its own; what they do is the mount's affair.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use secrecy::SecretString;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::report::seconds;
use super::{
    DaemonReport, Emptied, GuardedListener, MountReport, MountState, UnmountMode, UnmountRequest, Unmounted, metrics,
};
use crate::auth::GivenSecrets;
use crate::model::{Error, ErrorKind, Result};

/// A mounted directory as far as it can be asked for something.
#[async_trait]
pub trait Mounted: Send + Sync + 'static {
    /// What is known now, without asking the provider.
    fn report(&self) -> MountReport;

    /// Reads the secret sources again, forgets cached metadata, finds out the rights anew.
    ///
    /// # Errors
    /// As the provider and the secret sources say; the mount goes on.
    async fn refresh(&self, given: &GivenSecrets) -> Result<()>;

    /// Has everything that is pending tried now, without waiting for it.
    fn retry_pending(&self);

    /// Uploads what is pending as long as that gets on, then takes the mount away.
    ///
    /// # Errors
    /// `Busy` when it is in use, and as the kernel refuses.
    async fn unmount(&self, mode: UnmountMode) -> Result<Unmounted, UnmountError>;
}

/// What the mounts of a daemon share of what was read.
#[async_trait]
pub trait Caches: Send + Sync + 'static {
    /// Drops everything that no open file needs.
    async fn empty(&self) -> Emptied;
}

/// Why a directory is still mounted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UnmountError {
    #[error("the directory is in use")]
    Busy,
    #[error(transparent)]
    Failed(#[from] Error),
}

/// What doesn't change while a daemon lives.
#[derive(Clone, Debug)]
pub struct Facts {
    pub started: SystemTime,
    pub log_file: Option<PathBuf>,
}

struct Shared {
    facts: Facts,
    mounts: Vec<Arc<dyn Mounted>>,
    caches: Arc<dyn Caches>,
}

/// Answers on the socket until told to stop, then finishes the answers under way.
///
/// # Errors
/// When the socket breaks.
pub async fn serve(
    listener: GuardedListener,
    facts: Facts,
    mounts: Vec<Arc<dyn Mounted>>,
    caches: Arc<dyn Caches>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let shared = Arc::new(Shared { facts, mounts, caches });
    let router = Router::new()
        .route("/status", get(status))
        .route("/metrics", get(measures))
        .route("/cache/clear", post(empty_caches))
        .route("/mounts/{id}/refresh", post(refresh))
        .route("/mounts/{id}/retry", post(retry))
        .route("/mounts/{id}/unmount", post(unmount))
        .with_state(shared);
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

impl Shared {
    fn report(&self) -> DaemonReport {
        DaemonReport {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: seconds(self.facts.started),
            log_file: self.facts.log_file.clone(),
            mounts: self
                .mounts
                .iter()
                .enumerate()
                .map(|(id, mount)| MountReport { id, ..mount.report() })
                .filter(|mount| mount.state != MountState::Ended)
                .collect(),
        }
    }

    fn mount(&self, id: usize) -> Result<&Arc<dyn Mounted>, Refused> {
        self.mounts
            .get(id)
            .ok_or_else(|| Refused(Error::new(ErrorKind::NotFound, "this daemon has no such mount")))
    }
}

/// A refusal as JSON: what kind, and the sentence.
struct Refused(Error);

#[derive(Serialize)]
struct RefusedBody<'a> {
    kind: String,
    message: &'a str,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match self.0.kind() {
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Busy => StatusCode::CONFLICT,
            _ => StatusCode::BAD_GATEWAY,
        };
        let body = RefusedBody {
            kind: super::client::kind_word(self.0.kind()).to_owned(),
            message: self.0.message(),
        };
        (status, Json(body)).into_response()
    }
}

async fn status(State(shared): State<Arc<Shared>>) -> Json<DaemonReport> {
    Json(shared.report())
}

async fn measures(State(shared): State<Arc<Shared>>) -> Response {
    // The exposition format's own content type.
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, metrics::render(&shared.report())).into_response()
}

async fn empty_caches(State(shared): State<Arc<Shared>>) -> Json<Emptied> {
    Json(shared.caches.empty().await)
}

async fn refresh(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<usize>,
    Json(given): Json<BTreeMap<String, SecretText>>,
) -> Result<Json<MountReport>, Refused> {
    let mount = shared.mount(id)?;
    let mut secrets = GivenSecrets::default();
    for (variable, SecretText(value)) in given {
        secrets.insert(variable, value);
    }
    mount.refresh(&secrets).await.map_err(Refused)?;
    Ok(Json(MountReport { id, ..mount.report() }))
}

async fn retry(State(shared): State<Arc<Shared>>, Path(id): Path<usize>) -> Result<Json<MountReport>, Refused> {
    let mount = shared.mount(id)?;
    mount.retry_pending();
    Ok(Json(MountReport { id, ..mount.report() }))
}

async fn unmount(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<usize>,
    Json(request): Json<UnmountRequest>,
) -> Result<Json<Unmounted>, Refused> {
    match shared.mount(id)?.unmount(request.mode).await {
        Ok(unmounted) => Ok(Json(unmounted)),
        Err(UnmountError::Busy) => Err(Refused(Error::new(ErrorKind::Busy, "the directory is in use"))),
        Err(UnmountError::Failed(error)) => Err(Refused(error)),
    }
}

/// A secret that came in a request; it is in no `Debug` output.
struct SecretText(SecretString);

impl<'de> serde::Deserialize<'de> for SecretText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(text.into()))
    }
}
