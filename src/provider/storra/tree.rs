//! What is known of the files and folders below one folder, and how changes turn one state into the next.
//!
//! Plain data: when it was asked for and whether that is recent enough is `snapshot`'s.

use std::collections::BTreeMap;

use super::names::{is_below, join, split};
use super::wire::Item;

/// Every folder with its children by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tree {
    root: String,
    folders: BTreeMap<String, BTreeMap<String, Item>>,
}

/// Something that is known to have changed.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Put(String, Item),
    Removed(String),
    Moved {
        from: String,
        to: String,
    },
    /// These are all children of a folder.
    Children(String, Vec<(String, Item)>),
    /// There is no such folder.
    Missing(String),
}

/// What a listing of one folder says about what else is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Everything,
    /// There is a folder whose content was never listed.
    NotAll,
}

impl Tree {
    /// With nothing in it.
    pub(super) fn new(root: &str) -> Self {
        Self {
            root: root.to_owned(),
            folders: BTreeMap::from([(root.to_owned(), BTreeMap::new())]),
        }
    }

    /// Made of a listing of everything. Where several items have one path the one that was changed last counts.
    pub(super) fn listed(root: &str, items: Vec<(String, Item)>) -> Self {
        let mut tree = Self::new(root);
        for (path, item) in items {
            let newer = tree.get(&path).is_none_or(|known| known.modified() <= item.modified());
            if newer {
                tree.put(&path, item);
            }
        }
        tree
    }

    pub(super) fn get(&self, path: &str) -> Option<&Item> {
        let (folder, name) = split(path);
        self.folders.get(folder)?.get(name)
    }

    pub(super) fn is_folder(&self, path: &str) -> bool {
        self.folders.contains_key(path)
    }

    /// `None` when there is no such folder.
    pub(super) fn children(&self, folder: &str) -> Option<&BTreeMap<String, Item>> {
        self.folders.get(folder)
    }

    pub(super) fn apply(&mut self, change: &Change) -> Known {
        match change {
            Change::Put(path, item) => self.put(path, item.clone()),
            Change::Removed(path) => self.remove(path),
            Change::Moved { from, to } => self.rename(from, to),
            Change::Children(folder, items) => return self.set_children(folder, items),
            Change::Missing(folder) if *folder == self.root => {}
            Change::Missing(folder) => self.remove(folder),
        }
        Known::Everything
    }

    /// Folders on the way to it are there too, whether they were listed or not.
    fn put(&mut self, path: &str, item: Item) {
        if !is_below(path, &self.root) {
            return;
        }
        self.make_way_to(path);
        if item.is_folder() {
            self.folders.entry(path.to_owned()).or_default();
        } else {
            self.forget_below(path);
        }
        let (folder, name) = split(path);
        if let Some(children) = self.folders.get_mut(folder) {
            children.insert(name.to_owned(), item);
        }
    }

    fn make_way_to(&mut self, path: &str) {
        let (folder, _) = split(path);
        if !self.folders.contains_key(folder) {
            self.put(folder, Item::folder());
        }
    }

    fn remove(&mut self, path: &str) {
        self.forget_below(path);
        let (folder, name) = split(path);
        if let Some(children) = self.folders.get_mut(folder) {
            children.remove(name);
        }
    }

    /// Forgets a folder's content and that it is one.
    fn forget_below(&mut self, path: &str) {
        self.folders
            .retain(|folder, _| folder != path && !is_below(folder, path));
    }

    fn rename(&mut self, from: &str, to: &str) {
        let Some(item) = self.get(from).cloned() else {
            return;
        };
        let inside: Vec<String> = self
            .folders
            .keys()
            .filter(|folder| *folder == from || is_below(folder, from))
            .cloned()
            .collect();
        let moved: Vec<_> = inside
            .into_iter()
            .filter_map(|folder| {
                let children = self.folders.remove(&folder)?;
                Some((format!("{to}{}", &folder[from.len()..]), children))
            })
            .collect();
        self.remove(from);
        self.remove(to);
        self.put(to, item);
        if is_below(to, &self.root) {
            self.folders.extend(moved);
        }
    }

