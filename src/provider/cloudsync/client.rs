//! The requests to CloudSync: one method each, and the knowledge of rights and places that their answers bring.
//!
//! How several requests make one safe change is in `store`, how bytes are checked in `read`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use reqwest::{Method, Url};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::debug;

use super::key::Key;
use super::names::{ROOT, join};
use super::places::{Places, Use};
use super::rights::Access;
use super::wire::{ApiKey, Envelope, Item, Me, Page, StoredVersion, Workspace};
use crate::api::Api;
use crate::model::{Action, Entry, Error, ErrorKind, Kind, Result};
use crate::net::{Body, FilePart, Metering, RateBucket, Replay, Request, Response};
use crate::provider::Content;

/// Entries on a page: the most that may be asked for (documentation, "List Files"), for every page is a request.
const PAGE: &str = "1000";
/// Attempts of a change whose outcome stayed unknown and which then proved not to have happened.
const ATTEMPTS: u32 = 3;
/// Pages of one listing; a cursor that never ends is an answer that makes no sense.
const MOST_PAGES: u32 = 10_000;
/// What a file is called in the body of an upload; its name is in `path`.
const PART_NAME: &str = "content";

/// What an upload does where there is a file already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overwrite {
    Yes,
    No,
}

pub(super) struct Client {
    api: Arc<Api>,
    /// Requests of every kind, in the plan's minute.
    rate: Arc<RateBucket>,
    pub(super) access: Access,
    places: Places,
    /// Set once a folder couldn't be asked for: no endpoint for it is documented.
    makes_no_folders: AtomicBool,
}

impl Client {
    pub(super) fn new(api: Arc<Api>, access: Access) -> Self {
        Self {
            api,
            rate: Arc::new(RateBucket::told("requests")),
            access,
            places: Places::default(),
            makes_no_folders: AtomicBool::new(false),
        }
    }

    pub(super) fn api(&self) -> &Api {
        &self.api
    }

    /// Every request counts.
    async fn call(&self, request: Request) -> Result<Response> {
        let counted = request.metering(Metering::Counted(Arc::clone(&self.rate)));
        self.api.call(&counted).await
    }

    async fn ask<T: DeserializeOwned>(&self, url: Url, purpose: &'static str) -> Result<T> {
        self.call(Request::get(url, purpose)).await?.json(purpose).await
    }

    /// Sends a change and reads its answer to the end, so that the connection can be used again.
    async fn change(&self, request: &Request) -> Result<Bytes> {
        let response = self.call(request.clone()).await?;
        // The status said that it is done; what follows is only words.
        Ok(response.bytes(request.purpose).await.unwrap_or_default())
    }

    pub(super) async fn me(&self) -> Result<Me> {
        let url = self.api.url(["me"]);
        Ok(self.ask::<Envelope<Me>>(url, "ask about the account").await?.data)
    }

    pub(super) async fn api_keys(&self) -> Result<Vec<ApiKey>> {
        let url = self.api.url(["me", "api-keys"]);
        Ok(self.ask::<Envelope<Vec<ApiKey>>>(url, "list the keys").await?.data)
    }

    /// The workspaces that the account has a part in.
    pub(super) async fn workspaces(&self) -> Result<Vec<Workspace>> {
        let url = self.api.url(["workspaces"]);
        let answer = self.ask::<Envelope<Vec<Workspace>>>(url, "list the workspaces").await;
        if matches!(&answer, Err(error) if error.kind() == ErrorKind::Denied) {
            self.access.account_refused(Action::Read);
        }
        let workspaces = answer?.data;
        for workspace in &workspaces {
            self.access.learn_role(&workspace.id, workspace.role.as_deref());
        }
        Ok(workspaces)
    }

    /// # Errors
    /// `NotFound`.
    pub(super) async fn workspace(&self, id: &str) -> Result<Workspace> {
        let url = self.api.url(["workspaces", id]);
        let workspace = self
            .ask::<Envelope<Workspace>>(url, "look at the workspace")
            .await?
            .data;
        self.access.learn_role(&workspace.id, workspace.role.as_deref());
        Ok(workspace)
    }

    /// # Errors
    /// `AlreadyExists`.
    pub(super) async fn create_workspace(&self, slug: &str) -> Result<Workspace> {
        const PURPOSE: &str = "make the workspace";
        let request = Request::new(Method::POST, self.api.url(["workspaces"]), PURPOSE)
            .json(&json!({ "name": slug, "slug": slug }));
        let answer = match self.call(request).await {
            Ok(response) => response.json::<Envelope<Workspace>>(PURPOSE).await,
            Err(error) => {
                if error.kind() == ErrorKind::Denied {
                    self.access.account_refused(Action::Write);
                }
                Err(error)
            }
        };
        let workspace = answer?.data;
        self.access.learn_role(&workspace.id, workspace.role.as_deref());
        Ok(workspace)
    }

