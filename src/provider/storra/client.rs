//! The requests of Storra's client API: one method each, each counted against its limit.
//!
//! How several of them make one safe change is in `store`, what is remembered of the answers in `snapshot`.

use std::sync::Arc;

use bytes::Bytes;
use reqwest::{Method, Url};
use serde_json::json;

use super::names;
use super::rates::{Rates, counted, prepaid};
use super::wire::{Item, Listed, Profile, Trashed, Visibility, with_repair};
use crate::api::Api;
use crate::model::{Error, ErrorKind, Result};
use crate::net::{Body, FilePart, Metering, Replay, Request, Response};
use crate::provider::Content;

/// Below the service's root (Storra documentation).
const BASE: [&str; 3] = ["api", "v1", "client"];
/// Items that one listing brings at most (Storra documentation, file listing).
const PAGE: usize = 1000;
/// The most that one listing of the trash brings (Storra documentation, file operations).
const TRASH_PAGE: &str = "500";
/// Stands for the account's root in an upload (Storra documentation, file upload).
const ROOT: &str = ".";

/// How much of a folder is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    Children,
    Everything,
}

/// A listing and how many requests it took.
pub(super) struct Listing {
    pub(super) items: Vec<(String, Item)>,
    pub(super) requests: u32,
}

/// Whether a change was counted before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paid {
    Now,
    Before,
}

pub(super) struct Client {
    api: Arc<Api>,
    rates: Rates,
}

impl Client {
    pub(super) fn new(api: Arc<Api>) -> Self {
        Self {
            api,
            rates: Rates::documented(),
        }
    }

    pub(super) fn api(&self) -> &Api {
        &self.api
    }

