//! Makes changes on a tree that others have changed since their maker saw it.
//!
//! Nothing that somebody stored is lost: of two contents for one name the one that is there keeps the name, and the
//! other is put beside it under a name of its own. A change of a content wins over its removal, and over a rename only
//! the name. Two machines that rename one file differently end with both names.

use std::time::SystemTime;

use crate::model::{
    ContentAddress, IndexedContent, IndexedFile, Listed, Listing, Name, TreeChange, TreePath, conflict_name,
};

/// Whose the versions are that step aside, and on which day.
#[derive(Clone, Debug)]
pub struct Signature {
    pub host: String,
    /// As `2026-11-22`.
    pub date: String,
}

/// A tree on which one machine's changes are made, in the order in which it made them.
pub(super) struct Merge<'a> {
    tree: Listing,
    signature: &'a Signature,
    /// Where what the machine knew under a path is now, oldest first.
    aside: Vec<(TreePath, TreePath)>,
}

impl<'a> Merge<'a> {
    pub(super) fn new(tree: Listing, signature: &'a Signature) -> Self {
        Self {
            tree,
            signature,
            aside: Vec::new(),
        }
    }

    pub(super) fn into_tree(self) -> Listing {
        self.tree
    }

    /// Makes a change, and gives it as it was made: with the paths that it got, so that it can be made again on a tree
    /// that others have changed once more.
    pub(super) fn make(&mut self, change: TreeChange) -> TreeChange {
        let change = self
            .aside
            .iter()
            .fold(change, |change, (from, to)| change.moved(from, to));
        match change {
            TreeChange::Add {
                path,
                content,
                modified,
            } => self.add(path, content, modified),
            TreeChange::Replace {
                path,
                was,
                file,
                modified,
            } => self.replace(path, was, file, modified),
            TreeChange::Remove { path, was } => self.remove(path, was),
            TreeChange::Move {
                from,
                to,
                what,
                modified,
                over,
            } => self.relocate(from, to, what, modified, over),
            TreeChange::Nothing => TreeChange::Nothing,
        }
    }

    fn add(&mut self, path: TreePath, content: IndexedContent, modified: SystemTime) -> TreeChange {
        let path = self.open(path, &content, modified);
        let path = match self.tree.get(&path) {
            Some(there) if !there.content.is_same_as(&content) => self.step_aside(&path),
            _ => path,
        };
        if self.tree.get(&path).is_none() {
            self.put(&path, &content, modified);
        }
        TreeChange::Add {
            path,
            content,
            modified,
        }
    }

    fn replace(&mut self, path: TreePath, was: ContentAddress, file: IndexedFile, modified: SystemTime) -> TreeChange {
        let content = IndexedContent::File(file.clone());
        match self.tree.get(&path).map(|there| &there.content) {
            Some(IndexedContent::File(there)) if there.address == was || there.address == file.address => {
                self.put(&path, &content, modified);
                TreeChange::Replace {
                    path,
                    was,
                    file,
                    modified,
                }
            }
            _ => self.add(path, content, modified),
        }
    }

    fn remove(&mut self, path: TreePath, was: IndexedContent) -> TreeChange {
        let is_it = self.tree.get(&path).is_some_and(|there| there.content.is_same_as(&was));
        if !is_it || self.is_filled_directory(&path) {
            return TreeChange::Nothing;
        }
        self.tree.remove(&path);
        TreeChange::Remove { path, was }
    }

    fn relocate(
        &mut self,
        from: TreePath,
        to: TreePath,
        what: IndexedContent,
        modified: SystemTime,
        over: Option<IndexedContent>,
    ) -> TreeChange {
        let there = self.tree.get(&from).map(|there| there.content.clone());
        let Some(there) = there.filter(|there| there.is_directory() == what.is_directory()) else {
            return match (what, over) {
                (IndexedContent::File(file), Some(IndexedContent::File(over))) => {
                    self.replace(to, over.address, file, modified)
                }
                (content @ IndexedContent::File(_), _) => self.add(to, content, modified),
                // Whoever moved it has what is in it, and whoever removed it removed that before.
                _ => TreeChange::Nothing,
            };
        };
        if to.is_at_or_below(&from) {
            return TreeChange::Nothing;
        }
        let to = self.open(to, &there, modified);
        if to.is_at_or_below(&from) {
            return TreeChange::Nothing;
        }
        let (to, over) = match self.tree.get(&to).map(|now| now.content.clone()) {
            None => (to, None),
            Some(now) if !now.is_directory() && now.is_same_as(&there) => {
                self.tree.remove(&from);
                return TreeChange::Remove { path: from, was: there };
            }
            Some(now) if over.as_ref().is_some_and(|over| over.is_same_as(&now)) && !self.is_filled_directory(&to) => {
                self.tree.remove(&to);
                (to, over)
            }
            Some(_) => (self.step_aside(&to), None),
        };
        self.tree.relocate(&from, &to);
        TreeChange::Move {
            from,
            to,
            what: there,
            modified,
            over,
        }
    }

