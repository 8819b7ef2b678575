//! `kill -9` at every step of the outbox: a child process does what a seed says and is killed at a named place; then
//! what `close` acknowledged is in the mount, and after draining at the provider, and nothing else is.
//!
//! `KEYMOUNT_CRASH_RUNS` says how many seeds (500 unless told), `KEYMOUNT_CRASH_SEED` tries one.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/kernel.rs"]
mod kernel;
mod script;
mod shelf;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use keymount::cache::MemoryCache;
use keymount::fetch::{FetchSettings, Fetcher};
use keymount::fs::{Access, AttributeChange, CloseMeans, FileSystem, FsSettings, HandleId, Ino, RenameMode};
use keymount::model::fail_point::{NAMES, VARIABLE};
use keymount::model::{ErrorKind, Kind, Result};
use keymount::outbox::{Spool, recover};
use keymount::provider::Provider;
use keymount::state::StateDb;

use kernel::open_emptied;
use rustix::process::{Signal, getpid, kill_process};
use script::{Contest, LEFT, Moment, Step, Tree};
use shelf::{Shelf, store_by_another};

/// Where the child works, which seed it plays, and whether its provider is away.
const FOLDER: &str = "KEYMOUNT_CRASH_FOLDER";
const SEED: &str = "KEYMOUNT_CRASH_SEED_OF_CHILD";
const AWAY: &str = "KEYMOUNT_CRASH_AWAY";
/// What the child is there for.
const PART: &str = "KEYMOUNT_CRASH_PART";
/// How many children live at the same time.
const AT_ONCE: usize = 4;

/// What a child is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// To do what the seed says.
    Play,
    /// As `Play`, and to be killed at the end if it wasn't before.
    PlayAndEnd,
    /// To take over what another one left.
    TakeOver,
}

impl Part {
    const ALL: [(Self, &str); 3] = [
        (Self::Play, "play"),
        (Self::PlayAndEnd, "play-and-end"),
        (Self::TakeOver, "take-over"),
    ];

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(part, _)| *part == self).unwrap().1
    }

    fn of(word: &str) -> Self {
        Self::ALL.iter().find(|(_, known)| *known == word).unwrap().0
    }
}

/// Everything of one run.
struct Bench {
    fs: Arc<FileSystem>,
    folder: PathBuf,
}

impl Bench {
    async fn new(folder: &Path, away: bool) -> Self {
        let provider: Arc<dyn Provider> = Arc::new(Shelf::new(&folder.join("shelf"), away));
        let fetching = FetchSettings {
            spill_directory: folder.to_owned(),
            spill_limit: 1 << 30,
            memory: 1 << 20,
        };
        let cache = Arc::new(MemoryCache::new(1 << 20));
        let fetcher = Arc::new(Fetcher::new(Arc::clone(&provider), cache, fetching));
        let state = Arc::new(StateDb::open(&folder.join("state.db")).unwrap());
        recover(&folder.join("staging"), &state, &folder.join("lost")).unwrap();
        let spool = Spool::open(&folder.join("staging")).unwrap();
        let root = provider.probe().await.unwrap();
        let settings = FsSettings {
            read_only: false,
            uid: 0,
            gid: 0,
            umask: 0o022,
            attr_ttl: Duration::ZERO,
            close: CloseMeans::Journaled,
            remote: "shelf".to_owned(),
        };
        Self {
            fs: Arc::new(FileSystem::new(provider, fetcher, spool, state, root, settings)),
            folder: folder.to_owned(),
        }
    }

    async fn at(&self, path: &str) -> Result<(Ino, String)> {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut directory = Ino::ROOT;
        for part in above.split('/').filter(|part| !part.is_empty()) {
            directory = self.fs.lookup(directory, OsStr::new(part)).await?.keep().attributes.ino;
        }
        Ok((directory, name.to_owned()))
    }

