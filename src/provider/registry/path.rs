//! Which directory of a remote is mounted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::{Error, ErrorKind, Name, Result};

/// The directory of a remote that is mounted; empty for its root.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RemotePath(Vec<Name>);

impl RemotePath {
    pub fn names(&self) -> &[Name] {
        &self.0
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The first name and what is below it.
    pub fn split_first(self) -> Option<(Name, Self)> {
        let mut names = self.0.into_iter();
        let first = names.next()?;
        Some((first, Self(names.collect())))
    }
}

impl FromStr for RemotePath {
    type Err = Error;

    /// Names between slashes; slashes at the ends and doubled ones say nothing.
    fn from_str(text: &str) -> Result<Self> {
        text.split('/')
            .filter(|part| !part.is_empty())
            .map(|part| {
                Name::new(part).map_err(|error| {
                    Error::new(
                        ErrorKind::InvalidInput,
                        format!("the path {text:?} cannot be mounted: {error}"),
                    )
                })
            })
            .collect::<Result<_>>()
            .map(Self)
    }
}

impl TryFrom<String> for RemotePath {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<RemotePath> for String {
    fn from(path: RemotePath) -> Self {
        path.to_string()
    }
}

impl fmt::Display for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("/")?;
            }
            f.write_str(name.as_str())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_names_between_slashes() {
        let path: RemotePath = "/a//b c/".parse().unwrap();
        assert_eq!(path.to_string(), "a/b c");
        assert!("".parse::<RemotePath>().unwrap().is_root());
        assert_eq!(
            "a/../b".parse::<RemotePath>().unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
        let json = serde_json::to_string(&path).unwrap();
        assert_eq!(serde_json::from_str::<RemotePath>(&json).unwrap(), path);
    }
}
