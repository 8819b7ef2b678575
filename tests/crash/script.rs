//! What is done to the files, as a seed says it, and what must be there afterwards.

use std::collections::BTreeMap;
use std::fmt;

use fastrand::Rng;

/// Files by path. Directories show by what is in them.
pub type Tree = BTreeMap<String, Vec<u8>>;

const NAMES: [&str; 4] = ["a", "b", "d/a", "d/b"];
const STEPS: usize = 12;

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
            Self::Drain => f.write_str("drain"),
            Self::Flush => f.write_str("flush"),
        }
    }
}

/// Length and beginning.
pub fn short(bytes: &[u8]) -> String {
    let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(8)]);
    format!("{}:{begin}", bytes.len())
}

/// The steps of a seed. Each can be done when its turn comes.
pub fn steps(seed: u64) -> Vec<Step> {
    let mut rng = Rng::with_seed(seed);
    let mut tree = start();
    let mut steps = Vec::new();
    while steps.len() < STEPS {
        let name = NAMES[rng.usize(..NAMES.len())];
        let len = [0, 1, 50, 5000][rng.usize(..4)];
        let bytes: Vec<u8> = std::iter::repeat_with(|| rng.alphanumeric() as u8).take(len).collect();
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

/// What the provider has at first.
pub fn start() -> Tree {
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
        Step::TurnDirectory | Step::Drain | Step::Flush => {}
    }
}
