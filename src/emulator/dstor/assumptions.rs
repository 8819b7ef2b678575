//! What the provider's public material leaves open, gathered in one place.
//!
//! Responsible for naming every guess, be it switchable or fixed. The provider's Swagger page was never readable, so
//! there are many; a fact found out later changes this file first.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::Network;
use super::endpoint::Endpoint;

/// The guesses a test may want to turn. The fixed ones are the constants of this module and these rules:
///
/// * Checks come in this order: path, method, credential, query, other headers, body. A login is part of the body.
/// * A missing, foreign, malformed or expired access token is answered 401 and so is an unknown or revoked API key or a
///   wrong login; 403 is never used. A wrong upload token is 400: another access token wouldn't mend it.
/// * Only `/v1/upload/get-token` is known with and without its last slash. No path of `/v1` takes a query, but for the
///   [`Console`]'s.
/// * `x-expiration` belongs to the exchange of an API key. A time that isn't in the future by the server's clock is 400.
/// * `folder_path` is `/` or names joined by `/` without a slash at either end. Names are not empty, `.` or `..`, have
///   no control character, slash or backslash, and 255 bytes at most; so have the names in a file's relative path.
/// * Every part of an upload has a file name. Two files of one upload can't have one name.
/// * While posts are missing the status is `ADDING_TO_IPFS`. Work goes on from one look at the status to the next
///   ([`Processing`]); files exist, for the gateway as for the console, from the look that says `DONE` on.
/// * Files sent with a relative path become an immutable hashed folder of the first name in it; `data` has the files in
///   the order sent, then every folder, the deepest first, as `ipfs add -r` prints them.
/// * Deleting takes a file out of the account; its content stays readable by hash.
/// * The gateway answers a directory with a page of links, a name that a folder doesn't have with 404 and a folder's
///   path without its last slash with 301, as Kubo does. Several ranges at once are answered with everything. Query
///   parameters mean nothing to it. A path below a file is 404.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assumptions {
    /// Seconds an access token lives at most, and without `x-expiration` (documented as "one year").
    pub maximum_life: i64,
    /// Seconds an access token from an e-mail address and a password lives; the provider's sample shows an hour.
    pub login_life: i64,
    /// What happens to an `x-expiration` beyond the maximum.
    pub excess: Excess,
    /// What revoking a key, or changing the password, means for the tokens it has been exchanged for.
    pub revocation: Revocation,
    /// Seconds after which an upload token is unknown.
    pub upload_token_life: i64,
    /// The largest body of one upload request, in bytes.
    pub upload_limit: u64,
    /// How many looks at the status an upload takes.
    pub processing: Processing,
    /// What happens to a `folder_path` that isn't there.
    pub missing_directory: MissingDirectory,
    /// What an upload to a taken name does.
    pub same_name: SameName,
    /// Whether the gateway serves ranges; without, it answers them with everything.
    pub ranges: Offered,
    /// Whether the gateway sends `ETag` and heeds `If-None-Match`.
    pub etags: Offered,
    /// Whether the gateway answers `HEAD`; without, with 405.
    pub head: Offered,
    /// Where `/ipfs/{hash}` leads.
    pub redirect: Redirect,
    /// What the gateway says of content it can't find.
    pub missing_content: MissingContent,
    /// The endpoints for listing, deleting and renaming, if there are any.
    pub console: Option<Console>,
}

impl Default for Assumptions {
    fn default() -> Self {
        Self {
            maximum_life: 365 * 24 * 60 * 60,
            login_life: 60 * 60,
            excess: Excess::Clamp,
            revocation: Revocation::KeepsTokens,
            upload_token_life: 60 * 60,
            upload_limit: 1 << 30,
            processing: Processing::default(),
            missing_directory: MissingDirectory::Create,
            same_name: SameName::KeepBoth,
            ranges: Offered::Yes,
            etags: Offered::Yes,
            head: Offered::Yes,
            redirect: Redirect::SameHash,
            missing_content: MissingContent::NotFound,
            console: None,
        }
    }
}

/// What happens to an `x-expiration` beyond the maximum life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// The token gets the maximum life.
    Clamp,
    /// 400.
    Refuse,
}