    fn url<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        self.api.url(BASE.into_iter().chain(segments))
    }

    async fn call(&self, request: Request) -> Result<Response> {
        self.api.call(&request).await.map_err(with_repair)
    }

    /// Sends a change and reads its answer to the end, so that the connection can be used again.
    async fn change(&self, request: Request) -> Result<Bytes> {
        let purpose = request.purpose;
        let response = self.call(request).await?;
        // The status said that it is done; what follows is only words.
        Ok(response.bytes(purpose).await.unwrap_or_default())
    }

    /// Who the key belongs to: proves the key and the plan.
    pub(super) async fn profile(&self) -> Result<Profile> {
        let purpose = "ask who the key belongs to";
        let request = Request::get(self.url(["users", "me"]), purpose).metering(counted(&self.rates.profile));
        self.call(request).await?.json(purpose).await
    }

    /// What is in a folder, with paths from the account's root.
    ///
    /// # Errors
    /// `NotFound`, as far as the service tells an empty folder from none.
    pub(super) async fn list(&self, folder: &str, depth: Depth) -> Result<Listing> {
        let purpose = "list the folder";
        let mut items = Vec::new();
        let mut requests = 0;
        loop {
            let mut url = self.url(["files", "list"]);
            url.query_pairs_mut()
                .append_pair("path", folder)
                .append_pair("recursive", if depth == Depth::Everything { "true" } else { "false" })
                .append_pair("limit", &PAGE.to_string())
                .append_pair("offset", &items.len().to_string())
                .append_pair("sort", "name")
                .append_pair("order", "asc");
            let request = Request::get(url, purpose).metering(counted(&self.rates.lists));
            let page: Vec<Listed> = self.call(request).await?.json(purpose).await?;
            requests += 1;
            let count = page.len();
            items.extend(page.into_iter().map(|listed| {
                let path = listed.path.trim_matches('/').to_owned();
                (path, listed.into_item())
            }));
            if count < PAGE {
                return Ok(Listing { items, requests });
            }
        }
    }

    /// Asks for all bytes of a file.
    pub(super) async fn download(&self, id: &str) -> Result<Response> {
        let request = Request::get(self.url(["files", "download", id]), "download the file");
        self.call(request.metering(counted(&self.rates.downloads))).await
    }

    /// Stores a file, private: without the field Storra would publish it.
    pub(super) async fn upload(&self, folder: &str, name: &str, content: &Content) -> Result<(String, Item)> {
        let purpose = "upload the file";
        let destination = if folder.is_empty() { ROOT } else { folder };
        let file = content.clone();
        let body = Body::Multipart {
            fields: vec![
                ("path".to_owned(), destination.to_owned()),
                ("is_private".to_owned(), "true".to_owned()),
            ],
            file: FilePart {
                field: "file".to_owned(),
                file_name: name.to_owned(),
                content_type: mime_guess::from_path(name).first_or_octet_stream().to_string(),
                len: content.len(),
                open: Arc::new(move || file.stream()),
            },
        };
        let request = Request::new(Method::POST, self.url(["files", "upload"]), purpose)
            .body(body)
            .metering(counted(&self.rates.uploads));
        made(&self.change(request).await?, purpose)
    }

    /// # Errors
    /// `AlreadyExists`, `NotFound` when the folder above is missing and isn't made along.
    pub(super) async fn create_folder(&self, path: &str) -> Result<(String, Item)> {
        let purpose = "create the folder";
        let request = Request::new(Method::POST, self.url(["create-folder"]), purpose)
            .json(&json!({ "folder_path": path }))
            .metering(counted(&self.rates.folders));
        made(&self.change(request).await?, purpose)
    }

    /// # Errors
    /// `NotFound`, also for a file.
    pub(super) async fn folder(&self, path: &str) -> Result<Item> {
        let purpose = "look at the folder";
        let url = self.url(std::iter::once("info").chain(path.split('/')));
        let request = Request::get(url, purpose).metering(counted(&self.rates.folders));
        let listed: Listed = self.call(request).await?.json(purpose).await?;
        Ok(listed.into_item())
    }

    /// Counts changes before the first of them, so that the later ones aren't held up.
    ///
    /// # Errors
    /// `RateLimited`.
    pub(super) async fn reserve_changes(&self, changes: u32, purpose: &'static str) -> Result<()> {
        self.api.reserve(&self.rates.file_ops, changes, purpose).await
    }

    fn file_op(&self, paid: Paid) -> Metering {
        match paid {
            Paid::Now => counted(&self.rates.file_ops),
            Paid::Before => prepaid(&self.rates.file_ops),
        }
    }

    /// Gives a file or folder another path.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`.
    pub(super) async fn move_to(&self, from: &str, to: &str, paid: Paid) -> Result<()> {
        let request = Request::new(Method::PUT, self.url(["move"]), "move")
            .json(&json!({ "source_path": from, "destination_path": to }))
            .replay(Replay::Once)
            .metering(self.file_op(paid));
        self.change(request).await.map(drop)
    }

    /// Puts a file, or a folder with all that is in it, into the trash. The path must be none that the API has for
    /// itself: see `names::is_route`.
    ///
    /// # Errors
    /// `NotFound`.
    pub(super) async fn delete(&self, path: &str, paid: Paid) -> Result<()> {
        if path.is_empty() || names::is_route(path) {
            return Err(Error::internal(format!("{path:?} cannot be deleted by its path")));
        }
        let request = Request::new(Method::DELETE, self.url(path.split('/')), "delete")
            .replay(Replay::Once)
            .metering(self.file_op(paid));
        self.change(request).await.map(drop)
    }

    /// Sets who may see a file or folder.
    pub(super) async fn set_visibility(&self, path: &str, visibility: Visibility) -> Result<()> {
        let request = Request::new(Method::PUT, self.url(["privacy"]), "change who may see it")
            .json(&json!({ "item_path": path, "visibility": visibility.word() }))
            .metering(self.file_op(Paid::Now));
        self.change(request).await.map(drop)
    }

    /// What is in the trash, as far as one answer tells it: more lines than those are of no use in an attribute.
    pub(super) async fn trash(&self) -> Result<Vec<Trashed>> {
        let purpose = "list the trash";
        let mut url = self.url(["trash"]);
        url.query_pairs_mut().append_pair("limit", TRASH_PAGE);
        let request = Request::get(url, purpose).metering(counted(&self.rates.trash));
        self.call(request).await?.json(purpose).await
    }

    /// Removes all that is in the trash for good.
    pub(super) async fn empty_trash(&self) -> Result<()> {
        let request = Request::new(Method::POST, self.url(["trash", "empty"]), "empty the trash")
            .metering(counted(&self.rates.trash));
        self.change(request).await.map(drop)
    }

    /// Takes something back out of the trash.
    pub(super) async fn restore(&self, id: &str) -> Result<()> {
        let request = Request::new(Method::POST, self.url(["trash", "restore"]), "restore from the trash")
            .json(&json!({ "item_ids": [id] }))
            .metering(counted(&self.rates.trash));
        self.change(request).await.map(drop)
    }
}

/// What an answer says that was made.
fn made(answer: &Bytes, purpose: &str) -> Result<(String, Item)> {
    let listed: Listed = serde_json::from_slice(answer)
        .map_err(|error| Error::bad_data(format!("{purpose}: the answer is not what was expected ({error})")))?;
    Ok((listed.path.trim_matches('/').to_owned(), listed.into_item()))
}

/// Whether a failed change may have happened all the same. An answer that isn't what was promised says nothing.
pub(super) fn is_ambiguous(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unreachable | ErrorKind::TimedOut | ErrorKind::BadData
    )
}
