//! What the provider's documentation leaves open, gathered in one place.
//!
//! Responsible for naming every guess, be it switchable or fixed. A fact found out later changes this file first.

use axum::http::StatusCode;

/// The guesses a test may want to turn. The fixed ones are the constants of this module and these rules:
///
/// * Checks come in this order: route, body read, key, plan, rate, parameters and body, existence, conflicts, space.
/// * A request counts against its bucket once its key and plan are good, whatever comes of it; one refused for its
///   rate doesn't count. `X-RateLimit-Reset` is when the oldest counted request leaves the window, rounded up to
///   seconds, and so is `Retry-After`; only successes carry `X-RateLimit-*`.
/// * Unknown and repeated query parameters, unknown fields of a body, and bodies where none belongs are refused.
/// * A name is 1 to 255 bytes without slash and control characters, not `.` or `..`; names are case-sensitive.
/// * `path` and `folder_path` take nothing or `.` for the root. `destination_path` is the whole new path.
/// * A file and a folder never share a path. Uploads make missing folders; these are as visible as created ones.
/// * A preference says nothing about uploads: without `is_private` a file is public.
/// * A move keeps the id, and changes `updated_at` of the item moved only. A folder's `updated_at` changes only with
///   the folder's own path or visibility. A grant changes no `updated_at`.
/// * A listing is sorted by name by default and then by path and id; of the types, `file` comes before `folder`.
/// * `GET /info` of a file is 404. A folder's size is 0 in listings and the sum of its files in `/info`.
/// * A copy is named `name (copy).ext`, then `name (copy 2).ext`; it keeps the visibility and has no grants. Copies count
///   against the quota like other files, and so does the trash.
/// * `SHARED` is shown for a private item with grants, and for one that was set so. Grants of a folder hold beneath it.
/// * Someone else's file is downloaded by its `file_` id: if it or a folder above is granted to the key's owner, or if
///   it is public; else it is 403.
/// * Grants go to accounts that exist, not to oneself, and once per item and account; they stay with their item through
///   the trash.
/// * What is restored comes back with all that was deleted with it, under its former path, which must be free; folders
///   on the way are made again. Restoring several takes all or none.
/// * No two keys of an account have the same first 11 characters. A dashboard session is two cookies, both needed; with
///   an `Authorization` header they don't count. Keys are listed and revoked without Cloud Pro, too.
/// * Conditional headers are ignored. `ETag` is a strong tag made from the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assumptions {
    /// What an upload to the path of an existing file does.
    pub overwrite: Overwrite,
    /// Which of several files with one path is meant by it.
    pub shared_path: SharedPath,
    /// What a move to the path of an existing item of the same kind does.
    pub move_onto: MoveOnto,
    /// What create-folder, move and copy-folder do when the new path's folder is missing.
    pub missing_parents: MissingParents,
    /// What a listing of a folder that isn't there answers.
    pub missing_folder: MissingFolder,
    /// What `/files/list` says of folders.
    pub folder_items: FolderItems,
    /// What deleting a folder does that has something in it.
    pub folder_delete: FolderDelete,
    /// What `Range` does to a download.
    pub ranges: Ranges,
    /// What a download by an id does that two files begin with.
    pub colliding_ids: CollidingIds,
    /// The form of `download_url`.
    pub download_url: DownloadUrl,
    /// What `DELETE` does to paths that begin like an API route.
    pub reserved_names: ReservedNames,
    /// The status of a request that doesn't fit its schema.
    pub validation: Validation,
    /// How visible a new folder is.
    pub new_folder: Visibility,
    /// The largest file in bytes. "1 GB" is documented, decimal or binary is not.
    pub file_limit: u64,
    /// All files of an account in bytes. "25 GB" is documented, decimal or binary is not.
    pub quota: u64,
}

impl Default for Assumptions {
    fn default() -> Self {
        Self {
            overwrite: Overwrite::Duplicate,
            shared_path: SharedPath::Oldest,
            move_onto: MoveOnto::Refuse,
            missing_parents: MissingParents::Refused,
            missing_folder: MissingFolder::NotFound,
            folder_items: FolderItems::WithNulls,
            folder_delete: FolderDelete::Recursive,
            ranges: Ranges::Ignored,
            colliding_ids: CollidingIds::NotFound,
            download_url: DownloadUrl::Absolute,
            reserved_names: ReservedNames::ApiFirst,
            validation: Validation::BadRequest,
            new_folder: Visibility::Private,
            file_limit: 1_000_000_000,
            quota: 25_000_000_000,
        }
    }
}

