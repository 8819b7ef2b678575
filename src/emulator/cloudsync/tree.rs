//! The files and folders of one workspace.
//!
//! Responsible for ids that stay across moves, for versions, and for what a change does to the tree. Not responsible
//! for who may change it, nor for JSON.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use bytes::Bytes;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::access::fresh_id;
use super::assumptions::{LONGEST_NAME, Parents};

/// The folder above all others; it has no id that a client could know.
const ROOT: &str = "/";

/// Files and folders by id.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    nodes: HashMap<String, Node>,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) name: String,
    parent: String,
    pub(super) created: Timestamp,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Folder(BTreeMap<String, String>),
    File(File),
}

/// A file with its versions.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) mime: String,
    /// The e-mail address of who made it.
    pub(super) created_by: String,
    pub(super) current: Version,
    /// Oldest first.
    pub(super) former: Vec<Version>,
}

#[derive(Debug, Clone)]
pub(super) struct Version {
    pub(super) number: u64,
    pub(super) content: Bytes,
    /// `sha256:…`
    pub(super) hash: String,
    pub(super) modified: Timestamp,
    /// The e-mail address of who made it.
    pub(super) modified_by: String,
}

/// Content on its way into a file.
#[derive(Debug, Clone)]
pub(super) struct NewContent {
    pub(super) content: Bytes,
    pub(super) mime: Option<String>,
    pub(super) by: String,
    pub(super) at: Timestamp,
    /// How many former versions stay.
    pub(super) keep: u64,
}

/// Why a change can't be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hindrance {
    /// A folder on the way isn't there.
    NoParent,
    /// Something has that path already.
    Taken,
    /// A folder can't go into itself.
    IntoItself,
    /// There is no such file or folder.
    Missing,
}

impl Tree {
    pub(super) fn new(now: Timestamp) -> Self {
        let root = Node {
            name: String::new(),
            parent: ROOT.to_owned(),
            created: now,
            kind: Kind::Folder(BTreeMap::new()),
        };
        Self {
            nodes: HashMap::from([(ROOT.to_owned(), root)]),
        }
    }

    /// A file or folder by id; never the root.
    pub(super) fn node(&self, id: &str) -> Option<&Node> {
        self.nodes.get(id).filter(|_| id != ROOT)
    }

    /// The id of what has this path; the root's is [`ROOT`].
    pub(super) fn find(&self, path: &[String]) -> Option<&str> {
        let mut id = ROOT;
        for name in path {
            id = self.child(id, name)?;
        }
        Some(id)
    }

    /// The entries of a folder, sorted by name, after the one of this name.
    pub(super) fn children(&self, folder: &str, after: Option<&str>) -> Option<impl Iterator<Item = &str> + use<'_>> {
        let Kind::Folder(children) = &self.nodes.get(folder)?.kind else {
            return None;
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        Some(children.range::<str, _>((from, Bound::Unbounded)).map(|(_, id)| &**id))
    }

    /// The path of a file or folder from the workspace, as in `/documents/report.pdf`.
    pub(super) fn path(&self, id: &str) -> String {
        let mut names = Vec::new();
        let mut at = id;
        while let Some(node) = self.node(at) {
            names.push(node.name.as_str());
            at = &node.parent;
        }
        names.reverse();
        format!("/{}", names.join("/"))
    }

    /// Files, and bytes in their current versions.
    pub(super) fn usage(&self) -> (u64, u64) {
        self.nodes
            .values()
            .fold((0, 0), |(files, bytes), node| match &node.kind {
                Kind::File(file) => (files + 1, bytes + file.current.content.len() as u64),
                Kind::Folder(_) => (files, bytes),
            })
    }

    pub(super) fn make_folder(
        &mut self,
        path: &[String],
        parents: Parents,
        now: Timestamp,
    ) -> Result<String, Hindrance> {
        if self.find(path).is_some() {
            return Err(Hindrance::Taken);
        }
        let (name, above) = path.split_last().ok_or(Hindrance::Taken)?;
        let parent = self.folder_for(above, parents, now)?;
        Ok(self.add(&parent, name, now, Kind::Folder(BTreeMap::new())))
    }

    /// Writes a new file, or a new version of the one that is there; tells its id.
    pub(super) fn write(&mut self, path: &[String], new: NewContent, parents: Parents) -> Result<String, Hindrance> {
        let (name, above) = path.split_last().ok_or(Hindrance::Taken)?;
        let parent = self.folder_for(above, parents, new.at)?;
        match self.child(&parent, name).map(str::to_owned) {
            Some(id) => {
                self.write_version(&id, new)?;
                Ok(id)
            }
            None => {
                let mime = new.mime.clone().unwrap_or_else(|| mime_of(name));
                let file = File {
                    mime,
                    created_by: new.by.clone(),
                    current: Version::new(1, &new),
                    former: Vec::new(),
                };
                Ok(self.add(&parent, name, new.at, Kind::File(file)))
            }
        }
    }

