//! Which names are sent to CloudSync, and paths made of them.
//!
//! Its documentation has no rules for names. What the kernel allows is tried; only control characters are kept away,
//! for no path of any sample has one.

use crate::model::{Error, ErrorKind, Name, Result};

/// A workspace's root as a path.
pub(super) const ROOT: &str = "/";

/// # Errors
/// `InvalidName`.
pub(super) fn check(name: &Name) -> Result<()> {
    if name.as_str().chars().any(char::is_control) {
        let message = format!(
            "{:?} has a control character, which CloudSync isn't asked to store",
            name.as_str()
        );
        return Err(Error::new(ErrorKind::InvalidName, message));
    }
    Ok(())
}

/// Whether a workspace could have this short name: letters, digits and hyphens, as in all samples (assumed).
///
/// # Errors
/// `InvalidName`.
pub(super) fn check_slug(name: &Name) -> Result<()> {
    let text = name.as_str();
    let possible = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.chars().all(possible) && !text.starts_with('-') && !text.ends_with('-') {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidName,
        format!("{text:?} cannot name a workspace: that takes lower-case letters, digits and hyphens"),
    ))
}

pub(super) fn join(folder: &str, name: &str) -> String {
    format!("{}/{name}", folder.trim_end_matches('/'))
}

/// The folder that a path lies in.
pub(super) fn folder_of(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => ROOT,
        Some((folder, _)) => folder,
    }
}

/// Former content's name until the new one is in its place: `.keymount-old-1a2b3c4d5e6f-report.txt`. Nobody else has
/// it, and a person who finds one after a crash shall recognise it.
///
/// # Errors
/// None in practice: the parts make a valid name.
pub(super) fn aside(name: &str) -> Result<Name> {
    /// In bytes, so that with the prefix it is a possible name in any alphabet.
    const KEPT: usize = 200;
    let random = fastrand::u64(..) & 0xffff_ffff_ffff;
    let mut end = name.len().min(KEPT);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    Name::new(format!(".keymount-old-{random:012x}-{}", &name[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_joined_and_taken_apart() {
        assert_eq!(join("/", "a b"), "/a b");
        assert_eq!(join("/a", "b"), "/a/b");
        assert_eq!(folder_of("/a"), "/");
        assert_eq!(folder_of("/a/b/c"), "/a/b");
    }

    #[test]
    fn only_control_characters_are_kept_away() {
        let check = |text: &str| check(&Name::new(text).unwrap()).err().map(|error| error.kind());
        for text in ["a\tb", "a\nb", "\u{7f}"] {
            assert_eq!(check(text), Some(ErrorKind::InvalidName), "{text:?}");
        }
        for text in [" ", "a?b", "CON", "日本語", "a\\b", "100%"] {
            assert_eq!(check(text), None, "{text:?}");
        }
    }

    #[test]
    fn workspaces_have_short_names() {
        let possible = |text: &str| check_slug(&Name::new(text).unwrap()).is_ok();
        assert!(possible("my-project") && possible("q1"));
        assert!(!possible("My Project") && !possible("-a") && !possible("a-") && !possible("a_b"));
    }

    #[test]
    fn names_of_former_contents_are_possible_and_differ() {
        for text in ["x".repeat(255), "日".repeat(85), "a".to_owned()] {
            let (one, two) = (aside(&text).unwrap(), aside(&text).unwrap());
            assert_ne!(one, two);
            assert!(check(&one).is_ok() && one.as_str().starts_with(".keymount-old-"));
        }
    }
}