/// Who may see an item (file-sharing).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// The owner.
    Private,
    /// Anyone.
    Public,
    /// The owner and those it is granted to.
    Shared,
}

/// What an upload to the path of an existing file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// A second file with the same path.
    Duplicate,
    /// The content is replaced; the id stays.
    Replace,
    /// 409.
    Refuse,
}

/// Which of several files with one path is meant by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedPath {
    /// The one made first.
    Oldest,
    /// The one made last.
    Newest,
}

/// What a move to the path of an existing item of the same kind does; of another kind it is always 409.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveOnto {
    /// 409.
    Refuse,
    /// What was there is deleted for good.
    Replace,
    /// Two files have the same path. Folders are refused.
    Duplicate,
}

/// What create-folder, move and copy-folder do when the new path's folder is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingParents {
    /// 404.
    Refused,
    /// It is made, like on upload.
    Created,
}

/// What a listing of a folder that isn't there answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingFolder {
    /// 404.
    NotFound,
    /// An empty listing.
    Empty,
}

/// What `/files/list` says of folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FolderItems {
    /// The fields of a file: `size` is 0, `mime_type` and `download_url` are null.
    WithNulls,
    /// No `size`, `mime_type` and `download_url`.
    Short,
}

/// What deleting a folder does that has something in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FolderDelete {
    /// All of it is deleted.
    Recursive,
    /// 409.
    RefuseNonEmpty,
}

/// What `Range` does to a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranges {
    /// Nothing: 200 with the whole content.
    Ignored,
    /// 206 with the bytes asked for; every download says `Accept-Ranges: bytes`.
    Honoured,
}

/// What a download by an id does that two files begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CollidingIds {
    /// 404.
    NotFound,
    /// It gives the file made first.
    Oldest,
}

/// The form of `download_url`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownloadUrl {
    /// With the host that was asked.
    Absolute,
    /// From the slash after the host on.
    PathOnly,
}

/// What `DELETE` does to paths that begin like an API route, such as `files/a`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReservedNames {
    /// 405: the route has no `DELETE`.
    ApiFirst,
    /// The item is deleted, but for `permissions/{one name}`, which is a route with `DELETE`.
    PathsFirst,
}

/// The status of a request that doesn't fit its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validation {
    /// 400, as documented.
    BadRequest,
    /// 422, as the framework does that makes bodies of this form.
    UnprocessableContent,
}

/// First names of a path that the API uses itself.
pub(super) const RESERVED: [&str; 11] = [
    "copy-folder",
    "create-folder",
    "duplicate",
    "files",
    "info",
    "list",
    "move",
    "permissions",
    "privacy",
    "trash",
    "users",
];
/// The documentation only says that the messages of both 413 differ.
pub(super) const FILE_TOO_LARGE: (StatusCode, &str) = (
    StatusCode::PAYLOAD_TOO_LARGE,
    "File too large. Maximum file size is 1 GB.",
);
/// See [`FILE_TOO_LARGE`].
pub(super) const QUOTA_EXCEEDED: (StatusCode, &str) = (
    StatusCode::PAYLOAD_TOO_LARGE,
    "Storage quota exceeded. Delete files or upgrade your plan.",
);
/// The documentation lists 403 for "no access" without its text.
pub(super) const NO_ACCESS: (StatusCode, &str) =
    (StatusCode::FORBIDDEN, "You do not have permission to access this item.");
/// A dashboard request without a session; the documentation has no example.
pub(super) const NO_SESSION: (StatusCode, &str) = (StatusCode::UNAUTHORIZED, "Unauthorized");
/// The names of the dashboard's cookies.
pub(super) const SESSION_COOKIES: [&str; 2] = ["storra_session", "storra_session_sig"];
/// Characters of a key's label.
pub(super) const LABEL_LIMIT: usize = 100;
/// How many items `/trash` gives without `limit`.
pub(super) const TRASH_PAGE: usize = 100;
