//! Finding what has a name: by what is known, by the directory's listing, or by asking for it alone.

use std::ffi::OsStr;

use super::inode::{Answer, Node};
use super::listing::Listing;
use super::reference::Reference;
use super::{Child, FileSystem, Ino};
use crate::model::{Error, ErrorKind, Name, Result};

/// After so many names that were not there, a directory is listed.
const MANY_MISSES: u32 = 3;

/// What came of looking for a name.
pub(super) enum Sought {
    There(Reference),
    /// The provider has nothing there.
    Missing(Answer),
}

impl Sought {
    /// # Errors
    /// `NotFound`.
    pub fn there(self, name: &Name) -> Result<Reference> {
        match self {
            Self::There(reference) => Ok(reference),
            Self::Missing(_) => Err(Error::not_found(name)),
        }
    }
}

impl FileSystem {
    /// The child of a directory.
    ///
    /// # Errors
    /// `NotFound`, and as `Provider::lookup`.
    pub async fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Child> {
        let reference = self.find(parent, &Name::from_os(name)?).await?;
        self.as_child(reference)
    }

    /// A child as known or as the provider says.
    pub(super) async fn find(&self, parent: Ino, name: &Name) -> Result<Reference> {
        self.look_for(parent, name).await?.there(name)
    }

    /// As `find`, with the answer by which nothing is there.
    ///
    /// # Errors
    /// `NotFound` when the provider didn't say so now.
    pub(super) async fn look_for(&self, parent: Ino, name: &Name) -> Result<Sought> {
        let mut known = self.table.child(parent, name);
        let fresh = |node: &mut Node| node.is_ours() || node.freshness.is_within(self.settings.attr_ttl);
        if let Some(reference) = known.take_if(|known| {
            let fresh = self.table.with(known.ino(), fresh);
            fresh.unwrap_or(false) || self.provider_is_away()
        }) {
            return Ok(Sought::There(reference));
        }
        let kept = self.kept(parent, name);
        if kept.special.is_some() {
            return self.attach_kept(parent, name.clone(), kept).map(Sought::There);
        }
        // From here on what this mount changes is remembered, so that an older listing or answer doesn't win over it.
        let question = self.table.question(parent)?;
        if known.is_some() {
            self.list_if_read_through(parent).await;
        }
        if let Some(listing) = self.fresh_listing(parent) {
            return self.listed(parent, name, &listing, known);
        }
        // As in `fresh_entry`.
        if self.provider_is_away()
            && let Some(found) = known.take().or_else(|| self.listed_before(parent, name))
        {
            return Ok(Sought::There(found));
        }
        if let Some(found) = self.find_remembered(parent, name, &mut known).await? {
            return Ok(found);
        }
        let directory = self.entry(parent).await?;
        if !directory.is_directory() {
            return Err(Error::new(
                ErrorKind::NotADirectory,
                format!("{} is a file", directory.name),
            ));
        }
        match self.provider.lookup(&directory.key, name).await {
            Ok(entry) => {
                let number = kept.ino.map(Ino);
                let reference = self.table.attach(parent, entry, number, question.answered())?;
                Ok(Sought::There(reference))
            }
            Err(error) if self.was_moved(parent, &directory.key, &error).await => {
                Box::pin(self.look_for(parent, name)).await
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let answer = question.answered();
                self.missed(parent).await;
                if let Some(known) = known {
                    self.table.gone(known.ino(), answer);
                }
                Ok(Sought::Missing(answer))
            }
            Err(error) => {
                let is_away = self.means_away(&error);
                if is_away && let Some(found) = known.or_else(|| self.listed_before(parent, name)) {
                    return Ok(Sought::There(found));
                }
                // What was not there when it was last listed can be made: it is sent when somebody answers. One who answers
                // "not now" will say so soon enough.
                let later = matches!(error.kind(), ErrorKind::RateLimited { .. });
                if is_away && !later && self.was_absent(parent, name) {
                    return Err(Error::not_found(name));
                }
                Err(error)
            }
        }
    }

    /// A name was looked for that isn't there. Whoever makes many files looks for each one first: the directory's listing
    /// answers that, in one request.
    async fn missed(&self, directory: Ino) {
        if self.settings.attr_ttl.is_zero() {
            return;
        }
        let many = self
            .table
            .with(directory, |node| node.misses.add(self.settings.attr_ttl) >= MANY_MISSES);
        if many.unwrap_or(false) {
            // Without the listing each name is asked for, as before.
            let _ = self.listing(directory).await;
        }
    }

    /// A child that was there when its directory was last listed, however long ago: for as long as nobody answers.
    fn listed_before(&self, parent: Ino, name: &Name) -> Option<Reference> {
        let listing = self.table.with(parent, |node| node.listing.clone()).ok().flatten()?;
        let listing = listing.children.contains_key(name).then_some(listing)?;
        self.listed(parent, name, &listing, None).ok()?.there(name).ok()
    }

    /// What a listing says of a name.
    pub(super) fn listed(
        &self,
        parent: Ino,
        name: &Name,
        listing: &Listing,
        known: Option<Reference>,
    ) -> Result<Sought> {
        match listing.children.get(name) {
            Some((number, entry)) => {
                let number = Some(*number);
                let reference = self.table.attach(parent, entry.clone(), number, listing.answer)?;
                Ok(Sought::There(reference))
            }
            None => {
                if let Some(known) = known {
                    self.table.gone(known.ino(), listing.answer);
                }
                Ok(Sought::Missing(listing.answer))
            }
        }
    }
}
