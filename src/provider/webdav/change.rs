//! Changes of several requests: look, change under a lock and a condition, look at what came of it.
//!
//! Not every server has locks or honours conditions, so the name or the version is looked at right before as well. What
//! somebody else does between the two is then not seen; servers that have the one or the other see it.

use super::beside;
use super::client::{Client, Condition, Form, Overwrite, folder_of, is_ambiguous, join};
use super::lock::{Found, Lock, Wanted};
use super::settle::Stored;
use super::wire::Described;
use crate::model::{Entry, Error, ErrorKind, Name, Result};
use crate::provider::clash::{changed, clash, exists, not_empty};
use crate::provider::{Content, Target};

/// Stores a whole file.
///
/// # Errors
/// `AlreadyExists`, `Changed`, `NotFound` when the directory is missing, `BadData`, `Busy`.
pub(super) async fn upload(client: &Client, target: &Target, content: &Content) -> Result<Entry> {
    let path = join(target.parent().as_str(), target.name().as_str());
    // Of a new name, the lock tells whether it is free.
    let wanted = match target {
        Target::New { .. } => Wanted::Free,
        Target::Replace { .. } => Wanted::Taken,
    };
    if wanted == Wanted::Taken && found(client.describe(&path).await)?.is_some_and(|now| now.is_directory()) {
        return Err(clash(target));
    }
    let path = path.as_str();
    client
        .alone(path, wanted, |lock| store(client, path, target, content, lock))
        .await
}

async fn store(client: &Client, path: &str, target: &Target, content: &Content, lock: Option<Lock>) -> Result<Entry> {
    let name = target.name();
    let lock = lock.as_ref();
    let made = lock.filter(|lock| lock.found == Found::Nothing);
    let now = match target {
        // The server had nothing of that name when it made an empty file for the lock, and lets nobody else to it.
        Target::New { .. } if made.is_some() => None,
        _ => found(client.describe(path).await)?.filter(|now| now.is_something() || made.is_none()),
    };
    let (condition, instead) = match (target, &now) {
        (Target::New { .. }, Some(_)) => return Err(exists(name)),
        (Target::New { .. }, None) => (Condition::Free, ErrorKind::Changed),
        (Target::Replace { entry, .. }, Some(now)) if !now.is_directory() && now.version == entry.version => {
            let condition = now.condition().map_or(Condition::Looked, Condition::Version);
            (condition, ErrorKind::NotFound)
        }
        (Target::Replace { .. }, _) => return Err(changed(name)),
    };
    let told = match client.put(path, content, condition, lock).await {
        Ok(told) => told,
        Err(error) if error.kind() == ErrorKind::Changed || error.kind() == instead => return Err(clash(target)),
        Err(error) if is_ambiguous(&error) && client.holds(path, content).await => None,
        Err(error) => return Err(error),
    };
    let stored = Stored { target, content, told };
    let mut described = stored.settle(client, path, now.as_ref(), lock).await?;
    let there = now.map(|now| now.posix).unwrap_or_default();
    let attributes = target.attributes(content, &there);
    beside::keep(client, path, &mut described, &attributes, lock).await;
    Ok(client.entry(path, name, &described))
}

/// # Errors
/// `AlreadyExists`, `NotFound` when the directory above is missing.
pub(super) async fn make_directory(client: &Client, folder: &str, name: &Name) -> Result<Entry> {
    let path = join(folder, name.as_str());
    if found(client.describe(&path).await)?.is_some() {
        return Err(exists(name));
    }
    match client.make_collection(&path).await {
        Ok(()) => {}
        // Somebody else was quicker (405), or nobody knows who: an empty directory is like another.
        Err(error) if error.kind() == ErrorKind::InvalidInput => {
            return Err(match found(client.describe(&path).await)? {
                Some(_) => exists(name),
                None => error,
            });
        }
        Err(error) if is_ambiguous(&error) => match client.children(&path).await {
            Ok(children) if children.is_empty() => {}
            _ => return Err(error),
        },
        Err(error) => return Err(error),
    }
    let described = client.describe(&path).await?;
    if !described.is_directory() {
        return Err(Error::bad_data("make the directory: the server says that it is a file"));
    }
    Ok(client.entry(&path, name, &described))
}

/// Looks first, for a deletion takes whatever has the name, a directory with all that is in it.
///
/// # Errors
/// `NotFound`, `IsADirectory`, `Changed` when it is another version than the entry's, `Busy`.
pub(super) async fn remove_file(client: &Client, entry: &Entry) -> Result<()> {
    let path = entry.key.as_str();
    if client.describe(path).await?.is_directory() {
        let message = format!("{:?} is a directory", entry.name.as_str());
        return Err(Error::new(ErrorKind::IsADirectory, message));
    }
    client
        .alone(path, Wanted::Taken, |lock| async move {
            let now = client.describe(path).await?;
            if now.size == 0 && lock.as_ref().is_some_and(|lock| lock.found == Found::Nothing) {
                return Err(Error::not_found(format_args!("{:?}", entry.name.as_str())));
            }
            if now.version != entry.version {
                return Err(changed(&entry.name));
            }
            let removed = client.delete(path, Form::Plain, lock.as_ref()).await;
            match settled(client, path, removed).await {
                // Some servers fail (500) when the file is taken away under their hands, and another may be there since.
                Err(error) if is_ambiguous(&error) => match client.describe(path).await {
                    Ok(now) if now.version != entry.version => Err(changed(&entry.name)),
                    _ => Err(error),
                },
                done => done,
            }
        })
        .await
}