    /// Gives a file its next version.
    pub(super) fn write_version(&mut self, id: &str, new: NewContent) -> Result<(), Hindrance> {
        let Node { kind, .. } = self.nodes.get_mut(id).ok_or(Hindrance::Missing)?;
        let Kind::File(file) = kind else {
            return Err(Hindrance::Taken);
        };
        let next = Version::new(file.current.number + 1, &new);
        file.former.push(std::mem::replace(&mut file.current, next));
        let keep = usize::try_from(new.keep).unwrap_or(usize::MAX);
        let surplus = file.former.len().saturating_sub(keep);
        file.former.drain(..surplus);
        if let Some(mime) = new.mime {
            file.mime = mime;
        }
        Ok(())
    }

    /// Gives a file or folder another path that is free.
    pub(super) fn relocate(
        &mut self,
        id: &str,
        path: &[String],
        parents: Parents,
        now: Timestamp,
    ) -> Result<(), Hindrance> {
        let old = self.node(id).ok_or(Hindrance::Missing)?;
        let (old_parent, old_name) = (old.parent.clone(), old.name.clone());
        if self.find(path).is_some() {
            return Err(Hindrance::Taken);
        }
        let (name, above) = path.split_last().ok_or(Hindrance::Taken)?;
        let mut passed = ROOT;
        for step in above {
            match self.child(passed, step) {
                Some(next) if next == id => return Err(Hindrance::IntoItself),
                Some(next) => passed = next,
                None => break,
            }
        }
        let parent = self.folder_for(above, parents, now)?;
        self.unlink(&old_parent, &old_name);
        if let Some(node) = self.nodes.get_mut(id) {
            name.clone_into(&mut node.name);
            node.parent.clone_from(&parent);
        }
        self.link(&parent, name, id);
        Ok(())
    }

    /// Removes a file, or a folder with all that is in it; whether there was one.
    pub(super) fn remove(&mut self, id: &str) -> bool {
        let Some(node) = self.node(id) else {
            return false;
        };
        let (parent, name) = (node.parent.clone(), node.name.clone());
        self.unlink(&parent, &name);
        let mut doomed = vec![id.to_owned()];
        while let Some(id) = doomed.pop() {
            if let Some(Node {
                kind: Kind::Folder(children),
                ..
            }) = self.nodes.remove(&id)
            {
                doomed.extend(children.into_values());
            }
        }
        true
    }

    fn child(&self, folder: &str, name: &str) -> Option<&str> {
        match &self.nodes.get(folder)?.kind {
            Kind::Folder(children) => children.get(name).map(String::as_str),
            Kind::File(_) => None,
        }
    }

    /// The folder of this path, made with those above it if it may be.
    fn folder_for(&mut self, path: &[String], parents: Parents, now: Timestamp) -> Result<String, Hindrance> {
        // Looked at first: what can't be made in whole isn't begun.
        let mut at = ROOT;
        let mut known = 0;
        for name in path {
            match self.child(at, name) {
                Some(next) => at = next,
                None => break,
            }
            known += 1;
        }
        if matches!(
            self.nodes.get(at),
            Some(Node {
                kind: Kind::File(_),
                ..
            })
        ) {
            return Err(Hindrance::Taken);
        }
        let missing = path.get(known..).unwrap_or_default();
        if !missing.is_empty() && parents == Parents::Required {
            return Err(Hindrance::NoParent);
        }
        let mut at = at.to_owned();
        for name in missing {
            at = self.add(&at, name, now, Kind::Folder(BTreeMap::new()));
        }
        Ok(at)
    }

    fn add(&mut self, parent: &str, name: &str, now: Timestamp, kind: Kind) -> String {
        let id = fresh_id(match kind {
            Kind::Folder(_) => "folder",
            Kind::File(_) => "file",
        });
        let node = Node {
            name: name.to_owned(),
            parent: parent.to_owned(),
            created: now,
            kind,
        };
        self.nodes.insert(id.clone(), node);
        self.link(parent, name, &id);
        id
    }

    fn link(&mut self, parent: &str, name: &str, id: &str) {
        if let Some(Node {
            kind: Kind::Folder(children),
            ..
        }) = self.nodes.get_mut(parent)
        {
            children.insert(name.to_owned(), id.to_owned());
        }
    }

    fn unlink(&mut self, parent: &str, name: &str) {
        if let Some(Node {
            kind: Kind::Folder(children),
            ..
        }) = self.nodes.get_mut(parent)
        {
            children.remove(name);
        }
    }
}

impl Version {
    fn new(number: u64, new: &NewContent) -> Self {
        Self {
            number,
            content: new.content.clone(),
            hash: hash_of(&new.content),
            modified: new.at,
            modified_by: new.by.clone(),
        }
    }
}

fn hash_of(content: &[u8]) -> String {
    let digits: String = Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{digits}")
}

fn mime_of(name: &str) -> String {
    mime_guess::from_path(name).first_or_octet_stream().to_string()
}

/// The names on an absolute path; nothing if the rules of [`super::Assumptions`] forbid it.
pub(super) fn parse_path(path: &str) -> Option<Vec<String>> {
    match path.strip_prefix('/')? {
        "" => Some(Vec::new()),
        rest => rest
            .split('/')
            .map(|name| is_name(name).then(|| name.to_owned()))
            .collect(),
    }
}

/// Whether a file or folder can have this name.
pub(super) fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= LONGEST_NAME
        && !name.contains('/')
        && !name.chars().any(char::is_control)
}
