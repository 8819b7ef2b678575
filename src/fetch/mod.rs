//! Reads of a provider: one request in flight per piece whoever asks, filled from and into the cache.
//!
//! It decides what is asked for, when something may be served and when a request is repeated. What is kept is up to
//! `cache`; how a request is made and how long it may stand still is up to the provider.
//!
//! Locks, each a leaf and none held across an await: the objects that are open (here), the flights of one object and what
//! is waited for of each (`flight`), the habits of one reader (`source`).

mod access;
mod ahead;
mod download;
mod flight;
mod gathered;
mod pattern;
mod room;
mod source;
mod spill;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::cache::{BlockCache, ContentId};
use crate::model::{ObjectId, ObjectKey};
use crate::provider::{NamedBy, Provider, Reads};

pub use source::Source;

use self::room::Rooms;
use self::source::Object;

#[derive(Clone, Debug)]
pub struct FetchSettings {
    /// Where whole objects wait to be verified, in files without a name. Made when it is first needed.
    pub spill_directory: PathBuf,
    /// The largest object that goes there, in bytes.
    pub spill_limit: u64,
    /// What all requests in flight may hold in memory together, in bytes; one block at least.
    pub memory: u64,
}

/// Reads one provider through one cache. Clones share everything.
#[derive(Clone)]
pub struct Fetcher(Arc<Shared>);

struct Shared {
    provider: Arc<dyn Provider>,
    reads: Reads,
    namespace: String,
    bytes: NamedBy,
    cache: Arc<dyn BlockCache>,
    settings: FetchSettings,
    rooms: Rooms,
    /// The objects that somebody has open, so that whoever opens one joins the others. Not those who have the same bytes
    /// open by another key, under which they may be gone: at the same time such are downloaded twice.
    open: Mutex<HashMap<ObjectId, Weak<Object>>>,
}

impl Fetcher {
    pub fn new(provider: Arc<dyn Provider>, cache: Arc<dyn BlockCache>, settings: FetchSettings) -> Self {
        Self(Arc::new(Shared {
            reads: provider.capabilities().reads,
            namespace: provider.identity(),
            bytes: provider.capabilities().bytes,
            provider,
            cache,
            rooms: Rooms::new(settings.memory),
            settings,
            open: Mutex::default(),
        }))
    }

    /// A version of an object, to be read. Asks nobody.
    pub fn open(&self, object: ObjectId) -> Source {
        let content = self.content(&object);
        let mut open = self.0.open.lock();
        if let Some(shared) = open.get(&object).and_then(Weak::upgrade) {
            return Source::new(shared);
        }
        let opened = Arc::new(Object::new(object.clone(), content, Arc::clone(&self.0)));
        open.insert(object, Arc::downgrade(&opened));
        Source::new(opened)
    }

    /// Drops what is cached of a version.
    pub async fn forget(&self, object: &ObjectId) {
        self.0.cache.forget(&self.content(object)).await;
    }

    /// The versions that somebody has open or is reading.
    pub fn in_use(&self) -> HashSet<ContentId> {
        let open = self.0.open.lock();
        let used = open.iter().filter(|(_, object)| object.strong_count() > 0);
        used.map(|(object, _)| self.content(object)).collect()
    }

    pub fn cache(&self) -> &Arc<dyn BlockCache> {
        &self.0.cache
    }

    fn content(&self, object: &ObjectId) -> ContentId {
        let by_version = match self.0.bytes {
            NamedBy::Object => false,
            NamedBy::Content => true,
            NamedBy::ContentIf { prefix } => object.version.as_str().starts_with(prefix),
        };
        if !by_version {
            return ContentId::new(&self.0.namespace, object);
        }
        let any = ObjectId {
            key: ObjectKey::new(""),
            ..object.clone()
        };
        ContentId::new(&self.0.namespace, &any)
    }
}

impl Shared {
    /// What one reader may have ahead. No more than the cache keeps until it is read.
    fn largest_window(&self) -> u64 {
        self.rooms.largest_window().min(self.cache.usage().cap / 2)
    }

    /// In blocks.
    fn most_per_request(&self) -> u64 {
        access::MOST_PER_REQUEST.min(self.rooms.largest_flight())
    }

    /// To be called when an object goes that was open.
    fn closed(&self, object: &ObjectId) {
        let mut open = self.open.lock();
        // Somebody may have opened it anew meanwhile.
        if open.get(object).is_some_and(|object| object.strong_count() == 0) {
            open.remove(object);
        }
    }
}

#[cfg(test)]
mod tests;
