//! Endpoints that only dStor's customers know, written into the configuration by one of them.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};

use crate::model::{ContentAddress, Error, ErrorKind, Name};

/// What a segment or a query's value cannot hold as it is: all but the unreserved characters (RFC 3986, 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A method and an address below the service's root, as `DELETE /v1/files/{hash}?path={path}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint {
    method: Method,
    /// Begins with a slash.
    template: String,
}

impl Endpoint {
    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    /// `path` are the names from the tree's root.
    pub(super) fn url(&self, base: &Url, address: &ContentAddress, path: &[Name]) -> Url {
        let path: String = path.iter().flat_map(|name| ["/", name.as_str()]).collect();
        let filled = self
            .template
            .replace("{hash}", &utf8_percent_encode(address.as_str(), ENCODED).to_string())
            .replace("{path}", &utf8_percent_encode(&path, ENCODED).to_string());
        let (path, query) = match filled.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (filled.as_str(), None),
        };
        let mut url = base.clone();
        url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
        url.set_query(query);
        url
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |why: &str| Err(Error::new(ErrorKind::InvalidInput, format!("{text:?} {why}")));
        let Some((method, template)) = text.split_once(' ') else {
            return invalid("is not a method and an address such as \"DELETE /v1/files/{hash}\"");
        };
        let method = match method {
            "DELETE" => Method::DELETE,
            "POST" => Method::POST,
            "PUT" => Method::PUT,
            _ => return invalid("begins with another method than DELETE, POST or PUT"),
        };
        let odd = |c: char| c.is_whitespace() || c.is_control() || c == '#';
        if !template.starts_with('/') || template.starts_with("//") || template.contains(odd) {
            return invalid("has no address that begins with a slash");
        }
        let rest = template.replace("{hash}", "").replace("{path}", "");
        if rest.contains(['{', '}']) {
            return invalid("has another blank than {hash} and {path}");
        }
        if rest == template {
            return invalid("says nothing of the file: {hash} or {path} is missing");
        }
        Ok(Self {
            method,
            template: template.to_owned(),
        })
    }
}

impl TryFrom<String> for Endpoint {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.template)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_are_filled_and_nothing_else_is_changed() {
        let address = ContentAddress::new(&"Q".repeat(46)).unwrap();
        let path = [Name::new("a b").unwrap(), Name::new("c?d&e").unwrap()];
        let url = |text: &str, base: &str| {
            let endpoint: Endpoint = text.parse().unwrap();
            endpoint.url(&base.parse().unwrap(), &address, &path).to_string()
        };
        assert_eq!(
            url("DELETE /v1/files/{hash}", "https://a.example/"),
            format!("https://a.example/v1/files/{address}")
        );
        assert_eq!(
            url("POST /v1/rm?path={path}&really=1", "https://a.example/x/"),
            "https://a.example/x/v1/rm?path=%2Fa%20b%2Fc%3Fd%26e&really=1"
        );
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for text in [
            "",
            "DELETE",
            "GET /v1/{hash}",
            "delete /v1/{hash}",
            "DELETE v1/{hash}",
            "DELETE //elsewhere/{hash}",
            "DELETE https://elsewhere/{hash}",
            "DELETE /v1/all",
            "DELETE /v1/{hash}/{name}",
            "DELETE /v1/{hash} x",
            "DELETE /v1/{hash}#x",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?}");
        }
        let text = "DELETE /v1/files/{hash}";
        assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
    }
}
