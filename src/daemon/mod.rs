//! The process that serves mounts: builds the stack, mounts, answers signals and the control socket, ends in order.
//!
//! It decides nothing about files and parses no arguments.

mod drain;
mod first_seen;
mod handoff;
mod hosted;
mod index;
mod keys;
mod logging;
mod measure;
mod memory;
mod pending;
mod process;
mod sharing;
mod stack;
mod start;
mod trial;
mod viewer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::auth::GivenSecrets;
use crate::config::{MountOptions, ResolvedRemote};
use crate::control::{self, Caches, Emptied, Facts, MountReport, Mounted, PendingReport};
use crate::model::{Error, Result};
use crate::paths::Paths;

pub use crate::fuse::{Detach, MountPointState, detach, detach_dead, keymount_mounts, mount_point_state};
pub use handoff::Handoff;
use hosted::{HostedMount, remove_made};
pub use index::{LONGEST_INDEX, OpenIndex, Told, open_index};
pub use keys::{KeyHolder, OpenKeys, open_keys};
pub use logging::{LogTarget, Verbosity, start as start_logging};
pub use measure::{BENCH_FOLDER, Figures, MeasureSettings, Measured, Outcome, Work, Writes, measure};
pub use pending::{KeptFile, Waiting, kept_files};
pub use process::{leave_terminal, protect_memory, take_name};
pub use stack::oauth_client;

/// A cache on disk as commands look at it and empty it.
pub use crate::cache::{Survey as CacheSurvey, survey as cache_survey};
use stack::Common;
use start::Started;
pub use trial::{Clock, Trial, clock_of, try_remote, try_token};

/// One directory to mount.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MountSpec {
    pub remote: ResolvedRemote,
    /// Absolute, without links on the way.
    pub directory: PathBuf,
    pub options: MountOptions,
    /// Directories that were made for it, the innermost first: they are removed again when they are empty.
    #[serde(default)]
    pub made: Vec<PathBuf>,
}

/// Everything that a daemon serves. Free of secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DaemonSpec {
    pub paths: Paths,
    pub mounts: Vec<MountSpec>,
    pub on_failure: OnFailure,
    /// `None` logs to the terminal.
    pub log_file: Option<PathBuf>,
}

/// What one mount that fails means for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnFailure {
    /// Nothing is mounted.
    NothingIsMounted,
    /// They are mounted all the same.
    OthersGoOn,
}

/// At which step a start failed: the same error means something else at each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A secret source has nothing or cannot be read.
    Credential,
    /// The provider's answer to the first question.
    Probe,
    /// Directories, state, cache, socket.
    Local,
    /// The kernel's answer.
    Mount,
}

/// Why nothing was mounted.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}")]
pub struct StartError {
    pub stage: Stage,
    pub error: Error,
}

/// A mount that isn't.
#[derive(Clone, Debug)]
pub struct NotMounted {
    /// The remote as it is typed.
    pub remote: String,
    pub error: StartError,
}

impl Stage {
    fn failed(self) -> impl Fn(Error) -> StartError {
        move |error| StartError { stage: self, error }
    }
}

/// How a daemon's life ended.
#[derive(Debug, Default)]
pub struct Ended {
    /// Files that the provider doesn't have.
    pub pending: Vec<PendingReport>,
    /// Whether there was anything to serve.
    pub mounted: usize,
}

/// How long the end of the process may take when it was told to end: well within systemd's 90 s.
const SHUTDOWN: Duration = Duration::from_secs(45);
/// How long a shutdown waits for an upload that doesn't get on.
const SHUTDOWN_STALL: Duration = Duration::from_secs(10);

/// Empties a cache on disk that no daemon uses; gives the bytes that were freed, or `None` when one does.
///
/// # Errors
/// When nothing can be written in the folder.
pub fn empty_cache(folder: &std::path::Path) -> Result<Option<u64>> {
    crate::cache::DiskCache::empty(folder)
}

