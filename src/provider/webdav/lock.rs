//! The locks of WebDAV (RFC 4918, 6 and 7): who has one may change a file, everybody else is refused until it is given back.
//!
//! Conditions (`If-Match`) are ignored by some servers, and looked at too early by others, so that two who store at the
//! same moment both pass. Locks are a server's own business and hold against every other client. A server of class 2 has
//! them, and says so.
//!
//! This module takes, renews and gives back. What is done under a lock is in `change`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::client::{Client, Form, folder_of, header, method};
use crate::model::{Error, ErrorKind, Result};
use crate::net::{Body, Replay, Request};

/// How long a lock is good for unless it is renewed, in seconds: asked for, and servers may give less.
const LEASE: &str = "Second-60";
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(15);
/// So many renewals in a row may fail: then the lease is nearly over.
const FAILED: u32 = 3;

/// How often a change is tried that fails because the server lost its lock.
const ATTEMPTS: u32 = 3;

const LOCKINFO: &str = r#"<?xml version="1.0" encoding="utf-8"?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype><D:owner>keymount</D:owner></D:lockinfo>"#;

/// What the name stood for when its lock was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Something,
    /// Nothing: the server or we made an empty file, so that nobody else takes the name (RFC 4918, 7.3).
    Nothing,
}

/// The right to change one file, until it is given back.
#[derive(Clone, Debug)]
pub(super) struct Lock {
    path: String,
    /// The server's name for it, in angle brackets. Of use to nobody without the credential.
    token: HeaderValue,
    pub(super) found: Found,
    /// Whether the server refused what was done under it.
    is_doubtful: Arc<AtomicBool>,
}

/// What a name is to stand for when its lock is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Free,
    Taken,
}

/// The locks that a server has.
#[derive(Debug)]
pub(super) enum Locks {
    None,
    Sound,
    /// Apache's: it loses locks that are taken or end at the same time, and locks of names that stand for nothing, at
    /// 2.4.71 one in seven. Those of files, changed one at a time, last.
    Fragile(Arc<Semaphore>),
}

/// The `DAV` header of Apache's mod_dav_fs names its own properties.
const FRAGILE: &str = "<http://apache.org/dav/propset/fs/1>";

impl Lock {
    /// `None` where the server has no locks.
    ///
    /// # Errors
    /// `Busy` while somebody else has it, `NotFound` when the directory is missing.
    async fn take(client: &Client, path: &str, wanted: Wanted) -> Result<Option<Self>> {
        let is_reserved = match (client.locks().await?, wanted) {
            (Locks::None, _) => return Ok(None),
            (Locks::Fragile(_), Wanted::Free) => client.reserve(path).await?,
            _ => false,
        };
        let lock = Self::ask(client, path).await?;
        if !is_reserved {
            return Ok(lock);
        }
        let Some(mut lock) = lock else {
            free(client, path, None).await;
            return Ok(None);
        };
        lock.found = match client.describe(path).await {
            Ok(there) if there.is_something() => {
                client.not_reserved(path);
                Found::Something
            }
            Err(error) if error.kind() != ErrorKind::NotFound => {
                lock.give_back(client).await;
                return Err(error);
            }
            _ => Found::Nothing,
        };
        Ok(Some(lock))
    }

    async fn ask(client: &Client, path: &str) -> Result<Option<Self>> {
        let request = Request::new(method("LOCK")?, client.url(path, Form::Plain), "lock the file")
            .replay(Replay::Once)
            .header(HeaderName::from_static("depth"), HeaderValue::from_static("0"))
            .header(HeaderName::from_static("timeout"), HeaderValue::from_static(LEASE))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/xml; charset=utf-8"))
            .body(Body::Bytes(LOCKINFO.as_bytes().into()));
        let response = match client.send(&client.in_turn(request)).await {
            Ok(response) => response,
            // Not this file, or not this user: what is to be changed will be refused for itself.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Denied | ErrorKind::InvalidInput | ErrorKind::Unsupported
                ) =>
            {
                debug!(path, %error, "the server gives no lock");
                return Ok(None);
            }
            // For some servers a missing directory is a fault of their own (500).
            Err(error) if error.kind() == ErrorKind::Unreachable => {
                return Err(match client.describe(folder_of(path)).await {
                    Err(missing) if missing.kind() == ErrorKind::NotFound => missing,
                    _ => error,
                });
            }
            Err(error) => return Err(error),
        };
        let Some(token) = response.headers.get("lock-token").cloned() else {
            return Err(Error::bad_data("lock the file: the server names no lock"));
        };
        Ok(Some(Self {
            path: path.to_owned(),
            token,
            is_doubtful: Arc::default(),
            found: if response.status.as_u16() == 201 {
                Found::Nothing
            } else {
                Found::Something
            },
        }))
    }

    /// The header that proves it: of the request's own address, or of another one that the request changes as well.
    pub(super) fn proof(&self, client: &Client, of: Proof) -> Result<HeaderValue> {
        let token = self.token.to_str().map_err(|_| malformed())?;
        match of {
            Proof::OfAddress => header(&format!("({token})")),
            Proof::OfTarget => header(&format!("<{}> ({token})", client.url(&self.path, Form::Plain))),
        }
    }

    /// Does something while the lock is renewed.
    ///
    /// # Errors
    /// `Busy` when it could not be renewed, and the work's own.
    pub(super) async fn keeping<T>(&self, client: &Client, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            lost = self.renew(client) => Err(lost),
            done = work => done,
        }
    }

    /// Ends only when the lock is lost.
    async fn renew(&self, client: &Client) -> Error {
        let mut failed = 0;
        loop {
            sleep(RENEWAL).await;
            match self.renew_once(client).await {
                Ok(()) => failed = 0,
                Err(error) => {
                    failed += 1;
                    debug!(path = self.path, %error, "a lock is not renewed yet");
                    if failed == FAILED {
                        return Error::new(ErrorKind::Busy, "the lock ended before the file was changed");
                    }
                }
            }
        }
    }

    async fn renew_once(&self, client: &Client) -> Result<()> {
        let request = Request::new(method("LOCK")?, client.url(&self.path, Form::Plain), "renew the lock")
            .replay(Replay::Idempotent)
            .header(HeaderName::from_static("if"), self.proof(client, Proof::OfAddress)?)
            .header(HeaderName::from_static("timeout"), HeaderValue::from_static(LEASE));
        client.send(&client.in_turn(request)).await.map(drop)
    }

    /// Takes away the empty file that the lock has made, when nothing was stored in it after all.
    async fn undo(&self, client: &Client) {
        if self.found == Found::Nothing {
            free(client, &self.path, Some(self)).await;
        }
    }

    /// Its end; what was deleted has none any more.
    async fn give_back(self, client: &Client) {
        let given = async {
            let request = Request::new(
                method("UNLOCK")?,
                client.url(&self.path, Form::Plain),
                "give the lock back",
            )
            .replay(Replay::Once)
            .header(HeaderName::from_static("lock-token"), self.token.clone());
            client.send(&client.in_turn(request)).await.map(drop)
        };
        let given: Result<()> = given.await;
        if let Err(error) = given {
            debug!(path = self.path, %error, "a lock ends by itself");
        }
    }
}

