//! Random operations on a real mount against a small tree in memory: with edits by others, a provider that takes nothing,
//! refuses the token or doesn't answer for a while, and a daemon that is killed.
//!
//! The tree knows what `close` promised. What was written and not closed may be there after a kill or not; what others
//! changed at the same time is kept twice. What needs a provider that is cut off fails as documented, and changes nothing;
//! everything else goes well all the while.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use axum::http::Method;
use keymount::emulator::{Fault, Rule};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::drive::CludzDrive;
use crate::exercisers::{kill_daemon, number, until_all_is_sent};
use crate::sandbox::Who;

/// How many operations are done, unless `KEYMOUNT_TEST_MODEL_OPERATIONS` says otherwise.
const OPERATIONS: u64 = 10_000;
/// How many belong together on an average, in a folder of their own.
const TOGETHER: usize = 200;
/// Which operations, unless `KEYMOUNT_TEST_MODEL_SEED` says otherwise.
const SEED: u64 = 20_261_122;

/// After so long without progress an operation ends. Not less than a busy machine needs.
const OP_TIMEOUT: Duration = Duration::from_secs(20);
/// How much later the program may get to know it on a busy machine.
const LATENESS: Duration = Duration::from_secs(30);
/// How many operations per time without answers are tried that have to wait for one: each takes seconds. One is enough to doubt what is known.
const TRIES: u32 = 1;

/// Every name that is used; the same one may be a file or a directory.
const PATHS: [&str; 11] = [
    "a", "b.txt", "d", "d/a", "d/b", "d/e", "d/e/a", "d/e/b", "f", "f/a", "f/b",
];
/// How many files may be open at the same time.
const SLOTS: usize = 2;

#[derive(Clone, Debug)]
enum Step {
    Write {
        path: usize,
        at: usize,
        len: usize,
    },
    Append {
        path: usize,
        len: usize,
    },
    /// `O_TRUNC`, then these bytes.
    Replace {
        path: usize,
        len: usize,
    },
    Truncate {
        path: usize,
        len: usize,
    },
    Read {
        path: usize,
    },
    List {
        path: usize,
    },
    Fsync {
        path: usize,
    },
    Rename {
        from: usize,
        to: usize,
    },
    Unlink {
        path: usize,
    },
    MakeDirectory {
        path: usize,
    },
    RemoveDirectory {
        path: usize,
    },
    Hold {
        slot: usize,
        path: usize,
    },
    HeldWrite {
        slot: usize,
        at: usize,
        len: usize,
    },
    HeldRead {
        slot: usize,
    },
    Release {
        slot: usize,
    },
    /// Somebody else stores a file.
    Theirs {
        path: usize,
        len: usize,
    },
    /// Somebody else removes a file.
    TheirRemoval {
        path: usize,
    },
    Partition {
        cut: Cut,
    },
    Heal,
    Kill,
    /// The kernel keeps nothing of what it knows, as when it is short of memory.
    Forget,
}

/// What doesn't work from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// The provider takes no content, and answers everything else.
    Full,
    /// The provider refuses the token.
    Rejected,
    /// Nothing gets through to the provider.
    Away,
}

impl Cut {
    fn rule(self) -> Rule {
        match self {
            Self::Full => Rule::always(Method::POST, "", Fault::status(507)),
            Self::Rejected => Rule::everything(Fault::status(401)),
            Self::Away => Rule::everything(Fault::DropConnection),
        }
    }

