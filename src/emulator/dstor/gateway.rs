//! `/ipfs/…`: reading by hash, as the provider's serving nodes do in front of a Kubo gateway.
//!
//! Responsible for redirects, time-limited hashes, ranges and everything else about reading. Nobody has to say who
//! they are, and a credential that is sent isn't looked at. Errors are plain text. Not responsible for `/v1`.

use std::ops::Range;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::assumptions::{self, Assumptions, MissingContent, Offered, Redirect};
use super::http::text_header;
use super::jwt::SigningKey;
use super::objects::{Object, Objects, is_plain_hash};

pub(super) const PREFIX: &str = "/ipfs/";

/// What the gateway needs to answer.
pub(super) struct Gateway<'a> {
    pub(super) objects: &'a Objects,
    pub(super) links: &'a SigningKey,
    /// Unix seconds.
    pub(super) now: i64,
    pub(super) assumptions: &'a Assumptions,
}

/// A hash that stops being good at a time. The real ones are encrypted; these are only signed, which looks the same to
/// anybody who mustn't look into them.
pub(super) fn sign(links: &SigningKey, hash: &str, until: i64) -> String {
    let text = format!("{hash}.{until}");
    let signature = links.signature(&text);
    URL_SAFE_NO_PAD.encode(format!("{text}.{signature}"))
}

struct Failure(StatusCode, String);

