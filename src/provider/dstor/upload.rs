//! An upload: announced, sent, and looked at until it is done.
//!
//! Whoever tries again after the bytes were sent goes on with looking, as long as the service knows the upload.

use std::time::Duration;

use reqwest::Method;
use secrecy::SecretString;
use tokio::time::Instant;

use super::LOOK;
use super::begun::{Begun, Upload};
use super::client::Client;
use super::wire::Standing;
use crate::model::{ContentAddress, Error, ErrorKind, IndexedFile, Name, Result};
use crate::provider::Content;

/// The account's own root directory.
const ROOT: &str = "/";
/// The longest name that is sent, in bytes.
const MAX_NAME: usize = 255;

/// How an upload's end is waited for. Public clients begin with 2 s, add 0.25 s each time and give up after 60 s; small
/// files are done earlier.
#[derive(Clone, Copy, Debug)]
pub struct Polling {
    pub first_pause: Duration,
    /// What each further pause is longer by.
    pub growth: Duration,
    pub max_pause: Duration,
    /// How long the status may stay the same.
    pub patience: Duration,
}

impl Default for Polling {
    fn default() -> Self {
        Self {
            first_pause: Duration::from_millis(500),
            growth: Duration::from_millis(250),
            max_pause: Duration::from_secs(5),
            patience: Duration::from_secs(60),
        }
    }
}

/// Stores a content; `directory` and `name` only say how dStor's own portal shows it.
///
/// # Errors
/// `TooLarge`, `Quota`, `TimedOut` when the service doesn't come to an end, `BadData` when it has something else.
pub(super) async fn store(
    client: &Client,
    polling: Polling,
    begun: &Begun,
    directory: &[Name],
    name: &Name,
    content: &Content,
) -> Result<IndexedFile> {
    let sha256 = content.sha256().await?;
    let shown = portal_name(name);
    let upload = Upload { sha256, name: shown };
    // What was sent before and can't be had still is sent anew the time after.
    let (hash, token) = match go_on(client, polling, begun, &upload).await? {
        Some(hash) => (hash, None),
        None => {
            let (hash, token) = send(client, polling, begun, directory, &upload, content).await?;
            (hash, Some(token))
        }
    };
    let address = ContentAddress::new(&hash)
        .filter(|address| !address.as_str().contains('/'))
        .ok_or_else(|| Error::bad_data(format!("upload the file: dStor calls {hash:?} its hash")))?;
    if let Err(error) = look_back(client, polling, &address, content).await {
        if let Some(token) = token.filter(|_| error.kind() == ErrorKind::TimedOut) {
            begun.note(&upload, token);
        }
        return Err(error);
    }
    Ok(IndexedFile {
        address,
        size: content.len(),
        sha256: Some(upload.sha256),
    })
}

/// Why there is no hash.
enum Unfinished {
    /// The service said that it failed, or something else than the end of an upload.
    Failed(Error),
    /// It couldn't be asked.
    Unseen(Error),
    /// It stood still for too long.
    Still(Error),
}

impl Unfinished {
    fn into_error(self) -> Error {
        match self {
            Self::Failed(error) | Self::Unseen(error) | Self::Still(error) => error,
        }
    }
}

/// The hash, if the bytes were sent before and the service still knows of it.
async fn go_on(client: &Client, polling: Polling, begun: &Begun, upload: &Upload) -> Result<Option<String>> {
    let Some(token) = begun.take(upload) else {
        return Ok(None);
    };
    match wait(client, polling, &token, &upload.name).await {
        Ok(hash) => Ok(Some(hash)),
        Err(Unfinished::Unseen(error)) if error.kind() != ErrorKind::InvalidInput => {
            begun.note(upload, token);
            Err(error)
        }
        // Failed, unknown by now, or standing still for the second time: it is sent anew.
        Err(_) => Ok(None),
    }
}

