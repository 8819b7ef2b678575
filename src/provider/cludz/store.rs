//! Changes that take several requests, ordered so that a crash between any two loses nothing.
//!
//! Cludz can neither move an entry over another nor upload conditionally. What is to be replaced is therefore renamed
//! to a temporary name first: of several clients only one succeeds in that, and it can look at what it has got before
//! it goes on. Then the new content gets the name, and only then the former one is removed. After a crash both are
//! there, at worst under names that begin with `.keymount-`.

use bytes::Bytes;
use serde_json::json;
use tracing::warn;

use super::client::{Client, Evidence, is_ambiguous, join, split};
use super::names::{self, Temporary, temporary};
use super::wire::{Created, Described};
use crate::model::{Entry, Error, ErrorKind, Name, Result, Version};
use crate::net::{Body, FilePart};
use crate::provider::Content;

/// The part's name in the multipart body of an upload (Cludz documentation).
const FILE_FIELD: &str = "file";

/// A content with its SHA-256 in lower-case hexadecimal.
#[derive(Clone, Copy)]
pub(super) struct Upload<'a> {
    pub(super) content: &'a Content,
    pub(super) sha256: &'a str,
}

impl Upload<'_> {
    fn is_in(&self, described: &Described) -> bool {
        described.holds(self.content.len(), self.sha256)
    }

    fn multipart(&self, name: &Name) -> Body {
        let content = self.content.clone();
        Body::Multipart {
            fields: Vec::new(),
            file: FilePart {
                field: FILE_FIELD.to_owned(),
                file_name: name.as_str().to_owned(),
                content_type: mime_guess::from_path(name.as_str()).first_or_octet_stream().to_string(),
                len: content.len(),
                open: std::sync::Arc::new(move || content.stream()),
            },
        }
    }
}

/// What must be under a name for it to be replaced.
#[derive(Clone, Debug)]
pub(super) enum Expected {
    File(Version),
    EmptyFolder,
}

/// A file under a name that was free.
///
/// # Errors
/// `AlreadyExists`, `BadData`.
pub(super) async fn create(client: &Client, folder: &str, name: &Name, upload: Upload<'_>) -> Result<Described> {
    // Whether an upload overwrites isn't documented: as long as none was refused for that, one looks first.
    if !client.refuses_overwriting() && client.exists(&join(folder, name.as_str())).await? {
        return Err(exists(name));
    }
    store(client, folder, name, upload).await
}

/// Sends a file to a name that is thought to be free and makes sure that it is there as sent.
async fn store(client: &Client, folder: &str, name: &Name, upload: Upload<'_>) -> Result<Described> {
    let path = join(folder, name.as_str());
    let sent = if upload.content.is_empty() {
        create_empty(client, folder, name).await
    } else {
        client.post_file(folder, upload.multipart(name)).await
    };
    match sent {
        Ok(()) => {}
        Err(error) if is_ambiguous(&error) => {
            return match client.describe(&path).await {
                Ok(now) if upload.is_in(&now) => Ok(now),
                _ => Err(error),
            };
        }
        // Among others `File unchanged`: the content is known. Here it can only be of use under this very name.
        Err(error) if error.kind() == ErrorKind::InvalidInput => {
            return match client.describe(&path).await {
                Ok(_) => Err(exists(name)),
                Err(_) => Err(refused(&error)),
            };
        }
        Err(error) => return Err(error),
    }
    verified(client, &path, upload).await
}

async fn create_empty(client: &Client, folder: &str, name: &Name) -> Result<()> {
    let body = json!({ "type": "file", "name": name.as_str() });
    let answer = client.post_json(folder, &body, "create the file").await?;
    let stored = serde_json::from_slice::<Created>(&answer)
        .ok()
        .and_then(|created| created.file_name);
    match stored {
        Some(stored) if stored != name.as_str() => {
            let path = join(folder, &stored);
            if let Ok(described) = client.detail(&path).await
                && described.size == 0
                && !described.is_directory()
            {
                discard(client, &path, &described).await;
            }
            let message = format!("Cludz would store {:?} as {stored:?}", name.as_str());
            Err(Error::new(ErrorKind::InvalidName, message))
        }
        _ => Ok(()),
    }
}