    /// What an operation answers that needs the provider.
    fn errno(self) -> i32 {
        match self {
            Self::Full => libc::ENOSPC,
            Self::Rejected => libc::EACCES,
            Self::Away => libc::ETIMEDOUT,
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let path = || 0..PATHS.len();
    let slot = || 0..SLOTS;
    // Now and then more than is fetched at once for being small.
    let at = || prop_oneof![20 => 0usize..5000, 1 => 1_200_000usize..1_400_000];
    let len = || 1usize..4000;
    prop_oneof![
        48 => (path(), at(), len()).prop_map(|(path, at, len)| Step::Write { path, at, len }),
        18 => (path(), len()).prop_map(|(path, len)| Step::Append { path, len }),
        18 => (path(), len()).prop_map(|(path, len)| Step::Replace { path, len }),
        18 => (path(), at()).prop_map(|(path, len)| Step::Truncate { path, len }),
        60 => path().prop_map(|path| Step::Read { path }),
        24 => path().prop_map(|path| Step::List { path }),
        9 => path().prop_map(|path| Step::Fsync { path }),
        24 => (path(), path()).prop_map(|(from, to)| Step::Rename { from, to }),
        15 => path().prop_map(|path| Step::Unlink { path }),
        18 => path().prop_map(|path| Step::MakeDirectory { path }),
        9 => path().prop_map(|path| Step::RemoveDirectory { path }),
        9 => (slot(), path()).prop_map(|(slot, path)| Step::Hold { slot, path }),
        18 => (slot(), at(), len()).prop_map(|(slot, at, len)| Step::HeldWrite { slot, at, len }),
        9 => slot().prop_map(|slot| Step::HeldRead { slot }),
        6 => slot().prop_map(|slot| Step::Release { slot }),
        // Each of these takes as long as a hundred of the others.
        1 => (path(), len()).prop_map(|(path, len)| Step::Theirs { path, len }),
        1 => path().prop_map(|path| Step::TheirRemoval { path }),
        1 => prop_oneof![6 => Just(Cut::Full), 5 => Just(Cut::Rejected), 1 => Just(Cut::Away)]
            .prop_map(|cut| Step::Partition { cut }),
        1 => Just(Step::Heal),
        1 => Just(Step::Kill),
        6 => Just(Step::Forget),
    ]
}

/// What a file should hold.
#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    /// What `close` promised; `None` for a file that nobody closed yet.
    promised: Option<Vec<u8>>,
    /// What a daemon that is killed may leave besides.
    possible: Vec<Vec<u8>>,
    /// Closed with a change since the provider takes nothing.
    waits: bool,
    /// Changed since then, and not closed.
    will_wait: bool,
    /// Made since the provider takes nothing.
    unsent: bool,
}

impl Content {
    fn closed(&mut self) {
        self.promised = Some(self.now.clone());
        self.possible.clear();
        self.waits |= std::mem::take(&mut self.will_wait);
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.now.resize(self.now.len().max(at + bytes.len()), 0);
        self.now[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thing {
    Directory,
    File(usize),
}

struct Held {
    file: File,
    number: usize,
}

/// One folder of the mount, and what should be in it.
struct World<'a> {
    it: &'a CludzDrive,
    folder: String,
    tree: BTreeMap<String, Thing>,
    contents: Vec<Content>,
    held: [Option<Held>; SLOTS],
    cut: Option<Cut>,
    /// How many operations may still wait for an answer that doesn't come.
    tries_left: u32,
    was_killed: bool,
    /// Makes every content another one.
    counter: u32,
    /// For whoever looks for what went wrong.
    trail: Vec<String>,
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "in {:?} after {:#?}, {}",
                self.folder,
                &self.trail[self.trail.len().saturating_sub(40)..],
                self.cut.map_or("connected".to_owned(), |cut| format!("{cut:?}"))
            );
        }
    }
}

impl<'a> World<'a> {
    fn new(it: &'a CludzDrive, folder: String) -> Self {
        it.server.faults().clear();
        it.person.keymount(["refresh", "drive"]).ok();
        std::fs::create_dir(it.person.mount_point().join(&folder)).unwrap();
        Self {
            it,
            folder,
            tree: BTreeMap::new(),
            contents: Vec::new(),
            held: Default::default(),
            cut: None,
            tries_left: 0,
            was_killed: false,
            counter: 0,
            trail: Vec::new(),
        }
    }

    fn place(&self, path: &str) -> PathBuf {
        self.it.person.mount_point().join(&self.folder).join(path)
    }

    fn remote(&self, path: &str) -> String {
        format!("{}/{path}", self.folder)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        self.counter += 1;
        let seed = self.counter.to_le_bytes();
        (0..len).map(|at| seed[at % 4] ^ (at / 256) as u8 | 1).collect()
    }

