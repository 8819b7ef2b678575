//! One listing of everything that is mounted, shared by all questions about names and attributes, and kept up with
//! what keymount itself changes.
//!
//! Other providers keep nothing. Storra takes a hundred listings an hour: a question each for `stat` would be over after
//! a minute of `find`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::client::{Client, Depth, Listing};
use super::rates::affordable_age;
use super::tree::{Change, Known, Tree};
use super::wire::Item;
use crate::model::{Error, ErrorKind, Holder, Result};

/// How long what was just seen of a folder counts as seen right before a change in it.
const RIGHT_BEFORE: Duration = Duration::from_secs(10);

/// How long what was listed counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// As long as the budget of listings demands.
    Budgeted,
    /// Not at all: every question is asked anew. For an account without limits, and for tests.
    Always,
}

pub(super) struct Snapshot {
    client: Arc<Client>,
    root: String,
    freshness: Freshness,
    state: Mutex<State>,
    /// Held by whoever lists everything.
    listing: tokio::sync::Mutex<()>,
    lister: Holder,
}

struct State {
    tree: Tree,
    /// When everything was listed last, and how many requests that took.
    listed: Option<(Instant, u32)>,
    /// When a folder was listed by itself.
    folders: HashMap<String, Instant>,
    /// Listings on the way, and what changed while they are.
    underway: usize,
    meanwhile: Vec<Change>,
}

/// A listing is on the way: what changes until its answer is in the tree is not to be undone by it.
struct Underway<'a> {
    snapshot: &'a Snapshot,
    since: usize,
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        let mut state = self.snapshot.state.lock();
        state.underway -= 1;
        if state.underway == 0 {
            state.meanwhile.clear();
        }
    }
}

impl Snapshot {
    pub(super) fn new(client: Arc<Client>, root: &str, freshness: Freshness) -> Self {
        Self {
            client,
            root: root.to_owned(),
            freshness,
            state: Mutex::new(State {
                tree: Tree::new(root),
                listed: None,
                folders: HashMap::new(),
                underway: 0,
                meanwhile: Vec::new(),
            }),
            listing: tokio::sync::Mutex::default(),
            lister: Holder::default(),
        }
    }

    /// Looks at what is known, listed not too long ago.
    ///
    /// # Errors
    /// As listing fails, but for the limit: then what was known is shown.
    pub(super) async fn look<T>(&self, look: impl FnOnce(&Tree) -> T) -> Result<T> {
        if !self.is_current(None) {
            self.list_everything().await?;
        }
        Ok(look(&self.state.lock().tree))
    }

    /// As `look`, after making sure that what is known of these folders is from right before.
    pub(super) async fn look_closely<T>(&self, folders: &[&str], look: impl FnOnce(&Tree) -> T) -> Result<T> {
        let mut seen = Vec::new();
        if self.state.lock().listed.is_none() {
            self.list_everything().await?;
            seen.extend_from_slice(folders);
        }
        for folder in folders {
            if !seen.contains(folder) && !self.was_seen_right_before(folder) {
                self.list_folder(folder).await?;
                seen.push(folder);
            }
        }
        Ok(look(&self.state.lock().tree))
    }

    /// Whether there is something at a path, as far as is known without asking.
    pub(super) fn knows(&self, path: &str) -> bool {
        self.state.lock().tree.get(path).is_some()
    }

    /// Everything is to be asked for again.
    pub(super) fn expire(&self) {
        let mut state = self.state.lock();
        state.listed = None;
        state.folders.clear();
    }

    /// Takes over what keymount did.
    pub(super) fn changed(&self, change: Change) {
        let mut state = self.state.lock();
        state.apply(&change);
        if state.underway > 0 {
            state.meanwhile.push(change);
        }
    }

