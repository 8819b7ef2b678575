//! Files and folders ("Files API"), except making them: see [`super::upload`].
//!
//! Responsible for lists with their pages, for metadata, downloads, moves, deletions and versions.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Outcome, Visit, data, written};
use crate::emulator::cloudsync::access::{Role, Scope};
use crate::emulator::cloudsync::assumptions::{LARGEST_PAGE, PAGE, Ranges, Times};
use crate::emulator::cloudsync::failure::{Failure, json_response};
use crate::emulator::cloudsync::tree::{File, Hindrance, Kind, NewContent, Tree, is_name, parse_path};

/// What a cursor remembers. Clients see base64, as in the sample.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cursor {
    workspace: String,
    path: String,
    after: String,
}

/// "Move/Rename File".
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Move {
    path: Option<String>,
    name: Option<String>,
}

/// "Restore Version".
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Restoration {
    version: u64,
}

impl Visit<'_> {
    /// "List Files".
    pub(super) fn list_files(mut self) -> Outcome {
        self.require(Scope::FilesRead)?;
        let mut query = self.call.query(&["workspace", "path", "limit", "cursor"])?;
        let limit = match query.remove("limit") {
            None => PAGE,
            Some(limit) => limit
                .parse()
                .ok()
                .filter(|limit| (1..=LARGEST_PAGE).contains(limit))
                .ok_or_else(|| Failure::invalid("limit must be from 1 to 1000"))?,
        };
        let wrong_cursor = || Failure::invalid("Invalid cursor");
        let cursor = match query.remove("cursor") {
            None => None,
            Some(cursor) => Some(Cursor::decode(&cursor).ok_or_else(wrong_cursor)?),
        };
        let asked = query
            .remove("workspace")
            .or(cursor.as_ref().map(|it| it.workspace.clone()));
        let asked = asked.ok_or_else(|| Failure::invalid("workspace is missing"))?;
        let path = query.remove("path").or(cursor.as_ref().map(|it| it.path.clone()));
        let path = path.unwrap_or_else(|| "/".to_owned());
        let segments = parse_path(&path).ok_or_else(|| Failure::invalid("path is not a directory's path"))?;

        let times = self.assumptions.times;
        let (workspace, _) = self.workspace(&asked, Role::Viewer)?;
        if cursor
            .as_ref()
            .is_some_and(|cursor| cursor.workspace != workspace.id || cursor.path != path)
        {
            return Err(wrong_cursor());
        }
        let tree = &workspace.tree;
        let folder = tree.find(&segments).ok_or_else(|| Failure::no_path(&path))?;
        let after = cursor.as_ref().map(|cursor| cursor.after.as_str());
        let mut children = tree.children(folder, after).ok_or_else(|| Failure::no_path(&path))?;
        let page: Vec<&str> = children.by_ref().take(limit).collect();
        let has_more = children.next().is_some();
        let items: Vec<Value> = page.iter().filter_map(|id| item(tree, id, times)).collect();
        let last = page.last().and_then(|id| tree.node(id)).map(|node| node.name.clone());
        let next = last.or(cursor.map(|cursor| cursor.after)).map(|after| {
            let cursor = Cursor {
                workspace: workspace.id.clone(),
                path,
                after,
            };
            cursor.encode()
        });
        let body = json!({"data": items, "pagination": {"cursor": next, "hasMore": has_more}});
        Ok(json_response(StatusCode::OK, &body))
    }

    /// "Get File".
    pub(super) fn stat(mut self, id: &str) -> Outcome {
        self.require(Scope::FilesRead)?;
        self.call.query(&[])?;
        self.described_file(id, Role::Viewer)
    }

    /// "Download File".
    pub(super) fn download(mut self, id: &str) -> Outcome {
        self.require(Scope::FilesRead)?;
        self.call.query(&[])?;
        let ranges = self.assumptions.ranges;
        let range = self.call.headers.get(header::RANGE).cloned();
        let tree = &self.workspace_of(id, Role::Viewer)?.tree;
        let file = file(tree, id)?;
        let whole = file.current.content.clone();
        let total = whole.len();
        let part = match (ranges, range) {
            (Ranges::Ignored, _) | (_, None) => None,
            (Ranges::Served, Some(range)) => range.to_str().ok().and_then(|range| single_range(range, total)),
        };
        let mut response = Response::default();
        let body = match part {
            None => whole,
            Some(None) => return Err(Failure::wrong_range()),
            Some(Some((first, end))) => {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                let content_range = format!("bytes {first}-{}/{total}", end - 1);
                if let Ok(value) = HeaderValue::try_from(content_range) {
                    response.headers_mut().insert(header::CONTENT_RANGE, value);
                }
                whole.slice(first..end)
            }
        };
        let headers = response.headers_mut();
        if ranges == Ranges::Served {
            headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        }
        let mime = HeaderValue::try_from(&file.mime).ok();
        let mime = mime.unwrap_or(HeaderValue::from_static("application/octet-stream"));
        headers.insert(header::CONTENT_TYPE, mime);
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        *response.body_mut() = Body::from(body);
        Ok(response)
    }

    /// "Move/Rename File".
    pub(super) fn relocate(mut self, id: &str) -> Outcome {
        self.require(Scope::FilesWrite)?;
        self.workspace_of(id, Role::Editor)?;
        let wanted: Move = self.call.json()?;
        let (parents, now) = (self.assumptions.parents, self.now);
        let tree = &mut self.workspace_of(id, Role::Editor)?.tree;
        let old = tree.path(id);
        let new = match (wanted.path, wanted.name) {
            (Some(path), None) => path,
            (None, Some(name)) if is_name(&name) => {
                let (above, _) = old.rsplit_once('/').unwrap_or_default();
                format!("{above}/{name}")
            }
            (None, Some(_)) => return Err(Failure::invalid("This cannot be a name")),
            _ => return Err(Failure::invalid("Send either path or name")),
        };
        let segments = parse_path(&new)
            .filter(|segments| !segments.is_empty())
            .ok_or_else(|| Failure::invalid("This cannot be a path"))?;
        if new != old {
            tree.relocate(id, &segments, parents, now)
                .map_err(|hindrance| refusal(hindrance, &new))?;
        }
        self.described_file(id, Role::Editor)
    }

    /// "Delete File".
    pub(super) fn delete_file(mut self, id: &str) -> Outcome {
        self.require(Scope::FilesWrite)?;
        let query = self.call.query(&["recursive"])?;
        let recursive = match query.get("recursive").map(String::as_str) {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(Failure::invalid("recursive must be true or false")),
        };
        let tree = &mut self.workspace_of(id, Role::Editor)?.tree;
        let has_content = tree
            .children(id, None)
            .is_some_and(|mut children| children.next().is_some());
        if has_content && !recursive {
            return Err(Failure::not_empty());
        }
        tree.remove(id);
        Ok(self.deleted(id))
    }

    /// "File Versions": the latest first, as in the sample.
    pub(super) fn versions(mut self, id: &str) -> Outcome {
        self.require(Scope::FilesRead)?;
        self.call.query(&[])?;
        let times = self.assumptions.times;
        let file = file(&self.workspace_of(id, Role::Viewer)?.tree, id)?;
        let newest_first = std::iter::once(&file.current).chain(file.former.iter().rev());
        let versions: Vec<Value> = newest_first
            .map(|version| {
                json!({
                    "version": version.number,
                    "size": version.content.len(),
                    "hash": version.hash,
                    "modifiedAt": written(version.modified, times),
                    "modifiedBy": version.modified_by,
                })
            })
            .collect();
        Ok(data(StatusCode::OK, json!(versions)))
    }

    /// "Restore Version".
    pub(super) fn restore(mut self, id: &str) -> Outcome {
        self.require(Scope::FilesWrite)?;
        let (by, at) = (self.state.email(&self.caller.user), self.now);
        self.workspace_of(id, Role::Editor)?;
        let Restoration { version } = self.call.json()?;
        let workspace = self.workspace_of(id, Role::Editor)?;
        let file = file(&workspace.tree, id)?;
        let wanted = file
            .former
            .iter()
            .chain([&file.current])
            .find(|known| known.number == version);
        let content = wanted.ok_or_else(|| Failure::not_found("Version"))?.content.clone();
        let grown = content.len().saturating_sub(file.current.content.len()) as u64;
        let new = NewContent {
            content,
            mime: None,
            by,
            at,
            keep: workspace.settings.kept_versions(),
        };
        let owner = workspace.owner().map(str::to_owned);
        self.state.check_room(owner.as_deref(), grown)?;
        let written = self.workspace_of(id, Role::Editor)?.tree.write_version(id, new);
        written.map_err(|_| Failure::not_found("File"))?;
        self.described_file(id, Role::Editor)
    }

    fn described_file(&mut self, id: &str, needed: Role) -> Outcome {
        let times = self.assumptions.times;
        let tree = &self.workspace_of(id, needed)?.tree;
        let item = item(tree, id, times).ok_or_else(|| Failure::not_found("File"))?;
        Ok(data(StatusCode::OK, item))
    }
}