    /// What making or opening something at a path meets first.
    fn parent_error(&self, path: &str) -> Option<ErrorKind> {
        let mut end = 0;
        while let Some(next) = path[end..].find('/') {
            match self.tree.get(&path[..end + next]) {
                Some(Thing::Directory) => {}
                Some(Thing::File(_)) => return Some(ErrorKind::NotADirectory),
                None => return Some(ErrorKind::NotFound),
            }
            end += next + 1;
        }
        None
    }

    fn find(&self, path: &str) -> Result<Thing, ErrorKind> {
        match self.parent_error(path) {
            Some(error) => Err(error),
            None => self.tree.get(path).copied().ok_or(ErrorKind::NotFound),
        }
    }

    /// The file that opening for writing gives, made if it isn't there.
    fn file_for_writing(&mut self, path: &str) -> Result<usize, ErrorKind> {
        match self.find(path) {
            Ok(Thing::File(number)) => Ok(number),
            Ok(Thing::Directory) => Err(ErrorKind::IsADirectory),
            Err(ErrorKind::NotFound) if self.parent_error(path).is_none() => {
                self.contents.push(Content {
                    unsent: self.cut.is_some(),
                    waits: self.cut.is_some(),
                    ..Content::default()
                });
                let number = self.contents.len() - 1;
                self.tree.insert(path.to_owned(), Thing::File(number));
                Ok(number)
            }
            Err(error) => Err(error),
        }
    }

    fn is_held(&self, number: usize) -> bool {
        self.held.iter().flatten().any(|held| held.number == number)
    }

    fn below(&self, path: &str) -> impl Iterator<Item = (&String, &Thing)> {
        let prefix = format!("{path}/");
        self.tree.iter().filter(move |(name, _)| name.starts_with(&prefix))
    }

    fn children(&self, path: &str) -> Vec<String> {
        let inside = |name: &String| match path {
            "" => (!name.contains('/')).then(|| name.clone()),
            _ => {
                let rest = name.strip_prefix(path)?.strip_prefix('/')?;
                (!rest.contains('/')).then(|| rest.to_owned())
            }
        };
        self.tree.keys().filter_map(inside).collect()
    }

    /// A change of a whole file by opening, doing something and closing.
    fn change(
        &mut self,
        path: &str,
        options: &OpenOptions,
        act: impl FnOnce(&File) -> io::Result<()>,
        model: impl FnOnce(&mut Content),
    ) {
        let expected = self.file_for_writing(path);
        let done = options.open(self.place(path)).and_then(|file| act(&file));
        assert_eq!(done.map_err(|error| error.kind()), expected.map(drop), "{path}");
        if let Ok(number) = expected {
            let waits = self.cut.is_some();
            let content = &mut self.contents[number];
            model(content);
            content.waits |= waits;
            content.closed();
        }
    }