async fn send(
    client: &Client,
    polling: Polling,
    begun: &Begun,
    directory: &[Name],
    upload: &Upload,
    content: &Content,
) -> Result<(String, SecretString)> {
    let token = announce(client, directory).await?;
    if let Err(error) = client.send(&token, &upload.name, content).await {
        let is_ambiguous = matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::TimedOut);
        // The answer may be all that was lost.
        return match client.status(&token).await.map(|status| status.standing(&upload.name)) {
            Ok(Ok(Standing::Done(hash))) if is_ambiguous => Ok((hash, token)),
            _ => Err(error),
        };
    }
    match wait(client, polling, &token, &upload.name).await {
        Ok(hash) => Ok((hash, token)),
        Err(unfinished) => {
            if !matches!(unfinished, Unfinished::Failed(_)) {
                begun.note(upload, token);
            }
            Err(unfinished.into_error())
        }
    }
}

/// In the directory of the portal that has the tree's path, else in its root: whether the service makes missing
/// directories isn't documented, and the portal's order isn't ours.
async fn announce(client: &Client, directory: &[Name]) -> Result<SecretString> {
    let path: Vec<String> = directory.iter().map(portal_name).collect();
    if path.is_empty() {
        return client.announce(ROOT).await;
    }
    match client.announce(&path.join("/")).await {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound) => {
            client.announce(ROOT).await
        }
        outcome => outcome,
    }
}

async fn wait(client: &Client, polling: Polling, token: &SecretString, name: &str) -> Result<String, Unfinished> {
    let (mut pause, mut last, mut since) = (polling.first_pause, String::new(), Instant::now());
    loop {
        let status = client.status(token).await.map_err(Unfinished::Unseen)?;
        match status.standing(name).map_err(Unfinished::Failed)? {
            Standing::Done(hash) => return Ok(hash),
            Standing::Working(word) if word != last => (last, since) = (word, Instant::now()),
            Standing::Working(word) if since.elapsed() >= polling.patience => {
                let message = format!(
                    "upload the file: dStor says {word:?} for {} s",
                    polling.patience.as_secs()
                );
                return Err(Unfinished::Still(Error::new(ErrorKind::TimedOut, message)));
            }
            Standing::Working(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause + polling.growth).min(polling.max_pause);
    }
}

/// Makes sure that the content can be had under its address: a hash alone is only a word. What is short is read again, of
/// the rest the length is asked for. A node may need long for what was just stored, so it is waited for as the upload is.
///
/// # Errors
/// `BadData` when it is another content, `TimedOut` when there is none in time, and those of the last look.
async fn look_back(client: &Client, polling: Polling, address: &ContentAddress, content: &Content) -> Result<()> {
    let (mut pause, start) = (polling.first_pause, Instant::now());
    loop {
        let left = polling.patience.saturating_sub(start.elapsed()).max(LOOK);
        let error = match tokio::time::timeout(left, is_there(client, address, content)).await {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) => {
                let message = format!("upload the file: dStor has something else at {address} than what was sent");
                return Err(Error::bad_data(message));
            }
            Ok(Err(error)) if is_settled(error.kind()) => return Err(error),
            Ok(Err(error)) => error.message().to_owned(),
            Err(_) => "it doesn't answer".to_owned(),
        };
        if start.elapsed() >= polling.patience {
            let message =
                format!("upload the file: dStor says that it is stored, and {address} can't be read: {error}");
            return Err(Error::new(ErrorKind::TimedOut, message));
        }
        tokio::time::sleep(pause).await;
        pause = (pause + polling.growth).min(polling.max_pause);
    }
}

/// Whether asking again soon would be answered the same.
fn is_settled(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NeedsLogin | ErrorKind::Denied | ErrorKind::RateLimited { .. }
    )
}

async fn is_there(client: &Client, address: &ContentAddress, content: &Content) -> Result<bool> {
    if !content.is_read_back() {
        return Ok(client.length(address).await? == content.len());
    }
    let answer = client.content(Method::GET, address, None).await?;
    content.is_same_as(answer.stream("read the file again")).await
}

/// A name that any service can show. The tree keeps the real one.
fn portal_name(name: &Name) -> String {
    let odd = |c: char| c.is_control() || matches!(c, '\\' | '"');
    let mut shown: String = name.as_str().chars().map(|c| if odd(c) { '_' } else { c }).collect();
    let end = (0..=shown.len().min(MAX_NAME))
        .rev()
        .find(|&at| shown.is_char_boundary(at))
        .unwrap_or(0);
    shown.truncate(end);
    shown
}
