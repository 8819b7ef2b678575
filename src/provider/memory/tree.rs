//! The tree of the store in memory: nodes, versions, inherited rights. It knows no provider.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::model::{Action, Error, ErrorKind, Name, Result, Rights, ToldAttributes};

pub(super) const ROOT: NodeId = NodeId(0);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeId(pub(super) u64);

pub(super) struct Tree {
    pub(super) nodes: BTreeMap<NodeId, Node>,
    /// The last number given to a node or a version; both are never given twice.
    last_number: u64,
    last_time: SystemTime,
    pub(super) quota: Option<u64>,
}

pub(super) struct Node {
    parent: NodeId,
    pub(super) name: Name,
    pub(super) version: u64,
    pub(super) modified: SystemTime,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) posix: ToldAttributes,
    pub(super) body: Body,
}

pub(super) enum Body {
    File(Bytes),
    Directory {
        children: BTreeMap<Name, NodeId>,
        /// Set here, or inherited from the nearest folder above that has them.
        rights: Option<Rights>,
    },
}

impl Body {
    pub(super) fn folder() -> Self {
        Self::Directory {
            children: BTreeMap::new(),
            rights: None,
        }
    }
}

impl Tree {
    pub(super) fn new() -> Self {
        let root = Node {
            parent: ROOT,
            // Nobody sees it: a path doesn't contain it.
            name: root_name(),
            version: 0,
            modified: SystemTime::now(),
            labels: BTreeMap::new(),
            posix: ToldAttributes::None,
            body: Body::Directory {
                children: BTreeMap::new(),
                rights: Some(Rights::ALL),
            },
        };
        Self {
            last_time: root.modified,
            nodes: BTreeMap::from([(ROOT, root)]),
            last_number: 0,
            quota: None,
        }
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Now, but later than every time given before.
    fn time(&mut self) -> SystemTime {
        self.last_time = SystemTime::now().max(self.last_time + Duration::from_millis(1));
        self.last_time
    }

    pub(super) fn node(&self, id: NodeId) -> Result<&Node> {
        self.nodes
            .get(&id)
            .ok_or_else(|| Error::internal("a node of the store is missing"))
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> Result<&mut Node> {
        self.nodes
            .get_mut(&id)
            .ok_or_else(|| Error::internal("a node of the store is missing"))
    }

    pub(super) fn parent(&self, id: NodeId) -> Result<NodeId> {
        self.node(id).map(|node| node.parent)
    }

    pub(super) fn children(&self, id: NodeId) -> Result<&BTreeMap<Name, NodeId>> {
        let node = self.node(id)?;
        match &node.body {
            Body::Directory { children, .. } => Ok(children),
            Body::File(_) => Err(not_a_directory(node.name.as_str())),
        }
    }

    /// The children of a folder that is about to change: it gets a new version and time.
    fn changing(&mut self, id: NodeId) -> Result<&mut BTreeMap<Name, NodeId>> {
        let (version, time) = (self.number(), self.time());
        let node = self.node_mut(id)?;
        node.version = version;
        node.modified = time;
        match &mut node.body {
            Body::Directory { children, .. } => Ok(children),
            Body::File(_) => Err(not_a_directory(node.name.as_str())),
        }
    }

    pub(super) fn path(&self, id: NodeId) -> String {
        let mut names = Vec::new();
        let mut at = id;
        while let Some(node) = self.nodes.get(&at).filter(|_| at != ROOT) {
            names.push(node.name.as_str());
            at = node.parent;
        }
        names.reverse();
        names.join("/")
    }

    pub(super) fn walk(&self, path: &str) -> Result<NodeId> {
        self.walk_parts(&parts(path)?)
    }

    pub(super) fn walk_parts(&self, names: &[Name]) -> Result<NodeId> {
        names.iter().try_fold(ROOT, |at, name| {
            let missing = || Error::not_found(format_args!("{:?}", name.as_str()));
            self.children(at)?.get(name).copied().ok_or_else(missing)
        })
    }

    pub(super) fn make_folders(&mut self, names: &[Name]) -> Result<NodeId> {
        names
            .iter()
            .try_fold(ROOT, |at, name| match self.children(at)?.get(name) {
                Some(&id) => self.children(id).map(|_| id),
                None => self.add(at, name.clone(), Body::folder()),
            })
    }

    pub(super) fn add(&mut self, parent: NodeId, name: Name, body: Body) -> Result<NodeId> {
        let id = NodeId(self.number());
        let node = Node {
            parent,
            name: name.clone(),
            version: self.number(),
            modified: self.time(),
            labels: BTreeMap::new(),
            posix: ToldAttributes::None,
            body,
        };
        self.changing(parent)?.insert(name, id);
        self.nodes.insert(id, node);
        Ok(id)
    }

    pub(super) fn set_content(&mut self, id: NodeId, bytes: Bytes) -> Result<()> {
        let (version, time) = (self.number(), self.time());
        let node = self.node_mut(id)?;
        if let Body::Directory { .. } = node.body {
            return Err(is_a_directory(&node.name));
        }
        node.body = Body::File(bytes);
        node.version = version;
        node.modified = time;
        Ok(())
    }

    pub(super) fn remove(&mut self, id: NodeId) -> Result<()> {
        let below: Vec<NodeId> = match self.children(id) {
            Ok(children) => children.values().copied().collect(),
            Err(_) => Vec::new(),
        };
        for child in below {
            self.remove(child)?;
        }
        let node = self.node(id)?;
        let (parent, name) = (node.parent, node.name.clone());
        self.changing(parent)?.remove(&name);
        self.nodes.remove(&id);
        Ok(())
    }

    pub(super) fn relocate(&mut self, id: NodeId, parent: NodeId, name: Name) -> Result<()> {
        let node = self.node(id)?;
        let (old_parent, old_name) = (node.parent, node.name.clone());
        self.changing(old_parent)?.remove(&old_name);
        self.changing(parent)?.insert(name.clone(), id);
        let node = self.node_mut(id)?;
        node.parent = parent;
        node.name = name;
        Ok(())
    }

    pub(super) fn is_within(&self, mut id: NodeId, above: NodeId) -> bool {
        while id != above && id != ROOT {
            match self.nodes.get(&id) {
                Some(node) => id = node.parent,
                None => return false,
            }
        }
        id == above
    }

    pub(super) fn rights(&self, mut id: NodeId) -> Rights {
        while let Some(node) = self.nodes.get(&id) {
            if let Body::Directory {
                rights: Some(rights), ..
            } = node.body
            {
                return rights;
            }
            id = node.parent;
        }
        Rights::NONE
    }

    pub(super) fn check(&self, id: NodeId, action: Action) -> Result<()> {
        if self.rights(id).allows(action) {
            return Ok(());
        }
        let path = self.path(id);
        Err(Error::denied(format_args!("the store refuses {action:?} on {path:?}")))
    }

    pub(super) fn used(&self) -> u64 {
        let sizes = self.nodes.values().map(|node| match &node.body {
            Body::File(bytes) => bytes.len() as u64,
            Body::Directory { .. } => 0,
        });
        sizes.sum()
    }
}

fn root_name() -> Name {
    match Name::new("memory") {
        Ok(name) => name,
        Err(error) => unreachable!("{error}"),
    }
}

pub(super) fn parts(path: &str) -> Result<Vec<Name>> {
    path.split('/').filter(|part| !part.is_empty()).map(Name::new).collect()
}

pub(super) fn split(path: &str) -> Result<(Vec<Name>, Name)> {
    let mut names = parts(path)?;
    match names.pop() {
        Some(name) => Ok((names, name)),
        None => Err(Error::new(ErrorKind::InvalidName, "the path is empty")),
    }
}

pub(super) fn exists(name: &Name) -> Error {
    let message = format!("{:?} exists already", name.as_str());
    Error::new(ErrorKind::AlreadyExists, message)
}

pub(super) fn changed(name: &Name) -> Error {
    let message = format!("{:?} was changed or removed by somebody else", name.as_str());
    Error::new(ErrorKind::Changed, message)
}

pub(super) fn not_empty(name: &Name) -> Error {
    Error::new(ErrorKind::NotEmpty, format!("{:?} is not empty", name.as_str()))
}

pub(super) fn is_a_directory(name: &Name) -> Error {
    Error::new(ErrorKind::IsADirectory, format!("{:?} is a folder", name.as_str()))
}

pub(super) fn not_a_directory(name: &str) -> Error {
    Error::new(ErrorKind::NotADirectory, format!("{name:?} is not a folder"))
}