    /// # Errors
    /// `NotFound`.
    pub(super) async fn item(&self, workspace: &str, id: &str) -> Result<Item> {
        let url = self.api.url(["files", id]);
        let answer = self.ask::<Envelope<Item>>(url, "look at the file").await;
        let item = self.noting(workspace, Action::Read, answer)?.data;
        self.saw(&item);
        Ok(item)
    }

    /// Remembers where a folder is.
    fn saw(&self, item: &Item) {
        if item.is_folder() {
            self.places.saw(&item.id, &item.path);
        }
    }

    /// Where a folder is, as was seen a moment ago or is asked now.
    ///
    /// # Errors
    /// `NotFound`; `NotADirectory` for a file; `Unsupported` where only workspaces are.
    pub(super) async fn folder(&self, key: &Key) -> Result<Folder> {
        self.folder_for(key, Use::Change).await
    }

    async fn folder_for(&self, key: &Key, wanted_for: Use) -> Result<Folder> {
        let (workspace, id) = match key {
            Key::Account => return Err(Error::unsupported("beside workspaces there is nothing")),
            Key::Workspace(workspace) => {
                return Ok(Folder {
                    workspace: workspace.clone(),
                    path: ROOT.to_owned(),
                    certainty: Certainty::Asked,
                });
            }
            Key::Item { workspace, id } => (workspace, id),
        };
        match self.places.path(id, wanted_for) {
            Some(path) => Ok(Folder {
                workspace: workspace.clone(),
                path,
                certainty: Certainty::Remembered,
            }),
            None => self.folder_now(workspace, id).await,
        }
    }

    async fn folder_now(&self, workspace: &str, id: &str) -> Result<Folder> {
        let item = self.item(workspace, id).await?;
        if !item.is_folder() {
            return Err(Error::new(
                ErrorKind::NotADirectory,
                format!("{:?} is not a folder", item.name),
            ));
        }
        Ok(Folder {
            workspace: workspace.to_owned(),
            path: item.path,
            certainty: Certainty::Asked,
        })
    }

    /// One page of what is in a folder.
    async fn page(&self, workspace: &str, path: &str, limit: &str, cursor: Option<&str>) -> Result<Page> {
        let mut url = self.api.url(["files"]);
        url.query_pairs_mut()
            .append_pair("workspace", workspace)
            .append_pair("path", path)
            .append_pair("limit", limit);
        if let Some(cursor) = cursor {
            url.query_pairs_mut().append_pair("cursor", cursor);
        }
        let answer = self.ask::<Page>(url, "list the folder").await;
        let page = self.noting(workspace, Action::Read, answer)?;
        page.data.iter().for_each(|item| self.saw(item));
        Ok(page)
    }

