//! What the provider's documentation leaves open, gathered in one place.
//!
//! Responsible for naming every guess, be it switchable or fixed. A fact found out later changes this file first.

use axum::http::StatusCode;

/// The guesses a test may want to turn. The fixed ones are the constants of this module and these rules:
///
/// * A token that the drive doesn't know is answered like a missing one, public folder or not.
/// * Checks come in this order: shape of path and query, body read, drive, token, rights, subscription, existence,
///   content of the body, conflicts.
/// * Rights are those of the nearest folder that exists on the way to the path, so a stranger can't tell what exists.
///   For a folder that is itself the target, its own rights count. Renaming a file or folder needs write.
/// * An explicit grant of nothing ends inheritance. A folder without read right is listed by its parent all the same.
/// * Everything beneath a public folder is readable by anyone; `sharingStatus` tells what is set on the folder itself.
/// * Names on upload and creation are limited and sanitised like names on rename. Characters are Unicode scalar
///   values, counted before sanitising. A reserved Windows name is one up to its first dot, in any case.
/// * Names are case-sensitive.
/// * A batch of files is taken as a whole or not at all.
/// * A folder's size is 0, its hash empty and its MIME type null; paths in answers start with `/` at the drive.
/// * A change inside a folder changes that folder's `modified_at`; renaming changes that of the thing renamed.
/// * `DELETE` and `PUT` take a folder with or without a trailing slash; with one, a file isn't found.
/// * `HEAD` isn't offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assumptions {
    /// What an upload to the name of an existing file does; the documentation lists 409 `File exists`, but also an
    /// error that only makes sense if files can be replaced.
    pub overwrite: Overwrite,
    /// How far `File unchanged` looks for identical content.
    pub duplicates: Duplicates,
    /// Whether `?detail=true` has `created_at` and `modified_at`; the only sample is cut before it could show them.
    pub detail_has_times: bool,
    /// The largest file in bytes. "100 MB" is documented, decimal or binary is not.
    pub file_limit: u64,
}

impl Default for Assumptions {
    fn default() -> Self {
        Self {
            overwrite: Overwrite::Refuse,
            duplicates: Duplicates::SamePath,
            detail_has_times: true,
            file_limit: 100_000_000,
        }
    }
}

/// What an upload to the name of an existing file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// 409 `File exists`.
    Refuse,
    /// The content is replaced.
    Replace,
}

/// Where identical content makes an upload fail with 400 `File unchanged`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duplicates {
    /// Nowhere.
    Accepted,
    /// At the same path.
    SamePath,
    /// At any path of the drive.
    Anywhere,
}

/// The answer for what isn't there.
pub(super) const NOT_FOUND: (StatusCode, &str) = (StatusCode::NOT_FOUND, "Not found");
/// The answer to a deletion.
pub(super) const DELETED: (StatusCode, &str) = (StatusCode::OK, "Deleted successfully");
/// The answer to a deletion without the right to it.
pub(super) const NO_DELETE_PERMISSION: (StatusCode, &str) = (StatusCode::FORBIDDEN, "Access denied");
/// The answer to a range that starts at or past the end.
pub(super) const UNSATISFIABLE: (StatusCode, &str) = (StatusCode::RANGE_NOT_SATISFIABLE, "Range not satisfiable");
/// The documentation shows this message only up to `renew`.
pub(super) const SUBSCRIPTION_EXPIRED: (StatusCode, &str) = (
    StatusCode::FORBIDDEN,
    "Subscription expired. Please renew your subscription",
);
/// Sent with every download; the documentation names the header without a value.
pub(super) const CACHE_CONTROL: &str = "private, max-age=0";
