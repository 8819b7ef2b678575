//! HTTP over a Unix socket of this machine: how commands talk to the daemons.
//!
//! No identity travels along: the socket's file permissions and the peer check decide who may call.

use std::path::Path;
use std::time::Duration;

use reqwest::{Method, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::{Error, ErrorKind, Result};

/// The address's host part, which a Unix socket makes meaningless.
const BASE: &str = "http://keymount.local";

/// A daemon behind its socket.
#[derive(Clone, Debug)]
pub struct LocalClient {
    client: reqwest::Client,
}

/// What a daemon said to a call.
#[derive(Debug)]
pub enum LocalAnswer<T> {
    Done(T),
    /// The daemon refused, with its reason as JSON.
    Refused(StatusCode, serde_json::Value),
}

impl LocalClient {
    /// Connects with the first call, not before.
    ///
    /// # Errors
    /// `Internal` when the HTTP client cannot be set up.
    pub fn new(socket: &Path) -> Result<Self> {
        let client = reqwest::Client::builder()
            .unix_socket(socket)
            .tls_certs_only(std::iter::empty())
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Error::internal("the HTTP client cannot be set up").with_source(error))?;
        Ok(Self { client })
    }

    /// # Errors
    /// `Unreachable` when no daemon listens, `TimedOut` when it doesn't answer, `BadData` when the answer isn't the JSON
    /// that was expected.
    pub async fn get<T: DeserializeOwned>(&self, path: &str, patience: Duration) -> Result<LocalAnswer<T>> {
        self.call(Method::GET, path, None::<&()>, Some(patience)).await
    }

    /// As `get`, with a JSON body; without patience it waits as long as the daemon works.
    ///
    /// # Errors
    /// As `get`.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        patience: Option<Duration>,
    ) -> Result<LocalAnswer<T>> {
        self.call(Method::POST, path, Some(body), patience).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        patience: Option<Duration>,
    ) -> Result<LocalAnswer<T>> {
        let url = Url::parse(&format!("{BASE}{path}")).map_err(|_| Error::internal("a malformed control path"))?;
        let mut builder = self.client.request(method, url);
        if let Some(body) = body {
            builder = builder.json(body);
        }
        if let Some(patience) = patience {
            builder = builder.timeout(patience);
        }
        let response = builder.send().await.map_err(unreachable)?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(unreachable)?;
        if status.is_success() {
            let value = serde_json::from_slice(&bytes)
                .map_err(|error| Error::bad_data(format!("the daemon's answer is not what was expected ({error})")))?;
            return Ok(LocalAnswer::Done(value));
        }
        Ok(LocalAnswer::Refused(
            status,
            serde_json::from_slice(&bytes).unwrap_or_default(),
        ))
    }
}

fn unreachable(error: reqwest::Error) -> Error {
    let (kind, message) = if error.is_timeout() {
        (ErrorKind::TimedOut, "the daemon does not answer")
    } else {
        (ErrorKind::Unreachable, "no daemon answers")
    };
    Error::new(kind, message).with_source(error)
}
