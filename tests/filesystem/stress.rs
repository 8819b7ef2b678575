//! Many operations at once. Each worker keeps a model of its own directory and checks every answer against it, while
//! observers list, look up, forget and refresh everywhere; at rest, mount, store and models agree and nothing is leaked.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fastrand::Rng;
use keymount::fs::{Access, AttributeChange, FileSystem, HandleId, Ino, RenameMode};
use keymount::model::{Error, ErrorKind};
use keymount::provider::faulty::{Fault, Faulty, Operation, Times};
use keymount::provider::memory::Memory;

use crate::kernel::open_emptied;
use crate::support::{Fixture, os};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const WORKERS: u64 = 4;
const STEPS: u32 = 300;

/// The kernel's part: what it was given a reference to.
#[derive(Default)]
struct Kernel(Vec<Ino>);

impl Kernel {
    async fn lookup(&mut self, fs: &FileSystem, parent: Ino, name: &OsStr) -> Result<Ino, Error> {
        let ino = fs.lookup(parent, name).await?.keep().attributes.ino;
        self.0.push(ino);
        Ok(ino)
    }

    fn forget(&mut self, fs: &FileSystem) {
        for ino in self.0.drain(..) {
            fs.forget(ino, 1);
        }
    }
}

/// Repeats what failed by an injected fault: as a person or a tool does.
async fn insist<T, F: Future<Output = Result<T, Error>>>(mut work: impl FnMut() -> F) -> Result<T, Error> {
    loop {
        match work().await {
            Err(error) if error.kind() == ErrorKind::RateLimited { retry_after: None } => {}
            outcome => return outcome,
        }
    }
}

async fn close(fs: &FileSystem, handle: HandleId) {
    if let Some(ino) = fs.close(handle) {
        let _ = fs.send_closed(ino).await;
    }
}

struct Worker {
    fs: Arc<FileSystem>,
    folder: Ino,
    model: BTreeMap<&'static str, Vec<u8>>,
    kernel: Kernel,
    rng: Rng,
}

impl Worker {
    async fn step(&mut self) {
        let (fs, folder) = (Arc::clone(&self.fs), self.folder);
        let name = NAMES[self.rng.usize(..NAMES.len())];
        let other = NAMES[self.rng.usize(..NAMES.len())];
        let len = self.rng.usize(1..40);
        let bytes: Vec<u8> = std::iter::repeat_with(|| self.rng.alphanumeric() as u8)
            .take(len)
            .collect();
        match self.rng.u32(..8) {
            0..3 => self.write(name, bytes).await,
            3 => {
                let removed = insist(|| fs.unlink(folder, os(name)))
                    .await
                    .map_err(|error| error.kind());
                assert_eq!(removed.is_ok(), self.model.remove(name).is_some(), "{removed:?}");
            }
            4 => {
                let renamed = insist(|| fs.rename((folder, os(name)), (folder, os(other)), RenameMode::Replace)).await;
                let known = self.model.contains_key(name);
                assert_eq!(renamed.is_ok(), known, "{name} to {other}: {renamed:?}");
                if let Some(content) = self.model.remove(name) {
                    self.model.insert(other, content);
                }
            }
            5 => {
                let size = self.rng.usize(..20);
                let Ok(ino) = insist(|| fs.lookup(folder, os(name))).await.map(|child| {
                    let ino = child.keep().attributes.ino;
                    self.kernel.0.push(ino);
                    ino
                }) else {
                    assert!(!self.model.contains_key(name));
                    return;
                };
                let change = AttributeChange {
                    size: Some(size as u64),
                    mode: Some(0o600),
                    ..Default::default()
                };
                insist(|| fs.set_attributes(ino, change.clone())).await.unwrap();
                self.model.get_mut(name).unwrap().resize(size, 0);
            }
            6 => self.kernel.forget(&fs),
            _ => self.check(name).await,
        }
    }