/// How a request says which of its addresses a lock is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Of the only one.
    OfAddress,
    /// Of the one that is named: there are several, or the server wants it so.
    OfTarget,
}

impl Client {
    /// What locks the server has: its `DAV` header tells (class 2: RFC 4918, 10.1 and 18.2). Asked once.
    async fn locks(&self) -> Result<&Locks> {
        let asked = self.locks.get_or_try_init(|| async {
            let request = Request::new(
                Method::OPTIONS,
                self.url("", Form::Directory),
                "ask what the server can",
            );
            match self.send(&request).await {
                Ok(response) => {
                    let classes = response.headers.get_all("dav").iter();
                    let classes = classes
                        .filter_map(|value| value.to_str().ok())
                        .flat_map(|value| value.split(','));
                    Ok(Locks::of_classes(classes))
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Denied | ErrorKind::InvalidInput | ErrorKind::Unsupported | ErrorKind::NotFound
                    ) =>
                {
                    Ok(Locks::None)
                }
                Err(error) => Err(error),
            }
        });
        asked.await
    }

    /// A request that changes which locks there are.
    pub(super) fn in_turn(&self, request: Request) -> Request {
        match self.locks.get() {
            Some(Locks::Fragile(turn)) => request.turn(Arc::clone(turn)),
            _ => request,
        }
    }

    /// Changes what has a name while nobody else does. The work gets the lock, where the server has locks. It looks at what
    /// is there before it changes anything, and is done again where the lock didn't last.
    ///
    /// # Errors
    /// `Busy` while somebody else changes it, and the work's own.
    pub(super) async fn alone<T, F>(&self, path: &str, wanted: Wanted, work: impl Fn(Option<Lock>) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut attempt = 1;
        loop {
            let Some(lock) = Lock::take(self, path, wanted).await? else {
                return work(None).await;
            };
            let done = lock.keeping(self, work(Some(lock.clone()))).await;
            match &done {
                Ok(_) => self.not_reserved(path),
                Err(_) => lock.undo(self).await,
            }
            let is_doubtful = lock.is_doubtful.load(Ordering::Relaxed);
            lock.give_back(self).await;
            match done {
                Err(error) if is_doubtful && attempt < ATTEMPTS => debug!(path, %error, "a lock didn't last"),
                done => return done,
            }
            attempt += 1;
        }
    }
}

impl Locks {
    fn of_classes<'a>(classes: impl Iterator<Item = &'a str>) -> Self {
        let classes: Vec<&str> = classes.map(str::trim).collect();
        match (classes.contains(&"2"), classes.contains(&FRAGILE)) {
            (false, _) => Self::None,
            (true, false) => Self::Sound,
            (true, true) => Self::Fragile(Arc::new(Semaphore::new(1))),
        }
    }
}

/// Takes away a file that was made for the sake of its name, unless something was stored in it.
async fn free(client: &Client, path: &str, lock: Option<&Lock>) {
    let freed = async {
        if client.describe(path).await?.is_something() {
            return Ok(());
        }
        client.delete(path, Form::Plain, lock).await?;
        client.not_reserved(path);
        Ok(())
    };
    let freed: Result<()> = freed.await;
    if let Err(error) = freed
        && error.kind() != ErrorKind::NotFound
    {
        warn!(path, %error, "an empty file stays where a file was to be stored");
    }
}

/// What a refusal means for whoever has a lock: that a condition doesn't hold (412) may be meant of the lock as well, which
/// the server has lost. It began anew, or mixed up locks of new names that were asked for at the same time (Apache).
pub(super) fn under<T>(lock: Option<&Lock>, answer: Result<T>) -> Result<T> {
    answer.map_err(|error| match (lock, error.kind()) {
        (Some(lock), ErrorKind::Changed) => {
            lock.is_doubtful.store(true, Ordering::Relaxed);
            Error::new(ErrorKind::Busy, "the server has lost a lock, or the file was changed")
        }
        _ => error,
    })
}

fn malformed() -> Error {
    Error::bad_data("lock the file: the server's name for the lock fits into no header")
}