    fn step(&mut self, step: &Step) {
        let mut writing = OpenOptions::new();
        writing.write(true).create(true).truncate(false);
        match *step {
            Step::Write { path, at, len } => {
                let bytes = self.bytes(len);
                self.change(
                    PATHS[path],
                    &writing,
                    |file| file.write_all_at(&bytes, at as u64),
                    |content| {
                        content.put(at, &bytes);
                    },
                );
            }
            Step::Append { path, len } => {
                let bytes = self.bytes(len);
                let mut appending = OpenOptions::new();
                appending.append(true).create(true);
                let act = |mut file: &File| io::Write::write_all(&mut file, &bytes);
                self.change(PATHS[path], &appending, act, |content| content.now.extend(&bytes));
            }
            Step::Replace { path, len } => {
                let bytes = self.bytes(len);
                writing.truncate(true);
                self.change(
                    PATHS[path],
                    &writing,
                    |file| file.write_all_at(&bytes, 0),
                    |content| {
                        content.now.clone_from(&bytes);
                    },
                );
            }
            Step::Truncate { path, len } => {
                self.change(
                    PATHS[path],
                    &writing,
                    |file| file.set_len(len as u64),
                    |content| {
                        content.now.resize(len, 0);
                    },
                );
            }
            Step::Read { path } => self.compare(PATHS[path]),
            Step::List { path } => self.list(PATHS[path]),
            Step::Fsync { path } => self.fsync(PATHS[path]),
            Step::Rename { from, to } => self.rename(PATHS[from], PATHS[to]),
            Step::Unlink { path } => self.unlink(PATHS[path]),
            Step::MakeDirectory { path } => self.make_directory(PATHS[path]),
            Step::RemoveDirectory { path } => self.remove_directory(PATHS[path]),
            Step::Hold { slot, path } => self.hold(slot, PATHS[path]),
            Step::HeldWrite { slot, at, len } => {
                let bytes = self.bytes(len);
                if let Some(held) = &self.held[slot] {
                    held.file.write_all_at(&bytes, at as u64).unwrap();
                    let content = &mut self.contents[held.number];
                    content.put(at, &bytes);
                    content.will_wait |= self.cut.is_some();
                    // What was closed before is sent with whatever is there by then.
                    content.possible.push(content.now.clone());
                }
            }
            Step::HeldRead { slot } => {
                if let Some(held) = &self.held[slot] {
                    let expected = &self.contents[held.number].now;
                    let mut found = vec![0; expected.len() + 1];
                    let len = read_all_at(&held.file, &mut found).unwrap();
                    found.truncate(len);
                    same("an open file", &found, expected);
                    assert_eq!(held.file.metadata().unwrap().len(), expected.len() as u64);
                }
            }
            Step::Release { slot } => self.release(slot),
            Step::Theirs { path, len } => self.theirs(PATHS[path], Some(len)),
            Step::TheirRemoval { path } => self.theirs(PATHS[path], None),
            Step::Partition { cut } => self.partition(cut),
            Step::Heal => self.heal(),
            Step::Kill => self.kill(),
            Step::Forget => self.forget(),
        }
    }

    fn compare(&mut self, path: &str) {
        let found = std::fs::read(self.place(path));
        match self.find(path) {
            Ok(Thing::File(number)) => {
                same(path, &found.unwrap(), &self.contents[number].now);
                let size = std::fs::metadata(self.place(path)).unwrap().len();
                assert_eq!(size, self.contents[number].now.len() as u64, "{path}");
            }
            Ok(Thing::Directory) => assert_eq!(found.unwrap_err().kind(), ErrorKind::IsADirectory, "{path}"),
            Err(error) => assert_eq!(found.unwrap_err().kind(), error, "{path}"),
        }
    }

    fn list(&self, path: &str) {
        let found = names(&self.place(path));
        match self.find(path) {
            Ok(Thing::Directory) => assert_eq!(found.unwrap(), self.children(path), "{path}"),
            Ok(Thing::File(_)) => assert_eq!(found.unwrap_err().kind(), ErrorKind::NotADirectory, "{path}"),
            Err(error) => assert_eq!(found.unwrap_err().kind(), error, "{path}"),
        }
    }

    fn fsync(&mut self, path: &str) {
        let Ok(Thing::File(number)) = self.find(path) else {
            return;
        };
        if self.cut != Some(Cut::Full) && !self.is_worth_trying() {
            return;
        }
        let file = OpenOptions::new().write(true).open(self.place(path)).unwrap();
        let begun = Instant::now();
        let done = file.sync_all();
        // The journal has it as closed, whatever came of it.
        self.contents[number].closed();
        let waits = self.contents[number].waits;
        if let Some(cut) = self.cut.filter(|_| waits) {
            return fails_as_documented(path, cut, done, begun);
        }
        done.unwrap();
        let content = &self.contents[number];
        let stored = self.it.drive.read(&format!("{}/{path}", self.folder)).unwrap();
        same(path, &stored, &content.now);
    }