    /// Looks at the items of a folder, page by page, until one is what is wanted or there are no more.
    async fn look_through(
        &self,
        workspace: &str,
        path: &str,
        mut wanted: impl FnMut(Item) -> Option<Item> + Send,
    ) -> Result<Option<Item>> {
        let mut cursor: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let page = self.page(workspace, path, PAGE, cursor.as_deref()).await?;
            for item in page.data {
                // What lies deeper isn't asked for.
                if item.path == join(path, &item.name)
                    && let Some(found) = wanted(item)
                {
                    return Ok(Some(found));
                }
            }
            if !page.pagination.has_more {
                return Ok(None);
            }
            match page.pagination.cursor {
                Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
                _ => break,
            }
        }
        Err(Error::bad_data(
            "list the folder: the provider's pages have no end or no next one",
        ))
    }

    /// Asks for nothing but whether the workspace can be listed.
    pub(super) async fn try_listing(&self, workspace: &str) -> Result<()> {
        self.page(workspace, ROOT, "1", None).await.map(drop)
    }

    pub(super) async fn find(&self, workspace: &str, folder: &str, name: &str) -> Result<Option<Item>> {
        self.look_through(workspace, folder, |item| (item.name == name).then_some(item))
            .await
    }

    async fn items(&self, workspace: &str, path: &str) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        self.look_through(workspace, path, |item| {
            items.push(item);
            None
        })
        .await?;
        Ok(items)
    }

    /// What is in a folder. A remembered place that shows nothing is asked for again.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`.
    pub(super) async fn children(&self, key: &Key) -> Result<Vec<Item>> {
        let folder = self.folder_for(key, Use::Listing).await?;
        let listed = self.items(&folder.workspace, &folder.path).await;
        match (&listed, key, folder.certainty) {
            (Ok(items), Key::Item { workspace, id }, Certainty::Remembered) if items.is_empty() => {
                self.children_now(workspace, id, &folder.path, listed).await
            }
            (Err(error), Key::Item { workspace, id }, Certainty::Remembered) if is_no_folder(error) => {
                self.children_now(workspace, id, &folder.path, listed).await
            }
            _ => listed,
        }
    }

    async fn children_now(
        &self,
        workspace: &str,
        id: &str,
        before: &str,
        listed: Result<Vec<Item>>,
    ) -> Result<Vec<Item>> {
        let now = self.folder_now(workspace, id).await?;
        if now.path == before && listed.is_ok() {
            return listed;
        }
        self.items(workspace, &now.path).await
    }

    /// # Errors
    /// `NotFound`.
    pub(super) async fn child(&self, key: &Key, name: &str) -> Result<Item> {
        let folder = self.folder_for(key, Use::Listing).await?;
        let mut found = self.find(&folder.workspace, &folder.path, name).await;
        if let (Key::Item { workspace, id }, Certainty::Remembered) = (key, folder.certainty) {
            let doubtful = match &found {
                Ok(found) => found.is_none(),
                Err(error) => is_no_folder(error),
            };
            if doubtful {
                let now = self.folder_now(workspace, id).await?;
                if now.path != folder.path || found.is_err() {
                    found = self.find(workspace, &now.path, name).await;
                }
            }
        }
        found?.ok_or_else(|| Error::not_found(format_args!("{name:?}")))
    }

    /// Asks for a file's bytes, all of them: that parts can be asked for isn't documented.
    pub(super) async fn download(&self, workspace: &str, id: &str) -> Result<Response> {
        let request = Request::get(self.api.url(["files", id, "content"]), "download the file");
        let answer = self.call(request).await;
        self.noting(workspace, Action::Read, answer)
    }

    /// Uploads a file; `None` when the answer doesn't tell what came of it.
    ///
    /// # Errors
    /// `AlreadyExists`.
    pub(super) async fn post_file(
        &self,
        workspace: &str,
        path: &str,
        content: &Content,
        overwrite: Overwrite,
    ) -> Result<Option<Item>> {
        let sent = content.clone();
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let body = Body::Multipart {
            fields: vec![
                field("workspace", workspace),
                field("path", path),
                field(
                    "overwrite",
                    match overwrite {
                        Overwrite::Yes => "true",
                        Overwrite::No => "false",
                    },
                ),
            ],
            file: FilePart {
                field: PART_NAME.to_owned(),
                file_name: PART_NAME.to_owned(),
                content_type: mime_guess::from_path(path).first_or_octet_stream().to_string(),
                len: content.len(),
                open: Arc::new(move || sent.stream()),
            },
        };
        let request = Request::new(Method::POST, self.api.url(["files"]), "upload the file").body(body);
        let answer = self.change(&request).await;
        self.noting(workspace, Action::Write, answer).map(|body| item_in(&body))
    }

    /// Asks for a folder as the documentation's sample of a request does, with a path and no content, and says that it
    /// is to be one. `None` when the answer doesn't tell what came of it.
    ///
    /// # Errors
    /// `AlreadyExists`.
    pub(super) async fn post_folder(&self, workspace: &str, path: &str) -> Result<Option<Item>> {
        let body = json!({ "workspace": workspace, "path": path, "type": "folder" });
        let request = Request::new(Method::POST, self.api.url(["files"]), "make the folder").json(&body);
        let answer = self.change(&request).await;
        self.noting(workspace, Action::Write, answer).map(|body| item_in(&body))
    }

    pub(super) fn makes_no_folders(&self) -> bool {
        self.makes_no_folders.load(Ordering::Relaxed)
    }

    pub(super) fn learn_no_folders(&self) {
        if !self.makes_no_folders.swap(true, Ordering::Relaxed) {
            debug!("the provider makes no folders when asked; they come with files");
        }
    }

    /// Gives a file or folder another path in its workspace; tells what is there then. What a move answers isn't
    /// documented, so it is looked at: that makes up for an answer that was lost, too.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`.
    pub(super) async fn move_to(&self, workspace: &str, id: &str, path: &str) -> Result<Item> {
        let request = Request::new(Method::PATCH, self.api.url(["files", id]), "rename").json(&json!({ "path": path }));
        let mut attempt = 1;
        let moved = loop {
            match self.change(&request).await {
                Ok(_) => break Ok(()),
                Err(error) if is_ambiguous(&error) => match self.item(workspace, id).await {
                    Ok(item) if item.path == path => break Ok(()),
                    Ok(_) if attempt < ATTEMPTS => attempt += 1,
                    _ => break Err(error),
                },
                Err(error) => break Err(error),
            }
        };
        self.places.forget_all();
        self.noting(workspace, Action::Write, moved)?;
        let item = self.item(workspace, id).await?;
        if item.path == path {
            return Ok(item);
        }
        Err(Error::bad_data(format!(
            "rename: asked for {path:?}, the provider made it {:?}",
            item.path
        )))
    }

    /// Removes a file, or a folder with nothing in it.
    ///
    /// # Errors
    /// `NotFound`, `NotEmpty`.
    pub(super) async fn delete(&self, workspace: &str, id: &str, kind: Kind) -> Result<()> {
        let mut url = self.api.url(["files", id]);
        if kind == Kind::Directory {
            url.query_pairs_mut().append_pair("recursive", "false");
        }
        let request = Request::new(Method::DELETE, url, "remove").replay(Replay::Once);
        let mut attempt = 1;
        let removed = loop {
            match self.change(&request).await {
                Ok(_) => break Ok(()),
                Err(error) if is_ambiguous(&error) => match self.item(workspace, id).await {
                    Err(gone) if gone.kind() == ErrorKind::NotFound => break Ok(()),
                    Ok(_) if attempt < ATTEMPTS => attempt += 1,
                    _ => break Err(error),
                },
                Err(error) => break Err(error),
            }
        };
        if kind == Kind::Directory {
            self.places.forget_all();
        }
        self.noting(workspace, Action::Delete, removed)
    }

    pub(super) async fn versions(&self, id: &str) -> Result<Vec<StoredVersion>> {
        let url = self.api.url(["files", id, "versions"]);
        Ok(self
            .ask::<Envelope<Vec<StoredVersion>>>(url, "look at the file's versions")
            .await?
            .data)
    }

    /// Makes a former version the current one.
    ///
    /// # Errors
    /// `NotFound` when there is no such version.
    pub(super) async fn restore(&self, workspace: &str, id: &str, version: u64) -> Result<()> {
        let url = self.api.url(["files", id, "restore"]);
        let request = Request::new(Method::POST, url, "restore the version").json(&json!({ "version": version }));
        let answer = self.change(&request).await;
        self.noting(workspace, Action::Write, answer).map(drop)
    }

    /// # Errors
    /// `InvalidInput`.
    pub(super) async fn create_key(&self, body: &Value) -> Result<Response> {
        let request = Request::new(Method::POST, self.api.url(["me", "api-keys"]), "make the key").json(body);
        self.call(request).await
    }

    /// # Errors
    /// `NotFound`.
    pub(super) async fn revoke_key(&self, id: &str) -> Result<()> {
        let url = self.api.url(["me", "api-keys", id]);
        self.change(&Request::new(Method::DELETE, url, "revoke the key"))
            .await
            .map(drop)
    }

    /// Remembers a refusal.
    fn noting<T>(&self, workspace: &str, action: Action, result: Result<T>) -> Result<T> {
        if matches!(&result, Err(error) if error.kind() == ErrorKind::Denied) {
            debug!(workspace, ?action, "the provider refused");
            self.access.refused(workspace, action);
        }
        result
    }

    /// # Errors
    /// `InvalidName`, `NameTooLong` for a name that no file can have here.
    pub(super) fn entry(&self, workspace: &str, item: &Item) -> Result<Entry> {
        item.entry(workspace, self.access.on_workspace(workspace))
    }

    /// The entries of a listing, each name once.
    pub(super) fn entries(&self, workspace: &str, items: &[Item]) -> Vec<Entry> {
        let mut entries = BTreeMap::new();
        for item in items {
            match self.entry(workspace, item) {
                Ok(entry) => {
                    entries.insert(entry.name.clone(), entry);
                }
                Err(error) => debug!(id = item.id, %error, "an entry is left out of the listing"),
            }
        }
        entries.into_values().collect()
    }
}

/// A folder's place.
pub(super) struct Folder {
    pub(super) workspace: String,
    pub(super) path: String,
    certainty: Certainty,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Certainty {
    Asked,
    /// It was there a moment ago.
    Remembered,
}

/// Whether a listing failed because there is no folder at that path; what the service answers for a file's isn't
/// documented.
fn is_no_folder(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::InvalidInput | ErrorKind::InvalidName
    )
}

/// Whether a failed change may have happened all the same.
pub(super) fn is_ambiguous(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::TimedOut)
}

/// What a change's answer says about the file, where it does.
fn item_in(body: &[u8]) -> Option<Item> {
    Some(serde_json::from_slice::<Envelope<Item>>(body).ok()?.data)
}
