//! A whole tree by its paths, and changes of it: the form in which trees are compared, exported and merged.
//!
//! It keeps no ids and asks nobody; what two changes mean together is decided where trees are merged.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Iter;
use std::fmt;
use std::ops::Bound;
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{ContentAddress, Error, IndexedContent, IndexedFile, Name, Result};

/// The names from a tree's root to an entry, at least one. In order a directory comes right before what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TreePath {
    above: Vec<Name>,
    name: Name,
}

/// One entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub content: IndexedContent,
    /// Of a directory it is that of the last change in it that this machine saw.
    pub modified: SystemTime,
}

/// A whole tree without its root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing(BTreeMap<TreePath, Listed>);

/// One change of a tree, with what was there before as its maker saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TreeChange {
    /// The name was free.
    Add {
        path: TreePath,
        content: IndexedContent,
        #[serde(with = "instant")]
        modified: SystemTime,
    },
    /// A file got another content.
    Replace {
        path: TreePath,
        was: ContentAddress,
        file: IndexedFile,
        #[serde(with = "instant")]
        modified: SystemTime,
    },
    /// A directory was empty; an immutable one goes with all that is in it.
    Remove { path: TreePath, was: IndexedContent },
    Move {
        from: TreePath,
        to: TreePath,
        what: IndexedContent,
        #[serde(with = "instant")]
        modified: SystemTime,
        /// What had the name and was replaced.
        over: Option<IndexedContent>,
    },
    /// It was made already.
    Nothing,
}

/// A change that is made here and that others don't know of yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingChange {
    /// Grows from change to change and is given once.
    pub number: u64,
    /// Random: tells two changes apart that got one number because a database was copied or put back.
    pub mark: String,
    pub change: TreeChange,
}

/// A tree that is shared with others, as it is kept here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptTree {
    /// With the pending changes made.
    pub tree: Listing,
    /// In the order in which they were made.
    pub pending: Vec<PendingChange>,
    /// What is known of the others; whoever shares the tree writes and reads it.
    pub book: Option<String>,
}

/// What a shared tree is to become here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdoptedTree {
    pub tree: Listing,
    /// The pending changes that stay pending.
    pub pending: Vec<PendingChange>,
    /// Changes that become pending after them.
    pub more: Vec<TreeChange>,
    pub book: String,
}

/// How a listing is taken into a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taking {
    /// What the tree lacks is added; what it has stays as it is.
    Merge,
    /// The tree becomes the listing.
    Replace,
}

/// What came of taking a listing in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub added: usize,
    /// Got another content.
    pub replaced: usize,
    pub removed: usize,
    /// Are something else in the tree than in the listing, and stayed.
    pub kept: usize,
}

impl TreePath {
    /// `None` without any name.
    pub fn new(mut names: Vec<Name>) -> Option<Self> {
        let name = names.pop()?;
        Some(Self { above: names, name })
    }

    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The directory it is in; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        Self::new(self.above.clone())
    }

    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.above.iter().chain([&self.name])
    }

    /// How many names it has.
    pub fn depth(&self) -> usize {
        self.above.len() + 1
    }

    /// The directories on the way to it, from the root down.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> {
        (1..=self.above.len()).filter_map(|count| Self::new(self.above[..count].to_vec()))
    }

    pub fn child(&self, name: Name) -> Self {
        Self {
            above: self.names().cloned().collect(),
            name,
        }
    }

    /// The same place under another name.
    pub fn with_name(&self, name: Name) -> Self {
        Self {
            above: self.above.clone(),
            name,
        }
    }

    /// Whether it is this one or lies below it.
    pub fn is_at_or_below(&self, other: &Self) -> bool {
        self.depth() >= other.depth() && self.names().zip(other.names()).all(|(own, theirs)| own == theirs)
    }

    /// Where it is after what was at `from` moved to `to`; itself when it isn't there.
    pub fn moved(&self, from: &Self, to: &Self) -> Self {
        if !self.is_at_or_below(from) {
            return self.clone();
        }
        let rest = self.names().skip(from.depth());
        let names: Vec<Name> = to.names().chain(rest).cloned().collect();
        Self::new(names).unwrap_or_else(|| to.clone())
    }
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> Ordering {
        self.names().cmp(other.names())
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in &self.above {
            write!(f, "{name}/")?;
        }
        write!(f, "{}", self.name)
    }
}

impl FromStr for TreePath {
    type Err = Error;

    /// Names between slashes, none of them at an end.
    fn from_str(text: &str) -> Result<Self> {
        let names = text.split('/').map(Name::new).collect::<Result<Vec<_>>>()?;
        Self::new(names).ok_or_else(|| Error::internal("a text has no parts"))
    }
}

impl TryFrom<String> for TreePath {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<TreePath> for String {
    fn from(path: TreePath) -> Self {
        path.to_string()
    }
}

impl Listing {
    pub fn get(&self, path: &TreePath) -> Option<&Listed> {
        self.0.get(path)
    }

    /// Gives what was there.
    pub fn insert(&mut self, path: TreePath, listed: Listed) -> Option<Listed> {
        self.0.insert(path, listed)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every directory before what is in it.
    pub fn iter(&self) -> Iter<'_, TreePath, Listed> {
        self.0.iter()
    }