/// What revoking a key means for the tokens it has been exchanged for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// They stay good until they expire, as nothing in a JWT names the key.
    KeepsTokens,
    /// They are refused with 401.
    EndsTokens,
}

/// How many looks at the status an upload takes once all its posts have arrived; the look after them says `DONE`.
/// With none at all an upload is done when its last post is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Processing {
    /// Looks that say `ADDING_TO_IPFS`.
    pub adding: u32,
    /// Looks after those that say `SAVING_DATA`.
    pub saving: u32,
}

impl Default for Processing {
    fn default() -> Self {
        Self { adding: 1, saving: 1 }
    }
}

/// What happens to a `folder_path` that isn't there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingDirectory {
    /// It is made, with those on the way to it.
    Create,
    /// 400.
    Refuse,
}

/// What an upload to a taken name does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameName {
    /// Both files stay.
    KeepBoth,
    /// The new one takes the old one's place; the old content stays readable by hash.
    Replace,
}

/// Whether the gateway has a feature that Kubo and fastify suggest and nothing states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// It has.
    Yes,
    /// It hasn't.
    No,
}

/// Where the 308 of `/ipfs/{hash}` leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redirect {
    /// To `/ipfs/{hash}/`, as the source of the serving nodes has it.
    SameHash,
    /// To a time-limited signature of the hash that is good for so many seconds, as those nodes' error texts suggest.
    Signed {
        /// Seconds.
        life: i64,
    },
}

/// What the gateway says of content it can't find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingContent {
    /// 404, as Kubo does for what it knows not to be there.
    NotFound,
    /// 500, as the serving nodes do for every failure of the gateway behind them.
    GatewayFailure,
}

/// The endpoints that only the provider's own console documents, under paths that a test chooses.
///
/// * The list is an array of all files of the account, `{"name","hash","size","path","created"}`: size in bytes, an
///   absolute path with the name at its end (and a slash, if it is a hashed folder's), ISO-8601 UTC in ms.
/// * Deleting and renaming answer `{"message":"ok"}`, or 404. Their template has `{hash}`, `{path}` or both; what fits
///   is meant, all of it. The new name is the template's `{name}`, or else a JSON body `{"name":"…"}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Console {
    /// Lists files.
    pub list: Endpoint,
    /// Deletes files.
    pub delete: Endpoint,
    /// Gives files another name in the directory they are in.
    pub rename: Endpoint,
}

impl Default for Console {
    fn default() -> Self {
        Self {
            list: Endpoint::new(Method::GET, "/v1/files"),
            delete: Endpoint::new(Method::DELETE, "/v1/files/{hash}"),
            rename: Endpoint::new(Method::PUT, "/v1/files/{hash}"),
        }
    }
}

/// The body of every error of `/v1`. The gateway's errors are plain text (documented).
pub(super) fn error_body(message: &str) -> Value {
    json!({ "message": message })
}

/// `iss` and `aud` of an access token; the provider's sample is of production.
pub(super) fn issuer(network: Network) -> &'static str {
    match network {
        Network::Production => "dstor.cloud",
        Network::Testnet => "testnet.dstor.cloud",
    }
}

/// The directory a new account has (documented).
pub(super) const FIRST_DIRECTORY: &str = "Library";
/// `errorAtStage` of an upload request that fails itself; the values of later stages are those of the status.
pub(super) const STAGE_RECEIVING: &str = "UPLOADING";
/// The status of an upload request that fails with `errorAtStage`.
pub(super) const FAILED_POST: StatusCode = StatusCode::OK;
/// The answer to an unknown, foreign or expired upload token.
pub(super) const UNKNOWN_UPLOAD: (StatusCode, &str) = (StatusCode::BAD_REQUEST, "Unknown upload token");
/// The answer to a post after the last of the announced ones.
pub(super) const TOO_MANY_POSTS: (StatusCode, &str) = (StatusCode::BAD_REQUEST, "All chunks have been received");
/// The answer to a body over the limit.
pub(super) const TOO_LARGE: (StatusCode, &str) = (StatusCode::PAYLOAD_TOO_LARGE, "Upload is too large");
/// Kubo's header for immutable content.
pub(super) const CACHE_CONTROL: &str = "public, max-age=29030400, immutable";
