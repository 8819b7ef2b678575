//! What the provider's documentation leaves open, gathered in one place.
//!
//! Responsible for naming every guess, be it switchable or fixed. A fact found out later changes this file first.

use jiff::SignedDuration;

/// The guesses a test may want to turn. The fixed ones are the constants of this module and these rules:
///
/// * Checks come in this order: body read, credential, rate, address, method, permission or scope, existence, role,
///   query and body, conflicts. What the caller has no part in isn't found.
/// * Error codes besides `resource_not_found` follow its form: `invalid_request`, `authentication_required`,
///   `invalid_token` (unknown, expired and revoked alike), `permission_denied`, `resource_already_exists`,
///   `resource_not_empty`, `quota_exceeded`, `payload_too_large`, `rate_limit_exceeded`.
/// * Unknown, repeated or malformed query parameters and unknown fields are refused. `GET` and `DELETE` take no body.
/// * `files:write` covers moving, deleting and restoring, and answers to these changes need no `files:read`.
/// * A viewer reads files and members; an editor changes files; an admin manages members, the workspace's name and
///   settings; an owner deletes the workspace. `users:*` is for members, never for one's own profile and keys: any
///   credential reads `/v1/me`.
/// * A key can't make a key that may do more than itself. Names of keys needn't be unique.
/// * Slugs are unique among all workspaces, `[a-z0-9-]`, at most 64 long; made from the name where none is sent.
/// * Paths are absolute, without empty, `.` or `..` segments and without a slash at the end; names have at most 255
///   bytes and no control characters; they are case-sensitive. A list is sorted by name, folders among files.
/// * A page's cursor names the last entry shown, so entries made or removed meanwhile are neither shown twice nor
///   skipped. A cursor comes with the last page too, as in the documented sample; it may be sent alone.
/// * An upload over a file keeps the id and `createdAt`. It answers 201 for a new file and 200 for a new version. A
///   folder in the way is a conflict with `overwrite` too.
/// * A move keeps the id, never replaces anything, and takes either `path` or `name`.
/// * Restoring makes a new version with the former content and answers with the item.
/// * Storage counts current versions of all workspaces that somebody owns. Requests are counted by user in windows of
///   a minute that begin with the first request; those without a credential share one window of the free plan.
/// * An invitation is accepted at once; who has no account can't be invited. A workspace keeps its one owner.
/// * `ipAllowlist`, `requireMfa`, `syncMode` and `conflictResolution` are kept and not enforced.
/// * Downloads carry `Content-Type` and `Content-Length`, no `ETag`. `HEAD` isn't offered.
/// * Authorization codes live 10 minutes (RFC 6749, 4.1.2, recommends that as the most) and a second use revokes what
///   the first one gave. A failed exchange uses a code up, unless another client tried it.
/// * Refreshing leaves earlier access tokens valid until their time is over, with the scopes they were issued for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assumptions {
    /// The status of errors that none of the listed statuses is made for.
    pub statuses: Statuses,
    /// How folders are made; no endpoint for it is documented.
    pub folders: FolderCreation,
    /// What becomes of missing folders on the way of an upload, a new folder or a move.
    pub parents: Parents,
    /// What a `Range` header does to a download.
    pub ranges: Ranges,
    /// What a deletion answers.
    pub deletion: Deletion,
    /// Whether 429 has a `Retry-After`; only the `X-RateLimit-…` headers are documented.
    pub retry_after: RetryAfter,
    /// How times are written.
    pub times: Times,
    /// What `sk_test_` keys see.
    pub sandbox: Sandbox,
    /// Who may use `/v1/me/api-keys`.
    pub key_management: KeyManagement,
    /// The largest file in bytes; no limit is documented.
    pub file_limit: u64,
    /// What a refresh does to the refresh token.
    pub refreshing: Refreshing,
    /// Whether the authorization server knows PKCE (RFC 7636).
    pub pkce: Pkce,
    /// How long access tokens live. "1 hour" is documented.
    pub access_lifetime: SignedDuration,
    /// Whether token answers tell that time.
    pub expires_in: ExpiresIn,
    /// Whether there is a device authorization endpoint (RFC 8628).
    pub device: DeviceFlow,
    /// Whether there is a revocation endpoint (RFC 7009).
    pub revocation: Revocation,
}

