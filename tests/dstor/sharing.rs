//! One tree on several machines, over a register that loses answers, is out of reach and is raced for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use keymount::model::{ContentAddress, Error, ErrorKind, IndexedContent, IndexedFile, Result, TreePath, Version};
use keymount::provider::dstor::{Index, Sharing, SharingSettings};
use keymount::provider::register::{Held, Register};
use keymount::state::{PathIndex, Shared, StateDb};
use parking_lot::Mutex;
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::runtime::Runtime;

/// What happens to one write, or to a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Trouble {
    #[default]
    None,
    /// Nothing gets there.
    Unreachable,
    /// It is written, and nobody is told.
    LostAnswer,
}

/// A service's memory.
#[derive(Clone, Default)]
struct Place(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    object: Option<(Bytes, u64)>,
    versions: u64,
    writes: usize,
    reads: usize,
    looks: usize,
    ignores_conditions: bool,
}

/// A machine's way to it.
struct Way {
    place: Place,
    trouble: Arc<Mutex<Trouble>>,
}

#[async_trait]
impl Register for Way {
    fn place(&self) -> String {
        "memory/index.jsonl".to_owned()
    }

    async fn read(&self, known: Option<&Version>, _: u64) -> Result<Held> {
        tokio::task::yield_now().await;
        if *self.trouble.lock() == Trouble::Unreachable {
            return Err(Error::new(ErrorKind::Unreachable, "no way"));
        }
        let mut kept = self.place.0.lock();
        kept.looks += 1;
        Ok(match kept.object.clone() {
            None => Held::Nothing,
            Some((_, version)) if known == Some(&Version::new(version.to_string())) => Held::Same,
            Some((bytes, version)) => {
                kept.reads += 1;
                Held::Bytes(bytes, Version::new(version.to_string()))
            }
        })
    }

    async fn write(&self, bytes: Bytes, over: Option<&Version>) -> Result<Version> {
        tokio::task::yield_now().await;
        let trouble = *self.trouble.lock();
        if trouble == Trouble::Unreachable {
            return Err(Error::new(ErrorKind::Unreachable, "no way"));
        }
        let mut kept = self.place.0.lock();
        let there = kept
            .object
            .as_ref()
            .map(|(_, version)| Version::new(version.to_string()));
        if there.as_ref() != over && !kept.ignores_conditions {
            return Err(Error::new(ErrorKind::Changed, "somebody was quicker"));
        }
        kept.versions += 1;
        kept.writes += 1;
        let version = kept.versions;
        kept.object = Some((bytes, version));
        match trouble {
            Trouble::LostAnswer => Err(Error::new(ErrorKind::TimedOut, "no answer")),
            _ => Ok(Version::new(version.to_string())),
        }
    }

    fn beside(&self, _: &str) -> Arc<dyn Register> {
        let kept = Kept {
            ignores_conditions: self.place.0.lock().ignores_conditions,
            ..Kept::default()
        };
        Arc::new(Self {
            place: Place(Arc::new(Mutex::new(kept))),
            trouble: Arc::default(),
        })
    }

    async fn remove(&self) -> Result<()> {
        self.place.0.lock().object = None;
        Ok(())
    }
}

/// One machine with its database.
struct Host {
    name: String,
    state: Arc<StateDb>,
    index: Arc<PathIndex>,
    sharing: Arc<Sharing>,
    place: Place,
    trouble: Arc<Mutex<Trouble>>,
}

impl Host {
    fn new(name: &str, place: &Place) -> Self {
        Self::with(name, place, Arc::new(StateDb::in_memory().unwrap()))
    }

    fn with(name: &str, place: &Place, state: Arc<StateDb>) -> Self {
        let index = Arc::new(PathIndex::open(Arc::clone(&state), "test", Shared::Yes).unwrap());
        let trouble = Arc::new(Mutex::new(Trouble::None));
        let way = Way {
            place: place.clone(),
            trouble: Arc::clone(&trouble),
        };
        let settings = SharingSettings {
            host: name.to_owned(),
            freshness: Duration::ZERO,
        };
        Self {
            name: name.to_owned(),
            sharing: Sharing::start(Arc::new(way), Arc::clone(&index) as Arc<dyn Index>, settings),
            state,
            index,
            place: place.clone(),
            trouble,
        }
    }

