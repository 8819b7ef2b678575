//! When somebody else changed the same entry: both versions are kept, and this is how the local one is called.

use super::{ErrorKind, Name, Result};

/// `report (conflict from laptop 2026-11-22).txt`, with a number from the second such name on. The stem is shortened
/// until `check` takes the name.
///
/// # Errors
/// As `check` refuses names that cannot be made shorter or other.
pub fn conflict_name(
    original: &Name,
    host: &str,
    date: &str,
    number: u32,
    check: impl Fn(&Name) -> Result<()>,
) -> Result<Name> {
    let (stem, extension) = match original.as_str().rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => (stem, format!(".{extension}")),
        _ => (original.as_str(), String::new()),
    };
    let counted = if number > 1 {
        format!(" {number}")
    } else {
        String::new()
    };
    let mut stem = stem.to_owned();
    loop {
        let candidate = Name::new(format!("{stem} (conflict from {host} {date}{counted}){extension}"));
        match candidate.and_then(|name| check(&name).map(|()| name)) {
            Err(error) if error.kind() == ErrorKind::NameTooLong && stem.pop().is_some() => {}
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Error;

    fn called(original: &str, number: u32, longest: usize) -> Result<String> {
        let original = Name::new(original).unwrap();
        let check = |name: &Name| {
            if name.as_str().chars().count() > longest {
                Err(Error::new(ErrorKind::NameTooLong, "too long"))
            } else {
                Ok(())
            }
        };
        conflict_name(&original, "laptop", "2026-11-22", number, check).map(|name| name.to_string())
    }

    #[test]
    fn the_name_says_whose_it_is_and_keeps_the_extension() {
        assert_eq!(
            called("report.txt", 1, 255).unwrap(),
            "report (conflict from laptop 2026-11-22).txt"
        );
        assert_eq!(
            called("report.txt", 2, 255).unwrap(),
            "report (conflict from laptop 2026-11-22 2).txt"
        );
        assert_eq!(
            called(".profile", 1, 255).unwrap(),
            ".profile (conflict from laptop 2026-11-22)"
        );
        assert_eq!(
            called("Makefile", 1, 255).unwrap(),
            "Makefile (conflict from laptop 2026-11-22)"
        );
    }

    #[test]
    fn it_is_fitted_to_the_providers_rules_or_refused() {
        assert_eq!(
            called("reports.txt", 1, 42).unwrap(),
            "repo (conflict from laptop 2026-11-22).txt"
        );
        assert_eq!(called("reports.txt", 1, 10).unwrap_err().kind(), ErrorKind::NameTooLong);
    }
}
