//! Changes the configuration file and leaves everything else in it as the person wrote it: comments, order, spelling.
//!
//! What is written was read back by `file` before: a change that makes a malformed file is refused. The file is
//! replaced as a whole, and no two processes change it at once.

use std::fs::{DirBuilder, File, Permissions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid};
use toml_edit::{Array, DocumentMut, InlineTable, Item, RawString, Table, TableLike, Value};

use super::{Config, ConfigError};
use crate::auth::StoreSpec;
use crate::paths::Paths;

/// A remote that is to be written.
#[derive(Clone, Debug)]
pub struct NewRemote {
    pub name: String,
    /// The configuration's word.
    pub provider: &'static str,
    /// In the order in which they shall be in the file.
    pub settings: Vec<Setting>,
}

/// One key of a remote, or of a table below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The table that it is in: `auth`, `options`; none for the remote's own.
    pub table: Option<String>,
    pub key: String,
    pub value: Written,
}

/// What is written for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    Text(String),
    Truth(bool),
    /// Where a secret is.
    Secret(Place),
}

/// A secret source as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Env(String),
    File(String),
    Command(Vec<String>),
    Systemd(String),
    Stored,
    Keyring,
}

impl Config {
    /// What the configuration would be with another remote. Nothing is written.
    ///
    /// # Errors
    /// When there is such a remote, when the new one is malformed, and as `load`.
    pub fn with(paths: &Paths, remote: &NewRemote) -> Result<Self, ConfigError> {
        Draft::read(paths)?.add(remote).map(|(config, _)| config)
    }

    /// Writes another remote.
    ///
    /// # Errors
    /// As `with`, and as the local disk says; the file is then as it was.
    pub fn add(paths: &Paths, remote: &NewRemote) -> Result<Self, ConfigError> {
        let _alone = Alone::with(paths)?;
        let draft = Draft::read(paths)?;
        let (config, text) = draft.add(remote)?;
        draft.replace(&text)?;
        Ok(config)
    }

    /// Takes a remote out of the file, with the comment right above it.
    ///
    /// # Errors
    /// When there is no such remote, and as `add`.
    pub fn remove(paths: &Paths, name: &str) -> Result<(), ConfigError> {
        let _alone = Alone::with(paths)?;
        let draft = Draft::read(paths)?;
        let text = draft.without(name)?;
        draft.replace(&text)
    }

    /// What a remote's table says, as it is written.
    ///
    /// # Errors
    /// When there is no such remote, and as `load`.
    pub fn written(paths: &Paths, name: &str) -> Result<toml::Table, ConfigError> {
        let draft = Draft::read(paths)?;
        let mut table: toml::Table = draft
            .text
            .parse()
            .map_err(|_| ConfigError::new("the configuration is not TOML"))?;
        match table.remove("remotes") {
            Some(toml::Value::Table(mut remotes)) => match remotes.remove(name) {
                Some(toml::Value::Table(remote)) => Ok(remote),
                _ => Err(draft.config.no_such_remote(name)),
            },
            _ => Err(draft.config.no_such_remote(name)),
        }
    }
}

/// The file as it is, and what that means.
struct Draft {
    /// Links are followed, so that they stay.
    path: PathBuf,
    text: String,
    secrets: PathBuf,
    config: Config,
}

