//! The XML of WebDAV, its headers, what its refusals mean, and how its properties become entries (RFC 4918, RFC 4331).

use std::time::SystemTime;

use percent_encoding::percent_decode_str;
use quick_xml::NsReader;
use quick_xml::events::{BytesRef, Event};
use quick_xml::name::{Namespace, ResolveResult};
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{StatusCode, Url};

use crate::model::{Error, ErrorKind, Kind, PosixAttributes, Result, ToldAttributes, Version, write_time};
use crate::net::{Dialect, Refusal};

/// What is asked of every resource: as little as an entry needs.
pub(super) const ENTRY_PROPERTIES: &str = r#"<?xml version="1.0" encoding="utf-8"?><D:propfind xmlns:D="DAV:"><D:prop><D:resourcetype/><D:getcontentlength/><D:getlastmodified/><D:getetag/><K:posix xmlns:K="keymount:"/></D:prop></D:propfind>"#;
/// RFC 4331.
pub(super) const QUOTA_PROPERTIES: &str = r#"<?xml version="1.0" encoding="utf-8"?><D:propfind xmlns:D="DAV:"><D:prop><D:quota-available-bytes/><D:quota-used-bytes/></D:prop></D:propfind>"#;

/// The namespace of all names here (RFC 4918, 14).
const DAV: Namespace<'static> = Namespace("DAV:");
/// The namespace of what keymount keeps with a file as a property that the server doesn't know (a "dead" one, RFC 4918, 4.1).
const OURS: Namespace<'static> = Namespace("keymount:");
/// The property with what POSIX has of a file beside its content.
const POSIX: &str = "posix";
/// The version of every directory: not all servers have one that changes with what is inside.
const DIRECTORY_VERSION: &str = "directory";
/// The beginning of versions that are no strong tags: without quotes they are never taken for one.
const NO_TAG: &str = "~";
/// The longest explanation of a server that is passed on, in characters.
const MAX_WORDS: usize = 200;

/// One `response` of a `multistatus`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Resource {
    href: String,
    /// The status of the whole resource, where its properties have none.
    status: Option<u16>,
    properties: Properties,
}

/// Those that the server has, each as it wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Properties {
    is_collection: bool,
    length: Option<String>,
    modified: Option<String>,
    etag: Option<String>,
    quota_available: Option<String>,
    quota_used: Option<String>,
    posix: Option<String>,
}

/// What a server tells of one file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) kind: Kind,
    /// In bytes; 0 for directories.
    pub(super) size: u64,
    pub(super) modified: SystemTime,
    pub(super) version: Version,
    /// Whether it was changed so lately that no condition that names its version holds: the server (Apache, for two
    /// seconds) gives its tag as a weak one, and the same as a strong one later.
    pub(super) is_young: bool,
    pub(super) posix: ToldAttributes,
}

impl Described {
    pub(super) fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }

    /// Whether there would be something to lose: an empty file may be there for the sake of its name alone.
    pub(super) fn is_something(&self) -> bool {
        self.is_directory() || self.size > 0
    }

    /// Its version, where a request can be made to fail unless the file has it.
    pub(super) fn condition(&self) -> Option<&Version> {
        Some(&self.version).filter(|version| !self.is_young && etag_of(version).is_some())
    }

    /// The content that times belong to, as far as the server tells: the property stays when somebody else stores another
    /// one, and goes along when the file is renamed, which an entity tag needn't survive.
    fn content(&self) -> String {
        format!("{}@{}", self.size, write_time(self.modified))
    }

    /// What the property says, if it is ours.
    fn read_posix(&self, text: &str) -> ToldAttributes {
        let Some((content, attributes)) = text.trim().split_once(' ') else {
            return ToldAttributes::None;
        };
        let Some(mut attributes) = PosixAttributes::read(attributes) else {
            return ToldAttributes::None;
        };
        if content != self.content() {
            attributes.times = None;
        }
        attributes.into()
    }
}

/// The document that gives a file these attributes.
pub(super) fn proppatch(file: &Described, attributes: &PosixAttributes) -> String {
    // The text has no character that XML means something by.
    format!(
        r#"<?xml version="1.0" encoding="utf-8"?><D:propertyupdate xmlns:D="DAV:"><D:set><D:prop><K:posix xmlns:K="keymount:">{} {}</K:posix></D:prop></D:set></D:propertyupdate>"#,
        file.content(),
        attributes.write()
    )
}