    /// Sees to it that a path leads through directories only; one that is something else by now gets another name.
    fn open(&mut self, mut path: TreePath, content: &IndexedContent, modified: SystemTime) -> TreePath {
        let mut depth = 0;
        while depth + 1 < path.depth() {
            let Some(above) = path.ancestors().nth(depth) else {
                break;
            };
            match self.tree.get(&above).map(|there| &there.content) {
                Some(IndexedContent::Directory) => {}
                Some(IndexedContent::Folder(folder)) if lies_in(content, folder) => {}
                None => self.put(&above, &IndexedContent::Directory, modified),
                Some(_) => {
                    let aside = self.step_aside(&above);
                    self.put(&aside, &IndexedContent::Directory, modified);
                    path = path.moved(&above, &aside);
                }
            }
            depth += 1;
        }
        path
    }

    /// A free name beside this one; what comes later for this one goes there.
    fn step_aside(&mut self, path: &TreePath) -> TreePath {
        let mut number = 1;
        let aside = loop {
            let Signature { host, date } = self.signature;
            let named = conflict_name(path.name(), host, date, number, |_| Ok(()))
                // An extension that leaves no room.
                .or_else(|_| Name::new(format!("conflict from {host} {date} {number}")));
            if let Ok(name) = named {
                let aside = path.with_name(name);
                if self.tree.get(&aside).is_none() {
                    break aside;
                }
            }
            number += 1;
        };
        self.aside.push((path.clone(), aside.clone()));
        aside
    }

    fn put(&mut self, path: &TreePath, content: &IndexedContent, modified: SystemTime) {
        let listed = Listed {
            content: content.clone(),
            modified,
        };
        self.tree.insert(path.clone(), listed);
    }

    fn is_filled_directory(&self, path: &TreePath) -> bool {
        let there = self.tree.get(path).map(|there| &there.content);
        there == Some(&IndexedContent::Directory) && self.tree.has_children(path)
    }
}