    fn rename(&mut self, from: &str, to: &str) {
        let (source, target) = (self.find(from), self.find(to));
        let unsent = |thing: Thing| matches!(thing, Thing::File(number) if self.contents[number].unsent);
        // What the provider has cannot be renamed without it.
        let is_unsent = source.is_ok_and(unsent);
        let possible = is_unsent && target.is_err_or(unsent);
        let over_directory = target == Ok(Thing::Directory);
        let held = matches!(target, Ok(Thing::File(number)) if self.is_held(number));
        if over_directory || (held && from != to) || !self.is_worth_trying() {
            return;
        }
        let good = match (source, target) {
            (Err(_), _) => false,
            (Ok(_), _) if from == to => true,
            (Ok(_), Err(_)) if self.parent_error(to).is_some() => false,
            (Ok(Thing::Directory), _) if to.starts_with(&format!("{from}/")) => false,
            (Ok(Thing::Directory), target) => target.is_err(),
            (Ok(Thing::File(_)), _) => true,
        };
        let begun = Instant::now();
        let done = std::fs::rename(self.place(from), self.place(to));
        let other_directory = self.parent_of(from) != self.parent_of(to);
        if other_directory
            && done
                .as_ref()
                .is_err_and(|error| error.kind() == ErrorKind::CrossesDevices)
        {
            // This provider moves nothing that it has to another directory; programs then copy.
            return;
        }
        if let Some(cut) = self.cut.filter(|_| good && from != to && !possible) {
            // What nobody sent may take the place of what the provider has, and is sent in its place later.
            if done.is_err() || !is_unsent {
                return fails_as_documented(&format!("{from} to {to}"), cut, done, begun);
            }
        }
        assert_eq!(done.is_ok(), good, "{from} to {to}: {done:?}");
        if !good || from == to {
            return;
        }
        if let (Ok(Thing::File(mine)), Ok(Thing::File(theirs))) = (source, target) {
            self.contents[mine].unsent &= self.contents[theirs].unsent;
        }
        let moved: Vec<String> = std::iter::once(from.to_owned())
            .chain(self.below(from).map(|(path, _)| path.clone()))
            .collect();
        for old in moved {
            let thing = self.tree.remove(&old).unwrap();
            if let Thing::File(number) = thing {
                // It may have been sent for that.
                let content = &mut self.contents[number];
                content.possible.push(content.now.clone());
            }
            self.tree.insert(format!("{to}{}", &old[from.len()..]), thing);
        }
    }

    fn unlink(&mut self, path: &str) {
        let found = self.find(path);
        if matches!(found, Ok(Thing::File(number)) if self.is_held(number)) || !self.is_worth_trying() {
            return;
        }
        let begun = Instant::now();
        let done = std::fs::remove_file(self.place(path));
        if let (Some(cut), Ok(Thing::File(number))) = (self.cut, found)
            && !self.contents[number].unsent
        {
            return fails_as_documented(path, cut, done, begun);
        }
        match found {
            Ok(Thing::File(_)) => {
                done.unwrap();
                self.tree.remove(path);
            }
            Ok(Thing::Directory) => assert_eq!(done.unwrap_err().kind(), ErrorKind::IsADirectory, "{path}"),
            Err(error) => assert_eq!(done.unwrap_err().kind(), error, "{path}"),
        }
    }

    fn make_directory(&mut self, path: &str) {
        if !self.is_worth_trying() {
            return;
        }
        let begun = Instant::now();
        let done = std::fs::create_dir(self.place(path));
        let is_possible = self.find(path).is_err() && self.parent_error(path).is_none();
        if let Some(cut) = self.cut.filter(|_| is_possible) {
            return fails_as_documented(path, cut, done, begun);
        }
        let done = done.map_err(|error| error.kind());
        match self.find(path) {
            Ok(_) => assert_eq!(done, Err(ErrorKind::AlreadyExists), "{path}"),
            Err(_) => match self.parent_error(path) {
                Some(error) => assert_eq!(done, Err(error), "{path}"),
                None => {
                    assert_eq!(done, Ok(()), "{path}");
                    self.tree.insert(path.to_owned(), Thing::Directory);
                }
            },
        }
    }

    fn remove_directory(&mut self, path: &str) {
        if !self.is_worth_trying() {
            return;
        }
        let begun = Instant::now();
        let done = std::fs::remove_dir(self.place(path));
        let is_possible = self.find(path) == Ok(Thing::Directory) && self.below(path).next().is_none();
        if let Some(cut) = self.cut.filter(|_| is_possible) {
            return fails_as_documented(path, cut, done, begun);
        }
        let errno = done.as_ref().err().and_then(io::Error::raw_os_error);
        let done = done.map_err(|error| error.kind());
        match self.find(path) {
            // What is in it at the provider, the provider knows.
            Ok(Thing::Directory) if self.cut.is_some_and(|cut| Some(cut.errno()) == errno) => {}
            Ok(Thing::File(_)) => assert_eq!(done, Err(ErrorKind::NotADirectory), "{path}"),
            Ok(Thing::Directory) if self.below(path).next().is_some() => {
                assert_eq!(done, Err(ErrorKind::DirectoryNotEmpty), "{path}");
            }
            Ok(Thing::Directory) => {
                assert_eq!(done, Ok(()), "{path}");
                self.tree.remove(path);
            }
            Err(error) => assert_eq!(done, Err(error), "{path}"),
        }
    }