    pub fn has_children(&self, path: &TreePath) -> bool {
        let mut after = self.0.range((Bound::Excluded(path), Bound::Unbounded));
        after.next().is_some_and(|(next, _)| next.is_at_or_below(path))
    }

    /// Removes an entry with all that is below it.
    pub fn remove(&mut self, path: &TreePath) {
        for below in self.at_and_below(path) {
            self.0.remove(&below);
        }
    }

    /// Gives an entry another place, with all that is below it.
    pub fn relocate(&mut self, from: &TreePath, to: &TreePath) {
        for path in self.at_and_below(from) {
            if let Some(listed) = self.0.remove(&path) {
                self.0.insert(path.moved(from, to), listed);
            }
        }
    }

    fn at_and_below(&self, path: &TreePath) -> Vec<TreePath> {
        let from = self.0.range((Bound::Included(path), Bound::Unbounded));
        from.map(|(found, _)| found)
            .take_while(|found| found.is_at_or_below(path))
            .cloned()
            .collect()
    }
}

impl FromIterator<(TreePath, Listed)> for Listing {
    fn from_iter<T: IntoIterator<Item = (TreePath, Listed)>>(entries: T) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl TreeChange {
    /// The same change after what its maker knew at `from` got another place.
    pub fn moved(self, from: &TreePath, to: &TreePath) -> Self {
        match self {
            Self::Add {
                path,
                content,
                modified,
            } => Self::Add {
                path: path.moved(from, to),
                content,
                modified,
            },
            Self::Replace {
                path,
                was,
                file,
                modified,
            } => Self::Replace {
                path: path.moved(from, to),
                was,
                file,
                modified,
            },
            Self::Remove { path, was } => Self::Remove {
                path: path.moved(from, to),
                was,
            },
            Self::Move {
                from: old,
                to: new,
                what,
                modified,
                over,
            } => Self::Move {
                from: old.moved(from, to),
                to: new.moved(from, to),
                what,
                modified,
                over,
            },
            Self::Nothing => Self::Nothing,
        }
    }
}

/// Times as RFC 3339 has them, to the nanosecond. What it has no year for is the epoch.
pub mod instant {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn text(time: SystemTime) -> String {
        jiff::Timestamp::try_from(time).unwrap_or_default().to_string()
    }

    pub fn parse(text: &str) -> Option<SystemTime> {
        text.parse::<jiff::Timestamp>().ok().map(SystemTime::from)
    }

    pub fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(*time))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| D::Error::custom("this is not a time such as 2024-01-31T12:00:00Z"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        text.parse().unwrap()
    }

    fn listing(paths: &[&str]) -> Listing {
        let directory = Listed {
            content: IndexedContent::Directory,
            modified: SystemTime::UNIX_EPOCH,
        };
        paths.iter().map(|text| (path(text), directory.clone())).collect()
    }

    fn paths(listing: &Listing) -> Vec<String> {
        listing.iter().map(|(path, _)| path.to_string()).collect()
    }

    #[test]
    fn what_is_in_a_directory_follows_it() {
        let tree = listing(&["a b", "a/z", "a", "a!", "a/b", "b"]);
        assert_eq!(paths(&tree), ["a", "a/b", "a/z", "a b", "a!", "b"]);
        assert!(tree.has_children(&path("a")) && !tree.has_children(&path("a/b")) && !tree.has_children(&path("b")));
    }

    #[test]
    fn entries_move_and_go_with_what_is_below_them() {
        let mut tree = listing(&["a", "a/b", "a/b/c", "a b", "d"]);
        tree.relocate(&path("a"), &path("d/e"));
        assert_eq!(paths(&tree), ["a b", "d", "d/e", "d/e/b", "d/e/b/c"]);
        tree.remove(&path("d/e/b"));
        assert_eq!(paths(&tree), ["a b", "d", "d/e"]);
    }

    #[test]
    fn a_path_is_names_between_slashes() {
        for wrong in ["", "/a", "a/", "a//b", "a/../b", "."] {
            assert!(wrong.parse::<TreePath>().is_err(), "{wrong:?}");
        }
        let deep = path("a/b/c");
        let above: Vec<String> = deep.ancestors().map(|path| path.to_string()).collect();
        assert_eq!(above, ["a", "a/b"]);
        assert_eq!((deep.parent(), path("a").parent()), (Some(path("a/b")), None));
        assert_eq!(deep.moved(&path("a/b"), &path("x")), path("x/c"));
        assert_eq!(deep.moved(&path("a/bb"), &path("x")), deep);
    }

    #[test]
    fn a_change_survives_being_written_down() {
        let address = ContentAddress::new(&"Q".repeat(46)).unwrap();
        let file = IndexedFile {
            address: address.clone(),
            size: 3,
            sha256: None,
        };
        let modified = SystemTime::UNIX_EPOCH + std::time::Duration::from_nanos(1_234_567_890);
        for change in [
            TreeChange::Add {
                path: path("a/b"),
                content: IndexedContent::Folder(address.clone()),
                modified,
            },
            TreeChange::Replace {
                path: path("a"),
                was: address,
                file,
                modified,
            },
            TreeChange::Remove {
                path: path("a"),
                was: IndexedContent::Directory,
            },
            TreeChange::Nothing,
        ] {
            let text = serde_json::to_string(&change).unwrap();
            assert_eq!(serde_json::from_str::<TreeChange>(&text).unwrap(), change, "{text}");
        }
    }
}
