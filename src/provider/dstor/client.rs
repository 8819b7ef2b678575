//! The requests to dStor: one method each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::header::{CONTENT_LENGTH, HeaderName, HeaderValue, RANGE};
use reqwest::{Method, Url};
use secrecy::{ExposeSecret, SecretString};

use super::listed::Answer;
use super::templates::{Blanks, Endpoint};
use super::wire::{Announced, Posted, Status};
use crate::api::Api;
use crate::model::{ContentAddress, Error, ErrorKind, Name, Result};
use crate::net::{Body, FilePart, Replay, Request, Response};
use crate::provider::Content;

/// Names an upload in the requests that belong to it (README of the API).
const UPLOAD_TOKEN: HeaderName = HeaderName::from_static("x-dstor-upload-token");
/// How often the service's own address is asked again when a node of it refuses the address that it led to.
const ATTEMPTS: u32 = 3;

pub(super) struct Client {
    api: Arc<Api>,
    /// Set once reading without a token was refused: all public clients read without one.
    reading_needs_token: AtomicBool,
}

impl Client {
    pub(super) fn new(api: Arc<Api>) -> Self {
        Self {
            api,
            reading_needs_token: AtomicBool::new(false),
        }
    }

    pub(super) fn base(&self) -> &Url {
        self.api.base()
    }

    /// Announces an upload of one request to a directory; gives the token that it goes on with.
    pub(super) async fn announce(&self, directory: &str) -> Result<SecretString> {
        let purpose = "begin an upload";
        // An announcement that nobody follows changes nothing, so it may be made again.
        let request = Request::new(Method::POST, self.api.url(["v1", "upload", "get-token"]), purpose)
            .json(&serde_json::json!({ "chunks_number": 1, "folder_path": directory }))
            .replay(Replay::Idempotent);
        let announced: Announced = self.api.call(&request).await?.json(purpose).await?;
        Ok(announced.token.into())
    }

    /// Sends the one file of an upload.
    pub(super) async fn send(&self, upload: &SecretString, name: &str, content: &Content) -> Result<()> {
        let purpose = "upload the file";
        let opened = content.clone();
        let file = FilePart {
            field: "file".to_owned(),
            file_name: name.to_owned(),
            content_type: "application/octet-stream".to_owned(),
            len: content.len(),
            open: Arc::new(move || opened.stream()),
        };
        let body = Body::Multipart {
            fields: Vec::new(),
            file,
        };
        let request = Request::new(Method::POST, self.api.url(["v1", "upload", ""]), purpose)
            .header(UPLOAD_TOKEN, upload_header(upload)?)
            .body(body);
        let answer = self.api.call(&request).await?.bytes(purpose).await?;
        // The status that is asked for next says what counts; only a failure told here ends it now.
        serde_json::from_slice::<Posted>(&answer).unwrap_or_default().check()
    }

    /// How an upload stands, as the service tells it.
    pub(super) async fn status(&self, upload: &SecretString) -> Result<Status> {
        let purpose = "ask how the upload goes on";
        let url = self.api.url(["v1", "upload", "get-status", ""]);
        let request = Request::get(url, purpose).header(UPLOAD_TOKEN, upload_header(upload)?);
        self.api.call(&request).await?.json(purpose).await
    }

    /// Asks for a content, all of it or a range.
    ///
    /// The address that the service leads to is good for a short time and may be refused at once: it is never kept, and
    /// the service is asked again.
    pub(super) async fn content(
        &self,
        method: Method,
        address: &ContentAddress,
        range: Option<HeaderValue>,
    ) -> Result<Response> {
        let url = self.api.url(["ipfs"].into_iter().chain(address.as_str().split('/')));
        let mut request = Request::new(method, url, "download the file");
        if let Some(range) = range {
            request = request.header(RANGE, range);
        }
        let mut attempt = 1;
        loop {
            match self.read(&request).await {
                Err(error) if error.kind() == ErrorKind::InvalidInput && attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(gone(error, address)),
                answer => return answer,
            }
        }
    }

    /// A content's length in bytes, by `HEAD` where the service answers that, else by the head of a download.
    ///
    /// # Errors
    /// `BadData` when there is no such content or its length isn't told.
    pub(super) async fn length(&self, address: &ContentAddress) -> Result<u64> {
        let answer = match self.content(Method::HEAD, address, None).await {
            Ok(answer) => answer,
            Err(_) => self.content(Method::GET, address, None).await?,
        };
        content_length(&answer).ok_or_else(|| Error::bad_data(format!("dStor doesn't tell how long {address} is")))
    }

    async fn read(&self, request: &Request) -> Result<Response> {
        if !self.reading_needs_token.load(Ordering::Relaxed) {
            match self.api.call_bare(request).await {
                Err(error) if matches!(error.kind(), ErrorKind::NeedsLogin | ErrorKind::Denied) => {
                    self.reading_needs_token.store(true, Ordering::Relaxed);
                }
                answer => return answer,
            }
        }
        self.api.call(request).await
    }

    /// Calls an endpoint that the person configured. What is gone already is as good as removed.
    pub(super) async fn delete(&self, endpoint: &Endpoint, address: &ContentAddress, path: &[Name]) -> Result<()> {
        self.tell(endpoint, Blanks::of(address, path), "remove the file").await
    }

    /// The same for a file that gets another path. What isn't there has no name to be changed.
    pub(super) async fn rename(
        &self,
        endpoint: &Endpoint,
        address: &ContentAddress,
        path: &[Name],
        to: &[Name],
    ) -> Result<()> {
        let blanks = Blanks {
            to,
            ..Blanks::of(address, path)
        };
        self.tell(endpoint, blanks, "rename the file").await
    }

    async fn tell(&self, endpoint: &Endpoint, blanks: Blanks<'_>, purpose: &'static str) -> Result<()> {
        match self.api.call(&self.request(endpoint, blanks, purpose)).await {
            // The status said that it is done; what follows is only words.
            Ok(response) => response.bytes(purpose).await.map(drop).or(Ok(())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Everything that the account has.
    pub(super) async fn list(&self, endpoint: &Endpoint) -> Result<Answer> {
        let purpose = "list what the account has";
        let request = self
            .request(endpoint, Blanks::default(), purpose)
            .replay(Replay::Idempotent);
        self.api.call(&request).await?.json(purpose).await
    }

    fn request(&self, endpoint: &Endpoint, blanks: Blanks<'_>, purpose: &'static str) -> Request {
        let url = endpoint.url(self.api.base(), blanks);
        let request = Request::new(endpoint.method().clone(), url, purpose);
        match endpoint.json(blanks) {
            Some(body) => request.json(&body),
            None => request,
        }
    }
}

/// A content that isn't there though the tree has it: the file exists, its bytes don't.
fn gone(error: Error, address: &ContentAddress) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::bad_data(format!("dStor has no content for {address} any more")),
        ErrorKind::InvalidInput => Error::bad_data(error.message()),
        _ => error,
    }
}

/// What the answer's head says about its body.
pub(super) fn content_length(answer: &Response) -> Option<u64> {
    answer.header(CONTENT_LENGTH.as_str())?.parse().ok()
}

fn upload_header(upload: &SecretString) -> Result<HeaderValue> {
    let mut value = HeaderValue::try_from(upload.expose_secret())
        .map_err(|_| Error::bad_data("begin an upload: dStor gave a token that no header can hold"))?;
    value.set_sensitive(true);
    Ok(value)
}
