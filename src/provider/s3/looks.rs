//! One look for several uploads: a listing shows many objects with their lengths and entity tags, and tells as well whether
//! a directory has the name of one of them.
//!
//! An upload that is done waits for those that are under way beside it, a moment at most. The first that finds nobody
//! under way looks for all. A listing isn't the last word: whoever doesn't find what he has stored asks for it by its key.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::mem;
use std::time::Duration;

use futures_util::TryStreamExt;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::change::found;
use super::errors;
use super::metadata;
use super::names::{at, folder_of};
use super::store::{Object, Store};
use crate::model::{Action, Error, Result};

/// How long one that is done waits for others.
const GATHERING: Duration = Duration::from_secs(1);
/// How many objects a look lists: those of files that are stored in the order of their names are next to each other.
const PAGE: usize = 64;
/// The same for a single one, whose name few others begin with.
const SHORT_PAGE: usize = 4;

/// The looks of one mount.
pub(super) struct Looks {
    under_way: watch::Sender<usize>,
    waiting: Mutex<Vec<Waiting>>,
}

/// One that is done and wants to know what is there.
struct Waiting {
    key: String,
    tell: oneshot::Sender<Result<Sight>>,
}

/// What has a name.
#[derive(Clone, Debug)]
pub(super) struct Sight {
    pub(super) object: Option<Object>,
    /// Whether a directory has it, too.
    pub(super) is_directory: bool,
}

/// An upload that others may wait for.
pub(super) struct UnderWay<'a>(&'a Looks);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|count| *count -= 1);
    }
}

impl Default for Looks {
    fn default() -> Self {
        Self {
            under_way: watch::Sender::new(0),
            waiting: Mutex::default(),
        }
    }
}

impl Looks {
    pub(super) fn begin(&self) -> UnderWay<'_> {
        self.under_way.send_modify(|count| *count += 1);
        UnderWay(self)
    }

    /// What has the name of an upload that is done, seen after that.
    pub(super) async fn at(&self, store: &Store, key: &str, done: UnderWay<'_>) -> Result<Sight> {
        let (tell, mut told) = oneshot::channel();
        self.waiting.lock().push(Waiting {
            key: key.to_owned(),
            tell,
        });
        drop(done);
        let mut count = self.under_way.subscribe();
        let nobody = async {
            // Its sender lives as long as `self`.
            let _ = count.wait_for(|count| *count == 0).await;
        };
        tokio::select! {
            biased;
            seen = &mut told => return seen.unwrap_or_else(|_| Err(given_up())),
            _ = timeout(GATHERING, nobody) => {}
        }
        // Nobody is left in it where another one was faster.
        let group = mem::take(&mut *self.waiting.lock());
        look(store, group).await;
        told.await.unwrap_or_else(|_| Err(given_up()))
    }
}

/// Whoever looked for all was interrupted.
fn given_up() -> Error {
    Error::internal("a look at what was stored was interrupted")
}

async fn look(store: &Store, group: Vec<Waiting>) {
    let mut folders: BTreeMap<String, Vec<Waiting>> = BTreeMap::new();
    for waiting in group {
        let folder = folder_of(&waiting.key).to_owned();
        folders.entry(folder).or_default().push(waiting);
    }
    for (folder, group) in folders {
        let page = Page::of(store, &folder, &group).await;
        let seen = group.into_iter().map(async |waiting| {
            let sight = match &page {
                Ok(page) => page.sight(store, &waiting.key).await,
                Err(error) => Err(error.clone()),
            };
            // Nobody listens who isn't there any more.
            let _ = waiting.tell.send(sight);
        });
        futures_util::future::join_all(seen).await;
    }
}

/// A part of a directory.
struct Page {
    objects: HashMap<String, Object>,
    directories: HashSet<String>,
    /// The key up to which all is in it; `None` when that is the directory's end.
    until: Option<String>,
}

impl Page {
    async fn of(store: &Store, folder: &str, group: &[Waiting]) -> Result<Self> {
        let first = group.iter().map(|waiting| waiting.key.as_str()).min().unwrap_or(folder);
        let (prefix, start, most) = if group.len() == 1 {
            (first, "", SHORT_PAGE)
        } else {
            (at(folder), before(first), PAGE)
        };
        let answer = store
            .ask(async |operator| {
                let listing = operator.lister_with(prefix).limit(most);
                let listing = if start.is_empty() {
                    listing
                } else {
                    listing.start_after(start)
                };
                let mut found = listing.await.map_err(errors::ours)?;
                let mut page = Self {
                    objects: HashMap::new(),
                    directories: HashSet::new(),
                    until: None,
                };
                for _ in 0..most {
                    let Some(entry) = found.try_next().await.map_err(errors::ours)? else {
                        return Ok(page);
                    };
                    let key = entry.path().to_owned();
                    if key.ends_with('/') {
                        page.directories.insert(key);
                    } else {
                        page.objects.insert(key, metadata::object(entry.metadata())?);
                    }
                }
                // Of each answer, directories come first: all that is before its last object was seen.
                page.until = Some(page.objects.keys().max().cloned().unwrap_or_default());
                Ok(page)
            })
            .await;
        store.rights.noting(folder, Action::Read, answer)
    }

    fn covers(&self, key: &str) -> bool {
        self.until.as_deref().is_none_or(|until| key <= until)
    }

    async fn sight(&self, store: &Store, key: &str) -> Result<Sight> {
        let directory = format!("{key}/");
        let object = match self.objects.get(key) {
            Some(object) => Some(object.clone()),
            None if self.covers(key) => None,
            None => found(store.object(key).await)?,
        };
        let is_covered = self.covers(&directory) && !self.directories.contains(&directory);
        Ok(Sight {
            object,
            is_directory: !is_covered && store.any_below(&directory).await?,
        })
    }
}

/// A key before this one, with little between the two.
fn before(key: &str) -> &str {
    match key.char_indices().next_back() {
        Some((last, _)) => &key[..last],
        None => key,
    }
}

/// The same for one name alone, by its key.
pub(super) async fn alone(store: &Store, key: &str) -> Result<Sight> {
    Ok(Sight {
        object: found(store.object(key).await)?,
        is_directory: store.any_below(&format!("{key}/")).await?,
    })
}