    /// Writes over, appends, or replaces; sometimes the name goes while the file is open.
    async fn write(&mut self, name: &'static str, bytes: Vec<u8>) {
        let (fs, folder) = (Arc::clone(&self.fs), self.folder);
        let known = self.model.get(name).cloned();
        let (handle, mut content) = match &known {
            None => {
                let (child, opened) = fs.create(folder, os(name), Access::Write, 0o644, 0).await.unwrap();
                self.kernel.0.push(child.keep().attributes.ino);
                (opened.handle, Vec::new())
            }
            Some(content) => {
                let ino = loop {
                    match self.kernel.lookup(&fs, folder, os(name)).await {
                        Err(error) if error.kind() == ErrorKind::RateLimited { retry_after: None } => {}
                        found => break found.unwrap(),
                    }
                };
                let truncate = self.rng.bool();
                let opened = match truncate {
                    true => insist(|| open_emptied(&fs, ino, Access::ReadWrite)).await,
                    false => insist(|| fs.open(ino, Access::ReadWrite)).await,
                };
                let opened = opened.unwrap();
                (opened.handle, if truncate { Vec::new() } else { content.clone() })
            }
        };
        for piece in bytes.chunks(15) {
            let offset = self.rng.bool().then(|| self.rng.usize(..=content.len()));
            let piece = Bytes::copy_from_slice(piece);
            insist(|| fs.write(handle, offset.map(|at| at as u64), piece.clone()))
                .await
                .unwrap();
            let at = offset.unwrap_or(content.len());
            content.resize(content.len().max(at + piece.len()), 0);
            content[at..at + piece.len()].copy_from_slice(&piece);
            if self.rng.u32(..4) == 0 {
                insist(|| fs.fsync(handle)).await.unwrap();
            }
        }
        if self.rng.u32(..10) == 0 {
            insist(|| fs.unlink(folder, os(name))).await.unwrap();
            self.model.remove(name);
            insist(|| fs.flush(handle)).await.unwrap();
        } else {
            insist(|| fs.flush(handle)).await.unwrap();
            self.model.insert(name, content);
        }
        close(&fs, handle).await;
    }

    async fn check(&mut self, name: &'static str) {
        let fs = Arc::clone(&self.fs);
        let found = loop {
            match self.kernel.lookup(&fs, self.folder, os(name)).await {
                Err(error) if error.kind() == ErrorKind::RateLimited { retry_after: None } => {}
                found => break found.map_err(|error| error.kind()),
            }
        };
        let Some(content) = self.model.get(name) else {
            assert_eq!(found, Err(ErrorKind::NotFound), "{name}");
            return;
        };
        let opened = insist(|| fs.open(found.unwrap(), Access::Read)).await.unwrap();
        let read = insist(|| fs.read(opened.handle, 0, 1000)).await.unwrap();
        assert_eq!(&read[..], &content[..], "{name}");
        close(&fs, opened.handle).await;
    }
}

/// Looks everywhere and lets go of what it saw, until it is told to stop.
async fn observe(fs: Arc<FileSystem>, folders: Vec<Ino>, seed: u64, stop: Arc<AtomicBool>) {
    let mut rng = Rng::with_seed(seed);
    let mut kernel = Kernel::default();
    while !stop.load(Ordering::Relaxed) {
        let folder = folders[rng.usize(..folders.len())];
        match rng.u32(..6) {
            0 => drop(kernel.lookup(&fs, folder, os(NAMES[rng.usize(..NAMES.len())])).await),
            1 if !kernel.0.is_empty() => drop(fs.attributes(kernel.0[rng.usize(..kernel.0.len())]).await),
            2 => kernel.forget(&fs),
            3 => drop(fs.refresh().await),
            _ => {
                let Ok(handle) = fs.open_directory(folder).await else {
                    continue;
                };
                if let Ok(entries) = fs.read_directory(handle, 0).await {
                    let mut names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
                    names.sort_unstable();
                    assert!(names.windows(2).all(|two| two[0] != two[1]), "twice: {names:?}");
                    let kept = fs.kept_inside(folder);
                    for entry in entries.iter() {
                        if let Ok((found, Some(reference))) = fs.listed_attributes(folder, entry, kept.as_ref()) {
                            reference.keep();
                            kernel.0.push(found.attributes.ino);
                        }
                    }
                }
                fs.close_directory(handle);
            }
        }
        tokio::task::yield_now().await;
    }
    kernel.forget(&fs);
}

fn faults(provider: &Faulty<Memory>, rng: &mut Rng) {
    for operation in [
        Operation::Lookup,
        Operation::Stat,
        Operation::List,
        Operation::Upload,
        Operation::RemoveFile,
        Operation::Rename,
        Operation::Read,
    ] {
        if rng.u32(..10) == 0 {
            let fault = Fault::Fail(ErrorKind::RateLimited { retry_after: None });
            provider.inject(operation, Times::Next(1), fault);
        }
    }
}

