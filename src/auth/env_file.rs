//! A file of variables, as many programs call `.env`: lines of `NAME=value`, read as they are.
//!
//! Nothing in a value is replaced by anything: a `$` in a secret is a `$`.

use std::path::Path;

use super::GivenSecrets;
use super::secret_source::read_private;
use crate::model::{Error, ErrorKind, Result};

/// # Errors
/// `Denied` when others can read it, `InvalidInput` with the number of a line that is no variable, and as the local disk
/// says. No message shows a line.
pub fn read(path: &Path) -> Result<GivenSecrets> {
    let text = read_private(path)?;
    parse(&text).map_err(|line| {
        Error::new(
            ErrorKind::InvalidInput,
            format!("line {line} of {} is not NAME=value", path.display()),
        )
    })
}

/// The error is a line's number.
fn parse(text: &str) -> std::result::Result<GivenSecrets, usize> {
    let mut given = GivenSecrets::default();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").map_or(line, str::trim_start);
        let (name, value) = line.split_once('=').ok_or(index + 1)?;
        let name = name.trim_end();
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name {
            return Err(index + 1);
        }
        let value = unquoted(value.trim()).ok_or(index + 1)?;
        given.insert(name, value.into());
    }
    Ok(given)
}

/// Quotes around a value keep its spaces and a `#`; without them a `#` after a space begins a remark.
fn unquoted(value: &str) -> Option<&str> {
    for quote in ['"', '\''] {
        if let Some(rest) = value.strip_prefix(quote) {
            let end = rest.find(quote)?;
            let after = rest[end + 1..].trim_start();
            return (after.is_empty() || after.starts_with('#')).then_some(&rest[..end]);
        }
    }
    Some(value.split(" #").next().unwrap_or(value).trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn values_are_taken_as_they_are() {
        let text = "# mine\n\nA=1\nexport B = two words # said\nC='a #$HOME\"' # c\nD=\"\"\n_e=x=y\r\nF=\"it's\"\n";
        let given = parse(text).unwrap();
        let value = |name: &str| given.get(name).unwrap().expose_secret().to_owned();
        assert_eq!(value("A"), "1");
        assert_eq!(value("B"), "two words");
        assert_eq!(value("C"), "a #$HOME\"");
        assert_eq!(value("D"), "");
        assert_eq!(value("_e"), "x=y");
        assert_eq!(value("F"), "it's");
    }

    #[test]
    fn a_line_that_is_none_is_named_and_not_shown() {
        for (text, line) in [("A=1\ncanary\n", 2), ("1A=2", 1), ("A='open", 1), ("A='x' y", 1)] {
            assert_eq!(parse(text).unwrap_err(), line, "{text}");
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(".env");
        std::fs::write(&file, "canary").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(&file).unwrap_err().message().contains("chmod 600"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let error = read(&file).unwrap_err();
        assert!(
            error.message().contains("line 1") && !error.message().contains("canary"),
            "{error}"
        );
    }
}
