//! A tree as a whole: listed, taken in, and shared with others, each in one transaction.
//!
//! What the others did and what becomes of clashes is decided elsewhere; here it is kept and made.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use uuid::Uuid;

use super::tree::{COLUMNS, PathIndex, Shared, columns, read_row, touch};
use super::{failed, since_epoch};
use crate::model::{
    AdoptedTree, ContentAddress, Error, IndexId, Indexed, IndexedContent, KeptTree, Listed, Listing, PendingChange,
    Result, Taken, Taking, TreeChange, TreePath,
};

impl PathIndex {
    /// The whole tree.
    ///
    /// # Errors
    /// The disk's.
    pub fn listing(&self) -> Result<Listing> {
        Ok(rows(&self.db.connection.lock(), self.root)?.into_listing())
    }

    /// Takes a listing in; directories that it doesn't name and that lead to what it names are made.
    ///
    /// # Errors
    /// The disk's; nothing is changed then.
    pub fn take(&self, listing: &Listing, taking: Taking) -> Result<Taken> {
        self.db.change(|transaction| {
            let mut rows = rows(transaction, self.root)?;
            let (wanted, kept) = match taking {
                Taking::Replace => (listing.clone(), 0),
                Taking::Merge => merged(&rows, listing),
            };
            let taken = rows.become_listing(transaction, &wanted, |change| match self.shared {
                Shared::No => Ok(()),
                Shared::Yes => note(transaction, self.root, &change),
            })?;
            Ok(Taken { kept, ..taken })
        })
    }

    /// Whether there are changes that others don't have.
    ///
    /// # Errors
    /// The disk's.
    pub fn has_pending(&self) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM tree_changes WHERE root = ?1)";
        let connection = self.db.connection.lock();
        connection
            .query_row(sql, params![self.root.0], |row| row.get(0))
            .map_err(failed("look"))
    }

    /// The tree as it is kept, with what the others don't have.
    ///
    /// # Errors
    /// The disk's.
    pub fn kept(&self) -> Result<KeptTree> {
        kept(&self.db.connection.lock(), self.root)
    }

    /// Makes the tree what `merge` makes of it, with all that came until then.
    ///
    /// # Errors
    /// Those of `merge`, and the disk's; nothing is changed then.
    pub fn adopt(&self, merge: &mut dyn FnMut(KeptTree) -> Result<AdoptedTree>) -> Result<()> {
        self.db.change(|transaction| {
            let before = kept(transaction, self.root)?;
            let pending = before.pending.clone();
            let adopted = merge(before)?;
            let mut rows = rows(transaction, self.root)?;
            rows.become_listing(transaction, &adopted.tree, |_| Ok(()))?;
            if pending != adopted.pending {
                forget_changes(transaction, self.root)?;
                for change in &adopted.pending {
                    keep(transaction, self.root, change)?;
                }
            }
            for change in &adopted.more {
                note(transaction, self.root, change)?;
            }
            transaction
                .execute(
                    "INSERT OR REPLACE INTO tree_books (root, book) VALUES (?1, ?2)",
                    params![self.root.0, adopted.book],
                )
                .map(drop)
                .map_err(failed("note"))
        })
    }

    /// What is noted of others and for them.
    pub(super) fn forget_others(&self) -> Result<()> {
        self.db.change(|transaction| {
            forget_changes(transaction, self.root)?;
            transaction
                .execute("DELETE FROM tree_books WHERE root = ?1", params![self.root.0])
                .map(drop)
                .map_err(failed("forget"))
        })
    }
}

/// Keeps a change for those who share the tree.
pub(super) fn note(transaction: &Transaction<'_>, root: IndexId, change: &TreeChange) -> Result<()> {
    transaction
        .execute(
            "INSERT INTO tree_changes (root, mark, change) VALUES (?1, ?2, ?3)",
            params![root.0, Uuid::new_v4().to_string(), text(change)?],
        )
        .map(drop)
        .map_err(failed("note a change"))
}

fn keep(transaction: &Transaction<'_>, root: IndexId, pending: &PendingChange) -> Result<()> {
    transaction
        .execute(
            "INSERT INTO tree_changes (number, root, mark, change) VALUES (?1, ?2, ?3, ?4)",
            params![
                pending.number.cast_signed(),
                root.0,
                pending.mark,
                text(&pending.change)?
            ],
        )
        .map(drop)
        .map_err(failed("note a change"))
}

fn text(change: &TreeChange) -> Result<String> {
    serde_json::to_string(change).map_err(|error| Error::internal(format_args!("a change cannot be noted: {error}")))
}

fn forget_changes(transaction: &Transaction<'_>, root: IndexId) -> Result<()> {
    transaction
        .execute("DELETE FROM tree_changes WHERE root = ?1", params![root.0])
        .map(drop)
        .map_err(failed("forget"))
}

