//! Names and keys: what can be a name in a directory, and which directory a key is in.

use super::lock::OWN;
use crate::model::{Error, ErrorKind, Name, Result};

/// The longest key, in bytes of UTF-8 (Amazon S3 user guide, "Object key naming guidelines").
const MAX_KEY: usize = 1024;

/// A name that can be one's in a directory: opendal cuts white space off at the ends of keys, and XML has no place for
/// control characters.
///
/// # Errors
/// `InvalidName`, `NameTooLong`.
pub(super) fn check_name(directory: &str, text: &str) -> Result<Name> {
    let name = Name::new(text)?;
    let refused = |why: &str| Err(Error::new(ErrorKind::InvalidName, format!("{text:?} {why}")));
    if text.trim() != text {
        return refused("begins or ends with white space, which S3 cannot be asked for here");
    }
    if text
        .chars()
        .any(|c| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'))
    {
        return refused("has a character that S3 cannot list");
    }
    if text.starts_with(OWN) {
        return refused("begins as keymount's own objects do");
    }
    // With the slash of a directory.
    if directory.len() + text.len() + 1 > MAX_KEY {
        return Err(Error::new(
            ErrorKind::NameTooLong,
            format!("the path to {text:?} is longer than the {MAX_KEY} bytes of a key"),
        ));
    }
    Ok(name)
}

/// opendal's word for the topmost directory.
pub(super) fn at(directory: &str) -> &str {
    if directory.is_empty() { "/" } else { directory }
}

/// The directory that a key is in, with its slash.
pub(super) fn folder_of(key: &str) -> &str {
    let key = key.strip_suffix('/').unwrap_or(key);
    key.rfind('/').map_or("", |slash| &key[..=slash])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_a_key_has_its_slash() {
        assert_eq!(folder_of("a/b/c"), "a/b/");
        assert_eq!(folder_of("a/b/"), "a/");
        assert_eq!(folder_of("a"), "");
        assert_eq!(folder_of(""), "");
    }

    #[test]
    fn names_that_would_not_come_back_as_they_are_are_refused() {
        for text in [" a", "a ", "a\u{a0}", "a\tb", "a\nb", "\u{7f}"] {
            let refused = check_name("d/", text).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidName, "{text:?}");
        }
        assert_eq!(
            check_name("d/", ".keymount-lock.x").unwrap_err().kind(),
            ErrorKind::InvalidName
        );
        for text in ["a b", "%2F", "#", "a?b", "a+b", ".hidden", "\u{feff}bom"] {
            assert_eq!(check_name("d/", text).unwrap().as_str(), text);
        }
        let deep = "x/".repeat(500);
        assert_eq!(check_name(&deep, &"y".repeat(23)).unwrap().as_str().len(), 23);
        assert_eq!(
            check_name(&deep, &"y".repeat(24)).unwrap_err().kind(),
            ErrorKind::NameTooLong
        );
    }
}