    /// Ends and begins anew with what is on its disk.
    fn restart(&mut self) {
        *self = Self::with(&self.name, &self.place, Arc::clone(&self.state));
    }

    async fn exchange(&self, trouble: Trouble) -> Result<()> {
        *self.trouble.lock() = trouble;
        let outcome = self.sharing.exchange().await;
        *self.trouble.lock() = Trouble::None;
        outcome
    }

    fn entry(&self, path: &TreePath) -> Option<keymount::model::Indexed> {
        let root = self.index.entry(self.index.root()).unwrap();
        path.names()
            .try_fold(root, |at, name| self.index.child(at.id, name).ok())
    }

    /// Where an entry of this path can be made.
    fn parent(&self, path: &TreePath) -> Option<keymount::model::IndexId> {
        match path.parent() {
            None => Some(self.index.root()),
            Some(above) => self
                .entry(&above)
                .filter(|entry| entry.is_directory())
                .map(|entry| entry.id),
        }
    }

    /// What has which path: the number of a content, or nothing for a directory.
    fn tree(&self) -> BTreeMap<String, Option<u64>> {
        let listing = self.index.listing().unwrap();
        let entry = |(path, listed): (&TreePath, &keymount::model::Listed)| {
            let content = match &listed.content {
                IndexedContent::File(file) => Some(file.size),
                _ => None,
            };
            (path.to_string(), content)
        };
        listing.iter().map(entry).collect()
    }

    fn write(&self, path: &str, content: u64) {
        let path: TreePath = path.parse().unwrap();
        let mut books = Books::default();
        self.make(&Act::Write, &path, &path, content, &mut books);
    }

    /// Makes a change if it can be made here. The books say what was stored and what was given up by somebody who saw it.
    fn make(&self, act: &Act, path: &TreePath, to: &TreePath, content: u64, books: &mut Books) {
        let now = SystemTime::UNIX_EPOCH;
        let there = self.entry(path);
        match act {
            Act::Write => {
                let file = IndexedFile {
                    address: address(content),
                    size: content,
                    sha256: None,
                };
                match (there, self.parent(path)) {
                    (None, Some(parent)) => {
                        let new = IndexedContent::File(file);
                        self.index.insert(parent, path.name(), &new, now).unwrap();
                        books.stored.insert(content);
                    }
                    (Some(there), _) => {
                        let Some(before) = there.file() else { return };
                        self.index.replace(there.id, &before.address, &file, now).unwrap();
                        books.given_up.insert(before.size);
                        books.stored.insert(content);
                    }
                    (None, None) => {}
                }
            }
            Act::MakeDirectory => {
                if let (None, Some(parent)) = (there, self.parent(path)) {
                    let new = IndexedContent::Directory;
                    self.index.insert(parent, path.name(), &new, now).unwrap();
                }
            }
            Act::Remove => {
                let Some(there) = there else { return };
                if self.index.remove(there.id).is_ok() {
                    books.given_up.extend(there.file().map(|file| file.size));
                }
            }
            Act::Rename => {
                let (Some(there), Some(parent)) = (there, self.parent(to)) else {
                    return;
                };
                let over = self.entry(to).filter(|over| over.id != there.id);
                if self.index.relocate(there.id, parent, to.name(), over.as_ref()).is_ok() {
                    books
                        .given_up
                        .extend(over.and_then(|over| over.file().map(|file| file.size)));
                }
            }
        }
    }
}

#[derive(Default)]
struct Books {
    stored: BTreeSet<u64>,
    given_up: BTreeSet<u64>,
}

fn address(content: u64) -> ContentAddress {
    ContentAddress::new(&format!("Q{content:045}")).unwrap()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Write,
    MakeDirectory,
    Remove,
    Rename,
}

#[derive(Clone, Debug)]
enum Step {
    Change(usize, Act, &'static str, &'static str),
    Exchange(usize, Trouble),
    /// All at once.
    Race,
    Restart(usize),
}

const PATHS: [&str; 8] = ["a", "b", "d", "d/a", "d/b", "e", "e/a", "d/e"];