impl Resource {
    /// # Errors
    /// `NotFound` and `Denied` where the server says so of this one, `NotFound` too for a name that is only locked,
    /// `BadData` when a file has no length.
    pub(super) fn describe(&self) -> Result<Described> {
        match self.status {
            Some(404 | 410) => return Err(Error::new(ErrorKind::NotFound, "it does not exist")),
            Some(401 | 403) => return Err(Error::denied("the server does not describe it")),
            Some(status) if status >= 400 => {
                return Err(Error::bad_data(format!("the server describes it with status {status}")));
            }
            _ => {}
        }
        let told = &self.properties;
        let modified = told.modified.as_deref().and_then(http_date);
        if told.is_collection {
            return Ok(Described {
                kind: Kind::Directory,
                size: 0,
                modified: modified.unwrap_or(SystemTime::UNIX_EPOCH),
                version: Version::new(DIRECTORY_VERSION),
                is_young: false,
                posix: ToldAttributes::None,
            });
        }
        if told.length.is_none() && told.modified.is_none() && told.etag.is_none() {
            // A name that only a lock holds, as servers of RFC 2518 (7.4) show it: Apache's.
            return Err(Error::new(ErrorKind::NotFound, "only a lock is there"));
        }
        let size = told
            .length
            .as_deref()
            .and_then(|length| length.trim().parse().ok())
            .ok_or_else(|| Error::bad_data("the server tells no length of a file"))?;
        let etag = told.etag.as_deref().unwrap_or_default();
        let tag = Tag::of(etag, size).unwrap_or_else(|| Tag {
            version: Version::new(format!(
                "{NO_TAG}{etag};{size};{}",
                told.modified.as_deref().unwrap_or_default()
            )),
            is_young: false,
        });
        let mut described = Described {
            kind: Kind::File,
            size,
            modified: modified.unwrap_or(SystemTime::UNIX_EPOCH),
            version: tag.version,
            is_young: tag.is_young,
            posix: ToldAttributes::None,
        };
        if let Some(text) = &told.posix {
            described.posix = described.read_posix(text);
        }
        Ok(described)
    }

    /// Whether the server says that it keeps what `proppatch` asked for.
    pub(super) fn keeps_posix(&self) -> bool {
        self.status.is_none_or(|status| status < 300) && self.properties.posix.is_some()
    }

    /// Used and available bytes, as far as the server tells.
    pub(super) fn quota(&self) -> (Option<u64>, Option<u64>) {
        let number = |text: &Option<String>| text.as_deref().and_then(|text| text.trim().parse().ok());
        (
            number(&self.properties.quota_used),
            number(&self.properties.quota_available),
        )
    }

    /// The decoded parts of its path; `None` when they aren't text.
    pub(super) fn path(&self, base: &Url) -> Option<Vec<String>> {
        let url = base.join(&self.href).ok()?;
        url.path()
            .split('/')
            .filter(|part| !part.is_empty())
            .map(|part| percent_decode_str(part).decode_utf8().ok().map(String::from))
            .collect()
    }
}

/// A version that a server tells by an entity tag.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) version: Version,
    /// See `Described::is_young`.
    pub(super) is_young: bool,
}

impl Tag {
    /// Of a file of this size; `None` where the tag promises nothing about its bytes.
    pub(super) fn of(text: &str, size: u64) -> Option<Self> {
        if let Some(etag) = strong_etag(text) {
            return Some(Self {
                version: Version::new(etag),
                is_young: false,
            });
        }
        // Apache's are `[inode-]size-mtime`, in hex and with microseconds: another content has another one. It adds the `W/`
        // only because the file may still be changed within what its clock can tell apart (server/util_etag.c).
        let etag = text.trim().strip_prefix("W/")?;
        let told = etag.strip_prefix('"')?.strip_suffix('"')?.rsplit('-').nth(1)?;
        (told == format!("{size:x}")).then(|| Self {
            version: Version::new(etag),
            is_young: true,
        })
    }
}

/// The entity tag of a version that a server promises to be another one for other bytes (RFC 9110, 8.8.3).
pub(super) fn etag_of(version: &Version) -> Option<&str> {
    Some(version.as_str()).filter(|text| text.starts_with('"'))
}

/// With its quotes, which some servers leave out of the property. Weak ones promise nothing about bytes.
pub(super) fn strong_etag(text: &str) -> Option<String> {
    let text = text.trim();
    if text.is_empty() || text.starts_with("W/") {
        return None;
    }
    if text.starts_with('"') {
        return Some(text.to_owned());
    }
    Some(format!("\"{text}\""))
}

