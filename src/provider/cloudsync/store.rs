//! Changes that take several requests, ordered so that a crash between any two loses nothing.
//!
//! CloudSync documents no conditional request. New files are refused by the service where the name is taken
//! (`overwrite` is false); a file that is to be replaced is looked at right before, and again right after: whoever finds
//! somebody else's content then keeps its own as a conflict. Whether a move replaces what is in its way isn't
//! documented, so nothing is moved to a path that was seen taken. What a move is to replace gets a temporary name first
//! and is removed only when the new content has its place.

use tracing::warn;

use super::client::{Client, Folder, Overwrite, is_ambiguous};
use super::key::Key;
use super::names::{self, folder_of, join};
use super::wire::{Item, ItemKind};
use crate::model::{Entry, Error, ErrorKind, Kind, Name, Result};
use crate::provider::Content;

/// The file that makes a folder where folders only come with files; it is removed at once.
const PLACEHOLDER: &str = ".keymount-folder";

/// A content with its SHA-256 in lower-case hexadecimal.
#[derive(Clone, Copy)]
pub(super) struct Upload<'a> {
    pub(super) content: &'a Content,
    pub(super) sha256: &'a str,
}

impl Upload<'_> {
    fn is_in(&self, item: &Item) -> bool {
        item.holds(self.content.len(), self.sha256)
    }
}

