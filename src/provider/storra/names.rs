//! Which names Storra stores, and those that keymount makes up.
//!
//! The documentation has no rules for names. Assumed are those of every file system, and that no header of a multipart
//! body can hold a control character.

use crate::model::{Error, ErrorKind, Name, Result};

/// First names of paths that the API has for itself: `DELETE /{item_path}` of what begins so may mean something else.
/// Taken from the documented routes.
const ROUTES: [&str; 11] = [
    "copy-folder",
    "create-folder",
    "duplicate",
    "files",
    "info",
    "list",
    "move",
    "permissions",
    "privacy",
    "trash",
    "users",
];

/// Characters of a name that a temporary one keeps, so that it is possible wherever the name is.
const KEPT: usize = 40;

/// # Errors
/// `InvalidName`.
pub(super) fn check(name: &Name) -> Result<()> {
    if name.as_str().chars().any(char::is_control) {
        let message = format!(
            "{:?} has a control character, which an upload cannot carry",
            name.as_str()
        );
        return Err(Error::new(ErrorKind::InvalidName, message));
    }
    Ok(())
}

/// Whether the deletion of a path could be taken for another request.
pub(super) fn is_route(path: &str) -> bool {
    ROUTES.contains(&split_first(path).0)
}

/// Whether a name means the same in every reader of a multipart header: how `"` and `\` are escaped there differs.
pub(super) fn travels_in_headers(name: &str) -> bool {
    !name.contains(['"', '\\'])
}

/// What a temporary name is for; a person who finds one after a crash shall recognise it.
#[derive(Clone, Copy)]
pub(super) enum Temporary {
    /// New content on its way to its name.
    New,
    /// What is about to be deleted.
    Old,
}

/// A name that no other entry has, for `name`'s sake: `.keymount-new-1a2b3c4d5e6f-report.txt`.
pub(super) fn temporary(purpose: Temporary, name: &str) -> String {
    let purpose = match purpose {
        Temporary::New => "new",
        Temporary::Old => "old",
    };
    let random = fastrand::u64(..) & 0xffff_ffff_ffff;
    let kept: String = name
        .chars()
        .filter(|c| !c.is_control() && !['"', '\\'].contains(c))
        .take(KEPT)
        .collect();
    format!(".keymount-{purpose}-{random:012x}-{kept}")
}

pub(super) fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}

/// Folder and name of a path; the root has neither.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The first name of a path, and what follows it.
fn split_first(path: &str) -> (&str, &str) {
    path.split_once('/').unwrap_or((path, ""))
}

/// Whether a path lies somewhere in a folder.
pub(super) fn is_below(path: &str, folder: &str) -> bool {
    if folder.is_empty() {
        return !path.is_empty();
    }
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_control_characters_are_refused() {
        let kind = |text: &str| check(&Name::new(text).unwrap()).err().map(|error| error.kind());
        for text in ["a\tb", "a\nb", "\u{7f}", "\u{85}"] {
            assert_eq!(kind(text), Some(ErrorKind::InvalidName), "{text:?}");
        }
        for text in ["a:b\"c'\\", "CON", "permissions", " ", "日本語"] {
            assert_eq!(kind(text), None, "{text:?}");
        }
    }

    #[test]
    fn routes_are_known_by_the_first_name_only() {
        for path in ["permissions", "permissions/x", "files/a/b", "trash"] {
            assert!(is_route(path), "{path}");
        }
        for path in ["", "a/permissions", "permission", "Trash", "infos/a"] {
            assert!(!is_route(path), "{path}");
        }
    }

    #[test]
    fn temporary_names_are_possible_and_differ() {
        for text in ["x".repeat(255), "🦀".repeat(63), "a\u{7f}\"\\b".to_owned()] {
            let (one, two) = (temporary(Temporary::New, &text), temporary(Temporary::New, &text));
            assert!(check(&Name::new(one.clone()).unwrap()).is_ok(), "{one:?}");
            assert!(travels_in_headers(&one), "{one:?}");
            assert_ne!(one, two);
        }
    }

    #[test]
    fn below_is_not_beside() {
        assert!(is_below("a/b", "a") && is_below("a/b/c", "a/b") && is_below("x", ""));
        assert!(!is_below("a", "a") && !is_below("ab/c", "a") && !is_below("", ""));
    }
}