pub(super) fn http_date(text: &str) -> Option<SystemTime> {
    let time = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(text.trim())
        .ok()?;
    Some(SystemTime::from(time))
}

/// All resources of a `multistatus` document.
///
/// # Errors
/// `BadData` when it isn't one.
pub(super) fn multistatus(document: &[u8]) -> Result<Vec<Resource>> {
    let malformed = |why: String| Error::bad_data(format!("the server's list is not WebDAV ({why})"));
    let text = std::str::from_utf8(document).map_err(|_| malformed("it is not UTF-8".to_owned()))?;
    let mut reader = NsReader::from_str(text);
    let mut reading = Reading::default();
    let mut is_multistatus = false;
    loop {
        let (namespace, event) = reader
            .read_resolved_event()
            .map_err(|error| malformed(error.to_string()))?;
        let space = match namespace {
            ResolveResult::Bound(DAV) => Space::Dav,
            ResolveResult::Bound(OURS) => Space::Ours,
            _ => Space::Other,
        };
        match event {
            Event::Start(tag) => {
                let name = element(space, tag.local_name().as_ref());
                is_multistatus |= name == "multistatus";
                reading.open(name);
            }
            Event::Empty(tag) => {
                let name = element(space, tag.local_name().as_ref());
                is_multistatus |= name == "multistatus";
                reading.open(name);
                reading.close(name);
            }
            Event::End(tag) => reading.close(element(space, tag.local_name().as_ref())),
            Event::Text(part) => reading.text.push_str(&part),
            Event::CData(part) => reading.text.push_str(&part),
            Event::GeneralRef(reference) => reading
                .text
                .push(character(&reference).ok_or_else(|| malformed("it has an unknown character entity".to_owned()))?),
            Event::Eof if is_multistatus && reading.within.is_empty() => return Ok(reading.done),
            Event::Eof => return Err(malformed("it ends too early".to_owned())),
            _ => {}
        }
    }
}

/// The five that every XML document knows, and those that are numbers.
fn character(reference: &BytesRef<'_>) -> Option<char> {
    match &**reference {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => reference.resolve_char_ref().ok().flatten(),
    }
}

const ELEMENTS: [&str; 13] = [
    "multistatus",
    "response",
    "href",
    "propstat",
    "prop",
    "status",
    "resourcetype",
    "collection",
    "getcontentlength",
    "getlastmodified",
    "getetag",
    "quota-available-bytes",
    "quota-used-bytes",
];

/// Whose names an element's is one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Space {
    Dav,
    Ours,
    Other,
}

/// The name of an element if it is one of those that say something here.
fn element(space: Space, name: &str) -> &'static str {
    let known = match space {
        Space::Dav => ELEMENTS.into_iter().find(|known| *known == name),
        Space::Ours => Some(POSIX).filter(|known| *known == name),
        Space::Other => None,
    };
    known.unwrap_or("")
}

/// What was read of a `multistatus` so far.
#[derive(Default)]
struct Reading {
    done: Vec<Resource>,
    within: Vec<&'static str>,
    text: String,
    current: Resource,
    /// Properties whose status comes behind them.
    pending: Properties,
    pending_status: Option<u16>,
}

impl Reading {
    fn open(&mut self, name: &'static str) {
        match name {
            "response" => self.current = Resource::default(),
            "propstat" => (self.pending, self.pending_status) = (Properties::default(), None),
            "collection" if self.within.last() == Some(&"resourcetype") => self.pending.is_collection = true,
            _ => {}
        }
        self.within.push(name);
        self.text.clear();
    }

    fn close(&mut self, name: &'static str) {
        self.within.pop();
        let text = std::mem::take(&mut self.text);
        let given = || Some(text.clone()).filter(|text| !text.trim().is_empty());
        let pending = &mut self.pending;
        match (self.within.last().copied(), name) {
            (Some("response"), "href") => self.current.href = text.trim().to_owned(),
            (Some("response"), "status") => self.current.status = status(&text),
            (Some("propstat"), "status") => self.pending_status = status(&text),
            (Some("prop"), "getcontentlength") => pending.length = given(),
            (Some("prop"), "getlastmodified") => pending.modified = given(),
            (Some("prop"), "getetag") => pending.etag = given(),
            (Some("prop"), "quota-available-bytes") => pending.quota_available = given(),
            (Some("prop"), "quota-used-bytes") => pending.quota_used = given(),
            (Some("prop"), POSIX) => pending.posix = Some(text),
            (Some("response"), "propstat") if self.pending_status.is_none_or(|status| status < 300) => {
                self.current.properties = self.pending.clone();
            }
            (Some("multistatus"), "response") => self.done.push(std::mem::take(&mut self.current)),
            _ => {}
        }
    }
}

