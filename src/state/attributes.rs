//! The table of local attributes: its statements.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::{AttributeChanges, Change, LocalAttributes};

/// Which rows are below a directory `?2`. `0` follows `/` in ASCII, so the range holds what begins with `?2/`.
const BELOW: &str = "namespace = ?1 AND (?2 = '' OR parent = ?2 OR (parent > ?2 || '/' AND parent < ?2 || '0'))";

pub(super) fn get(connection: &Connection, namespace: &str, path: &str) -> Result<LocalAttributes> {
    let (parent, name) = split(path);
    let mut statement = connection.prepare_cached(
        "SELECT mode, modified_seconds, modified_nanos, accessed_seconds, accessed_nanos
         FROM attributes WHERE namespace = ?1 AND parent = ?2 AND name = ?3",
    )?;
    let found = statement.query_row(params![namespace, parent, name], |row| read(row, 0));
    Ok(found.optional()?.unwrap_or_default())
}

pub(super) fn children(
    connection: &Connection,
    namespace: &str,
    directory: &str,
) -> Result<Vec<(String, LocalAttributes)>> {
    // The root is in itself, without a name.
    let mut statement = connection.prepare_cached(
        "SELECT name, mode, modified_seconds, modified_nanos, accessed_seconds, accessed_nanos
         FROM attributes WHERE namespace = ?1 AND parent = ?2 AND name <> ''",
    )?;
    let rows = statement.query_map(params![namespace, directory], |row| Ok((row.get(0)?, read(row, 1)?)))?;
    rows.collect()
}

pub(super) fn change(
    connection: &mut Connection,
    namespace: &str,
    path: &str,
    changes: AttributeChanges,
) -> Result<LocalAttributes> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let old = get(&transaction, namespace, path)?;
    let new = LocalAttributes {
        mode: applied(changes.mode, old.mode),
        modified: applied(changes.modified, old.modified),
        accessed: applied(changes.accessed, old.accessed),
    };
    let (parent, name) = split(path);
    if new == LocalAttributes::default() {
        transaction
            .prepare_cached("DELETE FROM attributes WHERE namespace = ?1 AND parent = ?2 AND name = ?3")?
            .execute(params![namespace, parent, name])?;
    } else if new != old {
        let (modified, accessed) = (new.modified.map(to_parts), new.accessed.map(to_parts));
        transaction
            .prepare_cached("INSERT OR REPLACE INTO attributes VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
            .execute(params![
                namespace,
                parent,
                name,
                new.mode,
                modified.map(|(seconds, _)| seconds),
                modified.map(|(_, nanos)| nanos),
                accessed.map(|(seconds, _)| seconds),
                accessed.map(|(_, nanos)| nanos),
            ])?;
    }
    transaction.commit()?;
    Ok(new)
}

pub(super) fn rename(connection: &mut Connection, namespace: &str, from: &str, to: &str) -> Result<()> {
    if from == to {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    remove_from(&transaction, namespace, to)?;
    let ((old_parent, old_name), (parent, name)) = (split(from), split(to));
    transaction
        .prepare_cached(
            "UPDATE attributes SET parent = ?4, name = ?5 WHERE namespace = ?1 AND parent = ?2 AND name = ?3",
        )?
        .execute(params![namespace, old_parent, old_name, parent, name])?;
    transaction
        .prepare_cached(&format!(
            "UPDATE attributes SET parent = ?3 || substr(parent, length(?2) + 1) WHERE {BELOW}"
        ))?
        .execute(params![namespace, from, to])?;
    transaction.commit()
}

pub(super) fn remove(connection: &mut Connection, namespace: &str, path: &str) -> Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    remove_from(&transaction, namespace, path)?;
    transaction.commit()
}

fn remove_from(connection: &Connection, namespace: &str, path: &str) -> Result<()> {
    let (parent, name) = split(path);
    connection
        .prepare_cached("DELETE FROM attributes WHERE namespace = ?1 AND parent = ?2 AND name = ?3")?
        .execute(params![namespace, parent, name])?;
    connection
        .prepare_cached(&format!("DELETE FROM attributes WHERE {BELOW}"))?
        .execute(params![namespace, path])?;
    Ok(())
}

/// Directory and name.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn applied<T>(change: Change<T>, old: Option<T>) -> Option<T> {
    match change {
        Change::Keep => old,
        Change::Clear => None,
        Change::Set(new) => Some(new),
    }
}

fn read(row: &Row, first: usize) -> Result<LocalAttributes> {
    let time = |at: usize| -> Result<Option<SystemTime>> {
        let parts: (Option<i64>, Option<u32>) = (row.get(at)?, row.get(at + 1)?);
        Ok(match parts {
            (Some(seconds), Some(nanos)) => from_parts(seconds, nanos),
            _ => None,
        })
    };
    Ok(LocalAttributes {
        mode: row.get(first)?,
        modified: time(first + 1)?,
        accessed: time(first + 3)?,
    })
}

/// Seconds since 1970, rounded down, and the rest in nanoseconds. Beyond what the database holds: the last that fits.
fn to_parts(time: SystemTime) -> (i64, u32) {
    let whole = |since: Duration| i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => (whole(since), since.subsec_nanos()),
        Err(before) => match (whole(before.duration()), before.duration().subsec_nanos()) {
            (seconds, 0) => (-seconds, 0),
            (seconds, nanos) => (-seconds - 1, 1_000_000_000 - nanos),
        },
    }
}

fn from_parts(seconds: i64, nanos: u32) -> Option<SystemTime> {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let second = match seconds {
        0.. => UNIX_EPOCH.checked_add(whole),
        _ => UNIX_EPOCH.checked_sub(whole),
    };
    second?.checked_add(Duration::from_nanos(nanos.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn times_round_trip(seconds in -1i64 << 40..1 << 40, nanos in 0u32..1_000_000_000) {
            let time = from_parts(seconds, nanos).unwrap();
            prop_assert_eq!(to_parts(time), (seconds, nanos));
        }
    }

    #[test]
    fn times_before_1970_count_backwards() {
        let time = UNIX_EPOCH - Duration::from_millis(250);
        assert_eq!(to_parts(time), (-1, 750_000_000));
    }
}
