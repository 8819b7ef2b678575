//! What programs on this host may still believe of a name that stands for somebody else's version by now.
//!
//! What was changed here is shown under its name until the provider has refused it and it was put aside; what somebody
//! else stored, only when the TTL of what was known has passed. Who was shown the older one must not replace the newer
//! one without knowing it: until that was opened here, what is to replace it goes beside it. A version is somebody else's
//! when its lineage says so, and never while this mount may have stored it. What becomes another version after it was
//! opened doesn't count: as everywhere, who opens later and closes last wins.
//!
//! How a conflict is resolved is in `conflicts`.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::inode::{Freshness, Lineage, Node, Presence};
use super::nodes::Nodes;
use super::table::Table;
use super::{FileSystem, Ino};
use crate::model::{Entry, Error, ErrorKind, Name, Result, Version};
use crate::outbox::may_have_effect;

/// How long the kernel may take from looking a name up to opening what it found; assumed.
const ONE_CALL: Duration = Duration::from_secs(1);
/// How many names without a node a directory remembers beliefs of.
const MOST_BELIEVED: usize = 1000;

/// What a program was shown when nobody knew whether it is the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Belief {
    lineage: Lineage,
    since: Instant,
    /// In bytes: what this mount may have put in its place, without an answer.
    or_size: Option<u64>,
}

/// What opening a file to read it has changed of what is believed of it.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    before: Option<Belief>,
    after: Option<Belief>,
}

/// A belief of a name that has no node.
#[derive(Clone, Debug)]
pub struct Parked {
    belief: Belief,
    /// The version that was believed in; `None` when the provider is known to have another one.
    version: Option<Version>,
}

impl Belief {
    fn of(lineage: Lineage) -> Self {
        Self {
            lineage,
            since: Instant::now(),
            or_size: None,
        }
    }

    /// Whether it was the latest, now that somebody asked then and found this lineage.
    pub fn is_confirmed(&self, lineage: Lineage, asked: Instant) -> bool {
        self.lineage == lineage && self.since <= asked
    }

    /// The same, where what was taken for another lineage turned out to be this one.
    pub fn renamed(self, taken_for: Lineage, lineage: Lineage) -> Self {
        Self {
            lineage: if self.lineage == taken_for {
                lineage
            } else {
                self.lineage
            },
            ..self
        }
    }

    /// Whether another version than the one that was shown may be what this mount has put in its place.
    pub fn may_be_ours(&self, found: &Entry) -> bool {
        self.or_size == Some(found.size)
    }
}

impl Node {
    /// Whether a belief is about something else than what the name stands for, by somebody else's doing.
    fn contradicts(&self, belief: &Belief) -> bool {
        self.presence == Presence::AtProvider && belief.lineage != self.current_lineage()
    }

    /// Whether what was changed here is shown in place of another version that the provider has, and that isn't ours.
    fn hides_another(&self) -> bool {
        let Some(content) = self.content.as_ref().filter(|_| self.is_dirty()) else {
            return false;
        };
        let hides = |replaces: &Entry| replaces.version != self.entry.version && !content.staged.may_be_stored();
        self.presence == Presence::AtProvider && content.replaces.as_ref().is_some_and(hides)
    }

    /// Whether it is not what programs here were shown when they last opened it. While it is sent, an answer from in
    /// between may say so, too.
    fn is_unread(&self) -> bool {
        self.belief.is_some_and(|belief| self.contradicts(&belief)) || self.hides_another()
    }

    /// Its content is about to be emptied: what begins anew is no change of a version that nobody here knows, and will
    /// stand beside that.
    pub(super) fn begins_anew(&mut self) {
        if self.belief.is_some_and(|belief| self.contradicts(&belief))
            && let Some(content) = self.content.as_mut().filter(|content| content.replaces.is_some())
        {
            content.replaces = None;
            content.lineage = Lineage::begin();
        }
    }