impl Draft {
    fn read(paths: &Paths) -> Result<Self, ConfigError> {
        let (path, _) = paths.config_file();
        let named = |error: std::io::Error| cannot("read", path, &error);
        let (path, text, config) = match std::fs::read_to_string(path) {
            // One that was named and isn't there shall be made.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let config = Config::parse(path, "", &paths.secrets())?;
                (path.to_path_buf(), String::new(), config)
            }
            Err(error) => return Err(named(error)),
            Ok(text) => {
                let config = Config::load(paths)?;
                (path.canonicalize().map_err(named)?, text, config)
            }
        };
        Ok(Self {
            path,
            text,
            secrets: paths.secrets(),
            config,
        })
    }

    fn add(&self, remote: &NewRemote) -> Result<(Config, String), ConfigError> {
        let name = &remote.name;
        if self.config.remotes().any(|(known, _)| known == name) {
            return Err(ConfigError::new(format!(
                "there is a remote {name} already in {}; choose another name, or run: keymount remote remove {name}",
                self.path.display()
            )));
        }
        let mut document = self.document()?;
        let above = if document.is_empty() {
            // Remarks only: they stay above.
            let remarks = text_of(Some(document.trailing())).trim_end().to_owned();
            document.set_trailing("");
            if remarks.is_empty() { remarks } else { remarks + "\n\n" }
        } else {
            "\n".to_owned()
        };
        let remotes = document.entry("remotes").or_insert_with(|| {
            let mut remotes = Table::new();
            remotes.set_implicit(true);
            Item::Table(remotes)
        });
        let Some(remotes) = remotes.as_table_like_mut() else {
            return Err(ConfigError::new("remotes must be a table"));
        };
        let mut table = table(remote);
        table.decor_mut().set_prefix(above);
        remotes.insert(name, Item::Table(table));
        let text = document.to_string();
        let config = Config::parse(&self.path, &text, &self.secrets)?;
        Ok((config, text))
    }

    fn without(&self, name: &str) -> Result<String, ConfigError> {
        let mut document = self.document()?;
        let remotes = document.get_mut("remotes").and_then(Item::as_table_like_mut);
        let Some(removed) = remotes.and_then(|remotes| remotes.remove(name)) else {
            return Err(self.config.no_such_remote(name));
        };
        if let Item::Table(removed) = removed {
            keep_remarks(&mut document, &removed);
        }
        let text = document.to_string();
        Config::parse(&self.path, &text, &self.secrets)?;
        Ok(text)
    }

    fn document(&self) -> Result<DocumentMut, ConfigError> {
        // `Config` has parsed it already.
        self.text
            .parse()
            .map_err(|_| ConfigError::new(format!("{} is not TOML", self.path.display())))
    }

    /// Puts the text in the file's place, on the disk before it gets the name; the file's mode and owner stay.
    fn replace(&self, text: &str) -> Result<(), ConfigError> {
        let failed = |error: std::io::Error| cannot("written", &self.path, &error);
        let folder = folder_of(&self.path);
        let (mode, owner) = match std::fs::metadata(&self.path) {
            Ok(metadata) => (metadata.mode() & 0o7777, Some((metadata.uid(), metadata.gid()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (0o600, None),
            Err(error) => return Err(failed(error)),
        };
        let mut temporary = tempfile::Builder::new()
            .prefix(".config-")
            .tempfile_in(folder)
            .map_err(failed)?;
        if let Some((uid, gid)) = owner {
            // Only root can give a file away; for others it is theirs already.
            let _ = rustix::fs::fchown(temporary.as_fd(), Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        }
        temporary
            .write_all(text.as_bytes())
            .and_then(|()| temporary.as_file().set_permissions(Permissions::from_mode(mode)))
            .and_then(|()| temporary.as_file().sync_all())
            .map_err(failed)?;
        temporary.persist(&self.path).map_err(|error| failed(error.error))?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

/// The right to change the file, held by one process at a time.
struct Alone(#[expect(dead_code, reason = "the lock lasts as long as the file is open")] File);

impl Alone {
    fn with(paths: &Paths) -> Result<Self, ConfigError> {
        let (path, _) = paths.config_file();
        let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let folder = folder_of(&path);
        let failed = |error: std::io::Error| cannot("changed", &path, &error);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
        let folder = File::open(folder).map_err(failed)?;
        match folder.try_lock() {
            Ok(()) => Ok(Self(folder)),
            Err(std::fs::TryLockError::WouldBlock) => Err(ConfigError::new(format!(
                "{} is being changed by another keymount; try again",
                path.display()
            ))),
            Err(std::fs::TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> ConfigError {
    ConfigError::new(format!(
        "the configuration {} cannot be {what}: {error}",
        path.display()
    ))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn table(remote: &NewRemote) -> Table {
    let mut table = Table::new();
    table.insert("provider", Item::Value(remote.provider.into()));
    for setting in &remote.settings {
        let place: &mut dyn TableLike = match &setting.table {
            None => &mut table,
            Some(below) => {
                let item = table.entry(below).or_insert_with(|| {
                    let mut below = Table::new();
                    below.decor_mut().set_prefix("\n");
                    Item::Table(below)
                });
                match item.as_table_like_mut() {
                    Some(below) => below,
                    // A key of that name was written before; reading it back tells.
                    None => continue,
                }
            }
        };
        place.insert(&setting.key, Item::Value(value(&setting.value)));
    }
    table
}

fn value(written: &Written) -> Value {
    match written {
        Written::Text(text) => text.as_str().into(),
        Written::Truth(truth) => (*truth).into(),
        Written::Secret(place) => {
            let (form, value) = match place {
                Place::Env(name) => ("env", name.as_str().into()),
                Place::File(path) => ("file", path.as_str().into()),
                Place::Command(words) => ("command", Value::Array(words.iter().collect::<Array>())),
                Place::Systemd(name) => ("systemd", name.as_str().into()),
                Place::Stored => ("stored", true.into()),
                Place::Keyring => ("keyring", true.into()),
            };
            let mut table = InlineTable::new();
            table.insert(form, value);
            Value::InlineTable(table)
        }
    }
}

impl Place {
    /// The store that keymount itself would write to, if it is one.
    pub fn store(&self, files: &StoreSpec) -> Option<StoreSpec> {
        match self {
            Self::Stored => Some(files.clone()),
            Self::Keyring => Some(StoreSpec::Keyring),
            Self::Env(_) | Self::File(_) | Self::Command(_) | Self::Systemd(_) => None,
        }
    }
}

/// Remarks that an empty line parts from a removed table aren't about it: they go above the next one.
fn keep_remarks(document: &mut DocumentMut, removed: &Table) {
    let above = text_of(removed.decor().prefix());
    let Some(end) = above.rfind("\n\n") else { return };
    let kept = &above[..=end];
    if kept.trim().is_empty() {
        return;
    }
    let mut way = Vec::new();
    let after = removed.position().unwrap_or_default();
    let next = next_table(document.as_table(), after, &mut way);
    let table = next.and_then(|(_, way)| {
        let mut table = document.as_table_mut();
        for key in &way {
            table = table.get_mut(key)?.as_table_mut()?;
        }
        Some(table)
    });
    match table {
        Some(table) => {
            let own = text_of(table.decor().prefix()).trim_start_matches('\n').to_owned();
            table.decor_mut().set_prefix(format!("{kept}\n{own}"));
        }
        None => {
            let trailing = text_of(Some(document.trailing()));
            document.set_trailing(format!("{kept}{trailing}"));
        }
    }
}

/// The first table of the file behind a position, and the keys that lead to it.
fn next_table(table: &Table, after: isize, way: &mut Vec<String>) -> Option<(isize, Vec<String>)> {
    let mut next: Option<(isize, Vec<String>)> = None;
    for (key, item) in table.iter() {
        let Item::Table(below) = item else { continue };
        way.push(key.to_owned());
        let own = below
            .position()
            .filter(|position| *position > after && !below.is_implicit());
        let own = own.map(|position| (position, way.clone()));
        for found in [own, next_table(below, after, way)].into_iter().flatten() {
            if next.as_ref().is_none_or(|(position, _)| found.0 < *position) {
                next = Some(found);
            }
        }
        way.pop();
    }
    next
}

fn text_of(raw: Option<&RawString>) -> String {
    raw.and_then(RawString::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
#[path = "edit_tests.rs"]
mod tests;
