//! What one look at the shared index means here: which changes it has, which are to be made on it, what is written.
//!
//! Pure: the same tree kept here and the same shared index give the same plan. Why no change is lost and none is made
//! twice is told in the head of the module above.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::index_file;
use super::merge::{Merge, Signature};
use crate::model::{
    AdoptedTree, Error, ErrorKind, KeptTree, Listed, Listing, PendingChange, Result, TreeChange, TreePath,
};

/// The shared index as it was read.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedIndex {
    head: Option<Head>,
    tree: Listing,
}

/// What the first line of a shared index says beside its form.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Head {
    /// Made anew when somebody begins an index where none was.
    lineage: Uuid,
    /// One more with every write.
    revision: u64,
    /// Of this revision.
    mark: Uuid,
    /// How many entries follow: what was cut off is not taken for a short index.
    entries: usize,
    /// The last change of each machine that is in the tree.
    hosts: BTreeMap<Uuid, Made>,
    /// Fills the text so that two revisions within a second differ in length: some servers make a version of these two.
    #[serde(default)]
    fill: String,
}

/// A machine's change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Made {
    /// The machine's name, for people.
    name: String,
    number: u64,
    mark: String,
}

/// What is known here of the shared index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Book {
    /// Where the index is; at another place everything begins anew.
    place: String,
    /// Who this machine is there.
    host: Uuid,
    /// The newest state that was seen: lineage, revision and its mark. `None` while there is no index.
    seen: Option<(Uuid, u64, Uuid)>,
    /// The last change of this machine that was seen in it.
    made: Option<(u64, String)>,
}

/// What to do about a shared index.
pub(super) struct Plan {
    adopted: AdoptedTree,
    /// What to write over the state that was read.
    pub(super) write: Option<SharedIndex>,
    pub(super) finding: Finding,
}

/// How the shared index and what is known here fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// One follows from the other.
    Follows,
    /// The first look at this place: what is here and what is there are put together.
    First,
    /// The index is older than what was seen, or another one: what is here and what is there are put together.
    WentBack,
    /// This machine's state is that of another one, or was put back: it goes on under another id.
    Doubled,
}

/// How many different lengths follow each other.
const LENGTHS: u64 = 64;

impl SharedIndex {
    /// # Errors
    /// `BadData` for what is damaged or still being written, `Unsupported` for what a newer keymount wrote.
    pub(super) fn read(bytes: &[u8]) -> Result<Self> {
        let damaged = |why: &str| {
            Err(Error::bad_data(format!(
                "the shared index is damaged or half written ({why})"
            )))
        };
        let Ok(text) = std::str::from_utf8(bytes) else {
            return damaged("it is not UTF-8");
        };
        match index_file::read_shared::<Head>(text) {
            Ok((Some(head), tree)) if head.entries == tree.len() => Ok(Self { head: Some(head), tree }),
            Ok((Some(_), _)) => damaged("entries are missing"),
            Ok((None, _)) => damaged("its first line says nothing of the machines that share it"),
            Err(error) if error.kind() == ErrorKind::Unsupported => Err(error),
            Err(error) => damaged(error.message()),
        }
    }

    pub(super) fn write(&self) -> Result<Vec<u8>> {
        let text = index_file::write_shared(&self.tree, self.head.as_ref())?;
        let Some(head) = &self.head else {
            return Ok(text.into_bytes());
        };
        // The length, divided by the number of lengths, leaves what the revision leaves.
        let fill = (head.revision % LENGTHS + LENGTHS - text.len() as u64 % LENGTHS) % LENGTHS;
        let filled = Head {
            fill: " ".repeat(fill as usize),
            ..head.clone()
        };
        Ok(index_file::write_shared(&self.tree, Some(&filled))?.into_bytes())
    }

    pub(super) fn len(&self) -> usize {
        self.tree.len()
    }

    fn seen(&self) -> Option<(Uuid, u64, Uuid)> {
        self.head.as_ref().map(|head| (head.lineage, head.revision, head.mark))
    }

    fn made(&self, host: Uuid) -> Option<(u64, String)> {
        let made = self.head.as_ref()?.hosts.get(&host)?;
        Some((made.number, made.mark.clone()))
    }
}

impl Plan {
    pub(super) fn into_adopted(self) -> AdoptedTree {
        self.adopted
    }
}

/// # Errors
/// `Internal` when what is noted here cannot be read.
pub(super) fn plan(kept: KeptTree, shared: &SharedIndex, place: &str, signature: &Signature) -> Result<Plan> {
    let noted: Option<Book> = match &kept.book {
        Some(text) => Some(
            serde_json::from_str(text)
                .map_err(|error| Error::internal(format_args!("what is known of the shared index ({error})")))?,
        ),
        None => None,
    };
    let Some(mut book) = noted.filter(|book| book.place == place) else {
        return joined(kept, shared, Finding::First, Uuid::new_v4(), place, signature);
    };
    if went_back(&book, shared) {
        return joined(kept, shared, Finding::WentBack, book.host, place, signature);
    }
    let made = shared.made(book.host);
    let mut finding = Finding::Follows;
    let mut pending = kept.pending;
    if made != book.made {
        let (number, mark) = made.unwrap_or_default();
        if pending
            .iter()
            .any(|change| change.number == number && change.mark == mark)
        {
            pending.retain(|change| change.number > number);
            book.made = Some((number, mark));
        } else {
            finding = Finding::Doubled;
            book.host = Uuid::new_v4();
            book.made = None;
        }
    }
    let mut merge = Merge::new(shared.tree.clone(), signature);
    for change in &mut pending {
        change.change = merge.make(std::mem::replace(&mut change.change, TreeChange::Nothing));
    }
    let tree = merge.into_tree();
    book.seen = shared.seen();
    let write = pending
        .last()
        .map(|last| next(shared, &book, last, tree.clone(), signature));
    let adopted = AdoptedTree {
        tree,
        pending,
        more: Vec::new(),
        book: page(&book)?,
    };
    Ok(Plan {
        adopted,
        write,
        finding,
    })
}