    /// A directory above got another name by this mount's doing, which may have made another version of it; the provider
    /// doesn't say.
    pub(super) fn was_moved(&mut self) {
        if let Some(belief) = &mut self.belief {
            belief.or_size = Some(self.entry.size);
        }
        self.believed.clear();
    }
}

impl Nodes {
    /// Programs may take a name for what is of this lineage, and the provider has something else.
    fn believe(&mut self, (parent, name): (Ino, &Name), lineage: Lineage) {
        let belief = Belief::of(lineage);
        match self.child(parent, name).and_then(|ino| self.nodes.get_mut(&ino)) {
            Some(node) => node.belief = Some(belief),
            None => self.park(parent, name, Parked { belief, version: None }),
        }
    }

    fn park(&mut self, parent: Ino, name: &Name, parked: Parked) {
        let Some(directory) = self.nodes.get_mut(&parent) else {
            return;
        };
        let believed = &mut directory.believed;
        if believed.len() >= MOST_BELIEVED
            && let Some((oldest, _)) = believed.iter().min_by_key(|(_, parked)| parked.belief.since)
        {
            let oldest = oldest.clone();
            believed.remove(&oldest);
        }
        believed.insert(name.clone(), parked);
    }

    /// A node loses its name, by nobody's doing here: what is believed of the name stays.
    pub(super) fn leave_belief(&mut self, ino: Ino, parent: Ino, name: &Name) {
        let parked = self.nodes.get_mut(&ino).and_then(|node| {
            let belief = node.belief.take()?;
            let version = (!node.contradicts(&belief)).then(|| node.entry.version.clone());
            Some(Parked { belief, version })
        });
        if let Some(parked) = parked {
            self.park(parent, name, parked);
        }
    }

    /// A node gets a name: what is believed of that is believed of the node, unless it was made here.
    pub(super) fn take_belief(&mut self, parent: Ino, name: &Name, node: &mut Node) {
        let directory = self.nodes.get_mut(&parent);
        let parked = directory.and_then(|directory| directory.believed.remove(name));
        let Some(Parked { belief, version }) = parked.filter(|_| node.presence == Presence::AtProvider) else {
            return;
        };
        if version.as_ref() == Some(&node.entry.version) {
            node.lineage = belief.lineage;
        }
        let is_settled = belief.is_confirmed(node.lineage, node.learned) || belief.may_be_ours(&node.entry);
        node.belief = Some(belief).filter(|_| !is_settled);
    }
}

impl Table {
    /// A program opens a file to read what is of this lineage. `None` for a number that is not in the table.
    pub(super) fn is_read(&self, ino: Ino, lineage: Lineage) -> Option<Shown> {
        let mut inner = self.inner.lock();
        let node = inner.nodes.get_mut(&ino)?;
        node.was_read = true;
        let is_latest = matches!(node.freshness, Freshness::Checked(at) if at.elapsed() <= ONE_CALL);
        let after = (!is_latest || node.is_ours()).then(|| Belief::of(lineage));
        let before = std::mem::replace(&mut node.belief, after);
        if let Some((parent, name)) = node.aside_from.clone() {
            // It may have come by this name, which the kernel has not forgotten yet.
            inner.believe((parent, &name), lineage);
        }
        Some(Shown { before, after })
    }

    /// What was opened to read it is emptied before a byte was read: nobody was shown anything.
    pub(super) fn was_not_read(&self, ino: Ino, shown: Shown) {
        if let Some(node) = self.inner.lock().nodes.get_mut(&ino)
            && node.belief == shown.after
        {
            node.belief = shown.before;
        }
    }

