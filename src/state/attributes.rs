//! Numbers, modes, owners and times of entries, and the nodes that no provider has a place for: symbolic links, fifos,
//! sockets and device files.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{StateDb, failed, from_epoch, since_epoch};
use crate::model::{Result, Special, Version};

/// What is known here of an entry and not at its provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalAttributes {
    /// The inode number, where it isn't the one that follows from the name.
    pub ino: Option<u64>,
    /// Permission bits of `chmod`, up to `0o7777`.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub times: Option<LocalTimes>,
    /// When this mount last changed anything of it.
    pub changed: Option<SystemTime>,
    /// What it is, where the provider doesn't have it.
    pub special: Option<Special>,
    pub standing: Standing,
}

/// How the mode and the times that are kept here stand to those that the provider may keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// What the provider tells counts more: it was told of these, or nobody set them.
    #[default]
    Shared,
    /// They were set here, and the provider doesn't have them.
    Ours,
}

/// The times of `utimens`, and those of the last change made here. They count only for the version that they were set on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalTimes {
    pub modified: SystemTime,
    pub accessed: SystemTime,
    pub version: Version,
}

impl LocalTimes {
    /// What was written, or made, at that time.
    pub fn written(at: SystemTime, version: Version) -> Self {
        Self {
            modified: at,
            accessed: at,
            version,
        }
    }
}

/// One name of a node that no provider has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecialChild {
    /// Without the directory.
    pub name: String,
    pub attributes: LocalAttributes,
}

/// What is kept of all entries in a directory, as it was at one moment.
#[derive(Clone, Debug)]
pub struct ChildAttributes {
    pub(super) by_name: HashMap<String, LocalAttributes>,
    changes: u64,
}

impl ChildAttributes {
    /// By the name without the directory; nothing is the default.
    pub fn of(&self, name: &str) -> LocalAttributes {
        self.by_name.get(name).cloned().unwrap_or_default()
    }
}

const COLUMNS: &str = "mode, modified_s, modified_ns, accessed_s, accessed_ns, version, ino, uid, gid, changed_s,
    changed_ns, special, target, device, standing";

/// An entry and all that is below it. What begins with `path/` lies between that and `path0`: `0` follows `/` in ASCII.
pub(super) const BELOW: &str = "namespace = ?1 AND (path = ?2 OR (path > ?2 || '/' AND path < ?2 || '0'))";

/// Where the rows of all that is in a directory lie, in the order of paths.
pub(super) struct Inside {
    pub prefix: String,
    /// Before it. Every text comes before a blob.
    pub end: Value,
}

impl Inside {
    pub fn of(directory: &str) -> Self {
        match directory {
            "" => Self {
                prefix: String::new(),
                end: Value::Blob(Vec::new()),
            },
            _ => Self {
                prefix: format!("{directory}/"),
                end: Value::Text(format!("{directory}0")),
            },
        }
    }

    /// The first path that is neither this name's nor below it, and follows both.
    pub fn past(&self, name: &str) -> String {
        format!("{}{name}0", self.prefix)
    }
}