impl Default for Assumptions {
    fn default() -> Self {
        Self {
            statuses: Statuses::Listed,
            folders: FolderCreation::WithoutContent,
            parents: Parents::Made,
            ranges: Ranges::Ignored,
            deletion: Deletion::Data,
            retry_after: RetryAfter::Absent,
            times: Times::Milliseconds,
            sandbox: Sandbox::Shared,
            key_management: KeyManagement::AnyCredential,
            file_limit: u64::MAX,
            refreshing: Refreshing::Keeps,
            pkce: Pkce::Verified,
            access_lifetime: SignedDuration::from_hours(1),
            expires_in: ExpiresIn::Told,
            device: DeviceFlow::Absent,
            revocation: Revocation::Absent,
        }
    }
}

/// The status of a conflict, a full quota, a wrong method and the like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statuses {
    /// The nearest of the listed ones: 404 for a wrong method, 400 for the rest.
    Listed,
    /// What HTTP has for it: 405, 409, 413, 415, 507.
    Standard,
}

/// How folders are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FolderCreation {
    /// `POST /v1/files` with `{workspace, path}` and no `content`, as the sample of "Request Format" has it; a `type`
    /// of `folder` may be added.
    WithoutContent,
    /// The same, and `"type":"folder"` must be there.
    Typed,
    /// Not at all: folders come into being with the files in them.
    Unsupported,
}

/// What becomes of missing folders on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parents {
    /// They are made.
    Made,
    /// `resource_not_found`.
    Required,
}

/// What a `Range` header does to a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranges {
    /// Nothing: 200 and the whole content.
    Ignored,
    /// 206 and a part, for a single range of bytes.
    Served,
}

/// What a deletion answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// 200 with `{"data":{"id":…}}`; 204 isn't among the listed statuses.
    Data,
    /// 204 without a body.
    NoContent,
}

/// Whether 429 has a `Retry-After`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// No.
    Absent,
    /// Seconds, as `X-RateLimit-Reset` has them from now.
    Sent,
}

/// How times are written: ISO-8601 in UTC either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// `2026-01-06T10:30:00.000Z`.
    Milliseconds,
    /// `2026-01-06T10:30:00Z`, as the samples have it.
    Seconds,
}

/// What `sk_test_` keys see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sandbox {
    /// The same workspaces as any credential.
    Shared,
    /// Only workspaces of the sandbox, which no other credential sees.
    Separate,
}

/// Who may use `/v1/me/api-keys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyManagement {
    /// Any key or access token of the user.
    AnyCredential,
    /// Any of them may read the list; making and deleting keys is for the dashboard.
    ListOnly,
    /// Nobody: 403.
    Forbidden,
}

/// What a refresh does to the refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refreshing {
    /// It stays valid, and the answer has none.
    Keeps,
    /// It stays valid, and the answer repeats it.
    Repeats,
    /// The answer has a new one, and the old one is over. Who sends an old one again ends the whole grant
    /// (RFC 9700, 4.14.2).
    Rotates,
}

/// Whether the authorization server knows PKCE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pkce {
    /// A challenge (only `S256`) is checked against the verifier; nobody must send one.
    Verified,
    /// Challenge and verifier are ignored.
    Unknown,
}

/// Whether token answers have `expires_in`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiresIn {
    /// Yes, as documented.
    Told,
    /// No (RFC 6749, 5.1, only recommends it).
    LeftOut,
}

/// Whether there is a device authorization endpoint, `/oauth/device/code`, with its page `/oauth/device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceFlow {
    /// No.
    Absent,
    /// Yes, with JSON bodies like the token endpoint's.
    Offered {
        /// The least time between two polls. Zero: as fast as one likes.
        interval: SignedDuration,
        /// How long the codes live.
        lifetime: SignedDuration,
    },
}

/// Whether there is a revocation endpoint, `/oauth/revoke`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// No.
    Absent,
    /// Yes, with JSON bodies like the token endpoint's.
    Offered,
}

/// Entries on a page unless the request says otherwise ("List Files"; documented).
pub(super) const PAGE: usize = 100;
/// The most entries that a request may ask for ("List Files"; documented).
pub(super) const LARGEST_PAGE: usize = 1000;
/// The longest name in bytes.
pub(super) const LONGEST_NAME: usize = 255;
/// The longest slug in bytes.
pub(super) const LONGEST_SLUG: usize = 64;
/// Former versions kept where the workspace doesn't say how many.
pub(super) const KEPT_VERSIONS: u64 = 100;
/// How long an authorization code lives.
pub(super) const CODE_LIFETIME: SignedDuration = SignedDuration::from_mins(10);
/// A window of the rate limit ("requests/minute"; documented).
pub(super) const RATE_WINDOW: SignedDuration = SignedDuration::from_mins(1);
