//! What the client API says about items, grants and people.
//!
//! Responsible for the documented fields and their cases, which differ from endpoint to endpoint.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::accounts::{AccountState, Plan, UploadPreference};
use super::assumptions::{FolderItems, Visibility};
use super::grants::{Grant, Level};
use super::path::ItemPath;
use super::tree::{Item, ItemKind, Trashed, Tree};

pub(super) fn json_response(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// ISO-8601 UTC with milliseconds (file-listing).
pub(super) fn iso(time: Timestamp) -> String {
    format!("{time:.3}")
}

impl Visibility {
    /// As `/list` and `/privacy` write it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Private => "PRIVATE",
            Self::Public => "PUBLIC",
            Self::Shared => "SHARED",
        }
    }

    pub(super) fn from_word(word: &str) -> Option<Self> {
        [Self::Private, Self::Public, Self::Shared]
            .into_iter()
            .find(|visibility| visibility.word() == word)
    }
}

impl Level {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::View => "VIEW",
            Self::Edit => "EDIT",
            Self::Owner => "OWNER",
        }
    }

    pub(super) fn from_word(word: &str) -> Option<Self> {
        [Self::View, Self::Edit, Self::Owner]
            .into_iter()
            .find(|level| level.word() == word)
    }
}

impl UploadPreference {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::AlwaysPrivate => "always_private",
            Self::AlwaysPublic => "always_public",
            Self::AskEveryTime => "ask_every_time",
        }
    }

    pub(super) fn from_word(word: &str) -> Option<Self> {
        [Self::AlwaysPrivate, Self::AlwaysPublic, Self::AskEveryTime]
            .into_iter()
            .find(|preference| preference.word() == word)
    }
}

/// user-management, "Get current user".
pub(super) fn profile(account: &AccountState, quota: u64) -> Value {
    json!({
        "id": account.id,
        "email": account.email,
        "username": account.username(),
        "discord_id": null,
        "discord_avatar": null,
        "profile_picture": null,
        "upload_preference": account.preference.word(),
        "created_at": iso(account.created),
        "updated_at": iso(account.updated),
        "subscription": {
            "plan": match account.plan {
                Plan::Free => "plan_free",
                Plan::Pro => "plan_pro",
            },
            "storage_used": human(account.tree.used()),
            "storage_limit": human(quota),
        },
    })
}

/// A size for people, as in `"1.2 GB"` (user-management); decimal, and rounded down to one digit.
fn human(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..1_000 => return format!("{bytes} B"),
        1_000..1_000_000 => (1_000, "KB"),
        1_000_000..1_000_000_000 => (1_000_000, "MB"),
        _ => (1_000_000_000, "GB"),
    };
    match (bytes / unit, bytes % unit / (unit / 10)) {
        (whole, 0) => format!("{whole} {name}"),
        (whole, tenths) => format!("{whole}.{tenths} {name}"),
    }
}

/// file-listing, `/files/list`; `downloads` is what stands before the id in `download_url`.
pub(super) fn rich_item(item: &Item, downloads: &str, folders: FolderItems) -> Value {
    let mut answer = json!({
        "id": item.short_id(),
        "name": item.path.name(),
        "path": item.path.to_string(),
        "type": if item.is_folder() { "folder" } else { "file" },
        "created_at": iso(item.created),
        "updated_at": iso(item.updated),
        "is_private": item.shown_visibility() != Visibility::Public,
    });
    match &item.kind {
        ItemKind::File(content) => {
            answer["size"] = json!(item.size());
            answer["mime_type"] = json!(content.mime);
            answer["download_url"] = json!(format!("{downloads}{}", item.short_id()));
        }
        ItemKind::Folder if folders == FolderItems::WithNulls => {
            answer["size"] = json!(0);
            answer["mime_type"] = Value::Null;
            answer["download_url"] = Value::Null;
        }
        ItemKind::Folder => {}
    }
    answer
}

/// file-listing, `/list`; create-folder and the operations on files answer the same.
pub(super) fn simple_item(item: &Item) -> Value {
    json!({
        "id": item.short_id(),
        "path": item.path.to_string(),
        "item_type": if item.is_folder() { "FOLDER" } else { "FILE" },
        "size_bytes": item.size(),
        "visibility": item.shown_visibility().word(),
        "created_at": iso(item.created),
    })
}

/// file-upload, "Response".
pub(super) fn uploaded(item: &Item, owner: &AccountState) -> Value {
    json!({
        "path": item.path.to_string(),
        "item_type": "file",
        "id": item.short_id(),
        "size_bytes": item.size(),
        "created_at": iso(item.created),
        "visibility": item.shown_visibility().word().to_lowercase(),
        "permissions": permissions(item),
        "owner": person(owner),
    })
}

/// folder-management, "Folder info": the size is that of everything in it.
pub(super) fn folder_info(folder: &Item, tree: &Tree, owner: &AccountState) -> Value {
    let mut answer = simple_item(folder);
    answer["size_bytes"] = json!(tree.below(&folder.path).map(Item::size).sum::<u64>());
    answer["updated_at"] = json!(iso(folder.updated));
    answer["permissions"] = permissions(folder);
    answer["owner"] = person(owner);
    answer
}

/// file-operations, "Trash".
pub(super) fn trashed_item(trashed: &Trashed) -> Value {
    let mut answer = trashed.top().map_or(Value::Null, simple_item);
    answer["size_bytes"] = json!(trashed.size());
    answer["deleted_at"] = json!(iso(trashed.deleted));
    answer["expires_at"] = json!(iso(trashed.expires));
    answer
}

/// file-sharing, "Grant permission".
pub(super) fn grant(path: &ItemPath, grant: &Grant) -> Value {
    json!({
        "id": grant.short_id(),
        "item_path": path.to_string(),
        "user_email": grant.email,
        "permission_level": grant.level.word(),
        "granted_at": iso(grant.granted),
    })
}

/// All grants of an item.
pub(super) fn permissions(item: &Item) -> Value {
    item.grants.iter().map(|entry| grant(&item.path, entry)).collect()
}

fn person(account: &AccountState) -> Value {
    json!({"id": account.id, "email": account.email, "username": account.username()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1 KB"),
            (1_250_000, "1.2 MB"),
            (1_299_999_999, "1.2 GB"),
            (25_000_000_000, "25 GB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
