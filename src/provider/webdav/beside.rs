//! What POSIX has of a file beside its content, kept as a property of the file where the server lets it.
//!
//! Servers that keep no properties but their own say so to the first attempt, or say that all is well and have nothing
//! afterwards (rclone's). They are not asked again until the next probe.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use tracing::debug;

use super::client::{Client, Form, Properties, method};
use super::lock::{Lock, Proof};
use super::wire::{self, Described};
use crate::model::{Entry, Error, ErrorKind, PosixAttributes, Result, ToldAttributes};
use crate::net::{Body, Replay, Request};

/// Servers tell whole seconds; a time so close to theirs isn't worth a request.
const CLOSE: Duration = Duration::from_secs(2);

/// Gives a file that was just stored what it is to have beside its content. The content is stored, whatever comes of it:
/// `described` says what the server keeps.
pub(super) async fn keep(
    client: &Client,
    path: &str,
    described: &mut Described,
    attributes: &PosixAttributes,
    lock: Option<&Lock>,
) {
    if goes_without_saying(described, attributes) {
        return;
    }
    match set(client, path, described, attributes, lock).await {
        Ok(()) => described.posix = attributes.clone().into(),
        Err(error) => debug!(path, %error, "the server doesn't keep the attributes of a file"),
    }
}

/// # Errors
/// `NotFound`, `Changed` when it is another version than the entry's, `Unsupported` when the server keeps no properties.
pub(super) async fn change(client: &Client, entry: &Entry, attributes: &PosixAttributes) -> Result<Entry> {
    if *client.properties.lock() == Properties::Refused || entry.is_directory() {
        return Err(refused());
    }
    let path = entry.key.as_str();
    let mut described = client.describe(path).await?;
    if described.version != entry.version {
        let message = format!("{:?} was changed or removed by somebody else", entry.name.as_str());
        return Err(Error::new(ErrorKind::Changed, message));
    }
    let attributes = attributes.fitting();
    set(client, path, &described, &attributes, None).await?;
    described.posix = attributes.into();
    Ok(client.entry(path, &entry.name, &described))
}

/// Whether the server shows nothing else anyway.
fn goes_without_saying(described: &Described, attributes: &PosixAttributes) -> bool {
    let is_close = attributes.times.is_none_or(|times| {
        let apart = match times.modified.duration_since(described.modified) {
            Ok(later) => later,
            Err(earlier) => earlier.duration(),
        };
        apart < CLOSE && times.accessed == times.modified
    });
    described.posix == ToldAttributes::None && attributes.mode.is_none() && attributes.xattrs.is_empty() && is_close
}

async fn set(
    client: &Client,
    path: &str,
    described: &Described,
    attributes: &PosixAttributes,
    lock: Option<&Lock>,
) -> Result<()> {
    const PURPOSE: &str = "keep the file's attributes";
    let known = *client.properties.lock();
    if known == Properties::Refused {
        return Err(refused());
    }
    let request = Request::new(method("PROPPATCH")?, client.url(path, Form::Plain), PURPOSE)
        .replay(Replay::Once)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/xml; charset=utf-8"))
        .body(Body::Bytes(wire::proppatch(described, attributes).into_bytes().into()));
    let request = client.proving(request, lock, Proof::OfAddress)?;
    let kept = match client.send(&request).await {
        Ok(response) if response.status.as_u16() == 207 => {
            let answers = wire::multistatus(&response.bytes(PURPOSE).await?)?;
            answers.first().is_some_and(wire::Resource::keeps_posix)
        }
        // No server answers so that keeps it (RFC 4918, 9.2.1).
        Ok(_) => false,
        Err(error) if is_refusal(error.kind()) => false,
        Err(error) => return Err(error),
    };
    let kept = match known {
        Properties::Untried if kept => client.describe(path).await?.posix == attributes.clone().into(),
        _ => kept,
    };
    if !kept {
        *client.properties.lock() = Properties::Refused;
        return Err(refused());
    }
    *client.properties.lock() = Properties::Kept;
    Ok(())
}

/// Whether it would be refused again.
fn is_refusal(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Denied
            | ErrorKind::NotPermitted
            | ErrorKind::Unsupported
            | ErrorKind::InvalidInput
            | ErrorKind::ReadOnly
    )
}

fn refused() -> Error {
    Error::unsupported("the WebDAV server keeps no attributes of files")
}
