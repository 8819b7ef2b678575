//! What came of an upload: a server that says that it stored something is not taken at its word.
//!
//! What is short is read again, which takes no more requests than a look at its length. What is long is looked at: its
//! length must be the one that was sent, and its version another one than before. Under a lock, what is there and isn't
//! what was sent is the server's fault. Without one it may be somebody else's doing, and then both versions are kept.

use reqwest::StatusCode;
use reqwest::header::{ETAG, LAST_MODIFIED};
use tracing::warn;

use super::client::{Client, Form};
use super::lock::{Found, Lock};
use super::wire::{self, Described};
use crate::model::{Error, ErrorKind, Kind, Result, ToldAttributes, Version};
use crate::provider::clash::clash;
use crate::provider::{Content, Target};

const PURPOSE: &str = "read the file again";

/// What was sent and said to be stored.
pub(super) struct Stored<'a> {
    pub(super) target: &'a Target,
    pub(super) content: &'a Content,
    /// The version that the server's answer told.
    pub(super) told: Option<Version>,
}

/// What was read of it.
enum Back {
    /// What was sent, described as far as the answer tells it.
    Same(Option<Described>),
    Other(Option<Version>),
    Nothing,
    /// It is too long, or may not be read.
    Unread,
}

impl Stored<'_> {
    /// Makes sure that it is there; `before` is what was there before.
    ///
    /// # Errors
    /// `BadData` when it isn't there, or not as it was sent; `AlreadyExists` and `Changed` when something else is there.
    pub(super) async fn settle(
        &self,
        client: &Client,
        path: &str,
        before: Option<&Described>,
        lock: Option<&Lock>,
    ) -> Result<Described> {
        let (there, is_proven) = match self.read_back(client, path).await? {
            Back::Same(Some(described)) => {
                // Properties outlive the content that they were set beside.
                let posix = before.map(|before| before.posix.clone()).unwrap_or_default();
                return Ok(Described {
                    posix: without_times(&posix),
                    ..described
                });
            }
            Back::Nothing => return Err(missing()),
            // Some servers are of two minds for a moment.
            Back::Other(version) if !client.holds(path, self.content).await => {
                return Err(self.refusal(client, path, before, lock, version).await);
            }
            Back::Same(None) | Back::Other(_) => (look(client, path).await?, true),
            Back::Unread => (look(client, path).await?, false),
        };
        let len = self.content.len();
        if there.is_directory() || there.size != len {
            let has = there.size;
            return Err(wrong(&format!("{len} bytes were sent and the server has {has}")));
        }
        let is_as_before = before.is_some_and(|before| before.version == there.version);
        if is_as_before && !is_proven && !client.holds(path, self.content).await {
            return Err(wrong(
                "the server said that it is stored, and has what was there before",
            ));
        }
        Ok(there)
    }

    async fn read_back(&self, client: &Client, path: &str) -> Result<Back> {
        if !self.content.is_read_back() {
            return Ok(Back::Unread);
        }
        let response = match client.get(path, None, None).await {
            Ok(response) if response.status == StatusCode::OK => response,
            Ok(_) => return Ok(Back::Unread),
            Err(error) => {
                return match error.kind() {
                    ErrorKind::NotFound => Ok(Back::Nothing),
                    ErrorKind::Denied | ErrorKind::InvalidInput | ErrorKind::Unsupported => Ok(Back::Unread),
                    _ => Err(error),
                };
            }
        };
        let tag = response.header(ETAG.as_str());
        let tag = tag.and_then(|text| wire::Tag::of(text, self.content.len()));
        let modified = response.header(LAST_MODIFIED.as_str()).and_then(wire::http_date);
        if !self.content.is_same_as(response.stream(PURPOSE)).await? {
            return Ok(Back::Other(tag.map(|tag| tag.version)));
        }
        let described = tag.zip(modified).map(|(tag, modified)| Described {
            kind: Kind::File,
            size: self.content.len(),
            modified,
            version: tag.version,
            is_young: tag.is_young,
            posix: ToldAttributes::None,
        });
        Ok(Back::Same(described))
    }

    /// Why something else is there.
    async fn refusal(
        &self,
        client: &Client,
        path: &str,
        before: Option<&Described>,
        lock: Option<&Lock>,
        there: Option<Version>,
    ) -> Error {
        let is_before = before.is_some_and(|before| there.as_ref() == Some(&before.version));
        if lock.is_none() && !is_before && (there.is_none() || there != self.told) {
            return clash(self.target);
        }
        if let Some(made) = lock.filter(|lock| lock.found == Found::Nothing) {
            // Its name is to be free for the next attempt.
            if let Err(error) = client.delete(path, Form::Plain, Some(made)).await {
                warn!(path, %error, "what was stored wrongly stays");
            }
        }
        wrong("the server has something else there than what was sent")
    }
}

fn without_times(posix: &ToldAttributes) -> ToldAttributes {
    match posix.told() {
        Some(told) => {
            let mut told = told.clone();
            told.times = None;
            told.into()
        }
        None => posix.clone(),
    }
}

async fn look(client: &Client, path: &str) -> Result<Described> {
    match client.describe(path).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(missing()),
        there => there,
    }
}

fn missing() -> Error {
    wrong("the server said that it is stored, and has nothing there")
}

fn wrong(why: &str) -> Error {
    Error::new(ErrorKind::BadData, format!("store the file: {why}"))
}
