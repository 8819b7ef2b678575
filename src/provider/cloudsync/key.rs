//! What an `ObjectKey` of CloudSync says: the account, a workspace, or a file or folder by its id.

use crate::model::{Error, ObjectKey, Result};

const ACCOUNT: &str = "/";

/// Ids stay when a file or folder is renamed or moved, so a key holds as long as the object does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// The directory of all workspaces.
    Account,
    /// A workspace's root, by its id; by its short name where the service doesn't tell the id.
    Workspace(String),
    Item {
        workspace: String,
        id: String,
    },
}

impl Key {
    pub(super) fn to_object_key(&self) -> ObjectKey {
        match self {
            Self::Account => ObjectKey::new(ACCOUNT),
            Self::Workspace(workspace) => ObjectKey::new(workspace),
            Self::Item { workspace, id } => ObjectKey::new(format!("{workspace}/{id}")),
        }
    }

    /// # Errors
    /// `Internal` for a key that this provider never gave.
    pub(super) fn parse(key: &ObjectKey) -> Result<Self> {
        let text = key.as_str();
        if text == ACCOUNT {
            return Ok(Self::Account);
        }
        match text.split_once('/') {
            None if !text.is_empty() => Ok(Self::Workspace(text.to_owned())),
            Some((workspace, id)) if !workspace.is_empty() && !id.is_empty() => Ok(Self::Item {
                workspace: workspace.to_owned(),
                id: id.to_owned(),
            }),
            _ => Err(Error::internal(format!("{text:?} is no key of CloudSync"))),
        }
    }

    /// The workspace that it is or lies in.
    pub(super) fn workspace(&self) -> Option<&str> {
        match self {
            Self::Account => None,
            Self::Workspace(workspace) | Self::Item { workspace, .. } => Some(workspace),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip() {
        let item = Key::Item {
            workspace: "ws_1".into(),
            id: "file_2".into(),
        };
        for key in [Key::Account, Key::Workspace("ws_1".into()), item] {
            assert_eq!(Key::parse(&key.to_object_key()).unwrap(), key);
        }
        assert!(Key::parse(&ObjectKey::new("")).is_err());
        assert!(Key::parse(&ObjectKey::new("/x")).is_err());
    }
}
