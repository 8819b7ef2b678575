//! The log of the requests a stand-in has received.
//!
//! Responsible for remembering what arrived and how it was answered, without the credential. Not responsible for
//! counting: the gate reports bytes and statuses as it sees them.

use std::sync::Arc;

use axum::http::{Method, Uri};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use tokio::sync::Notify;

/// Query parameters whose values are credentials, or lead to one: tokens (Cludz), and what OAuth sends through a
/// browser (RFC 6749, 7636, 8628). Challenges and user codes are no secrets, but nobody needs them in a log.
const HIDDEN: [&str; 12] = [
    "token",
    "access_token",
    "refresh_token",
    "client_secret",
    "code",
    "code_challenge",
    "code_verifier",
    "device_code",
    "user_code",
    "state",
    "nonce",
    "id_token",
];

/// One request as the server saw it. Credentials never appear here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The request's method.
    pub method: Method,
    /// Path and query as sent; the value of every parameter that holds a credential or leads to one is replaced by `***`.
    pub target: String,
    /// The status answered; `None` while there is no answer, and for ever when the connection was dropped instead.
    pub status: Option<u16>,
    /// The name of the token that the service recognised.
    pub authenticated_as: Option<String>,
    /// Bytes of the request's body read so far.
    pub bytes_in: u64,
    /// Bytes of the answer's body sent so far.
    pub bytes_out: u64,
}

/// A request's place in the log, updated while the request is served.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    recorded: Arc<Mutex<Recorded>>,
    changed: Arc<Notify>,
}

impl Entry {
    pub(super) fn update(&self, change: impl FnOnce(&mut Recorded)) {
        change(&mut self.recorded.lock());
        self.changed.notify_waiters();
    }
}

#[derive(Debug, Default)]
pub(super) struct Log {
    entries: Mutex<Vec<Entry>>,
    changed: Arc<Notify>,
}

impl Log {
    pub(super) fn arrived(&self, method: &Method, target: &str) -> Entry {
        let recorded = Recorded {
            method: method.clone(),
            target: target.to_owned(),
            status: None,
            authenticated_as: None,
            bytes_in: 0,
            bytes_out: 0,
        };
        let entry = Entry {
            recorded: Arc::new(Mutex::new(recorded)),
            changed: Arc::clone(&self.changed),
        };
        self.entries.lock().push(entry.clone());
        self.changed.notify_waiters();
        entry
    }

    pub(super) fn answered(&self, entry: &Entry, status: u16, authenticated_as: Option<String>) {
        entry.update(|recorded| {
            recorded.status = Some(status);
            recorded.authenticated_as = authenticated_as;
        });
    }

    pub(super) fn snapshot(&self) -> Vec<Recorded> {
        self.entries
            .lock()
            .iter()
            .map(|entry| entry.recorded.lock().clone())
            .collect()
    }

    pub(super) fn clear(&self) {
        self.entries.lock().clear();
    }

    pub(super) async fn wait_until(&self, enough: impl Fn(&[Recorded]) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Registered before the look at the log, so that a change in between isn't missed.
            changed.as_mut().enable();
            if enough(&self.snapshot()) {
                return;
            }
            changed.await;
        }
    }
}

/// Path and query of `uri` without the values of [`HIDDEN`] parameters.
pub(super) fn without_credential(uri: &Uri) -> String {
    let Some(query) = uri.query() else {
        return uri.path().to_owned();
    };
    let pairs: Vec<String> = query
        .split('&')
        .map(|pair| {
            let key = pair.split_once('=').map_or(pair, |(key, _)| key);
            let name = percent_decode_str(key).decode_utf8_lossy();
            let hides = HIDDEN.iter().any(|hidden| name.eq_ignore_ascii_case(hidden));
            if hides { format!("{key}=***") } else { pair.to_owned() }
        })
        .collect();
    format!("{}?{}", uri.path(), pairs.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_the_query_are_hidden() {
        let uri: Uri = "/storage/x/?detail=true&token=abc&%74oken=abc".parse().unwrap();
        assert_eq!(
            without_credential(&uri),
            "/storage/x/?detail=true&token=***&%74oken=***"
        );
        let oauth: Uri = "/oauth/authorize?state=abc&client_id=x&code_challenge=abc&Code=abc"
            .parse()
            .unwrap();
        assert_eq!(
            without_credential(&oauth),
            "/oauth/authorize?state=***&client_id=x&code_challenge=***&Code=***"
        );
        let plain: Uri = "/a".parse().unwrap();
        assert_eq!(without_credential(&plain), "/a");
    }
}
