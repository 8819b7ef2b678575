//! What ended daemons left in the staging folder, compared with the journal.
//!
//! A staged file that says what it is and that the journal doesn't name is entered again: the journal was lost or torn.
//! What the journal struck out says nothing any more, and goes. Where no file can say anything, what the journal doesn't
//! name is copied first.

use std::fs::File;
use std::path::Path;

use tracing::warn;

use super::label;
use super::missing_bytes;
use super::saved::save_copy;
use super::spool::{Folder, LOCK, map_of, open, plain};
use crate::model::Result;
use crate::state::{JournalRow, JournalStep, Origin, Phase, StateDb};

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Files that the journal names again.
    pub entered: usize,
    /// Files that say nothing while the journal is new, or that cannot say anything, and of which copies were saved.
    pub saved: usize,
}

/// Goes through the folders of daemons that ended. `lost` is where content goes of which nobody knows what it is.
///
/// # Errors
/// The state's. What cannot be looked at stays.
pub fn recover(base: &Path, state: &StateDb, lost: &Path) -> Result<Recovered> {
    recover_where(label::can_be, base, state, lost)
}

/// `labels` says whether a file could say what it is.
fn recover_where(labels: fn(&File) -> bool, base: &Path, state: &StateDb, lost: &Path) -> Result<Recovered> {
    let mut recovered = Recovered::default();
    let Ok(folders) = std::fs::read_dir(base) else {
        return Ok(recovered);
    };
    let rows = state.journaled(None)?;
    for entry in folders.flatten() {
        let name = entry.file_name();
        let Some(spool) = name.to_str().filter(|name| plain(name).is_ok()) else {
            continue;
        };
        if !entry.path().join(LOCK).exists() {
            continue;
        }
        let Ok(Some(folder)) = Folder::lock(entry.path(), spool.to_owned()) else {
            continue;
        };
        let rows: Vec<&JournalRow> = rows.iter().filter(|row| row.spool == spool).collect();
        look_through(&folder, (spool, &rows), labels, state, lost, &mut recovered)?;
    }
    if recovered.entered > 0 {
        warn!(
            files = recovered.entered,
            "files that were not sent were found again in the staging folder; they are sent by the next mount of their remotes"
        );
    }
    Ok(recovered)
}

