//! Paths of items: names joined by slashes, without one at the start (file-operations).
//!
//! Responsible for reading and writing them. Name rules are not documented: see [`super::Assumptions`].

use std::fmt;

use crate::emulator::segment;

/// Bytes of the longest name; assumed.
const NAME_LIMIT: usize = 255;

/// Names from the root on; none for the root itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ItemPath(Vec<String>);

impl ItemPath {
    /// Reads a path in a body or a query; nothing and `.` are the root (file-upload: "default `.`").
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() || text == "." {
            return Ok(Self::default());
        }
        if text.starts_with('/') {
            return Err("Paths have no leading slash");
        }
        let names = text.split('/').map(|name| check_name(name).map(|()| name.to_owned()));
        Ok(Self(names.collect::<Result<_, _>>()?))
    }

    /// Reads the rest of a request's path.
    pub(super) fn from_segments(raw: &[&str]) -> Result<Self, &'static str> {
        let names = raw.iter().map(|raw| {
            let name = segment::decode(raw)?;
            check_name(&name).map(|()| name)
        });
        Ok(Self(names.collect::<Result<_, _>>()?))
    }

    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The last name; empty for the root.
    pub(super) fn name(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }

    /// The folder it is in; the root is in itself.
    pub(super) fn parent(&self) -> Self {
        Self(self.0[..self.0.len().saturating_sub(1)].to_vec())
    }

    /// The item of this name in the folder.
    pub(super) fn join(&self, name: &str) -> Result<Self, &'static str> {
        check_name(name)?;
        Ok(Self(self.0.iter().cloned().chain([name.to_owned()]).collect()))
    }

    /// The same folder with another last name, which is a variation of one that was checked.
    pub(super) fn with_name(&self, name: String) -> Self {
        let mut path = self.parent();
        path.0.push(name);
        path
    }

    /// Every folder on the way, the outermost first, itself last.
    pub(super) fn way(&self) -> impl Iterator<Item = Self> + '_ {
        (1..=self.0.len()).map(|depth| Self(self.0[..depth].to_vec()))
    }

    /// Whether it is the folder itself or lies somewhere in it.
    pub(super) fn is_at_or_below(&self, folder: &Self) -> bool {
        self.0.starts_with(&folder.0)
    }

    /// Where it is once `from`, in which it lies, is called `to`.
    pub(super) fn moved(&self, from: &Self, to: &Self) -> Self {
        let rest = self.0.iter().skip(from.0.len()).cloned();
        Self(to.0.iter().cloned().chain(rest).collect())
    }
}

impl fmt::Display for ItemPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("A path has no empty names")
    } else if name == "." || name == ".." {
        Err("A path has no relative names")
    } else if name.contains('/') || name.chars().any(char::is_control) {
        Err("A name has no slashes and no control characters")
    } else if name.len() > NAME_LIMIT {
        Err("A name has at most 255 bytes")
    } else {
        Ok(())
    }
}
