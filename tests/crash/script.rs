//! What is done to the files, as a seed says it, and what must be there afterwards.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use fastrand::Rng;
use keymount::model::fail_point;

/// Files by path. Directories show by what is in them.
pub type Tree = BTreeMap<String, Vec<u8>>;

const NAMES: [&str; 4] = ["a", "b", "d/a", "d/b"];
const STEPS: usize = 12;
/// A file of which no more is fetched than is needed when a part of it is changed, alone in its directory: who lists
/// that has to read it.
pub const LARGE: &str = "l/large";
/// A little more than is fetched whole for being small.
const LARGE_LEN: usize = (1 << 20) + 20_000;
static LARGE_AT_FIRST: LazyLock<Vec<u8>> = LazyLock::new(|| (0..LARGE_LEN).map(|at| (at / 7 % 251) as u8).collect());
/// What is written and not closed.
pub const LEFT: &str = "left";

#[derive(Clone, PartialEq, Eq)]
pub enum Step {
    /// Makes it, or empties it and writes it anew; closed.
    Write(&'static str, Vec<u8>),
    /// Writes into the middle, or behind the end; closed.
    Patch(&'static str, u64, Vec<u8>),
    Truncate(&'static str, u64),
    Rename(&'static str, &'static str),
    /// Writes a file beside it and renames that over it, as editors do.
    Save(&'static str, Vec<u8>),
    Unlink(&'static str),
    /// `d` becomes `e` and `d` again: what is in it keeps its paths.
    TurnDirectory,
    /// Written here and stored by somebody else at the same time.
    Contest(Contest),
    /// Writes a new file, which the journal names afterwards, and never closes it.
    Leave(Vec<u8>),
    /// Waits until the provider has everything.
    Drain,
    /// As long as the disk needs to have what was closed.
    Flush,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(path, bytes) => write!(f, "write {path} {}", short(bytes)),
            Self::Patch(path, offset, bytes) => write!(f, "patch {path} at {offset} {}", short(bytes)),
            Self::Truncate(path, len) => write!(f, "truncate {path} {len}"),
            Self::Rename(from, to) => write!(f, "rename {from} {to}"),
            Self::Save(path, bytes) => write!(f, "save {path} {}", short(bytes)),
            Self::Unlink(path) => write!(f, "unlink {path}"),
            Self::TurnDirectory => f.write_str("turn"),
            Self::Contest(it) => write!(f, "contest {} {:?}", it.path, it.theirs_come),
            Self::Leave(bytes) => write!(f, "leave {}", short(bytes)),
            Self::Drain => f.write_str("drain"),
            Self::Flush => f.write_str("flush"),
        }
    }
}

/// When somebody else stores a file that is written here, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// While it is open here: what is written is a change of what is not there any more.
    BeforeClose,
    /// A moment after it was closed: perhaps that was sent before, perhaps not.
    AfterClose,
}

/// A file that is changed here and by somebody else, once each.
#[derive(Clone, PartialEq, Eq)]
pub struct Contest {
    pub path: &'static str,
    /// What the provider has at first.
    pub before: Option<Vec<u8>>,
    pub mine: Vec<u8>,
    pub theirs: Vec<u8>,
    pub theirs_come: Moment,
}

/// All of them, in the order in which they come about. No other step has to do with these files but renames of their
/// directory.
pub fn contests(seed: u64) -> Vec<Contest> {
    let mut rng = Rng::with_seed(seed ^ 0xc0de);
    let sometimes = if rng.bool() {
        Moment::BeforeClose
    } else {
        Moment::AfterClose
    };
    [
        ("both", true, Moment::BeforeClose),
        ("seen.txt", true, Moment::AfterClose),
        ("d/new", false, sometimes),
    ]
    .map(|(path, is_there, theirs_come)| Contest {
        path,
        before: is_there.then(|| format!("{path} at first").into_bytes()),
        mine: format!("{path}, mine").repeat(rng.usize(1..300)).into_bytes(),
        theirs: format!("{path}, theirs").repeat(rng.usize(1..300)).into_bytes(),
        theirs_come,
    })
    .into()
}

/// Length and beginning.
pub fn short(bytes: &[u8]) -> String {
    let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(8)]);
    format!("{}:{begin}", bytes.len())
}

/// The steps of a seed. Each can be done when its turn comes. However the seed falls, those that are not drawn pass each
/// place that is passed seldom otherwise, some of them only with or without a provider.
pub fn steps(seed: u64) -> Vec<Step> {
    let mut rng = Rng::with_seed(seed);
    let mut steps = drawn(&mut rng);
    let large = if waits_for_disk(seed) {
        changes_of_a_part(&mut rng)
    } else {
        Vec::new()
    };
    for sure in [large, contests(seed).into_iter().map(Step::Contest).collect()] {
        let mut place = 0;
        for step in sure {
            place = rng.usize(place..=steps.len());
            steps.insert(place, step);
            place += 1;
        }
    }
    let write = |begin: &str| Step::Write("b", begin.repeat(10).into_bytes());
    steps.extend([write("late"), Step::Flush, write("later"), Step::Flush]);
    steps.extend([Step::Drain, write("last"), Step::Drain, Step::Unlink("b")]);
    steps.push(Step::TurnDirectory);
    if waits_for_disk(seed) {
        steps.push(Step::Leave(letters(&mut rng, 100)));
    }
    steps
}