/// WebDAV removes a directory with all that is in it, so it is looked at right before. What somebody else puts there
/// between the two requests is lost.
///
/// # Errors
/// `NotFound`, `NotADirectory`, `NotEmpty`.
pub(super) async fn remove_directory(client: &Client, entry: &Entry) -> Result<()> {
    let path = entry.key.as_str();
    if !client.children(path).await?.is_empty() {
        return Err(not_empty(&entry.name));
    }
    settled(client, path, client.delete(path, Form::Directory, None).await).await?;
    client.rights.forget(path);
    Ok(())
}

/// A removal without an answer happened if nothing is there.
async fn settled(client: &Client, path: &str, removed: Result<()>) -> Result<()> {
    match removed {
        Err(error) if is_ambiguous(&error) => match client.describe(path).await {
            Err(gone) if gone.kind() == ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        },
        other => other,
    }
}

/// # Errors
/// `NotFound`, `AlreadyExists`, `NotEmpty`, `IsADirectory`, `NotADirectory`, `Busy`.
pub(super) async fn rename(
    client: &Client,
    entry: &Entry,
    folder: &str,
    name: &Name,
    replaced: Option<&Entry>,
) -> Result<Entry> {
    let (from, to) = (entry.key.as_str(), join(folder, name.as_str()));
    let moved = &client.describe(from).await?;
    if moved.kind != entry.kind {
        return Err(Error::not_found(format_args!("{:?}", entry.name.as_str())));
    }
    match found(client.describe(&to).await)? {
        None => carry(client, from, &to, moved, Overwrite::Refused, None, name).await?,
        Some(there) if there.is_directory() => {
            replaceable(client, &to, moved, &there, replaced).await?;
            carry(client, from, &to, moved, Overwrite::Allowed, None, name).await?;
        }
        Some(_) => {
            let to = to.as_str();
            client
                .alone(to, Wanted::Taken, |lock| async move {
                    // Where it is gone meanwhile, what is there now is the lock's and has another version.
                    replaceable(client, to, moved, &client.describe(to).await?, replaced).await?;
                    carry(client, from, to, moved, Overwrite::Allowed, lock, name).await
                })
                .await?;
        }
    }
    client.rights.forget(from);
    client.rights.forget(&to);
    let described = match client.describe(&to).await {
        // Whoever took it away since, or a server that understood another name: it isn't what was asked for.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Error::new(
                ErrorKind::NotFound,
                "rename it: the server said that it did, and has nothing under the new name",
            ));
        }
        described => described?,
    };
    if described.kind != moved.kind || described.size != moved.size {
        // Somebody has replaced it since: that is another version than the one that was moved.
        return Ok(client.entry(&to, name, moved));
    }
    Ok(client.entry(&to, name, &described))
}

async fn carry(
    client: &Client,
    from: &str,
    to: &str,
    moved: &Described,
    overwrite: Overwrite,
    lock: Option<Lock>,
    name: &Name,
) -> Result<()> {
    let form = if moved.is_directory() {
        Form::Directory
    } else {
        Form::Plain
    };
    match client.move_to(from, to, form, overwrite, lock.as_ref()).await {
        Err(error) if error.kind() == ErrorKind::Changed => Err(exists(name)),
        Err(error) if is_ambiguous(&error) && has_moved(client, from, to, moved).await => Ok(()),
        // So (403) do some servers say that there is nothing to move any more; that tells nothing of rights.
        Err(error) if error.kind() == ErrorKind::Denied && has_gone(client, from, moved).await => {
            client.rights.forget(folder_of(to));
            Err(Error::not_found(format_args!("{from:?}")))
        }
        other => other,
    }
}

/// Whether somebody else has taken away what was to be moved.
async fn has_gone(client: &Client, from: &str, moved: &Described) -> bool {
    match client.describe(from).await {
        Ok(now) => now.kind != moved.kind || now.version != moved.version,
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

/// Whether what has the name is what may be replaced.
async fn replaceable(
    client: &Client,
    path: &str,
    moved: &Described,
    there: &Described,
    replaced: Option<&Entry>,
) -> Result<()> {
    let Some(replaced) = replaced else {
        return Err(Error::new(ErrorKind::AlreadyExists, format!("{path:?} exists already")));
    };
    let name = &replaced.name;
    if there.kind != replaced.kind || there.version != replaced.version {
        return Err(exists(name));
    }
    let named = |kind, what: &str| Err(Error::new(kind, format!("{:?} {what}", name.as_str())));
    match (moved.is_directory(), there.is_directory()) {
        (false, true) => named(ErrorKind::IsADirectory, "is a directory"),
        (true, false) => named(ErrorKind::NotADirectory, "is not a directory"),
        (true, true) if !client.children(path).await?.is_empty() => Err(not_empty(name)),
        _ => Ok(()),
    }
}

async fn has_moved(client: &Client, from: &str, to: &str, moved: &Described) -> bool {
    let gone = matches!(client.describe(from).await, Err(error) if error.kind() == ErrorKind::NotFound);
    gone && matches!(client.describe(to).await, Ok(now) if now.kind == moved.kind && now.size == moved.size)
}

/// `None` where nothing is.
fn found(described: Result<Described>) -> Result<Option<Described>> {
    match described {
        Ok(described) => Ok(Some(described)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
