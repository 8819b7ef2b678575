//! The process that serves mounts: builds the stack, mounts, answers signals and the control socket, ends in order.
//!
//! It decides nothing about files and parses no arguments.

mod drain;
mod handoff;
mod hosted;
mod index;
mod keys;
mod logging;
mod pending;
mod process;
mod stack;
mod trial;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::auth::GivenSecrets;
use crate::config::{MountOptions, ResolvedRemote};
use crate::control::{self, Facts, MountReport, Mounted, PendingReport};
use crate::model::{Error, Result};
use crate::paths::Paths;

pub use crate::fuse::{Detach, MountPointState, detach, detach_dead, keymount_mounts, mount_point_state};
pub use handoff::Handoff;
use hosted::HostedMount;
pub use keys::{KeyHolder, OpenKeys, open_keys};
pub use logging::{LogTarget, Verbosity, start as start_logging};
pub use pending::{KeptFile, Waiting, kept_files};
pub use process::{leave_terminal, protect_memory, take_name};
pub use stack::oauth_client;
use stack::{Common, Stack};
pub use trial::{Clock, Trial, clock_of, try_remote, try_token};

/// One directory to mount.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MountSpec {
    pub remote: ResolvedRemote,
    /// Absolute, without links on the way.
    pub directory: PathBuf,
    pub options: MountOptions,
}

/// Everything that a daemon serves. Free of secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DaemonSpec {
    pub paths: Paths,
    pub mounts: Vec<MountSpec>,
    /// `None` logs to the terminal.
    pub log_file: Option<PathBuf>,
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
}

/// How long the end of the process may take when it was told to end: well within systemd's 90 s.
const SHUTDOWN: Duration = Duration::from_secs(45);
/// How long a shutdown waits for an upload that doesn't get on.
const SHUTDOWN_STALL: Duration = Duration::from_secs(10);

/// Mounts everything, says so to `ready`, and serves until the last mount is gone or the process is told to end.
///
/// Nothing stays mounted when one of them fails.
///
/// # Errors
/// With the step that failed.
pub async fn run(
    spec: DaemonSpec,
    given: GivenSecrets,
    ready: impl FnOnce(&[MountReport]) + Send,
) -> Result<Ended, StartError> {
    let mut signals = Signals::new().map_err(|error| Stage::Local.failed()(error.into()))?;
    let mounts = mount_all(&spec, &given).await?;
    let stop = CancellationToken::new();
    let serving = match serve(&spec, &mounts, stop.clone()) {
        Ok(serving) => serving,
        Err(error) => {
            end_all(&mounts, Duration::ZERO).await;
            return Err(Stage::Local.failed()(error));
        }
    };
    let reports: Vec<_> = mounts.iter().map(|mount| mount.report()).collect();
    ready(&reports);
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
    Ok(Ended { pending })
}

/// Builds and probes all of them before the first is mounted.
async fn mount_all(spec: &DaemonSpec, given: &GivenSecrets) -> Result<Vec<Arc<HostedMount>>, StartError> {
    let common = Common::open(&spec.paths, &spec.mounts)
        .await
        .map_err(Stage::Local.failed())?;
    let common = Arc::new(common);
    let mut stacks = Vec::new();
    for mount in &spec.mounts {
        stacks.push(Stack::build(mount, &common, given).await?);
    }
    let mut mounts = Vec::new();
    for (mount, stack) in spec.mounts.iter().zip(stacks) {
        match HostedMount::start(mount.clone(), &spec.paths, stack).await {
            Ok(hosted) => mounts.push(hosted),
            Err(error) => {
                end_all(&mounts, Duration::ZERO).await;
                return Err(error);
            }
        }
    }
    Ok(mounts)
}

fn serve(spec: &DaemonSpec, mounts: &[Arc<HostedMount>], stop: CancellationToken) -> Result<Serving> {
    let listener = control::bind(&spec.paths.socket(std::process::id()))?;
    let facts = Facts {
        started: SystemTime::now(),
        log_file: spec.log_file.clone(),
    };
    let mounts = mounts
        .iter()
        .map(|mount| Arc::clone(mount) as Arc<dyn Mounted>)
        .collect();
    Ok(tokio::spawn(control::serve(listener, facts, mounts, stop)))
}

type Serving = tokio::task::JoinHandle<std::io::Result<()>>;

async fn end_all(mounts: &[Arc<HostedMount>], stall: Duration) {
    futures_util::future::join_all(mounts.iter().map(|mount| mount.end(stall))).await;
}

async fn refresh_all(mounts: &[Arc<HostedMount>]) {
    for mount in mounts {
        if let Err(error) = mount.refresh(&GivenSecrets::default()).await {
            warn!(%error, "refresh failed");
        }
    }
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
