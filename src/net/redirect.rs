//! Where a redirect may lead. Credentials stay at their origin.

use reqwest::{Method, StatusCode, Url};

use crate::model::{Error, ErrorKind};

/// More hops than any service needs; browsers stop at 20.
pub const MAX_REDIRECTS: usize = 8;

/// How to go on after a 3xx.
pub struct Hop {
    pub url: Url,
    pub keep_credential: bool,
}

/// # Errors
/// `BadData` for a missing or malformed `Location`, a step from https to http, and a method that would have to change.
pub fn follow(from: &Url, method: &Method, status: StatusCode, location: Option<&str>) -> Result<Hop, Error> {
    let refuse = |why: &str| {
        Err(Error::new(
            ErrorKind::BadData,
            format!("the provider's redirect was refused: {why}"),
        ))
    };
    let Some(location) = location else {
        return refuse("it names no address");
    };
    let Ok(url) = from.join(location) else {
        return refuse("its address is malformed");
    };
    if !matches!(url.scheme(), "http" | "https") {
        return refuse("it leads away from HTTP");
    }
    if from.scheme() == "https" && url.scheme() == "http" {
        return refuse("it leads from https to http");
    }
    let safe = matches!(*method, Method::GET | Method::HEAD);
    if !safe && !matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) {
        return refuse("it would turn a change into a read");
    }
    let keep_credential = url.origin() == from.origin();
    Ok(Hop { url, keep_credential })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(from: &str, to: &str) -> Result<bool, Error> {
        follow(&from.parse().unwrap(), &Method::GET, StatusCode::FOUND, Some(to)).map(|hop| hop.keep_credential)
    }

    #[test]
    fn credentials_stay_at_their_origin() {
        assert!(hop("https://a.example/x", "/y").unwrap());
        assert!(!hop("https://a.example/x", "https://b.example/x").unwrap());
        assert!(!hop("https://a.example/x", "https://a.example:8443/x").unwrap());
        assert!(!hop("http://a.example/x", "https://a.example/x").unwrap());
    }

    #[test]
    fn never_from_https_to_http() {
        assert!(hop("https://a.example/x", "http://a.example/x").is_err());
        assert!(hop("https://a.example/x", "file:///etc/passwd").is_err());
    }

    #[test]
    fn a_change_is_repeated_only_where_the_status_says_so() {
        let from: Url = "https://a.example/x".parse().unwrap();
        assert!(follow(&from, &Method::POST, StatusCode::FOUND, Some("/y")).is_err());
        assert!(follow(&from, &Method::POST, StatusCode::PERMANENT_REDIRECT, Some("/y")).is_ok());
    }
}
