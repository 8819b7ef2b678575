//! Downloads by id (file-download).
//!
//! Responsible for which file an id means, for whether it may be read, and for the headers of content.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use jiff::fmt::rfc2822::DateTimePrinter;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use uuid::Uuid;

use super::accounts::World;
use super::assumptions::{CollidingIds, Ranges};
use super::refusal::{Place, Refusal};
use super::tree::{Content, Item};
use crate::emulator::range::{self, Asked};

const NOT_FOUND: Refusal = Refusal::NotFound("File not found.");

/// `GET` and `HEAD` of `/files/download/{id}`: the server leaves the body of a `HEAD` out.
pub(super) fn download(world: &World, asker: Uuid, id: &str, headers: &HeaderMap) -> Result<Response, Refusal> {
    let item = find(world, asker, id)?;
    let content = item.content().ok_or(NOT_FOUND)?;
    let total = content.bytes.len();
    let part = match (world.assumptions.ranges, headers.get(header::RANGE)) {
        (Ranges::Ignored, _) | (Ranges::Honoured, None) => None,
        (Ranges::Honoured, Some(value)) => match range::parse(value.to_str().unwrap_or_default(), total) {
            Asked::Malformed => return Err(Refusal::invalid(Place::Header, "Range", "Invalid range")),
            Asked::Unsatisfiable => return Err(Refusal::Unsatisfiable { total }),
            Asked::Part(part) => Some(part),
        },
    };
    let mut response = match part {
        None => Response::new(Body::from(content.bytes.clone())),
        Some(part) => {
            let content_range = format!("bytes {}-{}/{total}", part.start, part.end - 1);
            let mut response = Response::new(Body::from(content.bytes.slice(part)));
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            response
                .headers_mut()
                .insert(header::CONTENT_RANGE, ascii(content_range));
            response
        }
    };
    describe(&mut response, item, content, world.assumptions.ranges);
    Ok(response)
}

/// file-download, "Response headers".
fn describe(response: &mut Response, item: &Item, content: &Content, ranges: Ranges) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, ascii(content.mime.clone()));
    let name = utf8_percent_encode(item.path.name(), NON_ALPHANUMERIC);
    headers.insert(
        header::CONTENT_DISPOSITION,
        ascii(format!("attachment; filename*=UTF-8''{name}")),
    );
    headers.insert(header::ETAG, ascii(content.etag.clone()));
    if let Ok(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&item.updated) {
        headers.insert(header::LAST_MODIFIED, ascii(date));
    }
    if ranges == Ranges::Honoured {
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
}

/// The file that an id means to the asker.
fn find<'a>(world: &'a World, asker: Uuid, id: &str) -> Result<&'a Item, Refusal> {
    let mine = world.accounts().find(|account| account.id == asker);
    let mine = mine.ok_or(Refusal::UnknownKey)?;
    let matches: Vec<&Item> = mine.tree.files().filter(|item| is_meant(item, id)).collect();
    match matches.as_slice() {
        [] => {}
        [item] => return Ok(item),
        [first, ..] if id.starts_with("file_") && world.assumptions.colliding_ids == CollidingIds::Oldest => {
            return Ok(first);
        }
        _ => return Err(NOT_FOUND),
    }
    let others = world.accounts().filter(|account| account.id != asker);
    let mut foreign = others
        .flat_map(|account| account.tree.files().map(move |item| (account, item)))
        .filter(|(_, item)| item.short_id() == id)
        .peekable();
    foreign.peek().ok_or(NOT_FOUND)?;
    foreign
        .find(|(account, item)| account.tree.readable_by(&mine.email, item))
        .map(|(_, item)| item)
        .ok_or(Refusal::NoAccess)
}

/// Either the short id, or the UUID or a part of it from its start on (file-download).
fn is_meant(item: &Item, id: &str) -> bool {
    if id.starts_with("file_") {
        item.short_id() == id
    } else {
        !id.is_empty() && item.id.hyphenated().to_string().starts_with(id)
    }
}

/// Text that came in over HTTP or was made here; should it be no header value after all, the header is left empty.
fn ascii(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
