//! What a daemon tells about itself: the documents of the socket and of `status --json`. No secret is in them.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::auth::{Authenticator, CredentialState};

/// One daemon process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DaemonReport {
    pub pid: u32,
    pub version: String,
    /// Seconds since 1970.
    pub started: u64,
    /// `None` when it logs to its terminal or to the journal.
    pub log_file: Option<PathBuf>,
    pub mounts: Vec<MountReport>,
}

/// One mounted directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MountReport {
    /// Its number in this daemon.
    pub id: usize,
    /// The remote and its directory as they are typed.
    pub remote: String,
    pub provider: String,
    pub endpoint: String,
    pub directory: PathBuf,
    pub state: MountState,
    pub read_only: bool,
    /// The rights on the mounted directory: `rwd`, with `-` for what is missing.
    pub rights: String,
    pub credential: CredentialReport,
    pub cache: CacheReport,
    /// Files not yet at the provider.
    pub pending: Vec<PendingReport>,
    /// The latest failures, newest last.
    pub last_errors: Vec<ErrorReport>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountState {
    Mounted,
    /// Out of the tree, and still used by somebody who had something open.
    Detached,
    /// No longer mounted, still uploading what was written.
    Finishing,
    /// Over, while the daemon has other mounts. Such a mount is in no answer.
    Ended,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialReport {
    /// The configuration's word: `token`, `none`.
    pub method: String,
    /// `valid`, `renewing`, `expired`, `anonymous`, `rejected`, `needs-login`.
    pub state: String,
    /// Seconds since 1970, for a credential that says when it ends.
    pub until: Option<u64>,
    /// The environment variables that hold it or open its store: `refresh` hands over its own values of them.
    #[serde(default)]
    pub variables: Vec<String>,
    /// The configuration's word for where it is read: `env`, `stored`.
    pub source: Option<String>,
    /// The environment that it is for, where it says so: `sandbox`.
    #[serde(default)]
    pub environment: Option<String>,
    /// What it may do, in the service's words with spaces between them, where the service said so.
    #[serde(default)]
    pub scopes: Option<String>,
    /// What renewing took since the daemon started.
    #[serde(default)]
    pub renewals: RenewalReport,
    /// What the provider tells about the key in use, if it does.
    #[serde(default)]
    pub key: Option<KeyReport>,
    /// Since when a key that doesn't renew itself is in use.
    #[serde(default)]
    pub since: Option<SinceReport>,
}

/// The age of a key, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinceReport {
    /// Seconds since 1970.
    pub at: u64,
    pub known: Known,
}

/// How it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Known {
    /// The provider says when it made the key.
    Made,
    /// keymount put it into its store then.
    Stored,
    /// The file that it is read from was last changed then.
    Changed,
    /// keymount saw it then for the first time.
    Seen,
}

/// What renewing a credential took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalReport {
    /// Tokens got from the service.
    pub exchanges: u64,
    /// Tokens taken over from another process.
    pub adoptions: u64,
    /// Requests for a token that failed.
    pub failures: u64,
    /// Operations that waited because no token could be used.
    pub waits: u64,
}

/// A key as its provider describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyReport {
    /// What its service knows it by, which is no secret; empty from daemons that didn't tell it.
    #[serde(default)]
    pub id: String,
    pub name: String,
    /// It ends when it isn't used for so many seconds.
    pub idle_limit: Option<u64>,
    /// The addresses and networks it may be used from; all when empty.
    pub addresses: Vec<String>,
}

/// In bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheReport {
    pub memory: u64,
    /// The most that blocks in memory take, in bytes, of all mounts of the daemon.
    #[serde(default)]
    pub memory_limit: u64,
    /// The most that downloads in flight hold beside them, in bytes, of all mounts of the daemon.
    #[serde(default)]
    pub in_flight_limit: u64,
    pub disk: u64,
    /// `None` without a cache on disk.
    pub disk_limit: Option<u64>,
    /// The folder of the cache on disk.
    #[serde(default)]
    pub folder: Option<PathBuf>,
}

/// What emptying a daemon's caches came to, in bytes, in memory and on disk together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emptied {
    pub freed: u64,
    /// What open files need.
    pub kept: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingReport {
    pub path: String,
    pub bytes: u64,
    /// Why it isn't there yet, if something went wrong.
    pub error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// Seconds since 1970.
    pub at: u64,
    pub path: String,
    pub message: String,
}

/// How an unmount ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmounted {
    /// What is not at the provider.
    pub pending: Vec<PendingReport>,
    /// Where copies of it are.
    pub saved_in: Option<PathBuf>,
}

impl CredentialReport {
    /// Of what keeps the credential; where it is kept is told apart. `until` is what the provider says of its end.
    pub fn new(authenticator: &dyn Authenticator, until: Option<SystemTime>) -> Self {
        let (word, until) = match authenticator.state().ending(until) {
            CredentialState::Valid { until } => ("valid", until),
            CredentialState::Renewing { until } => ("renewing", until),
            CredentialState::Expired => ("expired", None),
            CredentialState::Anonymous => ("anonymous", None),
            CredentialState::Rejected => ("rejected", None),
            CredentialState::NeedsLogin => ("needs-login", None),
        };
        let counts = authenticator.counts();
        Self {
            method: authenticator.method().to_owned(),
            state: word.to_owned(),
            until: until.map(seconds),
            variables: Vec::new(),
            source: None,
            environment: authenticator.environment().map(str::to_owned),
            scopes: authenticator.scopes().map(|scopes| scopes.to_string()),
            renewals: RenewalReport {
                exchanges: counts.exchanges,
                adoptions: counts.adoptions,
                failures: counts.failures,
                waits: counts.waits,
            },
            key: None,
            since: None,
        }
    }

    /// Read from these variables, and from the place that the configuration calls so.
    pub fn kept_in<'a>(self, source: Option<&str>, variables: impl Iterator<Item = &'a str>) -> Self {
        Self {
            source: source.map(str::to_owned),
            variables: variables.map(str::to_owned).collect(),
            ..self
        }
    }

    /// Whether `login` put it where it is read.
    pub fn is_kept(&self) -> bool {
        matches!(self.source.as_deref(), Some("stored" | "keyring"))
    }
}

impl CredentialReport {
    pub fn in_use_since(self, since: Option<SinceReport>) -> Self {
        Self { since, ..self }
    }

    pub fn with_key(self, key: Option<KeyReport>) -> Self {
        Self { key, ..self }
    }
}

impl MountReport {
    /// The remote's name in the configuration, or its address.
    pub fn remote_name(&self) -> &str {
        if self.remote.contains("://") {
            return &self.remote;
        }
        self.remote.split(':').next().unwrap_or(&self.remote)
    }

    /// In bytes.
    pub fn pending_bytes(&self) -> u64 {
        self.pending.iter().map(|file| file.bytes).sum()
    }
}

/// Seconds since 1970; 0 for earlier times.
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
