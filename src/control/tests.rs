//! The socket from both ends, with a mount made of memory.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use parking_lot::Mutex;
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::auth::GivenSecrets;
use crate::model::{Error, ErrorKind, Result};
use crate::paths::Paths;

#[derive(Default)]
struct FakeMount {
    given: Mutex<Option<String>>,
    busy: bool,
}

struct FakeCaches;

#[async_trait]
impl Caches for FakeCaches {
    async fn empty(&self) -> Emptied {
        Emptied { freed: 5, kept: 7 }
    }
}

#[async_trait]
impl Mounted for FakeMount {
    fn report(&self) -> MountReport {
        MountReport {
            id: 0,
            remote: "drive".into(),
            provider: "cludz".into(),
            endpoint: "https://storage.example/".into(),
            directory: "/mnt/drive".into(),
            state: MountState::Mounted,
            read_only: false,
            rights: "rwd".into(),
            credential: CredentialReport {
                method: "token".into(),
                state: "valid".into(),
                until: None,
                variables: Vec::new(),
                environment: None,
                scopes: None,
                renewals: RenewalReport::default(),
                key: None,
                since: None,
                source: Some("env".into()),
            },
            cache: CacheReport::default(),
            pending: Vec::new(),
            last_errors: Vec::new(),
        }
    }

    async fn refresh(&self, given: &GivenSecrets) -> Result<()> {
        match given.get("TOKEN") {
            Some(value) => {
                *self.given.lock() = Some(value.expose_secret().to_owned());
                Ok(())
            }
            None => Err(Error::new(ErrorKind::NeedsLogin, "no token was given")),
        }
    }

    fn retry_pending(&self) {}

    async fn unmount(&self, _mode: UnmountMode) -> Result<Unmounted, UnmountError> {
        if self.busy {
            return Err(UnmountError::Busy);
        }
        let pending = vec![PendingReport {
            path: "/a".into(),
            bytes: 3,
            error: Some("rejected".into()),
        }];
        Ok(Unmounted {
            pending,
            saved_in: None,
        })
    }
}

/// Paths whose sockets are only in this folder, and a daemon there that serves these mounts until it is dropped.
struct Served {
    paths: Paths,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Served {
    fn start(mounts: Vec<Arc<dyn Mounted>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::for_tests(folder.path());
        let listener = bind(&paths.socket(1)).unwrap();
        let stop = CancellationToken::new();
        let facts = Facts {
            started: SystemTime::UNIX_EPOCH,
            log_file: None,
        };
        tokio::spawn(serve(listener, facts, mounts, Arc::new(FakeCaches), stop.clone()));
        Self {
            paths,
            stop,
            _folder: folder,
        }
    }

    async fn daemon(&self) -> Daemon {
        let mut daemons = Daemons::find(&self.paths).await.unwrap();
        daemons
            .running
            .retain(|daemon| daemon.report.started == 0 && daemon.report.pid == std::process::id());
        daemons.running.remove(0)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn status_numbers_the_mounts() {
    let served = Served::start(vec![Arc::new(FakeMount::default()), Arc::new(FakeMount::default())]);
    let report = served.daemon().await.report;
    let ids: Vec<_> = report.mounts.iter().map(|mount| mount.id).collect();
    assert_eq!(ids, [0, 1]);
}

#[tokio::test]
async fn refresh_hands_over_the_callers_secrets() {
    let mount = Arc::new(FakeMount::default());
    let served = Served::start(vec![Arc::clone(&mount) as Arc<dyn Mounted>]);
    let daemon = served.daemon().await;
    let mut given = GivenSecrets::default();
    given.insert("TOKEN", "canary".into());
    let report = daemon.refresh(0, &given).await.unwrap();
    assert_eq!(mount.given.lock().as_deref(), Some("canary"));
    assert!(!serde_json::to_string(&report).unwrap().contains("canary"));
    assert!(!format!("{report:?}").contains("canary"));
}

#[tokio::test]
async fn secrets_do_not_go_to_another_users_daemon() {
    let mount = Arc::new(FakeMount::default());
    let served = Served::start(vec![Arc::clone(&mount) as Arc<dyn Mounted>]);
    let daemon = served.daemon().await.owned_by(crate::paths::own_uid().wrapping_add(1));
    let mut given = GivenSecrets::default();
    given.insert("TOKEN", "canary".into());
    assert_eq!(
        daemon.refresh(0, &given).await.unwrap_err().kind(),
        ErrorKind::NeedsLogin
    );
    assert_eq!(*mount.given.lock(), None);
}

#[tokio::test]
async fn refusals_keep_their_kind_and_sentence() {
    let busy = FakeMount {
        busy: true,
        ..FakeMount::default()
    };
    let served = Served::start(vec![Arc::new(busy), Arc::new(FakeMount::default())]);
    let daemon = served.daemon().await;
    let refused = daemon.refresh(0, &GivenSecrets::default()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NeedsLogin);
    assert_eq!(refused.message(), "no token was given");
    let busy = daemon.unmount(0, UnmountMode::IfUnused).await.unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Busy);
    assert_eq!(
        daemon.unmount(7, UnmountMode::Lazy).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(daemon.unmount(1, UnmountMode::Lazy).await.unwrap().pending.len(), 1);
}

#[tokio::test]
async fn the_socket_of_a_dead_daemon_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::for_tests(folder.path());
    let socket = paths.socket(2);
    drop(bind(&socket).unwrap());
    assert!(Path::exists(&socket));
    Daemons::find(&paths).await.unwrap();
    assert!(!Path::exists(&socket));
}
