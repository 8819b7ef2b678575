//! The provider's rules for names.
//!
//! Responsible for what becomes of a name that a client sends; not for names put into the store directly.

/// Names have at most so many characters (storage/rename, storage/upload: "Create folder").
const LONGEST: usize = 50;

/// Silently removed (storage/rename).
const REMOVED: [char; 10] = ['/', '*', '?', '<', '>', '|', ':', '"', '\\', '\''];

/// Get a `_` in front (storage/rename, which lists the first three and goes on with dots).
const RESERVED: [&str; 22] = [
    "CON", "PRN", "AUX", "NUL", "COM1", "COM2", "COM3", "COM4", "COM5", "COM6", "COM7", "COM8", "COM9", "LPT1", "LPT2",
    "LPT3", "LPT4", "LPT5", "LPT6", "LPT7", "LPT8", "LPT9",
];

/// A name that can't be used even after sanitising.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unusable;

/// The name under which the provider files what a client called `name`.
pub(super) fn sanitise(name: &str) -> Result<String, Unusable> {
    if name.chars().count() > LONGEST || name.chars().any(char::is_control) {
        return Err(Unusable);
    }
    let kept: String = name.chars().filter(|c| !REMOVED.contains(c)).collect();
    if kept.trim().is_empty() || kept == "." || kept == ".." {
        return Err(Unusable);
    }
    let stem = kept.split('.').next().unwrap_or_default();
    if RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(stem)) {
        return Ok(format!("_{kept}"));
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_removed_and_reserved_names_are_prefixed() {
        assert_eq!(sanitise("a/b*c?d<e>f|g:h\"i\\j'k.txt"), Ok("abcdefghijk.txt".into()));
        assert_eq!(sanitise("CON"), Ok("_CON".into()));
        assert_eq!(sanitise("lpt1.txt"), Ok("_lpt1.txt".into()));
        assert_eq!(sanitise("console"), Ok("console".into()));
        assert_eq!(sanitise(".git"), Ok(".git".into()));
    }

    #[test]
    fn length_counts_characters_not_bytes() {
        assert_eq!(sanitise(&"ü".repeat(50)), Ok("ü".repeat(50)));
        assert_eq!(sanitise(&"a".repeat(51)), Err(Unusable));
    }

    #[test]
    fn nothing_left_is_unusable() {
        for name in ["", " ", ".", "..", "///", "a\nb"] {
            assert_eq!(sanitise(name), Err(Unusable), "{name:?}");
        }
    }
}