    fn hold(&mut self, slot: usize, path: &str) {
        let Ok(Thing::File(number)) = self.find(path) else {
            return;
        };
        self.release(slot);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.place(path))
            .unwrap();
        self.held[slot] = Some(Held { file, number });
    }

    fn release(&mut self, slot: usize) {
        if let Some(held) = self.held[slot].take() {
            drop(held.file);
            self.contents[held.number].closed();
        }
    }

    fn release_all(&mut self) {
        (0..SLOTS).for_each(|slot| self.release(slot));
    }

    /// Everything is at the provider.
    fn settle(&mut self) {
        self.release_all();
        until_all_is_sent(&self.it.person);
        for content in &mut self.contents {
            content.possible.clear();
            (content.waits, content.will_wait, content.unsent) = (false, false, false);
        }
    }

    /// Whether an operation is to be tried that perhaps needs the provider.
    fn is_worth_trying(&mut self) -> bool {
        match self.cut {
            None | Some(Cut::Rejected) => true,
            // It answers all that is no content.
            Some(Cut::Full) => false,
            Some(Cut::Away) if self.tries_left == 0 => false,
            Some(Cut::Away) => {
                self.tries_left -= 1;
                true
            }
        }
    }

    fn partition(&mut self, cut: Cut) {
        if self.cut.is_none() {
            self.settle();
            // What is known from now on is known without the provider.
            for (path, thing) in self.tree.clone() {
                match thing {
                    Thing::Directory => self.list(&path),
                    Thing::File(_) => self.compare(&path),
                }
            }
            names(&self.place("")).unwrap();
            self.it.server.faults().inject(cut.rule());
            (self.cut, self.tries_left) = (Some(cut), TRIES);
        }
    }

    fn heal(&mut self) {
        if self.cut.take().is_some() {
            self.it.server.faults().clear();
            self.release_all();
            // Which tries at once.
            self.it.person.keymount(["refresh", "drive"]).ok();
            self.settle();
        }
    }

    /// Somebody else stores or removes a file. If it was changed here too, both are there when everybody can talk again.
    fn theirs(&mut self, path: &str, len: Option<usize>) {
        let known = match self.find(path) {
            Ok(Thing::Directory) => return,
            Ok(Thing::File(number)) => Some(number),
            Err(_) if self.parent_error(path).is_some() => return,
            Err(_) => None,
        };
        self.release_all();
        if self.cut.is_none() {
            self.settle();
        }
        let clash = known.filter(|number| self.contents[*number].waits);
        let place = self.remote(path);
        match len {
            Some(len) => {
                let bytes = self.bytes(len);
                self.it.drive.put(&place, bytes.clone()).unwrap();
                let theirs = Content {
                    promised: Some(bytes.clone()),
                    now: bytes,
                    ..Content::default()
                };
                self.contents.push(theirs);
                let thing = Thing::File(self.contents.len() - 1);
                if let Some(mine) = clash {
                    let before = self.it.drive.list(&self.parent_of(path)).unwrap();
                    self.heal();
                    self.tree.insert(path.to_owned(), thing);
                    self.expect_conflict(path, mine, &before);
                } else {
                    self.heal_if_unheard();
                    self.tree.insert(path.to_owned(), thing);
                    self.it.person.keymount(["refresh", "drive"]).ok();
                }
            }
            None => {
                // What isn't there any more was removed already.
                self.it.drive.remove(&place);
                match clash {
                    Some(_) => self.heal(),
                    None => {
                        self.heal_if_unheard();
                        self.tree.remove(path);
                        self.it.person.keymount(["refresh", "drive"]).ok();
                    }
                }
            }
        }
        self.compare(path);
    }

    /// Where nothing is heard of the provider, nothing is heard of others either.
    fn heal_if_unheard(&mut self) {
        if matches!(self.cut, Some(Cut::Rejected | Cut::Away)) {
            self.heal();
        }
    }

    fn parent_of(&self, path: &str) -> String {
        let path = self.remote(path);
        path.rsplit_once('/')
            .map_or_else(String::new, |(parent, _)| parent.to_owned())
    }

    /// The local version is beside the other, under a name that says why.
    fn expect_conflict(&mut self, path: &str, mine: usize, before: &[String]) {
        let parent = self.parent_of(path);
        let new: Vec<String> = self.it.drive.list(&parent).unwrap();
        let mut new: Vec<String> = new.into_iter().filter(|name| !before.contains(name)).collect();
        // What else was new here is sent too.
        new.retain(|name| name.contains("(conflict from "));
        let stem = path.rsplit('/').next().unwrap().split('.').next().unwrap();
        assert_eq!(new.len(), 1, "{path}: {new:?}");
        assert!(new[0].starts_with(&format!("{stem} (conflict from ")), "{new:?}");
        let aside = match path.rsplit_once('/') {
            Some((parent, _)) => format!("{parent}/{}", new[0]),
            None => new[0].clone(),
        };
        self.tree.insert(aside.clone(), Thing::File(mine));
        self.compare(&aside);
    }

    /// Only root may make the kernel forget: mounting again what is mounted drops every name that nobody uses.
    fn forget(&self) {
        if self.it.person.who == Who::Root {
            let mount_point = self.it.person.mount_point();
            let done = std::process::Command::new("mount")
                .args(["-i", "-o", "remount"])
                .arg(mount_point)
                .status()
                .unwrap();
            assert!(done.success());
        }
    }

    /// The daemon is killed, and another one mounted.
    fn kill(&mut self) {
        kill_daemon(self.it);
        self.was_killed = true;
        // Without an answer nobody mounts.
        let was_unheard = matches!(self.cut, Some(Cut::Rejected | Cut::Away));
        if was_unheard {
            self.it.server.faults().clear();
            self.cut = None;
        }
        self.clean_up(&self.folder);
        let mut open = Vec::new();
        for held in &mut self.held {
            open.extend(held.take().map(|held| held.number));
        }
        self.it.person.mount_as_usual("drive", &OPTIONS);
        for (path, thing) in self.tree.clone() {
            let Thing::File(number) = thing else { continue };
            let content = &mut self.contents[number];
            let found = match std::fs::read(self.it.person.mount_point().join(&self.folder).join(&path)) {
                Ok(found) => found,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NotFound, "{path}");
                    assert_eq!(content.promised, None, "{path} was closed and is gone");
                    self.tree.remove(&path);
                    continue;
                }
            };
            let promised = content.promised.as_ref() == Some(&found);
            let possible = open.contains(&number) && (found == content.now || content.possible.contains(&found));
            if !promised && !possible {
                let promised = content.promised.clone().unwrap_or_default();
                same(&format!("{path}, after a kill"), &found, &promised);
            }
            content.now.clone_from(&found);
            content.will_wait = false;
            content.closed();
        }
        if was_unheard {
            self.settle();
        }
    }

    /// Removes the temporary names that an upload leaves on this provider when it is killed, as a person would.
    fn clean_up(&self, folder: &str) {
        // What the daemon sent in its last moment is done when this is answered, unless it is large.
        let mut line = std::net::TcpStream::connect(self.it.server.address()).unwrap();
        io::Write::write_all(&mut line, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        io::Read::read_to_end(&mut line, &mut Vec::new()).unwrap();
        for name in self.it.drive.list(folder).unwrap_or_default() {
            let path = format!("{folder}/{name}");
            if name.starts_with(".keymount-") {
                self.it.drive.remove(&path);
            } else {
                self.clean_up(&path);
            }
        }
    }

    /// Everything is as it should be, here and at the provider.
    fn finish(&mut self) {
        self.heal();
        self.settle();
        if self.was_killed {
            // What is large, and was handed to the kernel before, may have come after what was waited for then.
            self.clean_up(&self.folder);
        }
        let mut directories = vec![String::new()];
        directories.extend(
            self.tree
                .iter()
                .filter(|(_, thing)| **thing == Thing::Directory)
                .map(|(path, _)| path.clone()),
        );
        for directory in directories {
            let expected = self.children(&directory);
            assert_eq!(names(&self.place(&directory)).unwrap(), expected, "{directory}");
            let place = self.remote(&directory);
            let mut stored = self.it.drive.list(place.trim_end_matches('/')).unwrap();
            stored.sort();
            assert_eq!(stored, expected, "{directory} at the provider");
        }
        for (path, thing) in self.tree.clone() {
            if let Thing::File(number) = thing {
                self.compare(&path);
                let stored = self.it.drive.read(&self.remote(&path)).unwrap();
                same(&format!("{path} at the provider"), &stored, &self.contents[number].now);
            }
        }
        self.it.server.forget_requests();
    }
}