fn kept(connection: &Connection, root: IndexId) -> Result<KeptTree> {
    let pending = connection
        .prepare_cached("SELECT number, mark, change FROM tree_changes WHERE root = ?1 ORDER BY number")
        .and_then(|mut select| {
            let found = select.query_map(params![root.0], |row| {
                Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get::<_, String>(2)?))
            })?;
            found.collect::<rusqlite::Result<Vec<_>>>()
        })
        .map_err(failed("look"))?;
    let read = |(number, mark, text): (i64, String, String)| {
        let change = serde_json::from_str(&text)
            .map_err(|error| Error::internal(format_args!("state database: a change cannot be read ({error})")))?;
        Ok(PendingChange {
            number: number.cast_unsigned(),
            mark,
            change,
        })
    };
    let book = connection
        .query_row("SELECT book FROM tree_books WHERE root = ?1", params![root.0], |row| {
            row.get(0)
        })
        .optional()
        .map_err(failed("look"))?;
    Ok(KeptTree {
        tree: rows(connection, root)?.into_listing(),
        pending: pending.into_iter().map(read).collect::<Result<_>>()?,
        book,
    })
}

/// A tree's entries by their paths.
struct Rows {
    root: IndexId,
    entries: BTreeMap<TreePath, Indexed>,
}

fn rows(connection: &Connection, root: IndexId) -> Result<Rows> {
    let sql = format!(
        "WITH RECURSIVE below (id, depth) AS (
             SELECT id, 1 FROM tree WHERE parent = ?1
             UNION ALL SELECT tree.id, depth + 1 FROM tree JOIN below ON tree.parent = below.id
         ) SELECT {COLUMNS}, parent FROM tree JOIN below USING (id) ORDER BY depth"
    );
    let found = connection
        .prepare_cached(&sql)
        .and_then(|mut select| {
            let rows = select.query_map(params![root.0], |row| Ok((read_row(row)?, row.get(10).map(IndexId)?)))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        })
        .map_err(failed("list"))?;
    let mut paths: BTreeMap<IndexId, TreePath> = BTreeMap::new();
    let mut entries = BTreeMap::new();
    for (indexed, parent) in found {
        let Some(name) = indexed.name.clone() else { continue };
        let path = match paths.get(&parent) {
            Some(above) => Some(above.child(name)),
            None => TreePath::new(vec![name]),
        };
        if let Some(path) = path {
            paths.insert(indexed.id, path.clone());
            entries.insert(path, indexed);
        }
    }
    Ok(Rows { root, entries })
}

/// What the tree becomes, and how many entries of the listing are something else in it.
fn merged(rows: &Rows, listing: &Listing) -> (Listing, usize) {
    let mut tree: Listing = rows.entries.iter().map(listed).collect();
    let mut kept = 0;
    for (path, wanted) in listing.iter() {
        let blocked = path
            .ancestors()
            .any(|above| match tree.get(&above).map(|listed| &listed.content) {
                None | Some(IndexedContent::Directory) => false,
                Some(IndexedContent::Folder(folder)) => !lies_in(&wanted.content, folder),
                Some(IndexedContent::File(_)) => true,
            });
        match tree.get(path) {
            None if !blocked => {
                tree.insert(path.clone(), wanted.clone());
            }
            Some(there) if there.content.is_same_as(&wanted.content) => {}
            _ => kept += 1,
        }
    }
    (tree, kept)
}

fn lies_in(content: &IndexedContent, folder: &ContentAddress) -> bool {
    let address = match content {
        IndexedContent::Directory => return false,
        IndexedContent::Folder(address) => address,
        IndexedContent::File(file) => &file.address,
    };
    address.is_below(folder)
}

fn listed((path, indexed): (&TreePath, &Indexed)) -> (TreePath, Listed) {
    let listed = Listed {
        content: indexed.content.clone(),
        modified: indexed.modified,
    };
    (path.clone(), listed)
}

impl Rows {
    fn into_listing(self) -> Listing {
        self.entries.iter().map(listed).collect()
    }

