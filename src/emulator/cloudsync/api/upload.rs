//! `POST /v1/files`: uploads in both documented forms, and folders.
//!
//! Responsible for telling the forms apart and for what `overwrite` means.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::call::Part;
use super::files::{item, refusal};
use super::{Outcome, Visit, data, written};
use crate::emulator::cloudsync::access::{Role, Scope};
use crate::emulator::cloudsync::assumptions::FolderCreation;
use crate::emulator::cloudsync::failure::Failure;
use crate::emulator::cloudsync::tree::{Kind, NewContent, parse_path};

/// "Example (Base64)", and the sample of "Request Format".
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    workspace: String,
    path: String,
    content: Option<String>,
    encoding: Option<Encoding>,
    #[serde(default)]
    overwrite: bool,
    r#type: Option<NewKind>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    Base64,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum NewKind {
    Folder,
}

/// What is to be made, and where.
struct Making {
    workspace: String,
    path: String,
    what: What,
}

enum What {
    Folder,
    File {
        content: Bytes,
        mime: Option<String>,
        overwrite: bool,
    },
}

impl Visit<'_> {
    /// "Upload File".
    pub(super) fn upload(mut self) -> Outcome {
        self.require(Scope::FilesWrite)?;
        let making = match self.call.take_parts()? {
            Some(parts) => from_parts(parts)?,
            None => from_document(self.call.json()?, self.assumptions.folders)?,
        };
        let Making { workspace, path, what } = making;
        self.workspace(&workspace, Role::Editor)?;
        let segments = parse_path(&path)
            .filter(|segments| !segments.is_empty())
            .ok_or_else(|| Failure::invalid("This cannot be a path"))?;
        match what {
            What::Folder => self.make_folder(&workspace, &path, &segments),
            What::File {
                content,
                mime,
                overwrite,
            } => {
                let limit = self.assumptions.file_limit;
                if content.len() as u64 > limit {
                    return Err(Failure::too_large(limit));
                }
                let new = NewContent {
                    content,
                    mime,
                    by: self.state.email(&self.caller.user),
                    at: self.now,
                    keep: 0,
                };
                self.write_file(&workspace, &path, &segments, new, overwrite)
            }
        }
    }

    fn make_folder(mut self, workspace: &str, path: &str, segments: &[String]) -> Outcome {
        let (parents, now, times) = (self.assumptions.parents, self.now, self.assumptions.times);
        let tree = &mut self.workspace(workspace, Role::Editor)?.0.tree;
        let id = tree
            .make_folder(segments, parents, now)
            .map_err(|hindrance| refusal(hindrance, path))?;
        let item = item(tree, &id, times).ok_or_else(|| Failure::not_found("File"))?;
        Ok(data(StatusCode::CREATED, item))
    }

    fn write_file(
        mut self,
        workspace: &str,
        path: &str,
        segments: &[String],
        new: NewContent,
        overwrite: bool,
    ) -> Outcome {
        let (parents, times) = (self.assumptions.parents, self.assumptions.times);
        let (stored, _) = self.workspace(workspace, Role::Editor)?;
        let keep = stored.settings.kept_versions();
        let there = stored.tree.find(segments).and_then(|id| stored.tree.node(id));
        let former_size = match there.map(|node| &node.kind) {
            None => None,
            Some(Kind::File(file)) if overwrite => Some(file.current.content.len()),
            Some(_) => return Err(Failure::exists("path", path)),
        };
        let grown = new.content.len().saturating_sub(former_size.unwrap_or(0)) as u64;
        let owner = stored.owner().map(str::to_owned);
        self.state.check_room(owner.as_deref(), grown)?;

        let tree = &mut self.workspace(workspace, Role::Editor)?.0.tree;
        let id = tree
            .write(segments, NewContent { keep, ..new }, parents)
            .map_err(|hindrance| refusal(hindrance, path))?;
        let node = tree.node(&id).ok_or_else(|| Failure::not_found("File"))?;
        let Kind::File(file) = &node.kind else {
            return Err(Failure::exists("path", path));
        };
        let status = match former_size {
            None => StatusCode::CREATED,
            Some(_) => StatusCode::OK,
        };
        let answer = json!({
            "id": id,
            "name": node.name,
            "path": path,
            "type": "file",
            "size": file.current.content.len(),
            "version": file.current.number,
            "createdAt": written(node.created, times),
        });
        Ok(data(status, answer))
    }
}

/// "Example (Multipart)".
fn from_parts(mut parts: BTreeMap<String, Part>) -> Result<Making, Failure> {
    let mut text = |name: &str| -> Result<Option<String>, Failure> {
        let Some(part) = parts.remove(name) else {
            return Ok(None);
        };
        let text = String::from_utf8(part.content.into());
        text.map(Some)
            .map_err(|_| Failure::invalid(format!("The part {name} is not UTF-8")))
    };
    let workspace = text("workspace")?.ok_or_else(|| Failure::invalid("The part workspace is missing"))?;
    let path = text("path")?.ok_or_else(|| Failure::invalid("The part path is missing"))?;
    let overwrite = match text("overwrite")?.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Failure::invalid("overwrite must be true or false")),
    };
    let content = parts.remove("content");
    let Part { content, mime } = content.ok_or_else(|| Failure::invalid("The part content is missing"))?;
    if !parts.is_empty() {
        return Err(Failure::invalid("Unknown part"));
    }
    // What clients send when they don't know.
    let mime = mime.filter(|mime| mime != "application/octet-stream");
    let what = What::File {
        content,
        mime,
        overwrite,
    };
    Ok(Making { workspace, path, what })
}

fn from_document(document: Document, folders: FolderCreation) -> Result<Making, Failure> {
    let typed = document.r#type.is_some();
    let what = match (document.content, document.encoding) {
        (Some(content), Some(Encoding::Base64)) if !typed => {
            let content = STANDARD.decode(content);
            let content = content.map_err(|_| Failure::invalid("content is not base64"))?;
            What::File {
                content: content.into(),
                mime: None,
                overwrite: document.overwrite,
            }
        }
        (Some(_), None) => return Err(Failure::invalid("encoding must be base64")),
        (None, None) if !document.overwrite && makes_folder(folders, typed) => What::Folder,
        _ => return Err(Failure::invalid("content is missing")),
    };
    Ok(Making {
        workspace: document.workspace,
        path: document.path,
        what,
    })
}

fn makes_folder(folders: FolderCreation, typed: bool) -> bool {
    match folders {
        FolderCreation::WithoutContent => true,
        FolderCreation::Typed => typed,
        FolderCreation::Unsupported => false,
    }
}