/// What is stored now, if it is what was sent.
async fn verified(client: &Client, path: &str, upload: Upload<'_>) -> Result<Described> {
    match client.describe(path).await {
        Ok(now) if upload.is_in(&now) => Ok(now),
        Ok(_) => Err(Error::bad_data(format!(
            "the provider took the upload of {path:?}, but what it holds is something else"
        ))),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::bad_data(format!(
            "the provider took the upload of {path:?}, but doesn't have it"
        ))),
        Err(error) => Err(error),
    }
}

/// New content for a file that must still have this version.
///
/// # Errors
/// `Changed`, `BadData`; `Denied` where the service doesn't overwrite and the credential cannot delete.
pub(super) async fn replace(client: &Client, folder: &str, old: &Entry, upload: Upload<'_>) -> Result<Described> {
    let path = old.key.as_str();
    let now = match client.describe(path).await {
        Ok(now) => now,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(changed(&old.name)),
        Err(error) => return Err(error),
    };
    if now.is_directory() || now.version != old.version {
        return Err(changed(&old.name));
    }
    if upload.is_in(&now) {
        return Ok(now);
    }
    if !client.refuses_overwriting()
        && let Some(stored) = overwrite(client, folder, old, upload).await?
    {
        return Ok(stored);
    }
    if !client.rights.at(folder).delete {
        return Err(Error::denied(format_args!(
            "Cludz replaces no file, and the token may not delete the former version of {:?}",
            old.name.as_str()
        )));
    }
    let fresh = temporary(Temporary::New, &old.name)?;
    let passing = client.passing.enter(&join(folder, fresh.as_str()));
    let staged = store(client, folder, &fresh, upload).await;
    let _folders = client.folders.read().await;
    let fresh_path = passing.path();
    let is_moved = split(&fresh_path).0 != folder;
    let staged = match staged {
        Ok(staged) if !is_moved => staged,
        outcome => {
            // Whatever arrived of it has a name of its own and is of no use.
            discard_if_there(client, &fresh_path).await;
            return Err(outcome
                .err()
                .filter(|_| !is_moved)
                .unwrap_or_else(|| changed(&old.name)));
        }
    };
    let expected = Expected::File(old.version.clone());
    match swap_in(client, folder, &fresh_path, &staged, &old.name, &expected).await {
        Ok(stored) => Ok(stored),
        Err(Swap::Restored(error)) => {
            discard_if_there(client, &fresh_path).await;
            Err(as_conflict(error))
        }
        // The new content stays where it is as well: what the provider did isn't known.
        Err(Swap::InBetween(error)) => Err(as_conflict(error)),
    }
}

/// A target that was gone or somebody else's when it was to be replaced.
fn as_conflict(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::AlreadyExists => Error::new(ErrorKind::Changed, error.message()),
        _ => error,
    }
}

/// Uploads straight to a taken name; `None` when the service doesn't do that.
async fn overwrite(client: &Client, folder: &str, old: &Entry, upload: Upload<'_>) -> Result<Option<Described>> {
    let path = old.key.as_str();
    match client.post_file(folder, upload.multipart(&old.name)).await {
        Ok(()) => verified(client, path, upload).await.map(Some),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
        // `File unchanged` is success when it is the content of this very file.
        Err(error) if error.kind() == ErrorKind::InvalidInput || is_ambiguous(&error) => {
            match client.describe(path).await {
                Ok(now) if upload.is_in(&now) => Ok(Some(now)),
                _ if is_ambiguous(&error) => Err(error),
                _ => Err(refused(&error)),
            }
        }
        Err(error) => Err(error),
    }
}

/// How a swap failed.
pub(super) enum Swap {
    /// Everything is as it was.
    Restored(Error),
    /// The target's former content has a temporary name, which the message tells.
    InBetween(Error),
}