    /// Changes what differs and nothing else, so that what stays keeps its id. Tells each change before it is made.
    fn become_listing(
        &mut self,
        transaction: &Transaction<'_>,
        wanted: &Listing,
        tell: impl Fn(TreeChange) -> Result<()>,
    ) -> Result<Taken> {
        let mut taken = Taken::default();
        let stays = |path: &TreePath, now: &Indexed| {
            wanted
                .get(path)
                .is_some_and(|then| match (&now.content, &then.content) {
                    (IndexedContent::File(_), IndexedContent::File(_)) => true,
                    (now, then) => now == then,
                })
        };
        let leading: BTreeSet<TreePath> = wanted.iter().flat_map(|(path, _)| path.ancestors()).collect();
        let leads = |path: &TreePath, now: &Indexed| {
            now.content == IndexedContent::Directory && wanted.get(path).is_none() && leading.contains(path)
        };
        let gone: Vec<TreePath> = self
            .entries
            .iter()
            .filter(|(path, now)| !stays(path, now) && !leads(path, now))
            .map(|(path, _)| path.clone())
            .collect();
        // What is in a directory goes before it.
        for path in gone.iter().rev() {
            let Some(now) = self.entries.remove(path) else { continue };
            tell(TreeChange::Remove {
                path: path.clone(),
                was: now.content,
            })?;
            transaction
                .execute("DELETE FROM tree WHERE id = ?1", params![now.id.0])
                .map_err(failed("remove"))?;
            self.touch_above(transaction, path)?;
            taken.removed += 1;
        }
        for (path, then) in wanted.iter() {
            for above in path.ancestors() {
                if !self.entries.contains_key(&above) {
                    let directory = Listed {
                        content: IndexedContent::Directory,
                        modified: then.modified,
                    };
                    self.add(transaction, &above, &directory, &tell)?;
                }
            }
            match self.entries.get(path).map(|now| (now.id, now.content.clone())) {
                None => {
                    self.add(transaction, path, then, &tell)?;
                    taken.added += 1;
                }
                Some((id, IndexedContent::File(now))) => {
                    let IndexedContent::File(file) = &then.content else {
                        continue;
                    };
                    if *file == now {
                        continue;
                    }
                    if file.address != now.address {
                        tell(TreeChange::Replace {
                            path: path.clone(),
                            was: now.address,
                            file: file.clone(),
                            modified: then.modified,
                        })?;
                        taken.replaced += 1;
                    }
                    self.set(transaction, id, then)?;
                }
                Some(_) => {}
            }
        }
        Ok(taken)
    }