/// The number of a line such as `HTTP/1.1 404 Not Found`.
fn status(line: &str) -> Option<u16> {
    line.split_whitespace().nth(1)?.parse().ok()
}

/// What WebDAV's statuses mean where they mean something of their own, and the words of servers.
pub(super) struct WebdavDialect;

impl Dialect for WebdavDialect {
    fn explain(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refusal {
        Refusal {
            kind: match status {
                // A directory on the way is missing (RFC 4918, 9.3.1, 9.7.1 and 9.9.4).
                StatusCode::CONFLICT => Some(ErrorKind::NotFound),
                _ => None,
            },
            message: words(headers, body),
            retry_after: None,
        }
    }
}

/// The message of an error document as sabre/dav writes it (Nextcloud, ownCloud), or a short plain text.
fn words(headers: &HeaderMap, body: &[u8]) -> Option<String> {
    let kind = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let text = std::str::from_utf8(body).ok()?;
    let found = if kind.contains("xml") {
        let rest = text.split_once(":message>").or_else(|| text.split_once("<message>"))?.1;
        rest.split_once("</")?.0
    } else if kind.starts_with("text/plain") {
        text.lines().next()?
    } else {
        return None;
    };
    let found: String = found
        .trim()
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_WORDS)
        .collect();
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "http://h/dav/";

    fn read(document: &str) -> Vec<Resource> {
        multistatus(document.as_bytes()).unwrap()
    }

    #[test]
    fn prefixes_and_foreign_properties_do_not_matter() {
        let found = read(
            r#"<?xml version="1.0"?><multistatus xmlns="DAV:" xmlns:o="urn:other"><response>
            <href>/dav/a%20&amp;%25&#x41;</href><propstat><prop><o:getetag>wrong</o:getetag>
            <getetag>&quot;e&quot;</getetag><getcontentlength> 12 </getcontentlength>
            <getlastmodified>Sun, 06 Nov 1994 08:49:37 GMT</getlastmodified><resourcetype/></prop>
            <status>HTTP/1.1 200 OK</status></propstat><propstat><prop><getetag>none</getetag></prop>
            <status>HTTP/1.1 404 Not Found</status></propstat></response></multistatus>"#,
        );
        assert_eq!(found.len(), 1);
        let described = found[0].describe().unwrap();
        assert_eq!((described.kind, described.size), (Kind::File, 12));
        assert_eq!(described.version.as_str(), "\"e\"");
        assert_eq!(
            described.modified,
            SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(784_111_777)
        );
        let path = found[0].path(&BASE.parse().unwrap()).unwrap();
        assert_eq!(path, ["dav", "a &%A"]);
    }

