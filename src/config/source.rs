//! Secret sources in the configuration: where a secret is, never the secret.

use std::path::PathBuf;

use toml::Value;

use super::keys::Keys;
use super::{ConfigError, suggestion};
use crate::auth::{SecretSource, StoreSpec, StoredSecret};

const ALTERNATIVES: &str = r#"{ env = "NAME" }, { file = "path" }, { command = ["program", "argument"] }, { systemd = "credential-name" }, { stored = true } or { keyring = true }"#;
const FORMS: [&str; 6] = ["env", "file", "command", "systemd", "stored", "keyring"];

/// Whose secrets are read, and which files keep the stored ones.
#[derive(Clone, Copy, Debug)]
pub struct Keeper<'a> {
    pub remote: &'a str,
    pub files: &'a StoreSpec,
}

impl Keeper<'_> {
    /// The field is named as in the file: `token` for `[remotes.NAME.auth]`, `keys_auth.token` for another table.
    fn kept_in(self, store: &StoreSpec, name: &str) -> StoredSecret {
        let below = name.strip_prefix(&format!("remotes.{}.", self.remote)).unwrap_or(name);
        StoredSecret {
            remote: self.remote.to_owned(),
            field: below.strip_prefix("auth.").unwrap_or(below).to_owned(),
            store: store.clone(),
        }
    }
}

/// Reads the source under a key of an `auth` table.
pub fn required(keys: &mut Keys, key: &'static str, keeper: Keeper<'_>) -> Result<SecretSource, ConfigError> {
    let name = keys.name(key);
    match keys.take(key) {
        None => Err(keys.missing(key)),
        Some(value) => parse(&name, value, Some(keeper)),
    }
}

/// The same, if the key is there.
pub fn optional(keys: &mut Keys, key: &'static str, keeper: Keeper<'_>) -> Result<Option<SecretSource>, ConfigError> {
    let name = keys.name(key);
    keys.take(key)
        .map(|value| parse(&name, value, Some(keeper)))
        .transpose()
}

/// Where keymount keeps what it is given by the provider: in its files, or where the key says.
pub fn kept(keys: &mut Keys, key: &'static str, keeper: Keeper<'_>) -> Result<StoredSecret, ConfigError> {
    let name = keys.name(key);
    match optional(keys, key, keeper)? {
        None => Ok(keeper.kept_in(keeper.files, &name)),
        Some(SecretSource::Stored(stored)) => Ok(stored),
        Some(_) => Err(ConfigError::new(format!(
            "{name} is {{ stored = true }} or {{ keyring = true }}: keymount itself writes it"
        ))),
    }
}

/// Reads the source of the store's own passphrase, which cannot be in the store.
pub fn passphrase(keys: &mut Keys, key: &'static str) -> Result<Option<SecretSource>, ConfigError> {
    let name = keys.name(key);
    keys.take(key).map(|value| parse(&name, value, None)).transpose()
}