/// Gives the entry at `source` the name of another one in its folder and removes that one. As for `rename`, no folder above
/// it may get another name meanwhile.
///
/// # Errors
/// `NotFound` when there is nothing to replace, `AlreadyExists` when it isn't what was expected, `NotEmpty`.
pub(super) async fn swap_in(
    client: &Client,
    folder: &str,
    source: &str,
    moved: &Described,
    name: &Name,
    expected: &Expected,
) -> Result<Described, Swap> {
    let target = join(folder, name.as_str());
    let aside = temporary(Temporary::Old, name).map_err(Swap::Restored)?;
    let aside_path = join(folder, aside.as_str());
    let _passing = client.passing.enter(&aside_path);
    client
        .put_name(&target, &aside, Evidence::NewExists)
        .await
        .map_err(Swap::Restored)?;
    let claimed = Claimed {
        client,
        path: &aside_path,
        aside: &aside,
        name,
    };
    let former = match claimed.look(expected).await {
        Ok(former) => former,
        Err(error) => return Err(claimed.restore(error).await),
    };
    if let Err(error) = client.put_name(source, name, Evidence::OldIsGone).await {
        return Err(claimed.restore(error).await);
    }
    // The service's word isn't enough to remove the former content.
    let now = match client.describe(&target).await {
        Ok(now) if now.kind == moved.kind && now.version == moved.version => now,
        other => match client.exists(source).await {
            // It got there, and somebody else replaced or removed it since.
            Ok(false) => moved.clone(),
            Ok(true) => {
                let lie = Error::bad_data(format!(
                    "the provider said that {:?} was renamed, but it was not",
                    name.as_str()
                ));
                return Err(claimed.restore(lie).await);
            }
            Err(error) => {
                let error = other.err().unwrap_or(error);
                return Err(claimed.in_between(error));
            }
        },
    };
    discard(client, &aside_path, &former).await;
    Ok(now)
}

/// What is to be replaced, under its temporary name.
struct Claimed<'a> {
    client: &'a Client,
    path: &'a str,
    aside: &'a Name,
    /// The name that it had.
    name: &'a Name,
}

impl Claimed<'_> {
    /// Whether it is what was to be replaced.
    async fn look(&self, expected: &Expected) -> Result<Described> {
        let former = self.client.detail(self.path).await?;
        let fits = match expected {
            Expected::File(version) => !former.is_directory() && former.version == *version,
            Expected::EmptyFolder => former.is_directory(),
        };
        if !fits {
            return Err(exists(self.name));
        }
        if former.is_directory() && !self.client.list(self.path).await?.is_empty() {
            return Err(not_empty(self.name));
        }
        Ok(former)
    }

    /// Gives it its name back after this failure.
    async fn restore(&self, error: Error) -> Swap {
        if self
            .client
            .put_name(self.path, self.name, Evidence::OldIsGone)
            .await
            .is_ok()
        {
            return Swap::Restored(error);
        }
        // It may never have got the temporary name, though the service said so.
        match self.client.exists(self.path).await {
            Ok(false) => Swap::Restored(error),
            _ => self.in_between(error),
        }
    }

    fn in_between(&self, error: Error) -> Swap {
        let (name, aside) = (self.name.as_str(), self.aside.as_str());
        Swap::InBetween(error.context(format_args!("the former {name:?} is now {aside:?}")))
    }
}

/// Removes what is of no use any more. A failure costs nothing but the room it takes.
async fn discard(client: &Client, path: &str, described: &Described) {
    if let Err(error) = client.delete(path, described).await {
        warn!(path, %error, "a temporary file is left at the provider");
    }
}

async fn discard_if_there(client: &Client, path: &str) {
    if let Ok(described) = client.detail(path).await {
        discard(client, path, &described).await;
    }
}

