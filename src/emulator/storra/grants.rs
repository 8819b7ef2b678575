//! Who else may use an item (file-sharing).
//!
//! Responsible for grants on the items of one account. Not responsible for HTTP.

use jiff::Timestamp;
use uuid::Uuid;

use super::assumptions::Visibility;
use super::path::ItemPath;
use super::tree::{Item, Tree, short_id};

/// What someone else may do (file-sharing: `VIEW|EDIT|OWNER`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Read.
    View,
    /// Read and change.
    Edit,
    /// All.
    Owner,
}

/// One person's access to one item.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) id: Uuid,
    pub(super) email: String,
    pub(super) level: Level,
    pub(super) granted: Timestamp,
}

impl Grant {
    /// `perm_` and the first 8 digits of the UUID, like the ids of items.
    pub(super) fn short_id(&self) -> String {
        short_id("perm", self.id)
    }
}

/// The grant is there already.
#[derive(Debug)]
pub(super) struct AlreadyShared;

impl Item {
    pub(super) fn grant(&mut self, email: &str, level: Level, now: Timestamp) -> Result<Grant, AlreadyShared> {
        if self.grants.iter().any(|grant| grant.email == email) {
            return Err(AlreadyShared);
        }
        let grant = Grant {
            id: Uuid::new_v4(),
            email: email.to_owned(),
            level,
            granted: now,
        };
        self.grants.push(grant.clone());
        Ok(grant)
    }
}

impl Tree {
    /// Gives a grant another level and says what it is on.
    pub(super) fn change_grant(&mut self, id: &str, level: Level) -> Option<(ItemPath, Grant)> {
        self.items_mut().iter_mut().find_map(|item| {
            let grant = item.grants.iter_mut().find(|grant| grant.short_id() == id)?;
            grant.level = level;
            Some((item.path.clone(), grant.clone()))
        })
    }

    /// Takes a grant away; whether there was one.
    pub(super) fn remove_grant(&mut self, id: &str) -> bool {
        self.items_mut().iter_mut().any(|item| {
            let before = item.grants.len();
            item.grants.retain(|grant| grant.short_id() != id);
            item.grants.len() < before
        })
    }

    /// Whether someone else may read the item: it is public, or it or a folder above is granted to them.
    pub(super) fn readable_by(&self, email: &str, item: &Item) -> bool {
        let granted = |item: &Item| item.grants.iter().any(|grant| grant.email == email);
        item.visibility == Visibility::Public
            || granted(item)
            || item.path.way().any(|folder| self.at(&folder).is_some_and(granted))
    }
}
