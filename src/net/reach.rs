//! Whether a host answers at all, and what time it believes it is: for `doctor`.

use std::time::{Duration, SystemTime};

use reqwest::Url;
use reqwest::header::DATE;

use crate::model::{Error, ErrorKind, Result};

/// Any answer of a host, whatever its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// From the `Date` header, to the second.
    pub date: Option<SystemTime>,
}

/// Asks for the address without any credential and takes every status for an answer.
///
/// # Errors
/// `Unreachable` or `TimedOut`, naming the host only.
pub async fn reach(url: &Url, patience: Duration) -> Result<Reached> {
    let host = url.origin().ascii_serialization();
    let client = reqwest::Client::builder()
        .user_agent(concat!("keymount/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .timeout(patience)
        .build()
        .map_err(|error| Error::internal("the HTTP client cannot be set up").with_source(error))?;
    let response = client.head(url.clone()).send().await.map_err(|error| {
        let error = error.without_url();
        let (kind, what) = if error.is_timeout() {
            (ErrorKind::TimedOut, "does not answer")
        } else {
            (ErrorKind::Unreachable, "cannot be reached")
        };
        Error::new(kind, format!("{host} {what}")).with_source(error)
    })?;
    let date = response
        .headers()
        .get(DATE)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok())
        .map(SystemTime::from);
    Ok(Reached { date })
}
