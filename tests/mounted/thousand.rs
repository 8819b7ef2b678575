//! A thousand small files through the kernel, with a provider that takes 20 ms for every answer.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keymount::cache::MemoryCache;
use keymount::fetch::{FetchSettings, Fetcher};
use keymount::fs::{CloseMeans, FileSystem, FsSettings};
use keymount::fuse::{self, Detach, MountSettings};
use keymount::model::ErrorKind;
use keymount::outbox::Spool;
use keymount::provider::faulty::{Fault, Faulty, Operation, Times};
use keymount::provider::memory::{Memory, Options};
use keymount::provider::{AttributeSupport, Capabilities, Provider};
use keymount::state::StateDb;
use tokio::runtime::Runtime;

use crate::sandbox::until;

const FILES: u32 = 1000;
const ROUND_TRIP: Duration = Duration::from_millis(20);

/// Creates the files one after the other; gives how long that took.
fn write_all(folder: &Path) -> Duration {
    let bytes = vec![7; 4096];
    let begun = Instant::now();
    for number in 0..FILES {
        std::fs::write(folder.join(format!("f{number}")), &bytes).unwrap();
    }
    begun.elapsed()
}

#[test]
fn a_thousand_small_files_are_written_at_local_speed_and_cost_little_more_than_a_request_each() {
    let folder = tempfile::Builder::new().prefix("thousand-").tempdir().unwrap();
    let (mnt, local) = (folder.path().join("mnt"), folder.path().join("local"));
    std::fs::create_dir(&mnt).unwrap();
    std::fs::create_dir(&local).unwrap();
    let me = std::fs::metadata("/proc/self").unwrap();
    // With a place for what goes along with each of them.
    let store = Memory::new(Options {
        capabilities: Capabilities {
            attributes: AttributeSupport::Stored,
            ..Options::default().capabilities
        },
        ..Options::default()
    });
    let provider = Arc::new(Faulty::new(store.clone()));
    for operation in [
        Operation::Lookup,
        Operation::Stat,
        Operation::List,
        Operation::CreateDirectory,
        Operation::Upload,
        Operation::Rename,
        Operation::RemoveFile,
        Operation::SetAttributes,
        Operation::Usage,
    ] {
        provider.inject(operation, Times::Always, Fault::Delay(ROUND_TRIP));
    }
    let dynamic: Arc<dyn Provider> = Arc::clone(&provider) as _;
    let fetching = FetchSettings {
        spill_directory: folder.path().to_owned(),
        spill_limit: 1 << 30,
        memory: 16 << 20,
    };
    let fetcher = Arc::new(Fetcher::new(
        Arc::clone(&dynamic),
        Arc::new(MemoryCache::new(16 << 20)),
        fetching,
    ));
    let fs = Arc::new(FileSystem::new(
        dynamic,
        fetcher,
        Spool::open(&folder.path().join("staging")).unwrap(),
        Arc::new(StateDb::open(&folder.path().join("state.db")).unwrap()),
        store.entry_at("").unwrap(),
        FsSettings {
            read_only: false,
            uid: me.uid(),
            gid: me.gid(),
            umask: 0o022,
            attr_ttl: Duration::from_secs(10),
            close: CloseMeans::Journaled,
            remote: "memory".to_owned(),
        },
    ));
    let runtime = Runtime::new().unwrap();
    let settings = MountSettings {
        directory: mnt.clone(),
        remote: "memory".to_owned(),
        read_only: false,
        allow_other: false,
        op_timeout: Duration::from_secs(30),
    };
    let session = runtime.block_on(fuse::mount(Arc::clone(&fs), settings)).unwrap();
    runtime.block_on(async { fs.start_sending() });

    let begun = Instant::now();
    let (here, there) = (write_all(&local), write_all(&mnt));
    let (commits, syncs) = fs.journal().costs();
    // As `umount` does it.
    runtime.block_on(async {
        while fs.waiting() > 0 {
            fs.drain().await.unwrap();
        }
    });
    let requests = provider.all_calls();
    println!(
        "{FILES} files: {there:?} in the mount, {here:?} beside it, ratio {:.1}; {commits} commits and {syncs} waits for the \
         disk; {requests} requests; all there after {:?}",
        there.as_secs_f64() / here.as_secs_f64(),
        begun.elapsed()
    );
    for number in 0..FILES {
        assert_eq!(store.content(&format!("f{number}")).unwrap(), vec![7; 4096]);
    }
    assert!(requests <= u64::from(FILES) * 12 / 10, "{requests} requests");
    // Once a second at most, a few files or all of them.
    let most = u64::from(FILES) / 5 + 12 * begun.elapsed().as_secs();
    assert!(syncs < most, "{syncs} waits for the disk");
    // `keymount status` of a test beside this one may be looking at the mount.
    until("the end of the mount", || {
        let ended = runtime.block_on(session.detach(Detach::IfUnused));
        ended
            .inspect_err(|error| assert_eq!(error.kind(), ErrorKind::Busy, "{error}"))
            .is_ok()
    });
    runtime.block_on(session.ended());
}