    async fn write(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let (directory, name) = self.at(path).await?;
        let name = OsStr::new(&name);
        let handle = match self.fs.lookup(directory, name).await {
            Ok(found) => {
                open_emptied(&self.fs, found.keep().attributes.ino, Access::Write)
                    .await?
                    .handle
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let made = self.fs.create(directory, name, Access::Write, 0o644, 0o022).await?;
                made.0.keep();
                made.1.handle
            }
            Err(error) => return Err(error),
        };
        let mut offset = 0;
        for piece in bytes.chunks(3000) {
            self.fs
                .write(handle, Some(offset), Bytes::copy_from_slice(piece))
                .await?;
            offset += piece.len() as u64;
        }
        self.close(handle).await
    }

    async fn close(&self, handle: HandleId) -> Result<()> {
        self.fs.flush(handle).await?;
        if let Some(ino) = self.fs.close(handle) {
            self.fs.send_closed(ino).await?;
        }
        Ok(())
    }

    async fn take(&self, step: &Step, away: bool) -> Result<()> {
        match step {
            Step::Write(path, bytes) => self.write(path, bytes).await,
            Step::Save(path, bytes) => {
                let beside = format!("{path}.new");
                self.write(&beside, bytes).await?;
                self.rename(&beside, path).await
            }
            Step::Patch(path, offset, bytes) => {
                let (directory, name) = self.at(path).await?;
                let ino = self
                    .fs
                    .lookup(directory, OsStr::new(&name))
                    .await?
                    .keep()
                    .attributes
                    .ino;
                let handle = self.fs.open(ino, Access::ReadWrite).await?.handle;
                if !bytes.is_empty() {
                    self.fs
                        .write(handle, Some(*offset), Bytes::copy_from_slice(bytes))
                        .await?;
                }
                self.close(handle).await
            }
            Step::Truncate(path, len) => {
                let (directory, name) = self.at(path).await?;
                let ino = self
                    .fs
                    .lookup(directory, OsStr::new(&name))
                    .await?
                    .keep()
                    .attributes
                    .ino;
                let change = AttributeChange {
                    size: Some(*len),
                    ..Default::default()
                };
                self.fs.set_attributes(ino, change).await.map(drop)
            }
            Step::Rename(from, to) => self.rename(from, to).await,
            Step::Unlink(path) => {
                let (directory, name) = self.at(path).await?;
                self.fs.unlink(directory, OsStr::new(&name)).await
            }
            Step::TurnDirectory => {
                self.rename("d", "e").await?;
                self.rename("e", "d").await
            }
            Step::Contest(it) => self.contest(it).await,
            Step::Leave(bytes) => {
                let name = OsStr::new(LEFT);
                let made = self.fs.create(Ino::ROOT, name, Access::Write, 0o644, 0o022).await?;
                made.0.keep();
                let bytes = Bytes::copy_from_slice(bytes);
                self.fs.write(made.1.handle, Some(0), bytes).await?;
                self.fs.journal().caught_up().await;
                Ok(())
            }
            Step::Drain if away => Ok(()),
            Step::Drain => self.fs.drain().await,
            Step::Flush => {
                let fs = Arc::clone(&self.fs);
                tokio::task::spawn_blocking(move || fs.journal().flush()).await.unwrap();
                Ok(())
            }
        }
    }

    async fn contest(&self, it: &Contest) -> Result<()> {
        let (directory, name) = self.at(it.path).await?;
        let name = OsStr::new(&name);
        let handle = if it.before.is_some() {
            let ino = self.fs.lookup(directory, name).await?.keep().attributes.ino;
            open_emptied(&self.fs, ino, Access::Write).await?.handle
        } else {
            let made = self.fs.create(directory, name, Access::Write, 0o644, 0o022).await?;
            made.0.keep();
            made.1.handle
        };
        let bytes = Bytes::copy_from_slice(&it.mine);
        self.fs.write(handle, Some(0), bytes).await?;
        let theirs = || {
            store_by_another(
                &self.folder.join("shelf"),
                it.path,
                &it.theirs,
                &aside(&self.folder, it),
            )
        };
        match it.theirs_come {
            Moment::BeforeClose => {
                theirs();
                self.close(handle).await
            }
            Moment::AfterClose => {
                self.close(handle).await?;
                theirs();
                Ok(())
            }
        }
    }