trait OrElse<T> {
    fn is_err_or(&self, test: impl FnOnce(T) -> bool) -> bool;
}

impl<T: Copy, E> OrElse<T> for Result<T, E> {
    fn is_err_or(&self, test: impl FnOnce(T) -> bool) -> bool {
        match self {
            Ok(value) => test(*value),
            Err(_) => true,
        }
    }
}

/// What needed the provider failed, as documented and within its time.
#[track_caller]
fn fails_as_documented(what: &str, cut: Cut, done: io::Result<()>, begun: Instant) {
    let error = done.expect_err(what);
    assert_eq!(error.raw_os_error(), Some(cut.errno()), "{what}: {error}");
    let taken = begun.elapsed();
    assert!(taken < OP_TIMEOUT + LATENESS, "{what} took {taken:?}");
}

fn read_all_at(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match file.read_at(&mut buffer[have..], have as u64)? {
            0 => break,
            more => have += more,
        }
    }
    Ok(have)
}

fn names(directory: &std::path::Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        names.push(entry?.file_name().into_string().unwrap());
    }
    names.sort();
    Ok(names)
}

#[track_caller]
fn same(what: &str, found: &[u8], expected: &[u8]) {
    if found == expected {
        return;
    }
    let differs = found.iter().zip(expected).position(|(a, b)| a != b);
    panic!(
        "{what}: {} bytes, expected {}; the first that differs: {differs:?}",
        found.len(),
        expected.len()
    );
}