impl Gateway<'_> {
    pub(super) fn answer(&self, head: &Parts) -> Response {
        self.respond(head).unwrap_or_else(|Failure(status, text)| {
            let mut response = Response::new(Body::from(text));
            *response.status_mut() = status;
            let kind = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        })
    }

    fn respond(&self, head: &Parts) -> Result<Response, Failure> {
        let refuses_head = head.method == Method::HEAD && self.assumptions.head == Offered::No;
        if refuses_head || !matches!(head.method, Method::GET | Method::HEAD) {
            return Err(failure(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"));
        }
        let path = head.uri.path();
        let rest = path.strip_prefix(PREFIX).unwrap_or_default();
        let Some((hash, tail)) = rest.split_once('/') else {
            let to = match self.assumptions.redirect {
                Redirect::Signed { life } if is_plain_hash(rest) => {
                    format!("{PREFIX}{}/", sign(self.links, rest, self.now.saturating_add(life)))
                }
                _ => format!("{path}/"),
            };
            return Ok(moved(StatusCode::PERMANENT_REDIRECT, to, &head.uri));
        };
        let hash = self.plain(hash)?;
        let is_folders = tail.is_empty() || tail.ends_with('/');
        let names = match tail {
            "" => Vec::new(),
            tail => names(tail.strip_suffix('/').unwrap_or(tail))?,
        };
        if self.objects.get(&hash).is_none() {
            return Err(match self.assumptions.missing_content {
                MissingContent::NotFound => failure(StatusCode::NOT_FOUND, format!("block was not found: {hash}")),
                MissingContent::GatewayFailure => failure(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error"),
            });
        }
        let missing = || failure(StatusCode::NOT_FOUND, format!("no link named {tail:?} under {hash}"));
        let (found, object) = self.objects.find(&hash, &names).ok_or_else(missing)?;
        match object {
            Object::Folder(_) if !is_folders => Ok(moved(StatusCode::MOVED_PERMANENTLY, format!("{path}/"), &head.uri)),
            Object::Folder(children) => Ok(self.content(head, &page(children.keys()), found, "text/html")),
            // The slash after the hash alone is the node's own; any other is the client's.
            Object::File(_) if is_folders && !names.is_empty() => Err(missing()),
            Object::File(content) => {
                let kind = names
                    .last()
                    .map(|name| mime_guess::from_path(name).first_or_octet_stream());
                let kind = kind.unwrap_or(mime_guess::mime::APPLICATION_OCTET_STREAM);
                Ok(self.content(head, content, found, kind.essence_str()))
            }
        }
    }

    /// The hash that the path begins with, if it is good.
    fn plain(&self, hash: &str) -> Result<String, Failure> {
        let undecryptable = || failure(StatusCode::BAD_REQUEST, "Unable to decrypt a hash");
        if is_plain_hash(hash) {
            return Ok(hash.to_owned());
        }
        let decoded = URL_SAFE_NO_PAD.decode(hash).map_err(|_| undecryptable())?;
        let decoded = String::from_utf8(decoded).map_err(|_| undecryptable())?;
        let (text, signature) = decoded.rsplit_once('.').ok_or_else(undecryptable)?;
        let (hash, until) = text.split_once('.').ok_or_else(undecryptable)?;
        let until: i64 = until.parse().map_err(|_| undecryptable())?;
        if !self.links.has_signed(text, signature) {
            return Err(undecryptable());
        }
        if self.now >= until {
            return Err(failure(
                StatusCode::BAD_REQUEST,
                "Signature expired. Please access a file/folder again using our api server",
            ));
        }
        Ok(hash.to_owned())
    }

    fn content(&self, head: &Parts, whole: &bytes::Bytes, hash: &str, kind: &str) -> Response {
        let etag = format!("\"{hash}\"");
        let etags = self.assumptions.etags == Offered::Yes;
        let names_it = |name| {
            let list = head.headers.get(name).and_then(|value| value.to_str().ok());
            list.is_some_and(|list| {
                list.split(',')
                    .any(|one| matches!(one.trim(), "*") || one.trim() == etag)
            })
        };
        let mut response = if etags && names_it(header::IF_NONE_MATCH) {
            status(StatusCode::NOT_MODIFIED, Body::empty())
        } else {
            let is_conditional = head.headers.contains_key(header::IF_RANGE);
            let wants_range = !is_conditional || etags && names_it(header::IF_RANGE);
            let asked = match self.assumptions.ranges {
                Offered::Yes if wants_range => asked(&head.headers, whole.len()),
                _ => Asked::Whole,
            };
            body(whole, asked, kind)
        };
        let headers = response.headers_mut();
        if etags {
            headers.insert(header::ETAG, text_header(etag));
        }
        if self.assumptions.ranges == Offered::Yes {
            headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        }
        let cache = HeaderValue::from_static(assumptions::CACHE_CONTROL);
        headers.insert(header::CACHE_CONTROL, cache);
        response
    }
}

fn body(whole: &bytes::Bytes, asked: Asked, kind: &str) -> Response {
    let total = whole.len();
    let (mut response, content_range) = match asked {
        Asked::Whole => (status(StatusCode::OK, Body::from(whole.clone())), None),
        Asked::Part(part) => {
            let content_range = format!("bytes {}-{}/{total}", part.start, part.end - 1);
            let body = Body::from(whole.slice(part));
            (status(StatusCode::PARTIAL_CONTENT, body), Some(content_range))
        }
        Asked::Malformed => (unsatisfiable("invalid range"), None),
        Asked::NoOverlap => (
            unsatisfiable("invalid range: failed to overlap"),
            Some(format!("bytes */{total}")),
        ),
    };
    let kind = if response.status().is_success() {
        kind
    } else {
        "text/plain; charset=utf-8"
    };
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, text_header(kind.to_owned()));
    if let Some(content_range) = content_range {
        response
            .headers_mut()
            .insert(header::CONTENT_RANGE, text_header(content_range));
    }
    response
}

fn unsatisfiable(text: &'static str) -> Response {
    status(StatusCode::RANGE_NOT_SATISFIABLE, Body::from(text))
}

fn status(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn failure(status: StatusCode, text: impl Into<String>) -> Failure {
    Failure(status, text.into())
}

/// A redirect that keeps the query.
fn moved(to: StatusCode, path: String, from: &Uri) -> Response {
    let location = match from.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let mut response = status(to, Body::empty());
    response.headers_mut().insert(header::LOCATION, text_header(location));
    response
}

fn names(tail: &str) -> Result<Vec<String>, Failure> {
    tail.split('/')
        .map(|name| match percent_decode_str(name).decode_utf8() {
            Ok(name) if !name.is_empty() => Ok(name.into_owned()),
            _ => Err(failure(StatusCode::BAD_REQUEST, "invalid path")),
        })
        .collect()
}

/// Kubo's page has a style of its own; the links are what counts.
fn page<'a>(names: impl Iterator<Item = &'a String>) -> bytes::Bytes {
    let links: Vec<String> = names
        .map(|name| {
            let link = utf8_percent_encode(name, NON_ALPHANUMERIC);
            let shown = name.replace('&', "&amp;").replace('<', "&lt;");
            format!("<li><a href=\"{link}\">{shown}</a></li>\n")
        })
        .collect();
    format!("<!DOCTYPE html>\n<ul>\n{}</ul>\n", links.concat()).into()
}

/// What a `Range` header asks of a body, read as Go's `http.ServeContent` does for Kubo.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Whole,
    /// At least one byte.
    Part(Range<usize>),
    /// 416 without `Content-Range`.
    Malformed,
    /// 416 with it.
    NoOverlap,
}