/// A file under a name that was free.
///
/// # Errors
/// `AlreadyExists`, `BadData`, `Changed`.
pub(super) async fn create(client: &Client, folder: &Folder, name: &Name, upload: Upload<'_>) -> Result<Item> {
    let (workspace, path) = (folder.workspace.as_str(), join(&folder.path, name.as_str()));
    let found = async || client.find(workspace, &folder.path, name.as_str()).await;
    match client.post_file(workspace, &path, upload.content, Overwrite::No).await {
        Ok(Some(stored)) => settled(client, workspace, &path, stored, upload).await,
        Ok(None) => match found().await? {
            Some(stored) => settled(client, workspace, &path, stored, upload).await,
            None => Err(Error::bad_data(format!(
                "the provider took the upload of {path:?}, but doesn't have it"
            ))),
        },
        Err(error) if is_ambiguous(&error) => match found().await {
            Ok(Some(now)) if upload.is_in(&now) => Ok(now),
            _ => Err(error),
        },
        // Which code says that a name is taken isn't documented.
        Err(error) if error.kind() == ErrorKind::InvalidInput => match found().await {
            Ok(Some(_)) => Err(exists(name)),
            _ => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// What is stored now, if it is what was sent.
async fn settled(client: &Client, workspace: &str, path: &str, stored: Item, upload: Upload<'_>) -> Result<Item> {
    let other = |what: &str| Error::bad_data(format!("the provider took the upload of {path:?}, but {what}"));
    if stored.path != path || !upload.is_in(&stored) {
        return Err(other("what it holds is something else"));
    }
    if stored.is_complete() {
        return Ok(stored);
    }
    match client.item(workspace, &stored.id).await {
        Ok(now) if upload.is_in(&now) => Ok(now),
        Ok(_) => Err(match holds_version(client, &stored, upload).await {
            Some(false) => other("what it holds is something else"),
            // It was right when it arrived.
            Some(true) | None => Error::new(
                ErrorKind::Changed,
                format!("{path:?} was replaced by somebody else right after it was uploaded"),
            ),
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(other("doesn't have it")),
        // Whoever may only write must believe what the answer says.
        Err(error) if error.kind() == ErrorKind::Denied => Ok(stored.with_sha256(upload.sha256)),
        Err(error) => Err(error),
    }
}

/// Whether the version that an upload made has its content; `None` where that can't be found out.
async fn holds_version(client: &Client, stored: &Item, upload: Upload<'_>) -> Option<bool> {
    let number = stored.version?;
    let versions = client.versions(&stored.id).await.ok()?;
    let made = versions.into_iter().find(|version| version.version == number)?;
    let digest = made.hash?.strip_prefix("sha256:")?.to_ascii_lowercase();
    Some(digest == upload.sha256)
}

/// New content for a file in this folder that must still have this version.
///
/// # Errors
/// `Changed`, `BadData`.
pub(super) async fn replace(
    client: &Client,
    folder: &Key,
    old: &Entry,
    (workspace, id): (&str, &str),
    upload: Upload<'_>,
) -> Result<Item> {
    let path = match client.item(workspace, id).await {
        Ok(now) if now.is_folder() || now.content_version() != old.version => return Err(changed(&old.name)),
        Ok(now) if upload.is_in(&now) => return Ok(now),
        // Somebody may have moved it: it is the file that gets the new content, not the name.
        Ok(now) => now.path,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(changed(&old.name)),
        // Whoever may only write knows no other file than those made by this mount.
        Err(error) if error.kind() == ErrorKind::Denied => {
            let folder = client.folder(folder).await.map_err(|_| error)?;
            join(&folder.path, old.name.as_str())
        }
        Err(error) => return Err(error),
    };
    match client.post_file(workspace, &path, upload.content, Overwrite::Yes).await {
        Ok(Some(stored)) => settled(client, workspace, &path, stored, upload).await,
        Ok(None) => {
            let stored = client.item(workspace, id).await?;
            settled(client, workspace, &path, stored, upload).await
        }
        Err(error) if is_ambiguous(&error) => match client.item(workspace, id).await {
            Ok(now) if upload.is_in(&now) => Ok(now),
            _ => Err(error),
        },
        // A folder got its place.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(changed(&old.name)),
        Err(error) => Err(error),
    }
}

/// A folder under a name that was free.
///
/// # Errors
/// `AlreadyExists`, `BadData`; `Unsupported` where no folder can be without a file.
pub(super) async fn create_folder(client: &Client, folder: &Folder, name: &Name) -> Result<Item> {
    let (workspace, path) = (folder.workspace.as_str(), join(&folder.path, name.as_str()));
    // What the request does to a name that is taken isn't documented.
    match client.find(workspace, &folder.path, name.as_str()).await {
        Ok(None) => {}
        Ok(Some(_)) => return Err(exists(name)),
        // Whoever may only write tries it.
        Err(error) if error.kind() == ErrorKind::Denied => {}
        Err(error) => return Err(error),
    }
    if !client.makes_no_folders() {
        let made = match client.post_folder(workspace, &path).await {
            Ok(Some(made)) => Some(made),
            Ok(None) => client.find(workspace, &folder.path, name.as_str()).await?,
            // Nobody can tell an empty folder from another.
            Err(error) if is_ambiguous(&error) => match client.find(workspace, &folder.path, name.as_str()).await {
                Ok(Some(made)) if made.is_folder() => return Ok(made),
                _ => return Err(error),
            },
            Err(error) if does_not_know(&error) => {
                if client.find(workspace, &folder.path, name.as_str()).await?.is_some() {
                    return Err(exists(name));
                }
                None
            }
            Err(error) => return Err(error),
        };
        match made {
            Some(made) if made.is_folder() && made.path == path => return seen(client, workspace, made).await,
            Some(other) => discard(client, workspace, &other.id).await,
            None => {}
        }
        client.learn_no_folders();
    }
    folder_by_file(client, folder, name).await
}

/// A folder that the service said it made, if it is there.
async fn seen(client: &Client, workspace: &str, made: Item) -> Result<Item> {
    match client.item(workspace, &made.id).await {
        Ok(now) if now.is_folder() && now.path == made.path => Ok(now),
        Err(error) if error.kind() == ErrorKind::Denied => Ok(made),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Err(Error::bad_data(format!(
            "the provider said that it made the folder {:?}, but there is none",
            made.path
        ))),
    }
}

/// Whether a service that answers so has no such request.
fn does_not_know(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidInput | ErrorKind::InvalidName | ErrorKind::Unsupported | ErrorKind::NotFound
    )
}

/// Makes a folder by storing a file in it and removing that again.
async fn folder_by_file(client: &Client, folder: &Folder, name: &Name) -> Result<Item> {
    let (workspace, path) = (folder.workspace.as_str(), join(&folder.path, name.as_str()));
    let nothing = Content::from_bytes(b"")?;
    let sha256 = nothing.sha256().await?;
    let upload = Upload {
        content: &nothing,
        sha256: &sha256,
    };
    let placeholder = join(&path, PLACEHOLDER);
    let stored = client
        .post_file(workspace, &placeholder, upload.content, Overwrite::No)
        .await?;
    let id = match stored {
        Some(stored) => Some(stored.id),
        None => client.find(workspace, &path, PLACEHOLDER).await?.map(|found| found.id),
    };
    if let Some(id) = id {
        client.delete(workspace, &id, Kind::File).await?;
    }
    match client.find(workspace, &folder.path, name.as_str()).await? {
        Some(made) if made.is_folder() => Ok(made),
        _ => Err(Error::unsupported(format!(
            "{:?} cannot be made: the provider keeps no folder without a file in it",
            name.as_str()
        ))),
    }
}

/// Removes a folder that has nothing in it.
///
/// # Errors
/// `NotFound`, `NotEmpty`.
pub(super) async fn remove_folder(client: &Client, key: &Key, workspace: &str, id: &str, name: &Name) -> Result<()> {
    match client.delete(workspace, id, Kind::Directory).await {
        // Which code says that it isn't empty isn't documented.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::AlreadyExists) => {
            match client.children(key).await {
                Ok(children) if !children.is_empty() => Err(Error::new(
                    ErrorKind::NotEmpty,
                    format!("{:?} is not empty", name.as_str()),
                )),
                _ => Err(error),
            }
        }
        outcome => outcome,
    }
}

/// What is to be moved where.
pub(super) struct Move<'a> {
    pub(super) id: &'a str,
    pub(super) entry: &'a Entry,
    pub(super) folder: &'a Folder,
    pub(super) name: &'a Name,
}

/// Gives an entry another place, over `replaced` when there is one.
///
/// # Errors
/// `NotFound`, `AlreadyExists`, `NotEmpty`, `IsADirectory`, `NotADirectory`, `InvalidInput`, `BadData`.
pub(super) async fn rename(client: &Client, what: Move<'_>, replaced: Option<&Entry>) -> Result<Item> {
    let workspace = what.folder.workspace.as_str();
    let target = join(&what.folder.path, what.name.as_str());
    let now = client.item(workspace, what.id).await?;
    if now.kind != ItemKind::of(what.entry.kind) {
        return Err(Error::not_found(format_args!("{:?}", what.entry.name.as_str())));
    }
    if now.path == target {
        return Ok(now);
    }
    if now.is_folder() && target.starts_with(&join(&now.path, "")) {
        let message = format!("{:?} cannot be moved into itself", now.name);
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    let in_the_way = match replaced {
        Some(replaced) => replaceable(client, workspace, &target, &now, replaced).await?,
        None => None,
    };
    match in_the_way {
        None => {
            if client
                .find(workspace, &what.folder.path, what.name.as_str())
                .await?
                .is_some()
            {
                return Err(exists(what.name));
            }
            client.move_to(workspace, what.id, &target).await
        }
        Some(folder) if folder.is_folder() => {
            let key = Key::Item {
                workspace: workspace.to_owned(),
                id: folder.id.clone(),
            };
            remove_folder(client, &key, workspace, &folder.id, what.name).await?;
            client.move_to(workspace, what.id, &target).await
        }
        Some(former) => swap_in(client, workspace, what.id, &target, former).await,
    }
}

/// What is to be replaced as it is now; `None` when its path is free of it already.
async fn replaceable(
    client: &Client,
    workspace: &str,
    target: &str,
    moved: &Item,
    replaced: &Entry,
) -> Result<Option<Item>> {
    let Key::Item { id, .. } = Key::parse(&replaced.key)? else {
        return Err(Error::new(ErrorKind::IsADirectory, "a workspace cannot be replaced"));
    };
    let there = match client.item(workspace, &id).await {
        Ok(there) if there.path == target => there,
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if there.kind != ItemKind::of(replaced.kind) || there.content_version() != replaced.version {
        return Err(exists(&replaced.name));
    }
    let named = |kind, what: &str| Error::new(kind, format!("{:?} {what}", there.name));
    match (moved.is_folder(), there.is_folder()) {
        (false, true) => Err(named(ErrorKind::IsADirectory, "is a folder")),
        (true, false) => Err(named(ErrorKind::NotADirectory, "is not a folder")),
        _ => Ok(Some(there)),
    }
}

/// Puts a file in the place of another one, which is removed then.
async fn swap_in(client: &Client, workspace: &str, id: &str, target: &str, former: Item) -> Result<Item> {
    let aside = names::aside(&former.name)?;
    let aside_path = join(folder_of(target), aside.as_str());
    let set_aside = client.move_to(workspace, &former.id, &aside_path).await?;
    let moved = if set_aside.content_version() == former.content_version() {
        client.move_to(workspace, id, target).await
    } else {
        Err(Error::new(
            ErrorKind::AlreadyExists,
            format!("{:?} was changed by somebody else", former.name),
        ))
    };
    match moved {
        Ok(item) => {
            discard(client, workspace, &former.id).await;
            Ok(item)
        }
        Err(error) => match client.move_to(workspace, &former.id, target).await {
            Ok(_) => Err(error),
            Err(_) => Err(error.context(format_args!("the former {:?} is now {aside_path:?}", former.name))),
        },
    }
}

/// Removes what is of no use any more. A failure costs nothing but the room it takes.
async fn discard(client: &Client, workspace: &str, id: &str) {
    if let Err(error) = client.delete(workspace, id, Kind::File).await {
        warn!(id, %error, "a temporary file is left at the provider");
    }
}

fn exists(name: &Name) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("{:?} exists already", name.as_str()))
}

fn changed(name: &Name) -> Error {
    let message = format!("{:?} was changed or removed by somebody else", name.as_str());
    Error::new(ErrorKind::Changed, message)
}