fn lies_in(content: &IndexedContent, folder: &ContentAddress) -> bool {
    match content {
        IndexedContent::Directory => false,
        IndexedContent::Folder(address) => address.is_below(folder),
        IndexedContent::File(file) => file.address.is_below(folder),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        text.parse().unwrap()
    }

    fn address(letter: char) -> ContentAddress {
        ContentAddress::new(&letter.to_string().repeat(46)).unwrap()
    }

    fn indexed(letter: char) -> IndexedFile {
        IndexedFile {
            address: address(letter),
            size: 1,
            sha256: None,
        }
    }

    fn file(letter: char) -> IndexedContent {
        IndexedContent::File(indexed(letter))
    }

    const D: IndexedContent = IndexedContent::Directory;
    const AT: SystemTime = SystemTime::UNIX_EPOCH;

    fn add(text: &str, content: IndexedContent) -> TreeChange {
        TreeChange::Add {
            path: path(text),
            content,
            modified: AT,
        }
    }

    fn edit(text: &str, was: char, now: char) -> TreeChange {
        TreeChange::Replace {
            path: path(text),
            was: address(was),
            file: indexed(now),
            modified: AT,
        }
    }

    fn remove(text: &str, was: IndexedContent) -> TreeChange {
        TreeChange::Remove { path: path(text), was }
    }

    fn rename(from: &str, to: &str, what: IndexedContent, over: Option<IndexedContent>) -> TreeChange {
        TreeChange::Move {
            from: path(from),
            to: path(to),
            what,
            modified: AT,
            over,
        }
    }

    /// `a=x` is a file with a content, `a` a directory.
    fn tree(entries: &[&str]) -> Listing {
        let entry = |text: &&str| {
            let (at, content) = match text.split_once('=') {
                Some((at, letter)) => (at, file(letter.chars().next().unwrap())),
                None => (*text, D),
            };
            (path(at), Listed { content, modified: AT })
        };
        entries.iter().map(entry).collect()
    }

    #[track_caller]
    fn check(before: &[&str], changes: &[TreeChange], after: &[&str]) {
        let signature = Signature {
            host: "laptop".to_owned(),
            date: "2026-11-22".to_owned(),
        };
        let mut merge = Merge::new(tree(before), &signature);
        let made: Vec<TreeChange> = changes.iter().map(|change| merge.make(change.clone())).collect();
        let merged = merge.into_tree();
        assert_eq!(merged, tree(after), "{made:?}");
        // As they were made they have the same effect.
        let mut again = Merge::new(tree(before), &signature);
        for change in made {
            again.make(change);
        }
        assert_eq!(again.into_tree(), merged);
    }

    #[test]
    fn changes_of_different_entries_are_made() {
        check(
            &["a", "a/x=x", "gone=g"],
            &[
                add("a/new", file('n')),
                edit("a/x", 'x', 'y'),
                remove("gone", file('g')),
                rename("a", "b", D, None),
            ],
            &["b", "b/new=n", "b/x=y"],
        );
    }

    #[test]
    fn of_two_new_files_of_one_name_both_stay() {
        check(
            &["f.txt=o"],
            &[add("f.txt", file('m')), edit("f.txt", 'm', 'n')],
            &["f.txt=o", "f (conflict from laptop 2026-11-22).txt=n"],
        );
        check(&["f=o"], &[add("f", file('o'))], &["f=o"]);
        check(
            &["f=o", "f (conflict from laptop 2026-11-22)=p"],
            &[add("f", file('m'))],
            &[
                "f=o",
                "f (conflict from laptop 2026-11-22)=p",
                "f (conflict from laptop 2026-11-22 2)=m",
            ],
        );
    }

    #[test]
    fn of_two_edits_both_stay_and_an_edit_wins_over_a_removal() {
        check(
            &["f=t"],
            &[edit("f", 'x', 'm')],
            &["f=t", "f (conflict from laptop 2026-11-22)=m"],
        );
        check(&[], &[edit("a/f", 'x', 'm')], &["a", "a/f=m"]);
        check(&["f=t"], &[remove("f", file('x'))], &["f=t"]);
        check(&[], &[remove("f", file('x'))], &[]);
        check(&["d", "d/new=n"], &[remove("d", D)], &["d", "d/new=n"]);
    }

    #[test]
    fn renames_meet_other_changes() {
        // What was changed there is what moves.
        check(&["f=t"], &[rename("f", "g", file('x'), None)], &["g=t"]);
        check(
            &["d", "d/new=n"],
            &[rename("d", "e", D, None), add("e/mine", file('m'))],
            &["e", "e/new=n", "e/mine=m"],
        );
        // Somebody else gave it another name, or took it away.
        check(&["h=x"], &[rename("f", "g", file('x'), None)], &["h=x", "g=x"]);
        check(
            &[],
            &[rename("d", "e", D, None), add("e/f", file('m'))],
            &["e", "e/f=m"],
        );
        // The new name is taken by something else than what was seen there.
        check(
            &["tmp=m", "f=t"],
            &[rename("tmp", "f", file('m'), Some(file('x')))],
            &["f=t", "f (conflict from laptop 2026-11-22)=m"],
        );
        check(
            &["tmp=m", "f=x"],
            &[rename("tmp", "f", file('m'), Some(file('x')))],
            &["f=m"],
        );
        check(&["f=x"], &[rename("tmp", "f", file('m'), Some(file('x')))], &["f=m"]);
        check(&["d"], &[rename("d", "d", D, None)], &["d"]);
        check(&["a", "a/b"], &[rename("a", "a/b/c", D, None)], &["a", "a/b"]);
    }

    #[test]
    fn a_directory_whose_name_a_file_took_gets_another_with_all_that_comes() {
        check(
            &["d=t"],
            &[add("d", D), add("d/e", D), add("d/e/f", file('m'))],
            &[
                "d=t",
                "d (conflict from laptop 2026-11-22)",
                "d (conflict from laptop 2026-11-22)/e",
                "d (conflict from laptop 2026-11-22)/e/f=m",
            ],
        );
        check(
            &["d=t"],
            &[add("d/f", file('m'))],
            &[
                "d=t",
                "d (conflict from laptop 2026-11-22)",
                "d (conflict from laptop 2026-11-22)/f=m",
            ],
        );
    }

    #[test]
    fn a_hashed_folder_takes_only_what_is_in_it() {
        let signature = Signature {
            host: "laptop".to_owned(),
            date: "2026-11-22".to_owned(),
        };
        let folder = Listed {
            content: IndexedContent::Folder(address('F')),
            modified: AT,
        };
        let mut merge = Merge::new([(path("site"), folder)].into_iter().collect(), &signature);
        let within = IndexedContent::File(IndexedFile {
            address: ContentAddress::new(&format!("{}/page", address('F'))).unwrap(),
            size: 1,
            sha256: None,
        });
        merge.make(add("site/page", within));
        merge.make(add("site/mine", file('m')));
        let paths: Vec<String> = merge.tree.iter().map(|(path, _)| path.to_string()).collect();
        let aside = "site (conflict from laptop 2026-11-22)";
        assert_eq!(paths, ["site", "site/page", aside, &format!("{aside}/mine")]);
        let mut merge = Merge::new(merge.into_tree(), &signature);
        merge.make(remove("site", IndexedContent::Folder(address('F'))));
        assert_eq!(merge.tree.len(), 2, "an immutable folder goes as a whole");
    }
}
