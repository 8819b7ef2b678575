//! A request line with blanks, for the endpoints whose paths nobody outside the provider knows.
//!
//! Responsible for matching a request and for reading what stands in the blanks. Not responsible for what it means.

use std::collections::BTreeMap;

use axum::http::{Method, Uri};
use percent_encoding::percent_decode_str;
use url::form_urlencoded;

/// A method and a path with an optional query, in which a whole segment or value may be `{hash}`, `{path}` or `{name}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    method: Method,
    template: String,
}

impl Endpoint {
    /// For example `Endpoint::new(Method::DELETE, "/v1/files/{hash}?path={path}")`.
    pub fn new(method: Method, template: impl Into<String>) -> Self {
        Self {
            method,
            template: template.into(),
        }
    }

    /// What stands in the blanks, by their names without braces, decoded; nothing if this is another endpoint's request.
    pub(super) fn blanks(&self, method: &Method, uri: &Uri) -> Option<BTreeMap<String, String>> {
        let (path, query) = self.template.split_once('?').unwrap_or((&self.template, ""));
        let (wanted, sent): (Vec<_>, Vec<_>) = (path.split('/').collect(), uri.path().split('/').collect());
        if *method != self.method || wanted.len() != sent.len() {
            return None;
        }
        let mut blanks = BTreeMap::new();
        for (wanted, sent) in wanted.into_iter().zip(sent) {
            let sent = percent_decode_str(sent).decode_utf8().ok()?;
            fill(&mut blanks, wanted, &sent)?;
        }
        let wanted: BTreeMap<String, String> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let mut sent: BTreeMap<String, String> = BTreeMap::new();
        for (key, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned() {
            if sent.insert(key, value).is_some() {
                return None;
            }
        }
        if !wanted.keys().eq(sent.keys()) {
            return None;
        }
        for (wanted, sent) in wanted.values().zip(sent.values()) {
            fill(&mut blanks, wanted, sent)?;
        }
        Some(blanks)
    }
}

/// Notes what stands in a blank, or compares fixed text.
fn fill(blanks: &mut BTreeMap<String, String>, wanted: &str, sent: &str) -> Option<()> {
    match wanted.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        Some(_) if sent.is_empty() => None,
        Some(name) => {
            blanks.insert(name.to_owned(), sent.to_owned());
            Some(())
        }
        None => (wanted == sent).then_some(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_are_whole_segments_and_values() {
        let endpoint = Endpoint::new(Method::DELETE, "/v1/files/{hash}?path={path}&x=1");
        let read = |target: &str| endpoint.blanks(&Method::DELETE, &target.parse().unwrap());
        let blanks = read("/v1/files/Qm?x=1&path=%2Fa+b").unwrap();
        assert_eq!((blanks["hash"].as_str(), blanks["path"].as_str()), ("Qm", "/a b"));
        for other in [
            "/v1/files/Qm",
            "/v1/files/?path=a&x=1",
            "/v1/files/Qm/?path=a&x=1",
            "/v1/files/Qm?path=&x=1",
            "/v1/files/Qm?path=a&x=2",
            "/v1/files/Qm?path=a&x=1&y=1",
            "/v1/files/Qm?path=a&x=1&x=1",
            "/v1/file/Qm?path=a&x=1",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
        let uri = "/v1/files/Qm?path=a&x=1".parse().unwrap();
        assert_eq!(endpoint.blanks(&Method::GET, &uri), None);
    }
}