fn asked(headers: &HeaderMap, total: usize) -> Asked {
    let Some(value) = headers.get(header::RANGE) else {
        return Asked::Whole;
    };
    if total == 0 {
        return Asked::Whole;
    }
    let Some(ranges) = value.to_str().ok().and_then(|value| value.strip_prefix("bytes=")) else {
        return Asked::Malformed;
    };
    let mut ranges = ranges.split(',').map(str::trim).filter(|range| !range.is_empty());
    let (Some(range), more) = (ranges.next(), ranges.next()) else {
        return Asked::Whole;
    };
    let Some((first, last)) = range.split_once('-') else {
        return Asked::Malformed;
    };
    let number = |text: &str| -> Option<usize> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(usize::MAX))
    };
    match (first, number(first), last, number(last)) {
        _ if more.is_some() => Asked::Whole,
        ("", _, _, Some(0)) => Asked::NoOverlap,
        ("", _, _, Some(length)) => Asked::Part(total.saturating_sub(length)..total),
        (_, Some(first), _, Some(last)) if first > last => Asked::Malformed,
        (_, Some(first), "", _) | (_, Some(first), _, Some(_)) if first >= total => Asked::NoOverlap,
        (_, Some(first), "", _) => Asked::Part(first..total),
        (_, Some(first), _, Some(last)) => Asked::Part(first..last.saturating_add(1).min(total)),
        _ => Asked::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &'static str, total: usize) -> Asked {
        let headers = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static(value))]);
        asked(&headers, total)
    }

    #[test]
    fn ranges() {
        assert_eq!(asked(&HeaderMap::new(), 10), Asked::Whole);
        assert_eq!(parse("bytes=0-0", 10), Asked::Part(0..1));
        assert_eq!(parse("bytes=5-99", 10), Asked::Part(5..10));
        assert_eq!(parse("bytes=5-", 10), Asked::Part(5..10));
        assert_eq!(parse("bytes=-3", 10), Asked::Part(7..10));
        assert_eq!(parse("bytes=-30", 10), Asked::Part(0..10));
        assert_eq!(parse("bytes=0-1,3-4", 10), Asked::Whole);
        assert_eq!(parse("bytes=0-0", 0), Asked::Whole);
        for beyond in ["bytes=10-10", "bytes=10-", "bytes=-0"] {
            assert_eq!(parse(beyond, 10), Asked::NoOverlap, "{beyond}");
        }
        for wrong in [
            "items=0-1",
            "bytes=-",
            "bytes=a-b",
            "bytes=3-1",
            "bytes=+1-2",
            "bytes=99-x",
            "bytes=1",
        ] {
            assert_eq!(parse(wrong, 10), Asked::Malformed, "{wrong}");
        }
    }
}