/// Mounts everything, says so to `ready`, and serves until the last mount is gone or the process is told to end. Mounts
/// that failed are told to `ready` as well, if the others go on without them.
///
/// # Errors
/// With the step that failed.
pub async fn run(
    spec: DaemonSpec,
    given: GivenSecrets,
    ready: impl FnOnce(&[MountReport], &[NotMounted]) + Send,
) -> Result<Ended, StartError> {
    let mut signals = Signals::new().map_err(|error| Stage::Local.failed()(error.into()))?;
    let started = start::start(&spec, &given).await;
    let Started { mounts, failed, common } = match started {
        Ok(started) => started,
        Err(error) => {
            spec.mounts.iter().for_each(remove_made);
            return Err(error);
        }
    };
    if mounts.is_empty() {
        ready(&[], &failed);
        return Ok(Ended::default());
    }
    let stop = CancellationToken::new();
    let serving = match serve(&spec, &mounts, common, stop.clone()) {
        Ok(serving) => serving,
        Err(error) => {
            end_all(&mounts, Duration::ZERO).await;
            return Err(Stage::Local.failed()(error));
        }
    };
    let reports: Vec<_> = mounts.iter().map(|mount| mount.report()).collect();
    ready(&reports, &failed);
    tell_systemd(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status("mounted")]);

    let all_gone = futures_util::future::join_all(mounts.iter().map(|mount| mount.finished()));
    let mut all_gone = std::pin::pin!(all_gone);
    let told_to_end = loop {
        tokio::select! {
            _ = &mut all_gone => break false,
            event = signals.next() => match event {
                Event::Refresh => refresh_all(&mounts).await,
                Event::End => break true,
            },
        }
    };
    tell_systemd(&[sd_notify::NotifyState::Stopping]);
    if told_to_end {
        info!("told to end: finishing uploads");
        tokio::select! {
            () = end_all(&mounts, SHUTDOWN_STALL) => {}
            () = tokio::time::sleep(SHUTDOWN) => end_all(&mounts, Duration::ZERO).await,
            () = signals.end() => end_all(&mounts, Duration::ZERO).await,
        }
    }
    futures_util::future::join_all(mounts.iter().map(|mount| mount.close())).await;
    stop.cancel();
    let _ = serving.await;
    let _ = std::fs::remove_file(spec.paths.socket(std::process::id()));
    let pending: Vec<_> = mounts.iter().flat_map(|mount| mount.save_unsent()).collect();
    info!(pending = pending.len(), "ended");
    Ok(Ended {
        pending,
        mounted: mounts.len(),
    })
}

fn serve(
    spec: &DaemonSpec,
    mounts: &[Arc<HostedMount>],
    common: Arc<Common>,
    stop: CancellationToken,
) -> Result<Serving> {
    let listener = control::bind(&spec.paths.socket(std::process::id()))?;
    let facts = Facts {
        started: SystemTime::now(),
        log_file: spec.log_file.clone(),
    };
    let caches = Arc::new(SharedCaches {
        common,
        users: mounts.to_vec(),
    });
    let mounts = mounts
        .iter()
        .map(|mount| Arc::clone(mount) as Arc<dyn Mounted>)
        .collect();
    Ok(tokio::spawn(control::serve(listener, facts, mounts, caches, stop)))
}

/// The caches of a daemon, with those whose open files need something of them.
struct SharedCaches {
    common: Arc<Common>,
    users: Vec<Arc<HostedMount>>,
}

#[async_trait]
impl Caches for SharedCaches {
    async fn empty(&self) -> Emptied {
        let keep = self.users.iter().flat_map(|user| user.content_in_use()).collect();
        self.common.empty(&keep).await
    }
}

type Serving = tokio::task::JoinHandle<std::io::Result<()>>;

async fn end_all(mounts: &[Arc<HostedMount>], stall: Duration) {
    futures_util::future::join_all(mounts.iter().map(|mount| mount.end(stall))).await;
}

async fn refresh_all(mounts: &[Arc<HostedMount>]) {
    let refreshing = mounts.iter().map(|mount| async move {
        if let Err(error) = mount.refresh(&GivenSecrets::default()).await {
            warn!(%error, "refresh failed");
        }
    });
    futures_util::future::join_all(refreshing).await;
}

/// Without systemd there is nobody to tell.
fn tell_systemd(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "systemd was not told");
    }
}

enum Event {
    Refresh,
    End,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.terminate.recv() => Event::End,
            _ = self.interrupt.recv() => Event::End,
            _ = self.hang_up.recv() => Event::Refresh,
        }
    }

    async fn end(&mut self) {
        while !matches!(self.next().await, Event::End) {}
    }
}