    /// Asks what is in a folder now. Gives every item, also several of one name.
    ///
    /// # Errors
    /// `NotFound`.
    pub(super) async fn list_folder(&self, folder: &str) -> Result<Vec<(String, Item)>> {
        let underway = self.begin();
        let answer = self.client.list(folder, Depth::Children).await;
        match answer {
            Ok(Listing { items, .. }) => {
                let own: Vec<_> = items.into_iter().filter(|(path, _)| path != folder).collect();
                // Whether a missing folder is told from an empty one isn't documented.
                if own.is_empty() && !self.state.lock().tree.is_folder(folder) {
                    return Err(Error::not_found(format_args!("{folder:?}")));
                }
                underway.finish(|state| {
                    state.folders.insert(folder.to_owned(), Instant::now());
                    state.apply(&Change::Children(folder.to_owned(), own.clone()));
                    state.note(Change::Children(folder.to_owned(), own.clone()));
                });
                Ok(own)
            }
            Err(error) => {
                if error.kind() == ErrorKind::NotFound {
                    underway.finish(|state| {
                        state.apply(&Change::Missing(folder.to_owned()));
                        state.note(Change::Missing(folder.to_owned()));
                    });
                }
                Err(error)
            }
        }
    }

    /// Whether everything was listed recently enough, and after that time.
    fn is_current(&self, after: Option<Instant>) -> bool {
        let listed = self.state.lock().listed;
        let Some((at, requests)) = listed else {
            return false;
        };
        let shared = after.is_some_and(|after| at > after);
        match self.freshness {
            _ if shared => true,
            Freshness::Always => false,
            Freshness::Budgeted => at.elapsed() < affordable_age(requests),
        }
    }

    fn was_seen_right_before(&self, folder: &str) -> bool {
        let state = self.state.lock();
        let everything = state.listed.map(|(at, _)| at);
        let latest = state.folders.get(folder).copied().max(everything);
        match self.freshness {
            Freshness::Always => false,
            Freshness::Budgeted => latest.is_some_and(|at| at.elapsed() < RIGHT_BEFORE),
        }
    }

    /// One at a time; who waited for another's listing has it.
    async fn list_everything(&self) -> Result<()> {
        let asked = Instant::now();
        let _turn = self.lister.wait(self.listing.lock()).await;
        if self.is_current(Some(asked)) {
            return Ok(());
        }
        self.lister.is_current();
        let underway = self.begin();
        match self.client.list(&self.root, Depth::Everything).await {
            Ok(Listing { items, requests }) => {
                debug!(entries = items.len(), requests, "listed everything");
                let tree = Tree::listed(&self.root, items);
                underway.finish(|state| {
                    state.tree = tree;
                    state.listed = Some((asked, requests));
                    state.folders.clear();
                });
                Ok(())
            }
            // For an hour at most: an old list is better than none.
            Err(error) if matches!(error.kind(), ErrorKind::RateLimited { .. }) && self.knows_something() => {
                warn!(%error, "what is shown of names and attributes may be out of date");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn knows_something(&self) -> bool {
        let state = self.state.lock();
        state.listed.is_some() || state.tree != Tree::new(&self.root)
    }

    fn begin(&self) -> Underway<'_> {
        let mut state = self.state.lock();
        state.underway += 1;
        Underway {
            snapshot: self,
            since: state.meanwhile.len(),
        }
    }
}

impl Underway<'_> {
    /// Puts the answer in place and then again what changed since it was asked for.
    fn finish(self, put: impl FnOnce(&mut State)) {
        let mut state = self.snapshot.state.lock();
        let since = state.meanwhile.get(self.since..).unwrap_or_default().to_vec();
        put(&mut state);
        for change in &since {
            state.apply(change);
        }
    }
}

impl State {
    fn apply(&mut self, change: &Change) {
        if self.tree.apply(change) == Known::NotAll {
            // Somebody else made a folder: what is in it is found out with the next listing of everything.
            self.listed = None;
        }
    }

    /// Remembers it for the listings that are on the way.
    fn note(&mut self, change: Change) {
        if self.underway > 0 {
            self.meanwhile.push(change);
        }
    }
}