    /// A file has another name instead of this one, which stands for somebody else's version. Who was shown it takes
    /// that for the file.
    fn gave_way(&self, ino: Ino, (parent, name): (Ino, &Name)) {
        let mut inner = self.inner.lock();
        if let Some(directory) = inner.nodes.get_mut(&parent) {
            // The name isn't gone: who asked before and is answered now finds it.
            directory.changed.remove(name);
            directory.expire();
        }
        let there = inner.child(parent, name).and_then(|there| inner.nodes.get(&there));
        let was_there_read = there.is_some_and(|there| there.was_read);
        let Some(node) = inner.nodes.get_mut(&ino) else { return };
        node.aside_from = Some((parent, name.clone()));
        let lineage = node.current_lineage();
        if node.belief.take().is_some() || node.was_read || was_there_read {
            inner.believe((parent, name), lineage);
        }
    }

    /// Something that was to put so many bytes under a name failed: perhaps they are there.
    pub(super) fn may_stand_for(&self, (parent, name): (Ino, &Name), size: u64, error: &Error) {
        if !may_have_effect(error.kind()) {
            return;
        }
        let mut inner = self.inner.lock();
        let belief = match inner.child(parent, name) {
            Some(ino) => inner.nodes.get_mut(&ino).and_then(|node| node.belief.as_mut()),
            None => {
                let directory = inner.nodes.get_mut(&parent);
                let parked = directory.and_then(|directory| directory.believed.get_mut(name));
                parked.map(|parked| &mut parked.belief)
            }
        };
        if let Some(belief) = belief {
            belief.or_size = Some(size);
        }
    }

    /// Whether a name stands for what nobody here has opened, though something older was opened under it; to be called
    /// in its turn.
    pub(super) fn is_unread(&self, parent: Ino, name: &Name) -> bool {
        let inner = self.inner.lock();
        let directory = inner.nodes.get(&parent);
        match inner.child(parent, name).and_then(|ino| inner.nodes.get(&ino)) {
            Some(node) => node.is_unread(),
            None => directory.is_some_and(|directory| directory.believed.contains_key(name)),
        }
    }

    /// What the provider has under the name of a file that is to be replaced; to be called in its turn.
    ///
    /// # Errors
    /// `AlreadyExists` when that is a version which nobody here has opened, though something older was; `Changed` for a
    /// number that is not in the table.
    pub(super) fn replaceable(&self, ino: Ino) -> Result<Option<Entry>> {
        self.with(ino, |node| {
            if node.presence != Presence::AtProvider {
                return Ok(None);
            }
            if node.is_unread() {
                let name = &node.entry.name;
                let message = format!("{name} is somebody else's version, which nobody here has opened yet");
                return Err(Error::new(ErrorKind::AlreadyExists, message));
            }
            let changed = node.content.as_ref().filter(|_| node.is_dirty());
            Ok(changed.map_or_else(|| Some(node.entry.clone()), |content| content.replaces.clone()))
        })?
    }
}

impl FileSystem {
    /// Something that was to make another version of a file, with so many bytes, failed: perhaps it is there.
    pub(super) fn may_be_changed(&self, ino: Ino, size: u64, error: &Error) {
        if let Ok(Some((parent, name))) = self.place(ino) {
            self.table.may_stand_for((parent, &name), size, error);
        }
    }

    /// A file got the name of a conflict, beside the one that it had or was to have, which stands for somebody else's
    /// version.
    pub(super) fn is_beside(&self, ino: Ino, at: (Ino, &Name), others: &[(Ino, &Name)]) {
        self.table.gave_way(ino, at);
        let names: Vec<(Ino, OsString)> = std::iter::once(&at)
            .chain(others)
            .map(|(parent, name)| (*parent, name.as_str().into()))
            .collect();
        let table = Arc::clone(&self.table);
        // From then on nobody finds it by its former name.
        let is_told = move || drop(table.with(ino, |node| node.aside_from = None));
        let tell_table = is_told.clone();
        let told = self.tell_kernel(move |kernel| {
            let forget = |(parent, name): &(Ino, OsString)| kernel.forget_name(*parent, name);
            names.iter().for_each(forget);
            tell_table();
        });
        if told.is_none() {
            is_told();
        }
    }
}
