//! Endpoints that only dStor's customers know, written into the configuration by one of them.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};

use crate::model::{ContentAddress, Error, ErrorKind, Name};

/// What a segment or a query's value cannot hold as it is: all but the unreserved characters (RFC 3986, 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Those that are configured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Called for every file that is removed and whose content no other file has.
    pub delete: Option<Endpoint>,
    /// Called for every file that is renamed.
    pub rename: Option<Endpoint>,
    /// Called for what the account has, at mounting and at every refresh.
    pub list: Option<Endpoint>,
}

/// A method and an address below the service's root, as `DELETE /v1/files/{hash}?path={path}`, and a JSON body if there
/// is one: `PUT /v1/files/{hash} {"name":"{name}"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint {
    method: Method,
    /// Begins with a slash.
    template: String,
    body: Option<String>,
}

/// What an endpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Delete,
    Rename,
    List,
}

/// What the blanks of a template stand for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Blanks<'a> {
    pub(super) hash: &'a str,
    /// The names from the tree's root, before a rename.
    pub(super) path: &'a [Name],
    /// After it.
    pub(super) to: &'a [Name],
}

impl Purpose {
    fn methods(self) -> &'static [Method] {
        match self {
            Self::Delete => &[Method::DELETE, Method::POST, Method::PUT],
            Self::Rename => &[Method::PUT, Method::PATCH, Method::POST],
            Self::List => &[Method::GET, Method::POST],
        }
    }

    fn blanks(self) -> &'static [&'static str] {
        match self {
            Self::Delete => &["{hash}", "{path}"],
            Self::Rename => &["{hash}", "{path}", "{name}", "{to}"],
            Self::List => &[],
        }
    }

    fn example(self) -> &'static str {
        match self {
            Self::Delete => "DELETE /v1/files/{hash}",
            Self::Rename => "PUT /v1/files/{hash}?name={name}",
            Self::List => "GET /v1/files",
        }
    }
}

impl Endpoint {
    /// # Errors
    /// `InvalidInput` with what is wrong for this purpose.
    pub fn new(purpose: Purpose, text: &str) -> Result<Self, Error> {
        let invalid = |why: &str| Error::new(ErrorKind::InvalidInput, format!("{text:?} {why}"));
        let endpoint = Self::parse(text, purpose.example())?;
        if !purpose.methods().contains(&endpoint.method) {
            let methods: Vec<&str> = purpose.methods().iter().map(Method::as_str).collect();
            return Err(invalid(&format!(
                "begins with another method than {}",
                methods.join(", ")
            )));
        }
        let known = purpose.blanks();
        let rest = known
            .iter()
            .fold(endpoint.text(), |text, blank| text.replace(blank, ""));
        // A body has braces of its own.
        let odd = |text: &str| {
            ["{hash}", "{path}", "{name}", "{to}"]
                .iter()
                .any(|blank| text.contains(blank))
        };
        let blanks_left = known
            .iter()
            .fold(endpoint.template.clone(), |text, blank| text.replace(blank, ""))
            .contains(['{', '}']);
        if blanks_left || odd(&rest) {
            return Err(invalid(&match known {
                [] => "has a blank, and a list is asked for as it is".to_owned(),
                known => format!("has another blank than {}", known.join(", ")),
            }));
        }
        let has = |blanks: &[&str]| blanks.iter().any(|blank| endpoint.text().contains(blank));
        if purpose != Purpose::List && !has(&["{hash}", "{path}"]) {
            return Err(invalid("says nothing of the file: {hash} or {path} is missing"));
        }
        if purpose == Purpose::Rename && !has(&["{name}", "{to}"]) {
            return Err(invalid("says nothing of the new name: {name} or {to} is missing"));
        }
        Ok(endpoint)
    }

    fn parse(text: &str, example: &str) -> Result<Self, Error> {
        let invalid = |why: &str| Err(Error::new(ErrorKind::InvalidInput, format!("{text:?} {why}")));
        let Some((method, rest)) = text.split_once(' ') else {
            return invalid(&format!("is not a method and an address such as {example:?}"));
        };
        let Some(method) = Method::from_bytes(method.as_bytes())
            .ok()
            .filter(|method| method.as_str().bytes().all(|byte| byte.is_ascii_uppercase()))
        else {
            return invalid("begins with no method");
        };
        let (template, body) = match rest.split_once(' ') {
            Some((template, body)) => (template, Some(body.trim().to_owned())),
            None => (rest, None),
        };
        let odd = |c: char| c.is_whitespace() || c.is_control() || c == '#';
        if !template.starts_with('/') || template.starts_with("//") || template.contains(odd) {
            return invalid("has no address that begins with a slash");
        }
        let endpoint = Self {
            method,
            template: template.to_owned(),
            body,
        };
        if endpoint.body.is_some() && endpoint.json(Blanks::default()).is_none() {
            return invalid("has a body that is no JSON once its blanks are filled");
        }
        Ok(endpoint)
    }

    fn text(&self) -> String {
        format!("{} {}", self.template, self.body.as_deref().unwrap_or_default())
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    /// Whether it can say that a file goes to another directory.
    pub(super) fn can_move(&self) -> bool {
        self.text().contains("{to}")
    }

    pub(super) fn url(&self, base: &Url, blanks: Blanks<'_>) -> Url {
        let filled = blanks.fill(&self.template, |text| utf8_percent_encode(text, ENCODED).to_string());
        let (path, query) = match filled.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (filled.as_str(), None),
        };
        let mut url = base.clone();
        url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
        url.set_query(query);
        url
    }

