//! The commands' side of the socket: which daemons there are and what they answer.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::ending::Ending;
use super::{DaemonReport, Emptied, MountReport, UnmountMode, UnmountRequest, Unmounted};
use crate::auth::GivenSecrets;
use crate::model::{Error, ErrorKind, Result};
use crate::net::{LocalAnswer, LocalClient};
use crate::paths::{Paths, SocketFile, own_uid};

/// How long a daemon has to say how it is; it needs no network for that.
const STATUS_PATIENCE: Duration = Duration::from_secs(5);

/// How long emptying a cache may take: many files are removed.
const EMPTYING: Duration = Duration::from_secs(120);

/// A running daemon.
#[derive(Clone, Debug)]
pub struct Daemon {
    client: LocalClient,
    owner: u32,
    pub report: DaemonReport,
}

/// All daemons that this user may talk to.
#[derive(Clone, Debug, Default)]
pub struct Daemons {
    pub running: Vec<Daemon>,
    /// Sockets whose daemon exists and doesn't answer.
    pub silent: Vec<SocketFile>,
}

impl Daemons {
    /// Asks every socket. A socket that nobody listens on belonged to a daemon that died: it is removed.
    ///
    /// # Errors
    /// `Internal` when the HTTP client cannot be set up.
    pub async fn find(paths: &Paths) -> Result<Self> {
        let mut found = Self::default();
        for socket in paths.sockets() {
            if is_dead(&socket.path) {
                let _ = std::fs::remove_file(&socket.path);
                continue;
            }
            let client = LocalClient::new(&socket.path)?;
            match client.get::<DaemonReport>("/status", STATUS_PATIENCE).await {
                Ok(LocalAnswer::Done(report)) => found.running.push(Daemon {
                    client,
                    owner: socket.owner,
                    report,
                }),
                Ok(LocalAnswer::Refused(..)) | Err(_) => found.silent.push(socket),
            }
        }
        Ok(found)
    }

    /// The mounts with the daemons that they belong to.
    pub fn mounts(&self) -> impl Iterator<Item = (&Daemon, &MountReport)> {
        self.running
            .iter()
            .flat_map(|daemon| daemon.report.mounts.iter().map(move |mount| (daemon, mount)))
    }
}

impl Daemon {
    #[cfg(test)]
    pub fn owned_by(self, owner: u32) -> Self {
        Self { owner, ..self }
    }

    /// Whether this user started it.
    pub fn is_own(&self) -> bool {
        self.owner == own_uid()
    }

    /// What says when the daemon's process is gone; `None` when it is, or cannot be seen.
    pub fn ending(&self) -> Option<Ending> {
        Ending::of(self.report.pid)
    }

    /// # Errors
    /// When the daemon is gone.
    pub async fn status(&self) -> Result<DaemonReport> {
        done(self.client.get("/status", STATUS_PATIENCE).await?)
    }

    /// Renews what can be renewed. Secrets go only to a daemon of one's own.
    ///
    /// # Errors
    /// What the daemon said, with its kind.
    pub async fn refresh(&self, mount: usize, given: &GivenSecrets) -> Result<MountReport> {
        let body: BTreeMap<&str, &str> = if self.is_own() {
            given
                .iter()
                .map(|(name, value)| (name, value.expose_secret()))
                .collect()
        } else {
            BTreeMap::new()
        };
        done(
            self.client
                .post(&format!("/mounts/{mount}/refresh"), &body, None)
                .await?,
        )
    }

    /// Has what is pending tried now.
    ///
    /// # Errors
    /// When the daemon is gone.
    pub async fn retry(&self, mount: usize) -> Result<MountReport> {
        let nothing: BTreeMap<&str, &str> = BTreeMap::new();
        done(
            self.client
                .post(&format!("/mounts/{mount}/retry"), &nothing, Some(STATUS_PATIENCE))
                .await?,
        )
    }

    /// Empties its caches, but for what open files need.
    ///
    /// # Errors
    /// When the daemon is gone.
    pub async fn empty_caches(&self) -> Result<Emptied> {
        let nothing: BTreeMap<&str, &str> = BTreeMap::new();
        done(self.client.post("/cache/clear", &nothing, Some(EMPTYING)).await?)
    }

    /// Waits until the mount is gone, as long as uploads get on.
    ///
    /// # Errors
    /// `Busy` when the directory is in use, and what the daemon said.
    pub async fn unmount(&self, mount: usize, mode: UnmountMode) -> Result<Unmounted> {
        let request = UnmountRequest { mode };
        done(
            self.client
                .post(&format!("/mounts/{mount}/unmount"), &request, None)
                .await?,
        )
    }
}

fn is_dead(socket: &Path) -> bool {
    matches!(
        std::os::unix::net::UnixStream::connect(socket),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused
    )
}

fn done<T>(answer: LocalAnswer<T>) -> Result<T> {
    match answer {
        LocalAnswer::Done(value) => Ok(value),
        LocalAnswer::Refused(_, body) => {
            let text = |key: &str| body.get(key).and_then(|value| value.as_str());
            let kind = text("kind").map_or(ErrorKind::Internal, kind_of);
            let message = text("message").unwrap_or("the daemon refused without a reason");
            Err(Error::new(kind, message))
        }
    }
}

/// The kinds that a command tells apart (its exit codes), as words.
const KINDS: [(ErrorKind, &str); 8] = [
    (ErrorKind::NotFound, "not-found"),
    (ErrorKind::Denied, "denied"),
    (ErrorKind::NeedsLogin, "needs-login"),
    (ErrorKind::Unreachable, "unreachable"),
    (ErrorKind::TimedOut, "timed-out"),
    (ErrorKind::Busy, "busy"),
    (ErrorKind::InvalidInput, "invalid-input"),
    (ErrorKind::Internal, "internal"),
];

pub fn kind_word(kind: ErrorKind) -> &'static str {
    KINDS
        .iter()
        .find(|(known, _)| *known == kind)
        .map_or("internal", |(_, word)| word)
}

fn kind_of(word: &str) -> ErrorKind {
    KINDS
        .iter()
        .find(|(_, known)| *known == word)
        .map_or(ErrorKind::Internal, |(kind, _)| *kind)
}