fn letters(rng: &mut Rng, len: usize) -> Vec<u8> {
    std::iter::repeat_with(|| rng.alphanumeric() as u8).take(len).collect()
}

/// Whether a seed has what waits for the disk much longer than the rest: where its place needs that, and now and then.
fn waits_for_disk(seed: u64) -> bool {
    let name = place(seed);
    name.starts_with("map.") || name.starts_with("resume.") || seed.is_multiple_of(10)
}

/// Where somebody is killed in the run of a seed.
pub fn place(seed: u64) -> &'static str {
    fail_point::NAMES[seed as usize % fail_point::NAMES.len()]
}

fn drawn(rng: &mut Rng) -> Vec<Step> {
    let mut tree = small();
    let mut steps = Vec::new();
    while steps.len() < STEPS {
        let name = NAMES[rng.usize(..NAMES.len())];
        let len = [0, 1, 50, 5000][rng.usize(..4)];
        let bytes = letters(rng, len);
        let known = tree.contains_key(name);
        let size = tree.get(name).map_or(0, |content| content.len() as u64);
        let step = match rng.u32(..12) {
            0..3 => Step::Write(name, bytes),
            3..5 if known => Step::Patch(name, rng.u64(..=size + 3), bytes),
            5 if known => Step::Truncate(name, rng.u64(..=size + 10)),
            6..8 => Step::Save(name, bytes),
            8 if known => Step::Rename(name, NAMES[rng.usize(..NAMES.len())]),
            9 if known => Step::Unlink(name),
            10 => Step::TurnDirectory,
            11 if rng.bool() => Step::Drain,
            11 => Step::Flush,
            _ => continue,
        };
        take(&mut tree, &step);
        steps.push(step);
    }
    steps
}

/// Of the large file: two parts of what the provider has are changed, with other changes behind each.
fn changes_of_a_part(rng: &mut Rng) -> Vec<Step> {
    // It stays longer than this, which is still large.
    let within = LARGE_LEN as u64 - 10_000;
    let mut len = LARGE_LEN as u64;
    let mut steps = Vec::new();
    for _ in 0..2 {
        let few = [1, 50, 4000][rng.usize(..3)];
        let bytes = letters(rng, few);
        steps.push(Step::Patch(LARGE, rng.u64(..within), bytes));
        steps.push(match rng.u32(..4) {
            0 => Step::Patch(LARGE, len + rng.u64(..2) * 700, letters(rng, 50)),
            1 => Step::Patch(LARGE, rng.u64(..within), letters(rng, 4000)),
            _ => Step::Truncate(LARGE, rng.u64(within..len + 3000)),
        });
        match &steps[steps.len() - 1] {
            Step::Truncate(_, now) => len = *now,
            Step::Patch(_, at, bytes) => len = len.max(at + bytes.len() as u64),
            _ => {}
        }
        steps.push(Step::Drain);
    }
    steps
}

/// What the provider has at first, but for what somebody else changes, too.
pub fn start(seed: u64) -> Tree {
    let mut tree = small();
    if waits_for_disk(seed) {
        tree.insert(LARGE.to_owned(), LARGE_AT_FIRST.clone());
    }
    tree
}

fn small() -> Tree {
    [
        ("a", "first a"),
        ("d/a", "first d/a"),
        ("d/keep", "nobody touches this"),
    ]
    .map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec()))
    .into()
}

/// What a step makes of the tree.
pub fn take(tree: &mut Tree, step: &Step) {
    match step {
        Step::Write(name, bytes) | Step::Save(name, bytes) => {
            tree.insert((*name).to_owned(), bytes.clone());
        }
        Step::Patch(name, offset, bytes) => {
            if let Some(content) = tree.get_mut(*name).filter(|_| !bytes.is_empty()) {
                let end = *offset as usize + bytes.len();
                content.resize(content.len().max(end), 0);
                content[*offset as usize..end].copy_from_slice(bytes);
            }
        }
        Step::Truncate(name, len) => {
            if let Some(content) = tree.get_mut(*name) {
                content.resize(*len as usize, 0);
            }
        }
        Step::Rename(from, to) => {
            if let Some(content) = tree.remove(*from) {
                tree.insert((*to).to_owned(), content);
            }
        }
        Step::Unlink(name) => {
            tree.remove(*name);
        }
        Step::TurnDirectory | Step::Contest(_) | Step::Leave(_) | Step::Drain | Step::Flush => {}
    }
}