/// The second one is `OP_TIMEOUT`.
const OPTIONS: [&str; 4] = ["--attr-ttl", "10m", "--op-timeout", "20s"];

#[test]
fn a_mount_behaves_as_a_tree_in_memory() {
    let it = CludzDrive::new(Who::me());
    it.person.mount_as_usual("drive", &OPTIONS);
    let operations = number("KEYMOUNT_TEST_MODEL_OPERATIONS", OPERATIONS);
    let seed = number("KEYMOUNT_TEST_MODEL_SEED", SEED);
    println!("model: {operations} operations, KEYMOUNT_TEST_MODEL_SEED={seed}");
    let mut done = 0;
    for case in 0.. {
        if done >= operations {
            break;
        }
        let config = Config {
            cases: 1,
            failure_persistence: None,
            // Each try takes a second, and more where something hangs.
            max_shrink_iters: 60,
            max_shrink_time: 60_000,
            ..Config::default()
        };
        let mut key = [0; 32];
        key[..8].copy_from_slice(&(seed + case).to_le_bytes());
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &key));
        let (tries, count) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
        let outcome = runner.run(&proptest::collection::vec(step(), 1..=2 * TOGETHER), |steps| {
            tries.set(tries.get() + 1);
            count.set(steps.len() as u64);
            if it.person.daemons().is_empty() {
                it.person.mount_as_usual("drive", &OPTIONS);
            }
            let mut world = World::new(&it, format!("case {case}.{}", tries.get()));
            for step in &steps {
                world.trail.push(format!("{step:?}"));
                world.step(step);
            }
            world.finish();
            Ok(())
        });
        if let Err(failure) = outcome {
            panic!("with KEYMOUNT_TEST_MODEL_SEED={}: {failure}", seed + case);
        }
        done += count.get();
    }
    println!("{done} operations were done");
    it.person.unmount();
}