    fn set_children(&mut self, folder: &str, items: &[(String, Item)]) -> Known {
        let mut now: BTreeMap<String, Item> = BTreeMap::new();
        for (path, item) in items {
            let (parent, name) = split(path);
            if parent != folder {
                continue;
            }
            let newer = now.get(name).is_none_or(|known| known.modified() <= item.modified());
            if newer {
                now.insert(name.to_owned(), item.clone());
            }
        }
        if !self.folders.contains_key(folder) {
            if !is_below(folder, &self.root) {
                return Known::Everything;
            }
            self.put(folder, Item::folder());
        }
        let before = self.folders.get(folder).cloned().unwrap_or_default();
        for name in before.keys() {
            if now.get(name).is_none_or(|item| !item.is_folder()) {
                self.forget_below(&join(folder, name));
            }
        }
        let mut known = Known::Everything;
        for (name, item) in &now {
            let path = join(folder, name);
            if item.is_folder() && !self.folders.contains_key(&path) {
                self.folders.insert(path, BTreeMap::new());
                known = Known::NotAll;
            }
        }
        self.folders.insert(folder.to_owned(), now);
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::storra::wire::Listed;

    fn item(kind: &str, updated: u32) -> Item {
        let json = format!(r#"{{"path":"","type":"{kind}","size":1,"updated_at":"2026-01-01T00:00:{updated:02}Z"}}"#);
        serde_json::from_str::<Listed>(&json).unwrap().into_item()
    }

    fn tree(paths: &[&str]) -> Tree {
        let items = paths.iter().map(|path| match path.strip_suffix('/') {
            Some(folder) => (folder.to_owned(), item("folder", 1)),
            None => ((*path).to_owned(), item("file", 1)),
        });
        Tree::listed("", items.collect())
    }

    fn names(tree: &Tree, folder: &str) -> Vec<String> {
        tree.children(folder)
            .map(|children| children.keys().cloned().collect())
            .unwrap_or_default()
    }

    #[test]
    fn folders_that_are_not_listed_are_there_all_the_same() {
        let tree = tree(&["a/b/c", "d/"]);
        assert_eq!(names(&tree, ""), ["a", "d"]);
        assert!(tree.get("a/b").unwrap().is_folder() && tree.is_folder("d"));
        assert!(!tree.is_folder("a/b/c") && tree.children("a/b/c").is_none());
    }

    #[test]
    fn of_several_items_with_one_path_the_latest_counts() {
        for order in [[1, 2], [2, 1]] {
            let items = order.map(|updated| ("f".to_owned(), item("file", updated)));
            let tree = Tree::listed("", items.to_vec());
            assert_eq!(tree.get("f"), Some(&item("file", 2)));
        }
    }

    #[test]
    fn a_folder_moves_with_all_that_is_in_it() {
        let mut tree = tree(&["a/b/c", "a/d", "ab/x", "e/"]);
        tree.apply(&Change::Moved {
            from: "a".into(),
            to: "e/a".into(),
        });
        assert_eq!(names(&tree, ""), ["ab", "e"]);
        assert_eq!(names(&tree, "e/a"), ["b", "d"]);
        assert_eq!(names(&tree, "e/a/b"), ["c"]);
        assert_eq!(names(&tree, "ab"), ["x"]);
        tree.apply(&Change::Removed("e".into()));
        assert_eq!(tree, super::Tree::listed("", vec![("ab/x".into(), item("file", 1))]));
    }

    #[test]
    fn a_folder_listing_replaces_what_was_known_of_it() {
        let mut tree = tree(&["a/old", "a/sub/kept", "a/gone/x", "b"]);
        let listed = |paths: &[(&str, &str)]| {
            let items = paths.iter().map(|(path, kind)| ((*path).to_owned(), item(kind, 1)));
            Change::Children("a".into(), items.collect())
        };
        let change = listed(&[("a/new", "file"), ("a/sub", "folder")]);
        assert_eq!(tree.apply(&change), Known::Everything);
        assert_eq!(names(&tree, "a"), ["new", "sub"]);
        assert_eq!(names(&tree, "a/sub"), ["kept"]);
        assert!(!tree.is_folder("a/gone") && tree.get("b").is_some());
        let change = listed(&[("a/new", "folder")]);
        assert_eq!(tree.apply(&change), Known::NotAll);
        tree.apply(&Change::Missing("a".into()));
        tree.apply(&Change::Missing("".into()));
        assert_eq!(names(&tree, ""), ["b"]);
    }

    #[test]
    fn what_is_not_below_the_root_is_left_out() {
        let tree = Tree::listed(
            "a",
            vec![("a/b".into(), item("file", 1)), ("c".into(), item("file", 1))],
        );
        assert_eq!(names(&tree, "a"), ["b"]);
        assert!(!tree.is_folder(""));
    }
}