    async fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (self.at(from).await?, self.at(to).await?);
        self.fs
            .rename(
                (from.0, OsStr::new(&from.1)),
                (to.0, OsStr::new(&to.1)),
                RenameMode::Replace,
            )
            .await
    }

    /// All files of the mount.
    async fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        let mut directories = vec![(Ino::ROOT, String::new())];
        while let Some((ino, path)) = directories.pop() {
            let handle = self.fs.open_directory(ino).await.unwrap();
            for entry in self.fs.read_directory(handle, 0).await.unwrap().iter().skip(2) {
                let path = format!("{path}{}", entry.name);
                let found = self.fs.lookup(ino, OsStr::new(&entry.name)).await.unwrap();
                let child = found.keep().attributes.ino;
                if entry.kind == Kind::Directory {
                    directories.push((child, format!("{path}/")));
                    continue;
                }
                let opened = self.fs.open(child, Access::Read).await.unwrap();
                let bytes = self.fs.read(opened.handle, 0, 4 << 20).await.unwrap();
                self.fs.close(opened.handle);
                tree.insert(path, bytes.to_vec());
            }
            self.fs.close_directory(handle);
        }
        tree
    }

    async fn resume(&self) {
        self.fs.resume(&self.folder.join("unsent")).await.unwrap();
    }
}

/// Where somebody else's version lies until it is stored, and afterwards what it replaced.
fn aside(folder: &Path, it: &Contest) -> PathBuf {
    folder.join(format!("aside-{}", it.path.replace('/', "-")))
}

/// What the provider has, on the disk itself.
fn stored(folder: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut directories = vec![(folder.join("shelf"), String::new())];
    while let Some((directory, path)) = directories.pop() {
        for entry in directory.read_dir().unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_dir() {
                directories.push((entry.path(), format!("{path}{name}/")));
            } else if !name.starts_with(".unfinished-") {
                tree.insert(format!("{path}{name}"), std::fs::read(entry.path()).unwrap());
            }
        }
    }
    tree
}

/// The process that is killed. Alone it does nothing.
#[test]
fn the_one_who_is_killed() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let folder = PathBuf::from(folder);
    let away = std::env::var_os(AWAY).is_some();
    let seed = std::env::var(SEED).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let it = Bench::new(&folder, away).await;
        it.resume().await;
        it.fs.start_sending();
        let mut log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(folder.join("log"))
            .unwrap();
        let mut note = |word: &str| log.write_all(format!("{word}\n").as_bytes()).unwrap();
        let part = Part::of(&std::env::var(PART).unwrap());
        if part != Part::TakeOver {
            for step in script::steps(seed) {
                note("begun");
                match it.take(&step, away).await {
                    Ok(()) => note("done"),
                    // What needs the provider, or a file that would be there if an earlier step had not failed.
                    Err(error) if away && matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::NotFound) => {
                        note(&format!("failed: {error}"));
                    }
                    Err(error) => panic!("{step:?}: {error:?}"),
                }
            }
        }
        if part == Part::PlayAndEnd {
            let _ = kill_process(getpid(), Signal::KILL);
        }
        while !away && it.fs.waiting() > 0 {
            match it.fs.drain().await {
                // It goes on with what was found there.
                Err(error) if error.kind() == ErrorKind::Changed => {}
                drained => drained.unwrap(),
            }
        }
    });
}