/// A folder under a name that was free.
///
/// # Errors
/// `AlreadyExists`, `BadData`.
pub(super) async fn create_folder(client: &Client, folder: &str, name: &Name) -> Result<()> {
    let body = json!({ "type": "folder", "name": name.as_str() });
    let answer: Result<Bytes> = client.post_json(folder, &body, "create the folder").await;
    match answer {
        Ok(_) => Ok(()),
        Err(error) if is_ambiguous(&error) => {
            // Nobody can tell an empty folder from another.
            let path = join(folder, name.as_str());
            match client.list(&path).await {
                Ok(items) if items.is_empty() => Ok(()),
                _ => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

/// Gives an entry another name in its folder. The caller sees to it that no folder above it gets another one meanwhile.
///
/// # Errors
/// `NotFound`, `AlreadyExists`, `NotEmpty`, `IsADirectory`, `NotADirectory`, `BadData`; `Denied` when something is to
/// be replaced and the credential cannot delete.
pub(super) async fn rename(
    client: &Client,
    folder: &str,
    entry: &Entry,
    name: &Name,
    replaced: Option<&Entry>,
) -> Result<Described, Swap> {
    names::check(name).map_err(Swap::Restored)?;
    let source = entry.key.as_str();
    let moved = client.detail(source).await.map_err(Swap::Restored)?;
    if moved.kind != entry.kind {
        return Err(Swap::Restored(Error::not_found(format_args!(
            "{:?}",
            entry.name.as_str()
        ))));
    }
    if let Some(replaced) = replaced {
        let expected = match replaceable(client, &moved, replaced).await {
            Ok(expected) => expected,
            Err(error) => return Err(Swap::Restored(error)),
        };
        if let Some(expected) = expected {
            match swap_in(client, folder, source, &moved, name, &expected).await {
                Err(Swap::Restored(error)) if error.kind() == ErrorKind::NotFound => {}
                other => return other,
            }
        }
    }
    client
        .put_name(source, name, Evidence::OldIsGone)
        .await
        .map_err(Swap::Restored)?;
    match client.describe(&join(folder, name.as_str())).await {
        Ok(now) if now.kind == moved.kind => Ok(now),
        Ok(_) => Err(Swap::Restored(renamed_elsewhere(name))),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Swap::Restored(renamed_elsewhere(name))),
        Err(error) => Err(Swap::Restored(error)),
    }
}

/// What to expect of an entry that is to be replaced; `None` when its name is free already.
async fn replaceable(client: &Client, moved: &Described, replaced: &Entry) -> Result<Option<Expected>> {
    let path = replaced.key.as_str();
    let there = match client.detail(path).await {
        Ok(there) => there,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if there.kind != replaced.kind || there.version != replaced.version {
        return Err(exists(&replaced.name));
    }
    let named = |kind, what: &str| Error::new(kind, format!("{:?} {what}", replaced.name.as_str()));
    match (moved.is_directory(), there.is_directory()) {
        (false, true) => return Err(named(ErrorKind::IsADirectory, "is a folder")),
        (true, false) => return Err(named(ErrorKind::NotADirectory, "is not a folder")),
        (true, true) if !client.list(path).await?.is_empty() => return Err(not_empty(&replaced.name)),
        _ => {}
    }
    let folder = split(path).0;
    if !client.rights.at(folder).delete {
        return Err(Error::denied(format_args!(
            "the token may not delete, which replacing {:?} needs",
            replaced.name.as_str()
        )));
    }
    Ok(Some(if there.is_directory() {
        Expected::EmptyFolder
    } else {
        Expected::File(there.version)
    }))
}

fn renamed_elsewhere(name: &Name) -> Error {
    Error::bad_data(format!(
        "the provider said that it renamed to {:?}, but there is no such entry",
        name.as_str()
    ))
}

/// The service doesn't want the content, and doesn't have it where it belongs.
fn refused(error: &Error) -> Error {
    Error::new(ErrorKind::BadData, error.message())
}

fn exists(name: &Name) -> Error {
    let message = format!("{:?} exists already", name.as_str());
    Error::new(ErrorKind::AlreadyExists, message)
}

fn changed(name: &Name) -> Error {
    let message = format!("{:?} was changed or removed by somebody else", name.as_str());
    Error::new(ErrorKind::Changed, message)
}

pub(super) fn not_empty(name: &Name) -> Error {
    Error::new(ErrorKind::NotEmpty, format!("{:?} is not empty", name.as_str()))
}
