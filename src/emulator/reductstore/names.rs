//! The rules for names of buckets and entries (measured).
//!
//! Responsible for what a new name may look like. A name that breaks the rules can be asked for; it just isn't found.

use axum::http::StatusCode;

use super::failure::Failure;

/// The longest file name of common hosts, in bytes.
const LONGEST_NAME: usize = 255;

fn is_plain(name: &str) -> bool {
    name.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

pub(super) fn check_bucket_name(name: &str) -> Result<(), Failure> {
    if name.is_empty() || !is_plain(name) {
        let detail = "Bucket or entry name can contain only letters, digests and [-,_] symbols";
        return Err(Failure::unprocessable(detail));
    }
    check_length(name)
}

pub(super) fn check_entry_name(name: &str) -> Result<(), Failure> {
    if name.split('/').any(str::is_empty) {
        return Err(Failure::unprocessable(
            "Entry name must be non-empty and must not contain empty path segments",
        ));
    }
    if !name.split('/').all(is_plain) {
        let detail = "Entry name can contain only letters, digits and [-,_,/] symbols or end with '/$meta'";
        return Err(Failure::unprocessable(detail));
    }
    name.split('/').try_for_each(check_length)
}

fn check_length(segment: &str) -> Result<(), Failure> {
    if segment.len() > LONGEST_NAME {
        return Err(Failure::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "File name too long (os error 36)",
        ));
    }
    Ok(())
}