fn steps(acts: &'static [Act]) -> impl Strategy<Value = Vec<Step>> {
    let paths = || proptest::sample::select(&PATHS[..]);
    let change = (0..3usize, proptest::sample::select(acts), paths(), paths())
        .prop_map(|(host, act, path, to)| Step::Change(host, act, path, to));
    let troubles = [Trouble::None, Trouble::None, Trouble::Unreachable, Trouble::LostAnswer];
    let exchange = (0..3usize, proptest::sample::select(troubles.to_vec()))
        .prop_map(|(host, trouble)| Step::Exchange(host, trouble));
    let step = prop_oneof![
        6 => change,
        3 => exchange,
        1 => Just(Step::Race),
        1 => (0..3usize).prop_map(Step::Restart),
    ];
    vec(step, 1..40)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

/// Makes the steps, and then all exchanges until nobody has something to tell. Gives the one tree, and the books.
async fn play(steps: &[Step]) -> (BTreeMap<String, Option<u64>>, Books) {
    let place = Place::default();
    let mut hosts: Vec<Host> = ["one", "two", "three"]
        .iter()
        .map(|name| Host::new(name, &place))
        .collect();
    let (mut books, mut content) = (Books::default(), 0);
    for step in steps {
        match step {
            Step::Change(host, act, path, to) => {
                content += 1;
                let (path, to) = (path.parse().unwrap(), to.parse().unwrap());
                hosts[*host].make(act, &path, &to, content, &mut books);
            }
            Step::Exchange(host, trouble) => {
                let outcome = hosts[*host].exchange(*trouble).await;
                assert!(outcome.is_ok() || *trouble != Trouble::None, "{outcome:?}");
            }
            Step::Race => {
                let racing = hosts.iter().map(|host| host.exchange(Trouble::None));
                for outcome in futures_util::future::join_all(racing).await {
                    outcome.unwrap();
                }
            }
            Step::Restart(host) => hosts[*host].restart(),
        }
    }
    for _ in 0..2 {
        for host in &hosts {
            host.exchange(Trouble::None).await.unwrap();
            assert!(!host.sharing.has_pending());
        }
    }
    let trees: Vec<_> = hosts.iter().map(Host::tree).collect();
    assert_eq!(trees[0], trees[1]);
    assert_eq!(trees[0], trees[2]);
    (trees.into_iter().next().unwrap(), books)
}

fn contents(tree: &BTreeMap<String, Option<u64>>) -> BTreeSet<u64> {
    tree.values().flatten().copied().collect()
}

/// How many random histories are played; more with `KEYMOUNT_TEST_HISTORIES`.
fn histories() -> ProptestConfig {
    let count = std::env::var("KEYMOUNT_TEST_HISTORIES")
        .ok()
        .and_then(|count| count.parse().ok());
    ProptestConfig {
        cases: count.unwrap_or(48),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(histories())]

    /// Whatever happens, all end with one tree, and it has every content that nobody gave up who saw it.
    #[test]
    fn machines_converge_and_lose_nothing(steps in steps(&[Act::Write, Act::Write, Act::MakeDirectory, Act::Remove, Act::Rename])) {
        let (tree, books) = runtime().block_on(play(&steps));
        let expected: BTreeSet<u64> = books.stored.difference(&books.given_up).copied().collect();
        let lost: Vec<_> = expected.difference(&contents(&tree)).copied().collect();
        prop_assert!(lost.is_empty(), "{lost:?} are not in {tree:?}");
    }

    /// Without renames, which may keep what somebody else removed, nothing that was given up comes back either.
    #[test]
    fn what_was_removed_stays_removed(steps in steps(&[Act::Write, Act::Write, Act::MakeDirectory, Act::Remove])) {
        let (tree, books) = runtime().block_on(play(&steps));
        let expected: BTreeSet<u64> = books.stored.difference(&books.given_up).copied().collect();
        prop_assert_eq!(contents(&tree), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_whose_answer_was_lost_is_not_made_twice() {
    let place = Place::default();
    let (one, two) = (Host::new("one", &place), Host::new("two", &place));
    one.exchange(Trouble::None).await.unwrap();
    one.write("f", 1);
    assert!(one.exchange(Trouble::LostAnswer).await.is_err());
    two.exchange(Trouble::None).await.unwrap();
    let removed = two.entry(&"f".parse().unwrap()).unwrap();
    two.index.remove(removed.id).unwrap();
    two.exchange(Trouble::None).await.unwrap();
    one.exchange(Trouble::None).await.unwrap();
    assert!(one.tree().is_empty() && !one.sharing.has_pending(), "{:?}", one.tree());
}

#[tokio::test(start_paused = true)]
async fn two_files_of_one_name_both_stay() {
    let place = Place::default();
    let (one, two) = (Host::new("one", &place), Host::new("two", &place));
    for host in [&one, &two] {
        host.exchange(Trouble::None).await.unwrap();
    }
    one.write("report.txt", 1);
    two.write("report.txt", 2);
    for host in [&one, &two, &one] {
        host.exchange(Trouble::None).await.unwrap();
    }
    assert_eq!(one.tree(), two.tree());
    let names: Vec<_> = one.tree().into_keys().collect();
    assert_eq!(names.len(), 2);
    assert!(
        names[0].starts_with("report (conflict from two ") && names[0].ends_with(").txt"),
        "{names:?}"
    );
    assert_eq!(one.tree()["report.txt"], Some(1));
}

/// What two machines had before they shared anything is put together; a removal is told from then on.
#[tokio::test(start_paused = true)]
async fn trees_that_were_not_shared_are_put_together() {
    let place = Place::default();
    let (one, two) = (Host::new("one", &place), Host::new("two", &place));
    one.write("both", 1);
    one.write("mine", 2);
    two.write("both", 1);
    two.write("yours", 3);
    for host in [&one, &two, &one] {
        host.exchange(Trouble::None).await.unwrap();
    }
    assert_eq!(one.tree(), two.tree());
    assert_eq!(one.tree().into_keys().collect::<Vec<_>>(), ["both", "mine", "yours"]);
    let both = two.entry(&"both".parse().unwrap()).unwrap();
    two.index.remove(both.id).unwrap();
    for host in [&two, &one] {
        host.exchange(Trouble::None).await.unwrap();
    }
    assert_eq!(one.tree().len(), 2);
}

/// A backup of the index is put back, or a server let two writes through at once: nothing that anybody has is lost.
#[tokio::test(start_paused = true)]
async fn an_index_that_went_back_gets_everything_again() {
    let place = Place::default();
    let (one, two) = (Host::new("one", &place), Host::new("two", &place));
    one.write("first", 1);
    one.exchange(Trouble::None).await.unwrap();
    let old = place.0.lock().object.clone().unwrap().0;
    one.write("second", 2);
    one.exchange(Trouble::None).await.unwrap();
    two.exchange(Trouble::None).await.unwrap();
    two.write("third", 3);
    {
        let mut kept = place.0.lock();
        kept.versions += 1;
        kept.object = Some((old, kept.versions));
    }
    for host in [&two, &one, &two] {
        host.exchange(Trouble::None).await.unwrap();
    }
    assert_eq!(one.tree().into_keys().collect::<Vec<_>>(), ["first", "second", "third"]);
    assert_eq!(one.tree(), two.tree());
    place.0.lock().object = None;
    one.exchange(Trouble::None).await.unwrap();
    let fresh = Host::new("three", &place);
    fresh.exchange(Trouble::None).await.unwrap();
    assert_eq!(fresh.tree(), one.tree(), "one that was removed is begun anew");
}

/// A machine's disk was copied, or put back: both go on, and no change of either is taken for the other's.
#[tokio::test(start_paused = true)]
async fn machines_with_one_state_go_on_as_two() {
    let place = Place::default();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let open = |name: &str| Arc::new(StateDb::open(&path(name)).unwrap());
    let one = Host::with("one", &place, open("one"));
    one.write("f", 1);
    one.exchange(Trouble::None).await.unwrap();
    drop(one);
    std::fs::copy(path("one"), path("two")).unwrap();
    let (one, two) = (
        Host::with("one", &place, open("one")),
        Host::with("two", &place, open("two")),
    );
    one.write("of one", 2);
    two.write("of two", 3);
    for host in [&one, &two, &one, &two] {
        host.exchange(Trouble::None).await.unwrap();
    }
    assert_eq!(one.tree().into_keys().collect::<Vec<_>>(), ["f", "of one", "of two"]);
    assert_eq!(one.tree(), two.tree());
}

/// Two processes of one machine share its database, and look at the shared index each for itself.
#[tokio::test(start_paused = true)]
async fn processes_of_one_machine_are_one_machine() {
    let place = Place::default();
    let state = Arc::new(StateDb::in_memory().unwrap());
    let (one, two) = (
        Host::with("one", &place, Arc::clone(&state)),
        Host::with("one", &place, Arc::clone(&state)),
    );
    let other = Host::new("other", &place);
    for (number, host) in [&one, &two, &other, &two, &one, &other].into_iter().enumerate() {
        host.write(&format!("f{number}"), number as u64 + 1);
        let racing = [&one, &two, &other].map(|host| host.exchange(Trouble::None));
        for outcome in futures_util::future::join_all(racing).await {
            outcome.unwrap();
        }
        if number == 3 {
            let removed = other.entry(&"f0".parse().unwrap()).unwrap();
            other.index.remove(removed.id).unwrap();
        }
    }
    other.exchange(Trouble::None).await.unwrap();
    one.exchange(Trouble::None).await.unwrap();
    assert_eq!(one.tree(), other.tree());
    assert_eq!(
        one.tree().into_keys().collect::<Vec<_>>(),
        ["f1", "f2", "f3", "f4", "f5"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_service_that_ignores_conditions_is_refused() {
    let place = Place::default();
    place.0.lock().ignores_conditions = true;
    let one = Host::new("one", &place);
    one.write("f", 1);
    for outcome in [one.sharing.open().await, one.exchange(Trouble::None).await] {
        let refused = outcome.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        assert!(
            refused.message().contains("overwrite each other's changes"),
            "{refused}"
        );
    }
    assert_eq!(place.0.lock().writes, 0);
    assert_eq!(one.tree().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_index_is_not_written_over() {
    let place = Place::default();
    let one = Host::new("one", &place);
    one.write("f", 1);
    one.exchange(Trouble::None).await.unwrap();
    let whole = place.0.lock().object.clone().unwrap().0;
    for damaged in [
        Bytes::new(),
        whole.slice(..whole.len() - 5),
        Bytes::from_static(b"<html>"),
    ] {
        {
            let mut kept = place.0.lock();
            kept.versions += 1;
            kept.object = Some((damaged.clone(), kept.versions));
        }
        one.write("g", 2);
        let refused = one.exchange(Trouble::None).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::BadData, "{damaged:?}");
        assert_eq!(place.0.lock().object.clone().unwrap().0, damaged);
        assert!(one.tree().contains_key("f") && one.sharing.has_pending());
        one.index.remove(one.entry(&"g".parse().unwrap()).unwrap().id).unwrap();
    }
}

/// Changes are sent in the background, many with one write; readers look once for many questions.
#[tokio::test(start_paused = true)]
async fn changes_travel_by_themselves_and_together() {
    let place = Place::default();
    let (one, two) = (Host::new("one", &place), Host::new("two", &place));
    for host in [&one, &two] {
        host.sharing.open().await.unwrap();
    }
    let content = AtomicU64::new(0);
    for number in 0..20 {
        one.write(&format!("f{number}"), content.fetch_add(1, Ordering::Relaxed) + 1);
        one.sharing.changed();
    }
    while one.sharing.has_pending() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(place.0.lock().writes, 1);
    two.sharing.freshen().await;
    assert_eq!(two.tree().len(), 20);
    let counts = || {
        let kept = place.0.lock();
        (kept.reads, kept.looks)
    };
    let (reads, looks) = counts();
    for _ in 0..5 {
        tokio::time::advance(Duration::from_millis(1)).await;
        futures_util::future::join_all((0..10).map(|_| two.sharing.freshen())).await;
    }
    assert_eq!(counts(), (reads, looks + 5), "nothing is read that is known");
}

#[tokio::test(start_paused = true)]
async fn without_a_way_everything_goes_on_and_is_told_later() {
    let place = Place::default();
    let (one, two) = (Host::new("one", &place), Host::new("two", &place));
    one.exchange(Trouble::None).await.unwrap();
    *one.trouble.lock() = Trouble::Unreachable;
    one.write("f", 1);
    one.sharing.changed();
    for _ in 0..3 {
        one.sharing.freshen().await;
    }
    assert!(one.sharing.settle(Duration::from_secs(1)).await.is_err());
    assert!(one.sharing.problem().is_some());
    assert_eq!(one.tree().len(), 1);
    *one.trouble.lock() = Trouble::None;
    while one.sharing.has_pending() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(one.sharing.problem().is_none());
    two.exchange(Trouble::None).await.unwrap();
    assert_eq!(two.tree(), one.tree());
}