    #[test]
    fn collections_and_whole_addresses() {
        let found = read(
            r#"<D:multistatus xmlns:D="DAV:"><D:response><D:href>http://h/dav/x%2Fy/</D:href><D:propstat><D:prop>
            <D:resourcetype><D:collection/></D:resourcetype></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>
            </D:response><D:response><D:href>/dav/gone</D:href><D:status>HTTP/1.1 404 Not Found</D:status></D:response>
            </D:multistatus>"#,
        );
        assert!(found[0].describe().unwrap().is_directory());
        assert_eq!(found[0].path(&BASE.parse().unwrap()).unwrap(), ["dav", "x/y"]);
        assert_eq!(found[1].describe().unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn what_is_no_multistatus_is_refused() {
        for document in [
            "",
            "not XML at all",
            "<html></html>",
            "<D:multistatus xmlns:D=\"DAV:\"><D:response>",
            "<D:multistatus xmlns:D=\"DAV:\">&unknown;</D:multistatus>",
            "<multistatus/>",
        ] {
            let refused = multistatus(document.as_bytes()).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::BadData, "{document:?}");
        }
    }

    #[test]
    fn a_weak_tag_that_will_be_strong_is_the_same_version() {
        let tag = |text: &str| Tag::of(text, 0x1a).map(|tag| (tag.version.as_str().to_owned(), tag.is_young));
        let strong = |text: &str| Some((text.to_owned(), false));
        let young = |text: &str| Some((text.to_owned(), true));
        assert_eq!(tag(r#""1a-660f0a74b6f79""#), strong(r#""1a-660f0a74b6f79""#));
        assert_eq!(tag(r#"W/"1a-660f0a74b6f79""#), young(r#""1a-660f0a74b6f79""#));
        assert_eq!(tag(r#"W/"7f3-1a-660f0a74b6f79""#), young(r#""7f3-1a-660f0a74b6f79""#));
        for weak in [r#"W/"1b-660f0a74b6f79""#, r#"W/"1a""#, "W/1a-66", r#"W/"""#, "W/", ""] {
            assert_eq!(tag(weak), None, "{weak}");
        }
    }

    #[test]
    fn a_name_that_only_a_lock_holds_is_free() {
        let found = read(
            r#"<D:multistatus xmlns:D="DAV:"><D:response><D:href>/dav/a</D:href><D:propstat><D:prop><D:resourcetype/>
            </D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat><D:propstat><D:prop><D:getcontentlength/>
            <D:getlastmodified/><D:getetag/></D:prop><D:status>HTTP/1.1 404 Not Found</D:status></D:propstat>
            </D:response></D:multistatus>"#,
        );
        assert_eq!(found[0].describe().unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn our_property_counts_for_the_content_that_it_was_set_on() {
        let with = |property: &str| {
            let found = read(&format!(
                r#"<D:multistatus xmlns:D="DAV:" xmlns:k="keymount:"><D:response><D:href>/dav/a</D:href><D:propstat><D:prop>
                <D:getcontentlength>3</D:getcontentlength><D:getlastmodified>Thu, 01 Jan 1970 00:00:07 GMT</D:getlastmodified>
                {property}</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response></D:multistatus>"#
            ));
            found[0].describe().unwrap()
        };
        let times = |described: &Described| described.posix.told().and_then(|told| told.times).is_some();
        let mode = |described: &Described| described.posix.told().and_then(|told| told.mode);
        let same = with("<k:posix>3@7.000000000 1;m=755;t=5.000000009</k:posix>");
        assert_eq!((mode(&same), times(&same)), (Some(0o755), true));
        for other in ["4@7.000000000", "3@8.000000000", "x"] {
            let other = with(&format!("<k:posix>{other} 1;m=755;t=5.000000009</k:posix>"));
            assert_eq!((mode(&other), times(&other)), (Some(0o755), false));
        }
        for lie in [
            "<k:posix/>",
            "<k:posix>1;m=755</k:posix>",
            "<k:posix>3@7.000000000 9;m=755</k:posix>",
            "<k:other>3@7.000000000 1;m=755</k:other>",
            "<D:posix>3@7.000000000 1;m=755</D:posix>",
            "<k:posix><D:href>3@7.000000000 1;m=755</D:href></k:posix>",
        ] {
            assert_eq!(with(lie).posix, ToldAttributes::None, "{lie}");
        }
    }

    #[test]
    fn a_refused_property_is_not_taken_for_a_kept_one() {
        let with = |status: &str| {
            read(&format!(
                r#"<D:multistatus xmlns:D="DAV:"><D:response><D:href>/dav/a</D:href><D:propstat><D:prop><posix xmlns="keymount:"/>
                </D:prop><D:status>HTTP/1.1 {status}</D:status></D:propstat></D:response></D:multistatus>"#
            ))[0]
                .keeps_posix()
        };
        assert!(with("200 OK"));
        assert!(!with("403 Forbidden"));
        assert!(!with("424 Failed Dependency"));
    }

    #[test]
    fn only_strong_tags_make_conditions() {
        assert_eq!(strong_etag("12-34").as_deref(), Some("\"12-34\""));
        assert_eq!(strong_etag("W/\"1\""), None);
        assert_eq!(strong_etag(" "), None);
        assert_eq!(etag_of(&Version::new("\"1\"")), Some("\"1\""));
        assert_eq!(etag_of(&Version::new("~W/\"1\";3;date")), None);
        assert_eq!(etag_of(&Version::new("~;3;date")), None);
    }

    #[test]
    fn a_servers_words_are_passed_on() {
        let with = |kind: &'static str, body: &str| {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind.parse().unwrap())]);
            WebdavDialect
                .explain(StatusCode::FORBIDDEN, &headers, body.as_bytes())
                .message
        };
        let sabre = "<?xml version=\"1.0\"?><d:error xmlns:d=\"DAV:\" xmlns:s=\"http://sabredav.org/ns\"><s:exception>X</s:exception><s:message>File is locked</s:message></d:error>";
        assert_eq!(with("application/xml", sabre).as_deref(), Some("File is locked"));
        assert_eq!(with("text/plain", "Forbidden\nmore").as_deref(), Some("Forbidden"));
        assert_eq!(with("text/html", "<html>"), None);
    }
}
