//! Uploads: sent to a free path, found again when their answer was lost, and private whatever the service made of them.

use std::sync::atomic::Ordering;

use futures_util::TryStreamExt;
use sha2::{Digest, Sha256};
use tracing::{debug, warn};

use super::client::is_ambiguous;
use super::names::{Temporary, join, split, temporary};
use super::store::{ATTEMPTS, Store, exists, stored_elsewhere};
use super::tree::Change;
use super::wire::{Item, Visibility};
use crate::model::{Error, Result};
use crate::provider::Content;
use crate::provider::content::hex;

impl Store {
    /// Uploads under a temporary name beside a path.
    pub(super) async fn send_aside(&self, path: &str, content: &Content) -> Result<(String, Item)> {
        let (folder, name) = split(path);
        let fresh = temporary(Temporary::New, name);
        let fresh_path = join(folder, &fresh);
        match self.send(folder, &fresh, content).await {
            Ok(sent) => {
                self.snapshot.changed(Change::Put(fresh_path.clone(), sent.clone()));
                Ok((fresh_path, sent))
            }
            Err(error) => {
                // Whatever arrived of it has a name of its own and is of no use.
                self.discard(&fresh_path).await;
                Err(error)
            }
        }
    }

    /// Uploads to a path that is free, and makes sure that it is there as sent and private.
    pub(super) async fn send(&self, folder: &str, name: &str, content: &Content) -> Result<Item> {
        let path = join(folder, name);
        let mut attempt = 1;
        loop {
            let error = match self.client.upload(folder, name, content).await {
                Ok((stored, item)) => return self.checked(&path, &stored, item, content).await,
                Err(error) => error,
            };
            if !is_ambiguous(&error) {
                return Err(error);
            }
            debug!(path, %error, "looking for an upload whose answer was lost");
            match self.find(folder, &path, content).await {
                Ok(Some(item)) => return self.checked(&path, &path, item, content).await,
                Ok(None) if attempt < ATTEMPTS => attempt += 1,
                _ => return Err(error),
            }
        }
    }

    /// What the service says of an upload, if it is what was sent.
    async fn checked(&self, path: &str, stored: &str, item: Item, content: &Content) -> Result<Item> {
        let wrong = if stored != path {
            Some(stored_elsewhere(path, stored))
        } else if item.is_folder() || item.size != content.len() {
            Some(Error::bad_data(format!(
                "the provider took the upload of {path:?}, but what it holds is something else"
            )))
        } else {
            None
        };
        if let Some(error) = wrong {
            self.discard(stored).await;
            return Err(error);
        }
        if item.visibility == Some(Visibility::Public)
            && let Err(error) = self.client.set_visibility(path, Visibility::Private).await
        {
            self.discard(path).await;
            return Err(error.context(format_args!(
                "{path:?} was made public by the provider and cannot be hidden"
            )));
        }
        Ok(item)
    }

    /// A file with this path and content. `None` when there is nothing of that path.
    async fn find(&self, folder: &str, path: &str, content: &Content) -> Result<Option<Item>> {
        let items = self.snapshot.list_folder(folder).await?;
        let there: Vec<Item> = items
            .into_iter()
            .filter(|(known, _)| known == path)
            .map(|(_, item)| item)
            .collect();
        if there.is_empty() {
            return Ok(None);
        }
        for item in there {
            if !item.is_folder() && item.size == content.len() && self.holds(&item, content).await? {
                return Ok(Some(item));
            }
        }
        Err(exists(path))
    }

    async fn holds(&self, item: &Item, content: &Content) -> Result<bool> {
        let Some(id) = item.id.as_deref().filter(|_| item.size > 0) else {
            return Ok(item.size == content.len());
        };
        let bytes = self.client.download(id).await?.stream("check the upload");
        let hasher = bytes
            .try_fold(Sha256::new(), async |mut hasher, chunk| {
                hasher.update(&chunk);
                Ok(hasher)
            })
            .await?;
        Ok(hex(&hasher.finalize()) == content.sha256().await?)
    }

    /// A new file as the listing has it: an upload's answer lacks the time of the last change.
    pub(super) async fn settled(&self, path: &str, sent: Item) -> Result<Item> {
        if self.uploads_tell_time.load(Ordering::Relaxed) {
            let made = sent.just_made();
            self.snapshot.changed(Change::Put(path.to_owned(), made.clone()));
            return Ok(made);
        }
        let Some(listed) = self.seen(path, &sent).await? else {
            self.snapshot.changed(Change::Put(path.to_owned(), sent.clone()));
            return Ok(sent);
        };
        if listed.is_untouched() && listed.updated == sent.clone().just_made().updated {
            self.uploads_tell_time.store(true, Ordering::Relaxed);
        }
        self.kept_private(path, listed).await
    }

    /// How an item that was just stored is listed; `None` when that cannot be seen now.
    ///
    /// # Errors
    /// `BadData` when it isn't there.
    pub(super) async fn seen(&self, path: &str, item: &Item) -> Result<Option<Item>> {
        match self.snapshot.list_folder(split(path).0).await {
            Ok(items) => {
                let mut here = items
                    .into_iter()
                    .filter(|(known, _)| known == path)
                    .map(|(_, item)| item);
                let found = here.find(|listed| item.id.is_none() || listed.id == item.id);
                found.map(Some).ok_or_else(|| {
                    Error::bad_data(format!(
                        "the provider said that it stored {path:?}, but doesn't have it"
                    ))
                })
            }
            Err(error) => {
                debug!(path, %error, "what was stored cannot be looked at");
                Ok(None)
            }
        }
    }

    /// Hides what keymount stored, should the service have published it.
    pub(super) async fn kept_private(&self, path: &str, item: Item) -> Result<Item> {
        if item.visibility != Some(Visibility::Public) {
            return Ok(item);
        }
        warn!(path, "the provider published what was stored; hiding it");
        self.client.set_visibility(path, Visibility::Private).await?;
        let hidden = self.seen(path, &item).await?.unwrap_or(Item {
            visibility: Some(Visibility::Private),
            updated: None,
            ..item
        });
        self.snapshot.changed(Change::Put(path.to_owned(), hidden.clone()));
        Ok(hidden)
    }
}
