//! A tree that takes Storra's budget of several hours, copied through the kernel: it is there at once, and at the provider
//! when the hours are over. The mount is in this process, so that its time is the test's; Storra's clock goes along.

use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use keymount::cache::MemoryCache;
use keymount::emulator::storra::{Account, Bucket, StorraStore};
use keymount::fetch::{FetchSettings, Fetcher};
use keymount::fs::{CloseMeans, FileSystem, FsSettings};
use keymount::fuse::{Detach, MountSettings, Session, mount};
use keymount::net::TransportSettings;
use keymount::outbox::Spool;
use keymount::provider::Provider;
use keymount::provider::storra::{Freshness, Settings};
use keymount::state::StateDb;
use rustix::process::{getgid, getuid};

use crate::clock::StoppedClock;
use crate::storra_support::{account, client_with, settings};

const UPLOADS_AN_HOUR: usize = 50;
const DIRECTORIES: usize = 10;
/// In each directory: with three hours' uploads the last of them is there.
const FILES: usize = 12;

const DEADLINE: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);

struct Mounted {
    fs: Arc<FileSystem>,
    session: Session,
    store: StorraStore,
    account: Account,
    clock: StoppedClock,
    folder: tempfile::TempDir,
    _server: keymount::emulator::Running,
}

impl Mounted {
    async fn new() -> Self {
        let store = StorraStore::default();
        let (account, key) = account(&store);
        let server = store.serve().await.unwrap();
        let patience = TransportSettings {
            stall: Duration::from_secs(1_000_000),
            ..TransportSettings::within(DEADLINE)
        };
        let budgeted = Settings {
            freshness: Freshness::Budgeted,
            ..settings("")
        };
        let storra = client_with(&server.url(), &key, budgeted, patience).await;
        let provider: Arc<dyn Provider> = Arc::new(storra);
        let root = provider.probe().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let fetching = FetchSettings {
            spill_directory: folder.path().to_owned(),
            spill_limit: 1 << 30,
            memory: 16 << 20,
        };
        let cache = Arc::new(MemoryCache::new(16 << 20));
        let fetcher = Arc::new(Fetcher::new(Arc::clone(&provider), cache, fetching));
        let spool = Spool::open(&folder.path().join("staging")).unwrap();
        let state = Arc::new(StateDb::open(&folder.path().join("state.db")).unwrap());
        let fs_settings = FsSettings {
            read_only: false,
            uid: getuid().as_raw(),
            gid: getgid().as_raw(),
            umask: 0o077,
            attr_ttl: Duration::from_secs(600),
            close: CloseMeans::Journaled,
            remote: "cloud".to_owned(),
        };
        let fs = Arc::new(FileSystem::new(provider, fetcher, spool, state, root, fs_settings));
        fs.start_sending();
        let directory = folder.path().join("mnt");
        std::fs::create_dir(&directory).unwrap();
        let mounting = MountSettings {
            directory,
            remote: "cloud".to_owned(),
            read_only: false,
            allow_other: false,
            op_timeout: DEADLINE,
        };
        let session = mount(Arc::clone(&fs), mounting).await.unwrap();
        store.stop_clock();
        Self {
            clock: StoppedClock::stop(server.url()),
            fs,
            session,
            store,
            account,
            folder,
            _server: server,
        }
    }

    /// Runs a shell script beside the mount point `mnt`, while the mount answers.
    async fn sh(&self, script: &str) -> Output {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script).current_dir(self.folder.path());
        let output = tokio::task::spawn_blocking(move || command.output());
        output.await.unwrap().unwrap()
    }

    async fn ok(&self, script: &str) {
        let output = self.sh(script).await;
        assert!(
            output.status.success(),
            "{script}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    async fn let_pass(&self, time: Duration) {
        self.clock.settle().await;
        // Nothing is sent before the journal has it, and that takes other threads' time.
        self.fs.journal().caught_up().await;
        self.clock.settle().await;
        self.store.advance(time);
        self.clock.advance(time).await;
        self.clock.settle().await;
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Gone already, unless the test failed.
        let _ = keymount::fuse::detach(self.session.directory(), Detach::Lazy);
    }
}

#[tokio::test]
async fn a_tree_beyond_the_hours_budget_is_stored_in_the_hours_it_takes() {
    let it = Mounted::new().await;
    it.ok(&format!(
        "for d in $(seq {DIRECTORIES}); do mkdir -p tree/d$d; \
         for f in $(seq {FILES}); do echo \"$d $f\" > tree/d$d/f$f; done; done"
    ))
    .await;
    it.ok("cp -a tree mnt/ && diff -r tree mnt/tree").await;
    let stored = |it: &Mounted| usize::try_from(it.account.counted(Bucket::Upload)).unwrap();
    for hour in 1..=DIRECTORIES * FILES / UPLOADS_AN_HOUR + 1 {
        for _ in 0..60 {
            it.let_pass(MINUTE).await;
        }
        let stored = stored(&it);
        assert!(
            stored <= hour * UPLOADS_AN_HOUR + UPLOADS_AN_HOUR,
            "{stored} uploads in hour {hour}"
        );
    }
    // What other threads were late with is sent a little later, at worst in the next hour.
    for _ in 0..2 * 60 {
        if it.fs.pending().is_empty() {
            break;
        }
        it.let_pass(MINUTE).await;
    }
    assert!(it.fs.pending().is_empty(), "{} are pending", it.fs.pending().len());
    assert_eq!(stored(&it), DIRECTORIES * FILES, "each file once");
    for directory in 1..=DIRECTORIES {
        for file in 1..=FILES {
            let stored = it.account.read(&format!("tree/d{directory}/f{file}"));
            assert_eq!(stored.unwrap(), format!("{directory} {file}\n"));
        }
    }
    it.ok("diff -r tree mnt/tree").await;
    it.session.detach(Detach::IfUnused).await.unwrap();
    it.session.ended().await;
}