fn file<'a>(tree: &'a Tree, id: &str) -> Result<&'a File, Failure> {
    match tree.node(id).map(|node| &node.kind) {
        Some(Kind::File(file)) => Ok(file),
        Some(Kind::Folder(_)) => Err(Failure::invalid("This is a folder")),
        None => Err(Failure::not_found("File")),
    }
}

/// A file or folder as lists show it.
pub(super) fn item(tree: &Tree, id: &str, times: Times) -> Option<Value> {
    let node = tree.node(id)?;
    let mut item = json!({
        "id": id,
        "name": node.name,
        "path": tree.path(id),
        "createdAt": written(node.created, times),
    });
    match &node.kind {
        Kind::Folder(_) => item["type"] = json!("folder"),
        Kind::File(file) => {
            item["type"] = json!("file");
            item["size"] = json!(file.current.content.len());
            item["mimeType"] = json!(file.mime);
            item["hash"] = json!(file.current.hash);
            item["modifiedAt"] = json!(written(file.current.modified, times));
            item["createdBy"] = json!(file.created_by);
        }
    }
    Some(item)
}

/// Why something can't get this path.
pub(super) fn refusal(hindrance: Hindrance, path: &str) -> Failure {
    match hindrance {
        Hindrance::NoParent => Failure::no_path(path),
        Hindrance::Taken => Failure::exists("path", path),
        Hindrance::IntoItself => Failure::invalid("A folder cannot go into itself"),
        Hindrance::Missing => Failure::not_found("File"),
    }
}

/// The bytes that a `Range` header asks for: `None` if it is none that this server knows (RFC 9110, 14.2, ignores
/// those), `Some(None)` if there are no such bytes.
fn single_range(value: &str, total: usize) -> Option<Option<(usize, usize)>> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    if !(first.bytes().chain(last.bytes())).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (first, end) = match (first, last) {
        ("", length) => (total.saturating_sub(length.parse().ok()?), total),
        (first, "") => (first.parse().ok()?, total),
        (first, last) => {
            let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
            if last < first {
                return None;
            }
            (first, last.saturating_add(1).min(total))
        }
    };
    Some((first < end).then_some((first, end)))
}

impl Cursor {
    fn encode(&self) -> String {
        STANDARD.encode(json!(self).to_string())
    }

    fn decode(text: &str) -> Option<Self> {
        serde_json::from_slice(&STANDARD.decode(text).ok()?).ok()
    }
}
