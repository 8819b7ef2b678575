//! Which names Cludz stores as they are. Those that it would alter are refused, for a file must not get another name
//! than the one that was asked for.

use crate::model::{Error, ErrorKind, Name, Result};

/// In Unicode characters (Cludz documentation, rename and create folder; assumed for uploads).
pub(super) const MAX_CHARS: usize = 50;

/// Removed silently by the service (Cludz documentation, rename).
const REMOVED: &[char] = &['/', '*', '?', '<', '>', '|', ':', '"', '\\', '\''];

/// Prefixed with `_` by the service. The documentation names CON, PRN and AUX "…"; the rest are Windows' own.
const RESERVED: &[&str] = &["CON", "PRN", "AUX", "NUL"];
const RESERVED_WITH_DIGIT: &[&str] = &["COM", "LPT"];

/// # Errors
/// `NameTooLong`, `InvalidName`.
pub(super) fn check(name: &Name) -> Result<()> {
    let text = name.as_str();
    let chars = text.chars().count();
    if chars > MAX_CHARS {
        let message = format!("{text:?} has {chars} characters; Cludz stores names of at most {MAX_CHARS}");
        return Err(Error::new(ErrorKind::NameTooLong, message));
    }
    let invalid = |why: String| Err(Error::new(ErrorKind::InvalidName, format!("{text:?} {why}")));
    if let Some(character) = text.chars().find(|character| REMOVED.contains(character)) {
        return invalid(format!("has a {character:?}, which Cludz removes from names"));
    }
    // Assumed: not documented. They cannot travel in the header of a multipart body.
    if text.chars().any(char::is_control) {
        return invalid("has a control character, which an upload cannot carry".into());
    }
    if text.trim().is_empty() {
        return invalid("is blank, which Cludz doesn't take for a name".into());
    }
    if is_reserved(text) {
        return invalid("is reserved by Windows; Cludz would store it with another name".into());
    }
    Ok(())
}

/// Windows reserves these names with and without extension.
fn is_reserved(text: &str) -> bool {
    let stem = text.split_once('.').map_or(text, |(stem, _)| stem).trim_end();
    let stem = stem.to_ascii_uppercase();
    if RESERVED.contains(&stem.as_str()) {
        return true;
    }
    let numbered = stem
        .char_indices()
        .next_back()
        .filter(|(_, last)| matches!(last, '1'..='9'))
        .and_then(|(at, _)| stem.get(..at));
    numbered.is_some_and(|base| RESERVED_WITH_DIGIT.contains(&base))
}

/// What a temporary name is for; a person who finds one after a crash shall recognise it.
#[derive(Clone, Copy)]
pub(super) enum Temporary {
    /// New content on its way to its name.
    New,
    /// Former content, until the new one is in its place.
    Old,
}

/// A name that no other entry has, for `name`'s sake: `.keymount-old-1a2b3c4d5e6f-report.txt`.
///
/// # Errors
/// None in practice: the parts make a valid name.
pub(super) fn temporary(purpose: Temporary, name: &Name) -> Result<Name> {
    let purpose = match purpose {
        Temporary::New => "new",
        Temporary::Old => "old",
    };
    let random = fastrand::u64(..) & 0xffff_ffff_ffff;
    let prefix = format!(".keymount-{purpose}-{random:012x}-");
    // A name that is there already may have characters that a new one cannot.
    let kept = name
        .as_str()
        .chars()
        .filter(|character| !REMOVED.contains(character) && !character.is_control());
    let rest: String = kept.take(MAX_CHARS - prefix.len()).collect();
    Name::new(format!("{prefix}{rest}"))
}

/// A name that nobody uses, to ask about rights.
pub(super) fn probe() -> String {
    format!(".keymount-probe-{:012x}", fastrand::u64(..) & 0xffff_ffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Option<ErrorKind> {
        check(&Name::new(text).unwrap()).err().map(|error| error.kind())
    }

    #[test]
    fn names_that_the_service_would_alter_are_refused() {
        for text in [
            "a*b", "a?b", "a<b", "a>b", "a|b", "a:b", "a\"b", "a\\b", "a'b", "CON", "con", "nul.txt", "Lpt1", "com9.x",
            " ", "a\tb", "a\nb",
        ] {
            assert_eq!(kind(text), Some(ErrorKind::InvalidName), "{text:?}");
        }
        for text in [
            "console",
            "com",
            "COM0",
            "COM10",
            "lpt",
            ".git",
            "a.con",
            "100%",
            "a#b",
            "日本語",
            "é1",
        ] {
            assert_eq!(kind(text), None, "{text:?}");
        }
    }

    #[test]
    fn length_counts_characters() {
        assert_eq!(kind(&"é".repeat(50)), None);
        assert_eq!(kind(&"x".repeat(51)), Some(ErrorKind::NameTooLong));
    }

    #[test]
    fn temporary_names_are_possible_and_differ() {
        for text in ["x".repeat(255), "日".repeat(50), "a:b'c".to_owned(), "CON".to_owned()] {
            let name = Name::new(text).unwrap();
            let (one, two) = (
                temporary(Temporary::New, &name).unwrap(),
                temporary(Temporary::New, &name).unwrap(),
            );
            assert!(check(&one).is_ok(), "{one:?}");
            assert_ne!(one, two);
            assert!(one.as_str().starts_with(".keymount-new-"));
        }
    }
}
