//! Many processes with one grant: this test binary starts itself again.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use keymount::auth::renewing::{Clock, Granted, Keeper, SystemClock};
use keymount::auth::{Authenticator, GivenSecrets};
use keymount::model::ErrorKind;
use reqwest::Url;

use super::server::Server;
use super::support::{HOUR, HttpExchange, client, eventually, lock_in, stored_in};

const PROCESSES: u64 = 16;
const TASKS: u64 = 64;
const ROTATIONS: u64 = 5;
/// Says to this binary that it is one of many: the service's address and the folder of the store.
const PART: &str = "KEYMOUNT_TEST_PART";

struct Host {
    server: Server,
    folder: tempfile::TempDir,
}

impl Host {
    async fn new() -> Self {
        // Everybody's connections at once.
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let most = rustix::process::Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, most);
        let server = Server::start(Arc::new(SystemClock), Some(HOUR)).await;
        let folder = tempfile::tempdir().unwrap();
        let granted = Granted {
            access: "access-of-login".into(),
            life: Some(HOUR),
            refresh: Some(server.refresh().into()),
            scopes: None,
        };
        let host = Self { server, folder };
        host.keeper()
            .install(
                &granted,
                "basis",
                SystemClock.now().wall,
                &GivenSecrets::default(),
                HOUR,
            )
            .await
            .unwrap();
        host
    }

    fn keeper(&self) -> Keeper {
        Keeper::new(stored_in(self.folder.path()), lock_in(self.folder.path()))
    }

    fn start(&self, part: &str) -> tokio::process::Child {
        tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "processes::one_of_many", "--nocapture", "--test-threads=1"])
            .env(
                PART,
                format!("{part} {} {}", self.server.base, self.folder.path().display()),
            )
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }
}

/// Does nothing unless another test started it as one of its processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many() {
    let Ok(part) = std::env::var(PART) else { return };
    let mut words = part.splitn(3, ' ');
    let mut word = || words.next().unwrap().to_owned();
    let (part, base, folder) = (word(), word().parse::<Url>().unwrap(), PathBuf::from(word()));
    let keeper = Keeper::new(stored_in(&folder), lock_in(&folder));
    let mut exchange = HttpExchange::new(&base);
    exchange.dies = part == "dies";
    let client = client(&base, exchange, Some(keeper), Arc::new(SystemClock))
        .await
        .unwrap();
    let client = Arc::new(client);
    if part == "dies" {
        let _ = client.read().await;
        unreachable!("the process ended");
    }
    let mut round = 0;
    while round < ROTATIONS {
        let next = reqwest::get(base.join(&format!("round/{round}")).unwrap())
            .await
            .unwrap();
        round = next.text().await.unwrap().parse().unwrap();
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let client = Arc::clone(&client);
                tokio::spawn(async move { client.read().await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
    }
    client.renewing.close().await;
}

/// The server revokes everything when an old refresh token comes again, and everybody notices at once that the token is
/// over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_processes_with_sixty_four_tasks_exchange_once_for_each_rotation() {
    let host = Host::new().await;
    let mut children: Vec<_> = (0..PROCESSES).map(|_| host.start("reads")).collect();
    for rotation in 1..=ROTATIONS {
        host.server.expire();
        host.server.shared.round.send_replace(rotation);
        eventually("everybody has read", || {
            host.server.counts().files == rotation * PROCESSES * TASKS
        })
        .await;
        let counts = host.server.counts();
        assert_eq!((counts.token_calls, counts.tokens), (rotation, rotation), "{counts:?}");
    }
    for child in &mut children {
        assert!(child.wait().await.unwrap().success());
    }
    assert_eq!(host.server.counts().reuses, 0);
}

/// The new refresh token is lost with the process. What is stored is the old grant, whole, and the next process says what
/// to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_between_exchange_and_save_leaves_the_old_grant() {
    let host = Host::new().await;
    let none = GivenSecrets::default();
    let before = host.keeper().read(&none).await.unwrap().grant().unwrap();
    let mut child = host.start("dies");
    assert!(!child.wait().await.unwrap().success());
    assert_eq!(host.server.counts().tokens, 1);
    // The lock went with the process.
    drop(host.keeper().lock(Duration::ZERO).await.unwrap());
    let after = host.keeper().read(&none).await.unwrap().grant().unwrap();
    assert_eq!(after.serial, before.serial);
    let base = &host.server.base;
    let next = client(
        base,
        HttpExchange::new(base),
        Some(host.keeper()),
        Arc::new(SystemClock),
    )
    .await
    .unwrap();
    let error = next.read().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NeedsLogin);
    assert!(error.message().contains("keymount login drive"), "{error}");
    assert_eq!(next.renewing.counts().exchanges, 0);
}