    /// The body, if there is one.
    pub(super) fn json(&self, blanks: Blanks<'_>) -> Option<serde_json::Value> {
        // Within the quotes that the template has.
        let escaped = |text: &str| {
            let quoted = serde_json::Value::from(text).to_string();
            quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned()
        };
        serde_json::from_str(&blanks.fill(self.body.as_deref()?, escaped)).ok()
    }
}

impl Blanks<'_> {
    fn fill(&self, text: &str, encoded: impl Fn(&str) -> String) -> String {
        let joined = |names: &[Name]| -> String { names.iter().flat_map(|name| ["/", name.as_str()]).collect() };
        let name = self.to.last().map_or("", Name::as_str);
        let mut filled = String::new();
        let mut rest = text;
        // One pass: a name may look like a blank.
        while let Some(start) = rest.find('{') {
            filled += &rest[..start];
            let value = [
                ("{hash}", self.hash.to_owned()),
                ("{path}", joined(self.path)),
                ("{to}", joined(self.to)),
                ("{name}", name.to_owned()),
            ]
            .into_iter()
            .find(|(blank, _)| rest[start..].starts_with(blank));
            match value {
                Some((blank, value)) => {
                    filled += &encoded(&value);
                    rest = &rest[start + blank.len()..];
                }
                None => {
                    filled.push('{');
                    rest = &rest[start + 1..];
                }
            }
        }
        filled + rest
    }
}

impl<'a> Blanks<'a> {
    pub(super) fn of(address: &'a ContentAddress, path: &'a [Name]) -> Self {
        Self {
            hash: address.as_str(),
            path,
            to: &[],
        }
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    /// Of any purpose.
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text, Purpose::List.example())
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
        write!(f, "{} {}", self.method, self.template)?;
        match &self.body {
            Some(body) => write!(f, " {body}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<Name> {
        names.iter().map(|name| Name::new(*name).unwrap()).collect()
    }

    #[test]
    fn blanks_are_filled_and_nothing_else_is_changed() {
        let address = ContentAddress::new(&"Q".repeat(46)).unwrap();
        let path = names(&["a b", "c?d&e"]);
        let url = |text: &str, base: &str| {
            let endpoint = Endpoint::new(Purpose::Delete, text).unwrap();
            endpoint
                .url(&base.parse().unwrap(), Blanks::of(&address, &path))
                .to_string()
        };
        assert_eq!(
            url("DELETE /v1/files/{hash}", "https://a.example/"),
            format!("https://a.example/v1/files/{address}")
        );
        assert_eq!(
            url("POST /v1/rm?path={path}&really=1", "https://a.example/x/"),
            "https://a.example/x/v1/rm?path=%2Fa%20b%2Fc%3Fd%26e&really=1"
        );
        let renamed = Endpoint::new(
            Purpose::Rename,
            r#"PUT /v1/files/{hash} {"name":"{name}","way":["{to}"]}"#,
        )
        .unwrap();
        let blanks = Blanks {
            to: &names(&["a b", "{hash}\"ü"]),
            ..Blanks::of(&address, &path)
        };
        let body = serde_json::json!({"name": "{hash}\"ü", "way": ["/a b/{hash}\"ü"]});
        assert_eq!(renamed.json(blanks), Some(body));
        assert!(renamed.can_move());
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for (purpose, text, words) in [
            (Purpose::Delete, "", "is not a method and an address such as \"DELETE"),
            (Purpose::Delete, "DELETE", "is not a method and an address"),
            (
                Purpose::Delete,
                "GET /v1/{hash}",
                "another method than DELETE, POST, PUT",
            ),
            (Purpose::Delete, "delete /v1/{hash}", "begins with no method"),
            (
                Purpose::Delete,
                "DELETE v1/{hash}",
                "no address that begins with a slash",
            ),
            (Purpose::Delete, "DELETE //elsewhere/{hash}", "no address"),
            (Purpose::Delete, "DELETE https://elsewhere/{hash}", "no address"),
            (Purpose::Delete, "DELETE /v1/all", "{hash} or {path} is missing"),
            (
                Purpose::Delete,
                "DELETE /v1/{hash}/{name}",
                "another blank than {hash}, {path}",
            ),
            (Purpose::Delete, "DELETE /v1/{hash} x", "no JSON"),
            (Purpose::Delete, "DELETE /v1/{hash}#x", "no address"),
            (Purpose::Rename, "PUT /v1/files/{hash}", "{name} or {to} is missing"),
            (
                Purpose::Rename,
                "PUT /v1/files?name={name}",
                "{hash} or {path} is missing",
            ),
            (Purpose::Rename, "PUT /v1/{hash} {\"name\":{name}}", "no JSON"),
            (
                Purpose::Rename,
                "GET /v1/{hash}/{name}",
                "another method than PUT, PATCH, POST",
            ),
            (Purpose::List, "GET /v1/files/{path}", "a list is asked for as it is"),
            (
                Purpose::List,
                "POST /v1/files {\"in\":\"{path}\"}",
                "a list is asked for as it is",
            ),
            (Purpose::List, "DELETE /v1/files", "another method than GET, POST"),
        ] {
            let error = Endpoint::new(purpose, text).unwrap_err();
            assert!(error.message().contains(words), "{words:?} is not in {error}");
        }
        for (purpose, text) in [
            (Purpose::Delete, "DELETE /v1/files/{hash}"),
            (Purpose::Rename, "PUT /v1/files/{hash} {\"name\":\"{name}\"}"),
            (Purpose::List, "GET /v1/files?all=true"),
        ] {
            let endpoint = Endpoint::new(purpose, text).unwrap();
            assert_eq!(endpoint.to_string(), text);
            assert_eq!(text.parse::<Endpoint>().unwrap(), endpoint);
        }
    }
}
