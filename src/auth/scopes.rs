//! What a token is for, in the service's own words (RFC 6749, 3.3).

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::{Error, ErrorKind};

/// A set of scopes; written with spaces between them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scopes(BTreeSet<String>);

impl Scopes {
    /// Scopes that a service documents.
    pub fn documented(words: &[&'static str]) -> Self {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// These and one more.
    #[must_use]
    pub fn with(mut self, scope: &str) -> Self {
        self.0.insert(scope.to_owned());
        self
    }

    /// Those of these that the others lack.
    pub fn beyond(&self, others: &Self) -> Self {
        self.0.difference(&others.0).cloned().collect()
    }

    pub fn contains(&self, scope: &str) -> bool {
        self.0.contains(scope)
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<String> for Scopes {
    fn from_iter<T: IntoIterator<Item = String>>(words: T) -> Self {
        Self(words.into_iter().collect())
    }
}

impl FromStr for Scopes {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // RFC 6749, appendix A.4: visible ASCII but for quotation mark and backslash.
        let allowed = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
        text.split(' ')
            .filter(|scope| !scope.is_empty())
            .map(|scope| {
                if scope.chars().all(allowed) {
                    Ok(scope.to_owned())
                } else {
                    let why = format!("{scope:?} has characters that a scope cannot have");
                    Err(Error::new(ErrorKind::InvalidInput, why))
                }
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl TryFrom<String> for Scopes {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Scopes> for String {
    fn from(scopes: Scopes) -> Self {
        scopes.to_string()
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, scope) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(scope)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_a_set_of_words() {
        let scopes: Scopes = "files:write  files:read files:read".parse().unwrap();
        assert_eq!(scopes.to_string(), "files:read files:write");
        assert!(scopes.contains("files:read") && !scopes.contains("files"));
        assert!("a\tb".parse::<Scopes>().is_err());
        assert!("a \"b\"".parse::<Scopes>().is_err());
        assert!("".parse::<Scopes>().unwrap().is_empty());
    }
}
