//! What is known of the credential's rights, folder by folder.
//!
//! For services that don't tell them: they are assumed, perhaps probed, and corrected by refusals. This keeps the
//! knowledge; asking the service is the provider's.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::model::{Action, ErrorKind, Result, Rights};

/// Rights by folder; a folder without an entry has those of the nearest one above.
pub(super) struct LearnedRights {
    assumed: Rights,
    learned: Mutex<BTreeMap<String, Rights>>,
}

impl LearnedRights {
    /// `assumed` is what holds where nothing was learned.
    pub(super) fn new(assumed: Rights) -> Self {
        Self {
            assumed,
            learned: Mutex::default(),
        }
    }

    /// The rights on a folder and on the files in it.
    pub(super) fn at(&self, folder: &str) -> Rights {
        let learned = self.learned.lock();
        nearest(&learned, folder).unwrap_or(self.assumed)
    }

    /// Whether the folder's own rights were learned.
    pub(super) fn knows(&self, folder: &str) -> bool {
        self.learned.lock().contains_key(folder)
    }

    pub(super) fn learn(&self, folder: &str, rights: Rights) {
        self.learned.lock().insert(folder.to_owned(), rights);
    }

    /// The service refused an action in a folder: it isn't possible there nor below, until the next probe.
    pub(super) fn refused(&self, folder: &str, action: Action) {
        let mut learned = self.learned.lock();
        let here = nearest(&learned, folder).unwrap_or(self.assumed);
        learned.insert(folder.to_owned(), here.without(action));
        for (_, rights) in learned.iter_mut().filter(|(path, _)| is_below(path, folder)) {
            *rights = rights.without(action);
        }
    }

    /// Forgets what is known of a folder and of all below: it is gone or has another path.
    pub(super) fn forget(&self, folder: &str) {
        self.learned
            .lock()
            .retain(|path, _| path != folder && !is_below(path, folder));
    }

    /// Learns from how an action in a folder ended, and hands the result on.
    pub(super) fn noting<T>(&self, folder: &str, action: Action, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && error.kind() == ErrorKind::Denied
        {
            self.refused(folder, action);
        }
        result
    }

    pub(super) fn forget_all(&self) {
        self.learned.lock().clear();
    }
}

fn nearest(learned: &BTreeMap<String, Rights>, folder: &str) -> Option<Rights> {
    let mut path = folder;
    loop {
        if let Some(&rights) = learned.get(path) {
            return Some(rights);
        }
        if path.is_empty() {
            return None;
        }
        path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
}

fn is_below(path: &str, folder: &str) -> bool {
    if folder.is_empty() {
        return !path.is_empty();
    }
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(text: &str) -> Rights {
        text.parse().unwrap()
    }

    #[test]
    fn the_nearest_folder_that_is_known_decides() {
        let known = LearnedRights::new(Rights::ALL);
        assert_eq!(known.at("a/b"), Rights::ALL);
        known.learn("", Rights::READ);
        known.learn("a/b", rights("rw"));
        assert_eq!(known.at("a"), Rights::READ);
        assert_eq!(known.at("a/b/c/d"), rights("rw"));
        assert_eq!(known.at("a/bc"), Rights::READ);
    }

    #[test]
    fn a_refusal_holds_for_all_below() {
        let known = LearnedRights::new(Rights::ALL);
        known.learn("a/b", rights("rw"));
        known.learn("ab", rights("rw"));
        known.refused("a", Action::Write);
        assert_eq!(known.at("a/x"), rights("rd"));
        assert_eq!(known.at("a/b/c"), rights("r"));
        assert_eq!(known.at("ab"), rights("rw"));
        assert_eq!(known.at(""), Rights::ALL);
        known.forget("a");
        assert_eq!(known.at("a/b"), Rights::ALL);
    }
}