async fn run(it: Fixture, seed: u64) {
    let mut folders = Vec::new();
    for n in 0..WORKERS {
        it.store.make_directory(&format!("w{n}")).unwrap();
        folders.push(it.ino(&format!("w{n}")).await);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let observers: Vec<_> = (0..3)
        .map(|n| {
            let work = observe(Arc::clone(&it.fs), folders.clone(), seed * 100 + n, Arc::clone(&stop));
            tokio::spawn(work)
        })
        .collect();
    let workers: Vec<_> = (0..WORKERS)
        .map(|n| {
            let mut worker = Worker {
                fs: Arc::clone(&it.fs),
                folder: folders[n as usize],
                model: BTreeMap::new(),
                kernel: Kernel::default(),
                rng: Rng::with_seed(seed * 1000 + n),
            };
            let provider = Arc::clone(&it.provider);
            tokio::spawn(async move {
                for _ in 0..STEPS {
                    worker.step().await;
                    faults(&provider, &mut worker.rng);
                }
                worker.kernel.forget(&worker.fs);
                worker.model
            })
        })
        .collect();
    let mut expected: BTreeMap<String, Option<Bytes>> = BTreeMap::new();
    for (n, worker) in workers.into_iter().enumerate() {
        expected.insert(format!("w{n}"), None);
        for (name, content) in worker.await.unwrap() {
            expected.insert(format!("w{n}/{name}"), Some(content.into()));
        }
    }
    stop.store(true, Ordering::Relaxed);
    for observer in observers {
        observer.await.unwrap();
    }
    it.provider.heal();
    assert_eq!(it.store.snapshot(), expected, "seed {seed}");
    assert!(it.fs.pending().is_empty(), "{:?}", it.fs.pending());
    for folder in folders {
        it.fs.forget(folder, 1);
    }
    assert_eq!(it.fs.known(), 1, "nodes are leaked, seed {seed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_or_leaked_when_everything_is_asked_for() {
    for seed in 1..4 {
        run(Fixture::new(), seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_or_leaked_when_much_is_remembered() {
    for seed in 4..7 {
        run(Fixture::with_ttl(Duration::from_secs(3600)), seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_or_leaked_with_keys_that_are_ids() {
    for seed in 7..10 {
        run(Fixture::with_ids(), seed).await;
    }
}

/// Everybody at the same names, and many stop waiting in the middle: whatever the outcome, mount and store agree
/// afterwards, every file is as somebody wrote it, and nothing is leaked.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn chaos_ends_in_order() {
    for seed in 1..6 {
        let it = Fixture::with_ttl(Duration::from_secs(3600));
        it.store.make_directory("sub").unwrap();
        let sub = it.ino("sub").await;
        let tasks: Vec<_> = (0..6)
            .map(|n| tokio::spawn(wreak_havoc(Arc::clone(&it.fs), [Ino::ROOT, sub], seed * 10 + n)))
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        it.fs.forget(sub, 1);
        it.fs.refresh().await.unwrap();
        // What lost a race is in conflict; the copy is what `export` is for.
        let folder = tempfile::tempdir().unwrap();
        let _ = it.fs.drain().await;
        let pending = it.fs.pending();
        assert_eq!(it.fs.export_unsent(folder.path()).unwrap().len(), pending.len());
        let mut shown: Vec<String> = it.names(Ino::ROOT).await;
        let mut stored: Vec<String> = it
            .store
            .snapshot()
            .into_keys()
            .filter(|path| !path.contains('/'))
            .collect();
        shown.retain(|name| !pending.iter().any(|file| file.path == *name));
        stored.retain(|name| !pending.iter().any(|file| file.path == *name));
        assert_eq!(shown, stored, "seed {seed}");
        for (path, content) in it.store.snapshot() {
            let Some(content) = content else { continue };
            let whole = content.is_empty() || content.len() == 50 && content.iter().all(|byte| *byte == content[0]);
            assert!(whole, "{path} is a mixture: {content:?}");
        }
        for file in &pending {
            let name = file.path.rsplit('/').next().unwrap();
            let parent = if file.path.contains('/') {
                it.child(Ino::ROOT, "sub").await
            } else {
                Ino::ROOT
            };
            it.fs.unlink(parent, os(name)).await.unwrap();
            if parent != Ino::ROOT {
                it.fs.forget(parent, 1);
            }
        }
        assert_eq!(it.fs.known(), 1, "nodes are leaked, seed {seed}");
    }
}

async fn wreak_havoc(fs: Arc<FileSystem>, folders: [Ino; 2], seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut kernel = Kernel::default();
    for _ in 0..300 {
        let folder = folders[rng.usize(..2)];
        let (name, other) = (os(NAMES[rng.usize(..NAMES.len())]), os(NAMES[rng.usize(..NAMES.len())]));
        let patience = rng.u32(..40);
        let choice = rng.u32(..8);
        let byte = rng.alphanumeric() as u8;
        let there = folders[rng.usize(..2)];
        let work = async {
            match choice {
                0 | 1 => {
                    let (child, opened) = fs.create(folder, name, Access::Write, 0o644, 0).await?;
                    kernel.0.push(child.keep().attributes.ino);
                    fill(&fs, opened.handle, byte).await
                }
                2 => {
                    let ino = kernel.lookup(&fs, folder, name).await?;
                    let opened = open_emptied(&fs, ino, Access::Write).await?;
                    fill(&fs, opened.handle, byte).await
                }
                3 => fs.unlink(folder, name).await,
                4 => fs.rename((folder, name), (there, other), RenameMode::Replace).await,
                5 => {
                    let ino = kernel.lookup(&fs, folder, name).await?;
                    let opened = fs.open(ino, Access::Read).await?;
                    let read = fs.read(opened.handle, 0, 100).await.map(drop);
                    close(&fs, opened.handle).await;
                    read
                }
                6 => kernel.lookup(&fs, folder, name).await.map(drop),
                _ => {
                    kernel.forget(&fs);
                    Ok(())
                }
            }
        };
        tokio::select! {
            biased;
            _ = work => {}
            () = yield_times(patience), if choice > 2 && choice != 5 => {}
        }
    }
    kernel.forget(&fs);
}

async fn fill(fs: &FileSystem, handle: HandleId, byte: u8) -> Result<(), Error> {
    let written = fs.write(handle, Some(0), vec![byte; 50].into()).await;
    let flushed = fs.flush(handle).await;
    close(fs, handle).await;
    written.and(flushed)
}

async fn yield_times(times: u32) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}

/// A file never drops out of its directory while it is being sent: neither the listing from before nor what is said of
/// unsent files has it then.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_file_that_is_being_sent_is_always_listed() {
    let it = Fixture::with_ttl_in_background(Duration::from_secs(3600));
    let made = it.fs.make_directory(Ino::ROOT, os("d"), 0o755, 0).await.unwrap();
    let folder = made.keep().attributes.ino;
    let mut expected = Vec::new();
    for number in 0..200 {
        let name = format!("f{number:03}");
        let created = it.fs.create(folder, os(&name), Access::Write, 0o644, 0).await;
        let (child, opened) = created.unwrap();
        let ino = child.keep().attributes.ino;
        it.fs.flush(opened.handle).await.unwrap();
        it.close(opened.handle).await;
        // The kernel may need its memory for something else.
        it.fs.forget(ino, 1);
        expected.push(name);
        while !it.fs.pending().is_empty() {
            assert_eq!(it.names(folder).await, expected);
        }
        assert_eq!(it.names(folder).await, expected);
    }
}

/// The time that a file was given stays while the file is being sent: nobody is shown the provider's in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_file_that_is_being_sent_keeps_its_time() {
    let it = Fixture::with_ttl_in_background(Duration::from_secs(3600));
    let given = SystemTime::UNIX_EPOCH + Duration::from_secs(981_173_106);
    for number in 0..1000 {
        let name = format!("f{number:03}");
        let (child, opened) = it.begin(Ino::ROOT, &name, 0o644, b"text").await;
        let ino = child.keep().attributes.ino;
        let change = AttributeChange {
            modified: Some(given),
            ..AttributeChange::default()
        };
        it.fs.set_attributes(ino, change).await.unwrap();
        it.fs.flush(opened.handle).await.unwrap();
        it.close(opened.handle).await;
        loop {
            let is_sent = it.fs.pending().is_empty();
            let shown = it.fs.attributes(ino).await.unwrap().attributes.modified;
            assert_eq!(shown, given, "file {number}, sent: {is_sent}");
            if is_sent {
                break;
            }
        }
        // The kernel may have forgotten it as soon as it was sent.
        it.fs.forget(ino, 1);
        let again = it.fs.lookup(Ino::ROOT, os(&name)).await.unwrap();
        assert_eq!(again.found.attributes.modified, given, "file {number}, looked up again");
    }
}