impl StateDb {
    /// What is kept of the entry at this path; nothing is the default.
    ///
    /// # Errors
    /// The disk's.
    pub fn attributes(&self, namespace: &str, path: &str) -> Result<LocalAttributes> {
        let connection = self.connection.lock();
        if let Some(waiting) = self.later.get(namespace, path) {
            return Ok(waiting);
        }
        let found = connection
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM attributes WHERE namespace = ?1 AND path = ?2"
            ))
            .and_then(|mut select| select.query_row(params![namespace, path], read_row).optional());
        Ok(found.map_err(failed("read attributes"))?.unwrap_or_default())
    }

    /// The same for all entries in a directory, in one question.
    ///
    /// # Errors
    /// The disk's.
    pub fn attributes_in(&self, namespace: &str, directory: &str) -> Result<ChildAttributes> {
        let inside = Inside::of(directory);
        let mut by_name = HashMap::new();
        let connection = self.connection.lock();
        let changes = self.changes.load(Ordering::SeqCst);
        let looked = (|| {
            let mut select = connection.prepare_cached(&format!(
                "SELECT {COLUMNS}, path FROM attributes
                 WHERE namespace = ?1 AND path >= ?2 AND path < ?3 ORDER BY path"
            ))?;
            let mut from = inside.prefix.clone();
            'parts: loop {
                let mut rows = select.query(params![namespace, from, inside.end])?;
                while let Some(row) = rows.next()? {
                    let path: String = row.get("path")?;
                    let rest = path.get(inside.prefix.len()..).unwrap_or_default();
                    if let Some((name, _)) = rest.split_once('/') {
                        // What is below it is not looked at.
                        from = inside.past(name);
                        continue 'parts;
                    }
                    if !rest.is_empty() {
                        by_name.insert(rest.to_owned(), read_row(row)?);
                    }
                }
                return Ok(());
            }
        })();
        looked.map_err(failed("read attributes"))?;
        by_name.extend(self.later.inside(namespace, &inside.prefix));
        Ok(ChildAttributes { by_name, changes })
    }

    /// Whether nothing was kept or forgotten of any entry since these were read.
    pub fn are_current(&self, attributes: &ChildAttributes) -> bool {
        attributes.changes == self.changes.load(Ordering::SeqCst)
    }

    /// Keeps what is known of an entry; the default forgets.
    ///
    /// # Errors
    /// The disk's.
    pub fn set_attributes(&self, namespace: &str, path: &str, attributes: &LocalAttributes) -> Result<()> {
        let mut connection = self.connection.lock();
        let kept = self.commit_with(&mut connection, |transaction| {
            insert(transaction, namespace, path, attributes)
        });
        kept.map_err(failed("keep attributes"))
    }

    /// Changes what is kept of a node that no provider has, under all its names.
    ///
    /// # Errors
    /// The disk's.
    pub fn set_special(&self, namespace: &str, ino: u64, attributes: &LocalAttributes) -> Result<()> {
        let mut connection = self.connection.lock();
        let kept = self.commit_with(&mut connection, |transaction| {
            let paths = special_paths(transaction, namespace, ino)?;
            paths
                .iter()
                .try_for_each(|path| insert(transaction, namespace, path, attributes))
        });
        kept.map_err(failed("keep attributes"))
    }

    /// How many names such a node has.
    ///
    /// # Errors
    /// The disk's.
    pub fn special_names(&self, namespace: &str, ino: u64) -> Result<u32> {
        let connection = self.connection.lock();
        let count = connection
            .prepare_cached("SELECT count(*) FROM attributes WHERE namespace = ?1 AND ino = ?2 AND special IS NOT NULL")
            .and_then(|mut select| select.query_row(params![namespace, ino.cast_signed()], |row| row.get(0)));
        count.map_err(failed("count names"))
    }

    /// The nodes in a directory that no provider has.
    ///
    /// # Errors
    /// The disk's.
    pub fn specials(&self, namespace: &str, directory: &str) -> Result<Vec<SpecialChild>> {
        let (from, to) = if directory.is_empty() {
            (String::new(), char::MAX.to_string())
        } else {
            (format!("{directory}/"), format!("{directory}0"))
        };
        let connection = self.connection.lock();
        let found = connection
            .prepare_cached(&format!(
                "SELECT {COLUMNS}, substr(path, length(?2) + 1) AS name FROM attributes
                 WHERE namespace = ?1 AND path > ?2 AND path < ?3 AND special IS NOT NULL AND instr(name, '/') = 0"
            ))
            .and_then(|mut select| {
                let rows = select.query_map(params![namespace, from, to], |row| {
                    Ok(SpecialChild {
                        name: row.get("name")?,
                        attributes: read_row(row)?,
                    })
                })?;
                rows.collect::<rusqlite::Result<Vec<_>>>()
            });
        found.map_err(failed("list"))
    }

    /// Moves what is kept of an entry, and of everything below it, to another path; what was kept there is forgotten.
    ///
    /// # Errors
    /// The disk's.
    pub fn rename(&self, namespace: &str, from: &str, to: &str) -> Result<()> {
        let mut connection = self.connection.lock();
        let moved = self.commit_with(&mut connection, |transaction| {
            remove_below(transaction, namespace, to)?;
            ["attributes", "xattrs"].iter().try_for_each(|table| {
                transaction
                    .prepare_cached(&format!(
                        "UPDATE {table} SET path = ?3 || substr(path, length(?2) + 1) WHERE {BELOW}"
                    ))?
                    .execute(params![namespace, from, to])
                    .map(drop)
            })
        });
        moved.map_err(failed("rename"))
    }

    /// Gives what is kept of two entries to each other.
    ///
    /// # Errors
    /// The disk's.
    pub fn exchange(&self, namespace: &str, first: &str, second: &str) -> Result<()> {
        /// No entry has this path.
        const BETWEEN: &str = "//";
        let mut connection = self.connection.lock();
        let moves = [(first, BETWEEN), (second, first), (BETWEEN, second)];
        let moved = self.commit_with(&mut connection, |transaction| {
            moves.iter().try_for_each(|(from, to)| {
                ["attributes", "xattrs"].iter().try_for_each(|table| {
                    transaction
                        .prepare_cached(&format!(
                            "UPDATE {table} SET path = ?3 WHERE namespace = ?1 AND path = ?2"
                        ))?
                        .execute(params![namespace, from, to])
                        .map(drop)
                })
            })
        });
        moved.map_err(failed("exchange"))
    }

    /// Forgets what is kept of an entry and of everything below it.
    ///
    /// # Errors
    /// The disk's.
    pub fn remove(&self, namespace: &str, path: &str) -> Result<()> {
        let mut connection = self.connection.lock();
        let removed = self.commit_with(&mut connection, |transaction| {
            remove_below(transaction, namespace, path)
        });
        removed.map_err(failed("forget"))
    }
}