fn look_through(
    folder: &Folder,
    (spool, rows): (&str, &[&JournalRow]),
    labels: fn(&File) -> bool,
    state: &StateDb,
    lost: &Path,
    recovered: &mut Recovered,
) -> Result<()> {
    let Ok(files) = std::fs::read_dir(&folder.path) else {
        return Ok(());
    };
    let mut found: Vec<JournalRow> = Vec::new();
    let mut leftovers = Vec::new();
    for file in files.flatten() {
        let name = file.file_name();
        let Some(name) = name.to_str().filter(|name| plain(name).is_ok()) else {
            continue;
        };
        let Ok(content) = open(&file.path()) else { continue };
        let label = label::read(&content, spool, name);
        if let Some(row) = rows.iter().find(|row| row.file == name) {
            // The end of the journal was torn off: it says less than the file.
            if row.phase == Phase::Writing && label.as_ref().is_some_and(|label| label.phase == Phase::Closed) {
                found.extend(label);
            }
            continue;
        }
        // Where files cannot say what they are, the end of the journal may have been torn off, too.
        let is_unknown = state.origin() == Origin::New || !labels(&content);
        match label {
            Some(row) => found.push(row),
            None if is_unknown && missing_bytes(&file.path()).is_ok_and(|missing| missing > 0) => {
                warn!(file = %file.path().display(), "a part of an unknown file stays in the staging folder");
            }
            None if is_unknown && content.metadata().is_ok_and(|data| data.len() > 0) => {
                // Nobody knows whether this one was sent.
                let len = content.metadata()?.len();
                match save_copy(&content, len, &lost.join(name)) {
                    Ok(copy) => {
                        warn!(copy = %copy.display(), "content of an unknown file was saved");
                        recovered.saved += 1;
                        leftovers.push(file.path());
                    }
                    Err(error) => warn!(%error, "content of an unknown file stays in the staging folder"),
                }
            }
            None => leftovers.push(file.path()),
        }
    }
    recovered.entered += found.len();
    let steps: Vec<JournalStep> = found.into_iter().map(JournalStep::Enter).collect();
    state.journal(&steps)?;
    for leftover in leftovers {
        // What cannot be removed now is found by the next one.
        if let Some(map) = map_of(&leftover) {
            let _ = std::fs::remove_file(map);
        }
        let _ = std::fs::remove_file(leftover);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::{Journal, Spool, Step};
    use crate::state::Durability;
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;

    fn row(spool: &str, file: &str) -> JournalRow {
        JournalRow {
            spool: spool.to_owned(),
            file: file.to_owned(),
            namespace: "n".to_owned(),
            remote: "drive".to_owned(),
            path: format!("d/{file}"),
            perhaps: None,
            phase: Phase::Closed,
            durability: Durability::Flushed,
            base: None,
            error: None,
            postponed: None,
            unanswered: Vec::new(),
        }
    }

    /// A daemon that ended with one file in the journal and one that it was done with but had no time to remove.
    fn left(base: &Path, state: &Arc<StateDb>) -> (String, String) {
        let spool = Arc::new(Spool::open(base).unwrap());
        let journal = Journal::new(Arc::clone(state), Arc::clone(&spool));
        let files: Vec<_> = (0..2).map(|_| Arc::new(spool.new_file().unwrap())).collect();
        for file in &files {
            file.file().write_all_at(b"text", 0).unwrap();
            journal.post(vec![Step::Enter {
                file: Arc::clone(file),
                row: Box::new(row(&file.spool, &file.name)),
                changes: 1,
            }]);
        }
        journal.post(vec![Step::Strike(Arc::clone(&files[1]))]);
        journal.finish();
        files[1].entered();
        (files[0].spool.clone(), files[0].name.clone())
    }

    #[test]
    fn what_the_journal_struck_goes_and_what_it_names_stays() {
        let folder = tempfile::tempdir().unwrap();
        let state = Arc::new(StateDb::in_memory().unwrap());
        let (base, lost) = (folder.path().join("staging"), folder.path().join("lost"));
        let living = Spool::open(&base).unwrap();
        let (spool, file) = left(&base, &state);
        std::fs::write(base.join("somebody-elses"), "x").unwrap();
        // Found, not new: this one knows what was struck.
        let db = folder.path().join("state.db");
        drop(StateDb::open(&db).unwrap());
        let found = StateDb::open(&db).unwrap();
        found
            .journal(&[JournalStep::Enter(state.journaled(None).unwrap().remove(0))])
            .unwrap();
        assert_eq!(recover(&base, &found, &lost).unwrap(), Recovered::default());
        let names: Vec<_> = base.join(&spool).read_dir().unwrap().flatten().collect();
        assert_eq!(names.len(), 2, "the lock and what the journal names");
        assert!(base.join(&spool).join(&file).exists() && base.join("somebody-elses").exists());
        assert!(living.new_file().is_ok());
    }

    /// A power cut may take the end of the journal; a closed file that no label tells of is content that somebody wrote.
    #[test]
    fn where_files_cannot_say_what_they_are_what_the_journal_does_not_name_is_saved() {
        let folder = tempfile::tempdir().unwrap();
        let state = Arc::new(StateDb::in_memory().unwrap());
        let (base, lost) = (folder.path().join("staging"), folder.path().join("lost"));
        let (spool, file) = left(&base, &state);
        let file = base.join(&spool).join(file);
        label::remove(&open(&file).unwrap()).unwrap();
        std::fs::write(base.join(&spool).join("empty"), "").unwrap();
        let db = folder.path().join("state.db");
        drop(StateDb::open(&db).unwrap());
        // Found, not new, and without the end that named the file.
        let found = StateDb::open(&db).unwrap();
        let recovered = recover_where(|_| false, &base, &found, &lost).unwrap();
        assert_eq!(recovered, Recovered { entered: 0, saved: 2 });
        let copies = lost.read_dir().unwrap().flatten();
        assert!(
            copies
                .map(|copy| std::fs::read(copy.path()).unwrap())
                .all(|copy| copy == b"text")
        );
        assert!(!file.exists() && !base.join(&spool).join("empty").exists());
        assert_eq!(
            recover_where(|_| false, &base, &found, &lost).unwrap(),
            Recovered::default()
        );
    }

    #[test]
    fn a_lost_journal_is_made_again_from_what_the_files_say() {
        let folder = tempfile::tempdir().unwrap();
        let state = Arc::new(StateDb::in_memory().unwrap());
        let (base, lost) = (folder.path().join("staging"), folder.path().join("lost"));
        let (spool, file) = left(&base, &state);
        let fresh = StateDb::in_memory().unwrap();
        let recovered = recover(&base, &fresh, &lost).unwrap();
        assert_eq!(recovered, Recovered { entered: 1, saved: 1 });
        assert_eq!(fresh.journaled(None).unwrap(), [row(&spool, &file)]);
        assert_eq!(lost.read_dir().unwrap().count(), 1);
        assert_eq!(recover(&base, &fresh, &lost).unwrap(), Recovered::default(), "once");
    }
}