/// Whether the index lacks what was in it already.
fn went_back(book: &Book, shared: &SharedIndex) -> bool {
    let older = match (book.seen, shared.seen()) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some((lineage, revision, mark)), Some((their_lineage, their_revision, their_mark))) => {
            lineage != their_lineage || their_revision < revision || (their_revision == revision && their_mark != mark)
        }
    };
    // A server that looked at the condition too early may have let two of us write over the same state.
    let ours = shared.made(book.host).map(|(number, _)| number);
    older || ours < book.made.as_ref().map(|(number, _)| *number)
}

/// What is here and not there becomes a change of this machine.
fn joined(
    kept: KeptTree,
    shared: &SharedIndex,
    finding: Finding,
    host: Uuid,
    place: &str,
    signature: &Signature,
) -> Result<Plan> {
    let mut merge = Merge::new(shared.tree.clone(), signature);
    let is_new = |(path, listed): &(&TreePath, &Listed)| {
        let there = shared.tree.get(path);
        there.is_none_or(|there| !there.content.is_same_as(&listed.content))
    };
    let more: Vec<TreeChange> = kept
        .tree
        .iter()
        .filter(|entry| is_new(entry))
        .map(|(path, listed)| TreeChange::Add {
            path: path.clone(),
            content: listed.content.clone(),
            modified: listed.modified,
        })
        .map(|change| merge.make(change))
        .collect();
    let book = Book {
        place: place.to_owned(),
        host,
        seen: shared.seen(),
        made: shared.made(host),
    };
    let adopted = AdoptedTree {
        tree: merge.into_tree(),
        pending: Vec::new(),
        more,
        book: page(&book)?,
    };
    Ok(Plan {
        adopted,
        write: None,
        finding,
    })
}

/// The state after this one, with all changes of this machine up to the last.
fn next(shared: &SharedIndex, book: &Book, last: &PendingChange, tree: Listing, signature: &Signature) -> SharedIndex {
    let (lineage, revision, mut hosts) = match &shared.head {
        Some(head) => (head.lineage, head.revision, head.hosts.clone()),
        None => (Uuid::new_v4(), 0, BTreeMap::new()),
    };
    let made = Made {
        name: signature.host.clone(),
        number: last.number,
        mark: last.mark.clone(),
    };
    hosts.insert(book.host, made);
    let head = Head {
        lineage,
        revision: revision + 1,
        mark: Uuid::new_v4(),
        entries: tree.len(),
        hosts,
        fill: String::new(),
    };
    SharedIndex { head: Some(head), tree }
}

fn page(book: &Book) -> Result<String> {
    serde_json::to_string(book).map_err(|error| Error::internal(format_args!("the book cannot be written: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_that_follow_each_other_differ_in_length() {
        let head = |revision| Head {
            lineage: Uuid::nil(),
            revision,
            mark: Uuid::nil(),
            entries: 0,
            hosts: BTreeMap::new(),
            fill: String::new(),
        };
        let length = |revision| {
            let index = SharedIndex {
                head: Some(head(revision)),
                tree: Listing::default(),
            };
            let bytes = index.write().unwrap();
            assert_eq!(SharedIndex::read(&bytes).unwrap().seen(), index.seen());
            bytes.len()
        };
        for revision in [1, 8, 62, 63, 64, 998, 1000] {
            let lengths: std::collections::BTreeSet<usize> = (revision..revision + LENGTHS).map(length).collect();
            assert_eq!(lengths.len() as u64, LENGTHS, "from {revision} on");
        }
    }

    #[test]
    fn what_was_cut_off_is_not_a_short_index() {
        let text = |entries: usize| {
            format!(
                "{{\"index\":\"dstor\",\"version\":1,\"sharing\":{{\"lineage\":\"{0}\",\"revision\":1,\"mark\":\"{0}\",\
                 \"entries\":{entries},\"hosts\":{{}}}}}}\n{{\"path\":\"a\",\"kind\":\"directory\"}}\n",
                Uuid::nil()
            )
        };
        assert_eq!(SharedIndex::read(text(1).as_bytes()).unwrap().len(), 1);
        for damaged in [
            text(2),
            String::new(),
            "{\"index\":\"dstor\",\"version\":1}\n".to_owned(),
            text(1)[..60].to_owned(),
        ] {
            let error = SharedIndex::read(damaged.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BadData, "{damaged:?}");
        }
        assert_eq!(SharedIndex::read(b"\xff").unwrap_err().kind(), ErrorKind::BadData);
    }
}