fn remove_below(connection: &Connection, namespace: &str, path: &str) -> rusqlite::Result<()> {
    ["attributes", "xattrs"].iter().try_for_each(|table| {
        connection
            .prepare_cached(&format!("DELETE FROM {table} WHERE {BELOW}"))?
            .execute(params![namespace, path])
            .map(drop)
    })
}

fn special_paths(connection: &Connection, namespace: &str, ino: u64) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare_cached("SELECT path FROM attributes WHERE namespace = ?1 AND ino = ?2 AND special IS NOT NULL")?
        .query_map(params![namespace, ino.cast_signed()], |row| row.get(0))?
        .collect()
}

/// Enters what is known of an entry in the place of what was; the default forgets.
pub(super) fn insert(
    connection: &Connection,
    namespace: &str,
    path: &str,
    attributes: &LocalAttributes,
) -> rusqlite::Result<()> {
    if *attributes == LocalAttributes::default() {
        return connection
            .prepare_cached("DELETE FROM attributes WHERE namespace = ?1 AND path = ?2")?
            .execute(params![namespace, path])
            .map(drop);
    }
    let times = attributes.times.as_ref();
    let modified = times.map(|times| since_epoch(times.modified));
    let accessed = times.map(|times| since_epoch(times.accessed));
    let changed = attributes.changed.map(since_epoch);
    let (special, target, device) = match &attributes.special {
        None => (None, None, None),
        Some(Special::Symlink(target)) => (Some("symlink"), Some(&target[..]), None),
        Some(Special::Fifo) => (Some("fifo"), None, None),
        Some(Special::Socket) => (Some("socket"), None, None),
        Some(Special::BlockDevice(device)) => (Some("block"), None, Some(*device)),
        Some(Special::CharacterDevice(device)) => (Some("character"), None, Some(*device)),
    };
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO attributes
             (namespace, path, mode, modified_s, modified_ns, accessed_s, accessed_ns, version, ino, uid, gid,
              changed_s, changed_ns, special, target, device, standing)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
        )?
        .execute(params![
            namespace,
            path,
            attributes.mode,
            modified.map(|(seconds, _)| seconds),
            modified.map(|(_, nanos)| nanos),
            accessed.map(|(seconds, _)| seconds),
            accessed.map(|(_, nanos)| nanos),
            times.map(|times| times.version.as_str()),
            attributes.ino.map(u64::cast_signed),
            attributes.uid,
            attributes.gid,
            changed.map(|(seconds, _)| seconds),
            changed.map(|(_, nanos)| nanos),
            special,
            target,
            device,
            attributes.standing == Standing::Ours,
        ])
        .map(drop)
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<LocalAttributes> {
    let time = |seconds: usize| -> rusqlite::Result<Option<SystemTime>> {
        let (seconds, nanos): (Option<i64>, Option<u32>) = (row.get(seconds)?, row.get(seconds + 1)?);
        Ok(seconds.zip(nanos).map(|(seconds, nanos)| from_epoch(seconds, nanos)))
    };
    let version: Option<String> = row.get(5)?;
    let times = match (time(1)?, time(3)?, version) {
        (Some(modified), Some(accessed), Some(version)) => Some(LocalTimes {
            modified,
            accessed,
            version: Version::new(version),
        }),
        _ => None,
    };
    let device = || Ok::<_, rusqlite::Error>(row.get::<_, Option<u32>>(13)?.unwrap_or(0));
    let special = match row.get::<_, Option<String>>(11)?.as_deref() {
        None => None,
        Some("symlink") => {
            let target: Option<Vec<u8>> = row.get(12)?;
            Some(Special::Symlink(target.unwrap_or_default().into()))
        }
        Some("fifo") => Some(Special::Fifo),
        Some("socket") => Some(Special::Socket),
        Some("block") => Some(Special::BlockDevice(device()?)),
        Some(_) => Some(Special::CharacterDevice(device()?)),
    };
    Ok(LocalAttributes {
        ino: row.get::<_, Option<i64>>(6)?.map(i64::cast_unsigned),
        mode: row.get(0)?,
        uid: row.get(7)?,
        gid: row.get(8)?,
        times,
        changed: time(9)?,
        special,
        standing: if row.get(14)? { Standing::Ours } else { Standing::Shared },
    })
}