/// Has a child play its part until it is killed or done; gives whether it was killed.
fn play(folder: &Path, seed: u64, part: Part, at: &str, away: bool) -> bool {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "the_one_who_is_killed", "--nocapture"])
        .env(FOLDER, folder)
        .env(SEED, seed.to_string())
        .env(PART, part.word())
        .env(VARIABLE, at)
        .stdin(Stdio::null());
    if away {
        child.env(AWAY, "yes");
    }
    let output = child.output().unwrap();
    let killed = std::os::unix::process::ExitStatusExt::signal(&output.status) == Some(9);
    assert!(
        killed || output.status.success(),
        "seed {seed} at {at}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    killed
}

fn shorts(tree: &Tree) -> BTreeMap<&str, String> {
    tree.iter()
        .map(|(path, content)| (path.as_str(), script::short(content)))
        .collect()
}

/// Where a run kills whom.
struct Plan {
    name: &'static str,
    /// Which visit of the place, counted from 1.
    visit: u32,
    away: bool,
    /// The one that is killed there takes over what another one left; else it plays the seed.
    at_taking_over: bool,
}

impl Plan {
    /// So that the place is passed, however fast this machine is.
    fn of(seed: u64, rng: &mut Rng) -> Self {
        let name = script::place(seed);
        let at_taking_over = name.starts_with("resume.") || name == "map.adopted";
        let visit = match name {
            // These are passed at every step.
            "staged.written" => 1..12,
            _ if name.starts_with("journal.") => 1..12,
            _ if at_taking_over || name.starts_with("unlink.") => 1..2,
            _ => 1..3,
        };
        let away = match name {
            // What is sent at once needs no flush, and nothing takes its place.
            "flush.synced" | "staged.replaced" => true,
            "upload.stored" | "upload.struck" | "map.begun" | "map.told" | "map.synced" | "map.filled" => false,
            _ if name.starts_with("conflict.") => false,
            // Whoever takes over finds all of it.
            _ if at_taking_over => true,
            _ => rng.u32(..3) == 0,
        };
        Self {
            name,
            visit: rng.u32(visit),
            away,
            at_taking_over,
        }
    }
}

/// What became of a file that was changed here and by somebody else.
struct Contested {
    it: Contest,
    begun: bool,
    /// Somebody else has stored theirs.
    happened: bool,
    /// Both must be there: `mine` was closed and not sent before somebody else replaced it.
    both: bool,
}

impl Contested {
    /// After the first child.
    fn look(folder: &Path, it: Contest, (begun, done): (bool, bool)) -> Self {
        let replaced = std::fs::read(aside(folder, &it)).ok();
        let is_stored = stored(folder)
            .iter()
            .any(|(path, bytes)| it.has(path) == Some(Role::Itself) && *bytes == it.theirs);
        let happened = done || is_stored || replaced.as_ref().is_some_and(|bytes| *bytes != it.theirs);
        let closed = done || (happened && it.theirs_come == Moment::AfterClose);
        let was_sent = replaced.as_ref() == Some(&it.mine);
        Self {
            begun,
            happened,
            both: closed && !was_sent,
            it,
        }
    }

