//! One component of a path, checked once so that nobody checks it again.

use std::ffi::OsStr;
use std::fmt;

use super::{Error, ErrorKind};

/// The longest file name Linux passes to a file system, in bytes (`NAME_MAX`).
const MAX_BYTES: usize = 255;

/// A file or directory name: UTF-8, 1 to 255 bytes, neither `.` nor `..`, without `/` and NUL.
///
/// Providers add their own limits; those are checked where the provider is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// # Errors
    /// `InvalidName` or `NameTooLong`.
    pub fn new(text: impl Into<String>) -> Result<Self, Error> {
        let text = text.into();
        if text.len() > MAX_BYTES {
            return Err(Error::new(
                ErrorKind::NameTooLong,
                format!("the name is {} bytes long, {MAX_BYTES} are possible", text.len()),
            ));
        }
        if text.is_empty() || text == "." || text == ".." || text.contains(['/', '\0']) {
            return Err(Error::new(
                ErrorKind::InvalidName,
                format!("{text:?} is not a file name"),
            ));
        }
        Ok(Self(text))
    }

    /// # Errors
    /// `InvalidName` when the bytes are not UTF-8: every provider here speaks JSON or headers, which cannot hold them.
    pub fn from_os(text: &OsStr) -> Result<Self, Error> {
        match text.to_str() {
            Some(text) => Self::new(text),
            None => Err(Error::new(
                ErrorKind::InvalidName,
                "the name is not UTF-8, which the provider cannot store",
            )),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part after the last dot, unless the name begins with it.
    pub fn extension(&self) -> Option<&str> {
        match self.0.rsplit_once('.') {
            Some((stem, extension)) if !stem.is_empty() => Some(extension),
            _ => None,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<OsStr> for Name {
    fn as_ref(&self) -> &OsStr {
        OsStr::new(&self.0)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_no_file_name() {
        for text in ["", ".", "..", "a/b", "a\0b"] {
            assert_eq!(
                Name::new(text).map_err(|e| e.kind()),
                Err(ErrorKind::InvalidName),
                "{text:?}"
            );
        }
        assert_eq!(
            Name::new("x".repeat(256)).map_err(|e| e.kind()),
            Err(ErrorKind::NameTooLong)
        );
        assert!(Name::new("é".repeat(127)).is_ok());
    }

    #[test]
    fn extension_is_what_follows_the_last_dot() {
        let extension = |text: &str| Name::new(text).unwrap().extension().map(str::to_owned);
        assert_eq!(extension("a.tar.gz").as_deref(), Some("gz"));
        assert_eq!(extension(".git"), None);
        assert_eq!(extension("README"), None);
    }
}