    fn add(
        &mut self,
        transaction: &Transaction<'_>,
        path: &TreePath,
        listed: &Listed,
        tell: &impl Fn(TreeChange) -> Result<()>,
    ) -> Result<()> {
        tell(TreeChange::Add {
            path: path.clone(),
            content: listed.content.clone(),
            modified: listed.modified,
        })?;
        let (kind, address, size, sha256) = columns(&listed.content);
        let (seconds, nanos) = since_epoch(listed.modified);
        let parent = self.above(path);
        transaction
            .prepare_cached(
                "INSERT INTO tree (parent, name, kind, address, size, sha256, modified_s, modified_ns)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )
            .and_then(|mut insert| {
                let name = path.name().as_str();
                insert.execute(params![parent.0, name, kind, address, size, sha256, seconds, nanos])
            })
            .map_err(failed("make an entry"))?;
        let indexed = Indexed {
            id: IndexId(transaction.last_insert_rowid()),
            name: Some(path.name().clone()),
            content: listed.content.clone(),
            modified: listed.modified,
            sealed: false,
        };
        self.entries.insert(path.clone(), indexed);
        self.touch_above(transaction, path)
    }

    fn set(&self, transaction: &Transaction<'_>, id: IndexId, listed: &Listed) -> Result<()> {
        let (_, address, size, sha256) = columns(&listed.content);
        let (seconds, nanos) = since_epoch(listed.modified);
        transaction
            .execute(
                "UPDATE tree SET address = ?2, size = ?3, sha256 = ?4, modified_s = ?5, modified_ns = ?6 WHERE id = ?1",
                params![id.0, address, size, sha256, seconds, nanos],
            )
            .map(drop)
            .map_err(failed("replace"))
    }

    fn above(&self, path: &TreePath) -> IndexId {
        let above = path.parent().and_then(|above| self.entries.get(&above));
        above.map_or(self.root, |above| above.id)
    }

    fn touch_above(&self, transaction: &Transaction<'_>, path: &TreePath) -> Result<()> {
        touch(transaction, self.above(path))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;
    use crate::model::{IndexedFile, Name};
    use crate::state::StateDb;

    fn path(text: &str) -> TreePath {
        text.parse().unwrap()
    }

    fn file(letter: char) -> Listed {
        Listed {
            content: IndexedContent::File(IndexedFile {
                address: ContentAddress::new(&letter.to_string().repeat(46)).unwrap(),
                size: 1,
                sha256: None,
            }),
            modified: SystemTime::UNIX_EPOCH,
        }
    }

    fn directory() -> Listed {
        Listed {
            content: IndexedContent::Directory,
            modified: SystemTime::UNIX_EPOCH,
        }
    }

    fn listing(entries: &[(&str, Listed)]) -> Listing {
        entries
            .iter()
            .map(|(text, listed)| (path(text), listed.clone()))
            .collect()
    }

    fn shown(index: &PathIndex) -> Vec<String> {
        let listing = index.listing().unwrap();
        let line = |(path, listed): (&TreePath, &Listed)| match &listed.content {
            IndexedContent::File(file) => format!("{path}={}", &file.address.as_str()[..1]),
            _ => path.to_string(),
        };
        listing.iter().map(line).collect()
    }

    fn index(shared: Shared) -> PathIndex {
        PathIndex::open(Arc::new(StateDb::in_memory().unwrap()), "test", shared).unwrap()
    }

    #[test]
    fn a_listing_is_merged_or_replaces_the_tree() {
        let index = index(Shared::No);
        let first = listing(&[("a", directory()), ("a/x", file('x')), ("b", file('b'))]);
        let taken = index.take(&first, Taking::Merge).unwrap();
        assert_eq!((taken.added, taken.kept), (3, 0));
        let kept = index.child(index.root(), &Name::new("a").unwrap()).unwrap().id;
        let second = listing(&[
            ("a/y", file('y')),
            ("b", file('c')),
            ("b/z", file('z')),
            ("d/e/f", file('f')),
        ]);
        let taken = index.take(&second, Taking::Merge).unwrap();
        assert_eq!((taken.added, taken.replaced, taken.removed, taken.kept), (2, 0, 0, 2));
        assert_eq!(shown(&index), ["a", "a/x=x", "a/y=y", "b=b", "d", "d/e", "d/e/f=f"]);
        let third = listing(&[("a/y", file('q')), ("d", file('d'))]);
        let taken = index.take(&third, Taking::Replace).unwrap();
        assert_eq!((taken.added, taken.replaced, taken.removed), (1, 1, 5));
        assert_eq!(shown(&index), ["a", "a/y=q", "d=d"]);
        let now = index.child(index.root(), &Name::new("a").unwrap()).unwrap().id;
        assert_eq!(now, kept, "what stays keeps its id");
        assert_eq!(index.take(&third, Taking::Replace).unwrap(), Taken::default());
    }

    #[test]
    fn changes_of_a_shared_tree_are_noted_and_those_of_another_are_not() {
        for shared in [Shared::Yes, Shared::No] {
            let index = index(shared);
            let name = |text: &str| Name::new(text).unwrap();
            let root = index.root();
            let now = SystemTime::UNIX_EPOCH;
            let folder = index.insert(root, &name("d"), &IndexedContent::Directory, now).unwrap();
            let made = index.insert(folder.id, &name("f"), &file('a').content, now).unwrap();
            let IndexedContent::File(other) = file('b').content else {
                panic!("a file")
            };
            let address = made.file().unwrap().address.clone();
            index.replace(made.id, &address, &other, now).unwrap();
            index.relocate(made.id, root, &name("g"), None).unwrap();
            index.remove(made.id).unwrap();
            let kept = index.kept().unwrap();
            let words: Vec<String> = kept
                .pending
                .iter()
                .map(|pending| text(&pending.change).unwrap())
                .collect();
            if shared == Shared::No {
                assert!(words.is_empty());
                continue;
            }
            for (word, begins) in words.iter().zip([
                r#"{"add":{"path":"d","#,
                r#"{"add":{"path":"d/f","#,
                r#"{"replace":{"path":"d/f","#,
                r#"{"move":{"from":"d/f","to":"g","#,
                r#"{"remove":{"path":"g","#,
            ]) {
                assert!(word.starts_with(begins), "{word}");
            }
            assert_eq!(words.len(), 5);
            assert!(kept.pending.is_sorted_by_key(|pending| pending.number));
        }
    }

    #[test]
    fn what_a_merge_makes_is_kept_with_what_came_meanwhile() {
        let index = index(Shared::Yes);
        index.take(&listing(&[("mine", file('m'))]), Taking::Merge).unwrap();
        let refused = index.adopt(&mut |_| Err(Error::bad_data("no")));
        assert!(refused.is_err());
        assert_eq!(shown(&index), ["mine=m"]);
        let numbers: Vec<u64> = index
            .kept()
            .unwrap()
            .pending
            .iter()
            .map(|pending| pending.number)
            .collect();
        index
            .adopt(&mut |kept| {
                assert_eq!((kept.pending.len(), kept.book), (1, None));
                Ok(AdoptedTree {
                    tree: listing(&[("mine", file('m')), ("theirs", file('t'))]),
                    pending: Vec::new(),
                    more: vec![TreeChange::Nothing],
                    book: "page".to_owned(),
                })
            })
            .unwrap();
        assert_eq!(shown(&index), ["mine=m", "theirs=t"]);
        let kept = index.kept().unwrap();
        assert_eq!(kept.book.as_deref(), Some("page"));
        assert!(kept.pending[0].number > numbers[0], "a number is given once");
    }
}