    /// Checks what there is of it, before or after everything was sent.
    fn check(&self, tree: &Tree, all_sent: bool) -> std::result::Result<(), String> {
        let role = |wanted: Role| {
            tree.iter()
                .filter(move |(path, _)| self.it.has(path) == Some(wanted))
                .map(|(_, bytes)| bytes)
        };
        let itself: Vec<&Vec<u8>> = role(Role::Itself).collect();
        let beside: Vec<&Vec<u8>> = role(Role::Beside).collect();
        let (mine, theirs) = (&self.it.mine, &self.it.theirs);
        let fail = |what: &str| Err(format!("{}: {what}", self.it.path));
        if !self.happened {
            let may_be_mine = self.begun && self.it.theirs_come == Moment::AfterClose;
            return match itself.first() {
                _ if !beside.is_empty() => fail("kept twice"),
                now if now.copied() == self.it.before.as_ref() => Ok(()),
                Some(now) if may_be_mine && *now == mine => Ok(()),
                _ => fail("neither as before nor as it was closed"),
            };
        }
        match (itself.as_slice(), beside.as_slice()) {
            ([now], []) if *now == theirs && !self.both => Ok(()),
            ([now], [kept]) if *now == theirs && *kept == mine => Ok(()),
            ([now], []) if *now == mine && !all_sent => Ok(()),
            _ => fail("not both are there, once each"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Itself,
    /// What has the name of a conflict.
    Beside,
}

impl Contest {
    /// Whether a path is this file's, wherever its directory is.
    fn has(&self, path: &str) -> Option<Role> {
        let path = path
            .strip_prefix("e/")
            .map_or(path.to_owned(), |rest| format!("d/{rest}"));
        if path == self.path {
            return Some(Role::Itself);
        }
        let (stem, extension) = self.path.split_once('.').unwrap_or((self.path, ""));
        let rest = path.strip_prefix(stem)?.strip_suffix(extension)?;
        rest.starts_with(" (conflict from ").then_some(Role::Beside)
    }
}

/// All but the contested files.
fn uncontested(tree: &Tree, contested: &[Contested]) -> Tree {
    tree.iter()
        .filter(|(path, _)| contested.iter().all(|one| one.it.has(path).is_none()))
        .map(|(path, content)| (path.clone(), content.clone()))
        .collect()
}

/// One run; gives where a child was killed.
async fn run(seed: u64) -> Option<&'static str> {
    let folder = tempfile::Builder::new().prefix("crash-").tempdir().unwrap();
    let folder = folder.path();
    let contests = script::contests(seed);
    let there_before = contests
        .iter()
        .filter_map(|it| Some((it.path.to_owned(), it.before.clone()?)));
    for (path, content) in script::start(seed).into_iter().chain(there_before) {
        let path = folder.join("shelf").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let mut rng = Rng::with_seed(seed ^ 0xc4a5);
    let plan = Plan::of(seed, &mut rng);
    let (name, away) = (plan.name, plan.away);
    let planned = format!("{name}:{}", plan.visit);
    let (part, at) = if !plan.at_taking_over {
        (Part::Play, planned.clone())
    } else if rng.bool() {
        (Part::PlayAndEnd, "nowhere:1".to_owned())
    } else {
        let first = NAMES[rng.usize(..NAMES.len())];
        (Part::PlayAndEnd, format!("{first}:{}", rng.u32(1..6)))
    };
    let mut killed = play(folder, seed, part, &at, away);

    let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
    let steps = script::steps(seed);
    let mut before = script::start(seed);
    let outcomes: Vec<&str> = log.lines().filter(|line| *line != "begun").collect();
    for (step, outcome) in steps.iter().zip(&outcomes) {
        if *outcome == "done" {
            script::take(&mut before, step);
        }
    }
    let (begun, done) = (log.matches("begun").count(), outcomes.len());
    let mut after = before.clone();
    let mut possible = vec![before.clone()];
    if begun > done {
        let step = &steps[done];
        script::take(&mut after, step);
        possible.push(after);
        possible.extend(halfway(&before, step));
    }
    let contested: Vec<Contested> = contests
        .into_iter()
        .map(|it| {
            let number = steps
                .iter()
                .position(|step| *step == Step::Contest(it.clone()))
                .unwrap();
            let is_done = outcomes.get(number).is_some_and(|outcome| *outcome == "done");
            Contested::look(folder, it, (number < begun, is_done))
        })
        .collect();
    let what = || format!("seed {seed} killed at {at} (away: {away}), after {done} of {steps:?}\nlog {log:?}");
    let check_contested = |tree: &Tree, all_sent: bool| {
        for one in &contested {
            if let Err(error) = one.check(tree, all_sent) {
                panic!("{error}\n{}\n{:?}", what(), shorts(tree));
            }
        }
    };

    // Whoever takes over may be killed too.
    if plan.at_taking_over {
        killed = play(folder, seed, Part::TakeOver, &planned, false);
    } else if seed.is_multiple_of(4) {
        let at = format!("{}:1", NAMES[rng.usize(..NAMES.len())]);
        play(folder, seed, Part::TakeOver, &at, away && rng.bool());
    }
    let it = Bench::new(folder, false).await;
    it.resume().await;
    let shown = it.tree().await;
    check_contested(&shown, false);
    let rest = uncontested(&shown, &contested);
    assert!(
        possible.contains(&rest),
        "{}\nthe mount has {:?}\nand should have {:?}",
        what(),
        shorts(&rest),
        shorts(&before)
    );
    while it.fs.waiting() > 0 {
        let drained = it.fs.drain().await;
        drained.unwrap_or_else(|error| panic!("{}\n{error:?}", what()));
    }
    let there = stored(folder);
    check_contested(&there, true);
    let same = |tree: &Tree, expected: &Tree| {
        assert!(
            tree == expected,
            "{}\n{:?}\n{:?}",
            what(),
            shorts(tree),
            shorts(expected)
        );
    };
    same(&uncontested(&there, &contested), &rest);
    same(&it.tree().await, &there);
    drop(it);
    let it = Bench::new(folder, false).await;
    it.resume().await;
    assert!(it.fs.pending().is_empty(), "{}", what());
    same(&it.tree().await, &there);
    if let (Some(Step::Leave(bytes)), Some(&"done")) = (steps.last(), outcomes.get(steps.len() - 1)) {
        let saved = folder.join("unsent").read_dir().into_iter().flatten().flatten();
        let mut saved = saved.map(|entry| std::fs::read(entry.path()).unwrap());
        assert!(
            saved.any(|copy| copy == *bytes),
            "{}\nnobody saved what was left",
            what()
        );
    }
    killed.then_some(name)
}

/// What may be there when a step of several calls was begun: each call is done or not.
fn halfway(before: &Tree, step: &Step) -> Vec<Tree> {
    match step {
        // The file beside it is closed, and not renamed.
        Step::Save(path, bytes) => {
            let mut tree = before.clone();
            tree.insert(format!("{path}.new"), bytes.clone());
            vec![tree]
        }
        Step::TurnDirectory => {
            let moved = |path: &String| path.strip_prefix("d/").map_or(path.clone(), |rest| format!("e/{rest}"));
            vec![
                before
                    .iter()
                    .map(|(path, content)| (moved(path), content.clone()))
                    .collect(),
            ]
        }
        // A name that was given by `create` is a file as soon as it is closed only; but a new file may be closed empty.
        _ => Vec::new(),
    }
}

#[test]
fn every_byte_that_close_acknowledged_outlives_a_kill_anywhere() {
    if let Ok(seed) = std::env::var("KEYMOUNT_CRASH_SEED") {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        println!("killed at {:?}", runtime.block_on(run(seed.parse().unwrap())));
        return;
    }
    let runs: u64 = std::env::var("KEYMOUNT_CRASH_RUNS").map_or(500, |runs| runs.parse().unwrap());
    let next = AtomicU64::new(0);
    let killed = parking_lot::Mutex::new(BTreeMap::<&str, u64>::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= runs {
                        break;
                    }
                    if let Some(name) = runtime.block_on(run(seed)) {
                        *killed.lock().entry(name).or_default() += 1;
                    }
                }
            });
        }
    });
    let killed = killed.into_inner();
    println!("{runs} runs, {} kills: {killed:?}", killed.values().sum::<u64>());
    if runs >= 300 {
        for name in NAMES {
            assert!(
                killed.get(name).is_some_and(|kills| *kills >= 3),
                "hardly anybody was killed at {name}"
            );
        }
    }
}