fn parse(name: &str, value: Value, keeper: Option<Keeper<'_>>) -> Result<SecretSource, ConfigError> {
    let refuse = |why: String| Err(ConfigError::new(format!("{name} {why}")));
    let table = match value {
        Value::Table(table) => table,
        Value::String(_) => {
            return refuse(format!(
                "holds the secret itself, and a secret must not be in this file; say where it is kept: {ALTERNATIVES}"
            ));
        }
        _ => return refuse(format!("must say where the secret is kept: {ALTERNATIVES}")),
    };
    let mut entries = table.into_iter();
    let (Some((form, value)), None) = (entries.next(), entries.next()) else {
        return refuse(format!("must name exactly one place: {ALTERNATIVES}"));
    };
    match (form.as_str(), value) {
        ("env", Value::String(variable)) if is_variable(&variable) => Ok(SecretSource::Env(variable)),
        ("env", Value::String(_)) => refuse("must name an environment variable, not hold its value".to_owned()),
        ("file", Value::String(path)) if !path.is_empty() => {
            let path = expand_home(&path);
            if path.is_relative() {
                return refuse("must be an absolute path or begin with ~/: the daemon works in /".to_owned());
            }
            Ok(SecretSource::File(path))
        }
        ("command", Value::Array(words)) => {
            let argv: Option<Vec<String>> = words
                .into_iter()
                .map(|word| match word {
                    Value::String(text) => Some(text),
                    _ => None,
                })
                .collect();
            match argv {
                Some(argv) if argv.first().is_some_and(|program| !program.is_empty()) => {
                    Ok(SecretSource::Command(argv))
                }
                _ => refuse(r#"must be a program and its arguments: { command = ["program", "argument"] }"#.to_owned()),
            }
        }
        ("systemd", Value::String(credential)) if !credential.is_empty() && !credential.contains('/') => {
            Ok(SecretSource::Systemd(credential))
        }
        ("stored" | "keyring", Value::Boolean(true)) => match keeper {
            Some(keeper) if form == "keyring" => Ok(SecretSource::Stored(keeper.kept_in(&StoreSpec::Keyring, name))),
            Some(keeper) => Ok(SecretSource::Stored(keeper.kept_in(keeper.files, name))),
            None => refuse("opens the store, so keymount login cannot keep it".to_owned()),
        },
        ("stored" | "keyring", _) => refuse(format!(
            "is {{ {form} = true }} when keymount login keeps the secret; otherwise name another place"
        )),
        (known, _) if FORMS.contains(&known) => refuse(format!("is malformed; possible are {ALTERNATIVES}")),
        (unknown, _) => refuse(format!(
            "has the unknown key {unknown:?}{}; possible are {ALTERNATIVES}",
            suggestion(unknown, FORMS)
        )),
    }
}

/// POSIX's form of a variable's name; a token pasted in its place hardly ever has it.
fn is_variable(text: &str) -> bool {
    text.len() <= 128
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A leading `~/` stands for the home directory.
pub fn expand_home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> StoreSpec {
        StoreSpec::Files {
            folder: "/secrets".into(),
            passphrase: None,
        }
    }

    fn source(text: &str) -> Result<SecretSource, String> {
        source_in("remotes.x.auth", text)
    }

    fn source_in(place: &str, text: &str) -> Result<SecretSource, String> {
        let table: toml::Table = text.parse().unwrap();
        let keeper = Keeper {
            remote: "x",
            files: &files(),
        };
        required(&mut Keys::new(place, table), "token", keeper).map_err(|error| error.to_string())
    }

    #[test]
    fn a_stored_secret_is_named_by_its_remote_and_place() {
        for (place, field) in [("remotes.x.auth", "token"), ("remotes.x.keys_auth", "keys_auth.token")] {
            let Ok(SecretSource::Stored(stored)) = source_in(place, "token = { stored = true }") else {
                panic!("a stored secret")
            };
            assert_eq!((stored.remote.as_str(), stored.field.as_str()), ("x", field));
            assert_eq!(stored.store, files());
        }
        let Ok(SecretSource::Stored(stored)) = source("token = { keyring = true }") else {
            panic!("a secret in the keyring")
        };
        assert_eq!(stored.store, StoreSpec::Keyring);
    }

    #[test]
    fn the_passphrase_of_the_store_is_kept_elsewhere() {
        let read = |text: &str| passphrase(&mut Keys::new("store", text.parse().unwrap()), "passphrase");
        assert_eq!(read("").unwrap(), None);
        assert_eq!(
            read(r#"passphrase = { env = "P" }"#).unwrap(),
            Some(SecretSource::Env("P".into()))
        );
        for text in ["passphrase = { stored = true }", r#"passphrase = "canary-words""#] {
            let error = read(text).unwrap_err().to_string();
            assert!(
                error.starts_with("store.passphrase ") && !error.contains("canary"),
                "{error}"
            );
        }
    }

    #[test]
    fn every_form_is_read() {
        assert_eq!(
            source(r#"token = { env = "A_B1" }"#),
            Ok(SecretSource::Env("A_B1".into()))
        );
        assert_eq!(
            source(r#"token = { file = "/run/t" }"#),
            Ok(SecretSource::File("/run/t".into()))
        );
        assert_eq!(
            source(r#"token = { command = ["pass", "x"] }"#),
            Ok(SecretSource::Command(vec!["pass".into(), "x".into()]))
        );
        assert_eq!(
            source(r#"token = { systemd = "t" }"#),
            Ok(SecretSource::Systemd("t".into()))
        );
    }

    #[test]
    fn a_literal_secret_is_refused_with_the_alternatives_and_not_repeated() {
        for text in [
            r#"token = "canary-secret""#,
            r#"token = { env = "canary-secret" }"#,
            r#"token = { value = "canary-secret" }"#,
            r#"token = { command = "canary-secret" }"#,
            r#"token = { systemd = "/canary-secret" }"#,
        ] {
            let error = source(text).unwrap_err();
            assert!(error.starts_with("remotes.x.auth.token "), "{error}");
            assert!(!error.contains("canary"), "{error}");
        }
        assert!(source(r#"token = "x""#).unwrap_err().contains("{ command = "));
    }

    #[test]
    fn what_is_half_said_is_refused() {
        for (text, part) in [
            ("", "remotes.x.auth.token is missing"),
            ("tokn = 1", "did you mean \"token\"?"),
            ("token = 5", "must say where"),
            ("token = {}", "exactly one place"),
            (r#"token = { env = "A", file = "/b" }"#, "exactly one place"),
            (r#"token = { flie = "/b" }"#, "did you mean \"file\"?"),
            (r#"token = { file = "b" }"#, "absolute path"),
            ("token = { command = [] }", "program and its arguments"),
            ("token = { stored = false }", "{ stored = true }"),
            ("token = { keyring = false }", "{ keyring = true }"),
            (r#"token = { stored = "canary-secret" }"#, "{ stored = true }"),
        ] {
            let error = source(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
