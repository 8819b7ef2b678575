//! Taking over what daemons of this remote left in the journal when they ended.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::{info, warn};

use super::inode::{Lineage, LocalContent};
use super::reference::Reference;
use super::{FileSystem, Ino};
use crate::model::{Entry, Error, ErrorKind, Kind, Name, ObjectKey, Result, Version};
use crate::outbox::{Staged, Step, base, boot, save_copy};
use crate::state::{Durability, JournalRow, JournalStep, Phase};

/// What a daemon that ended left, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resumed {
    /// Files that are shown as they were here, and sent now.
    pub files: usize,
    /// Files that cannot be shown where they were: copies of them were saved.
    pub saved: usize,
    /// Files that the journal names and that are nowhere.
    pub gone: usize,
}

/// What becomes of a row.
enum TakenOver {
    Shown,
    /// It cannot be shown and sent where it was, for this reason.
    Homeless(String),
    /// Its content isn't there any more.
    Gone,
}

/// Whether an error means that there is no such place.
fn is_nowhere(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidName
    )
}

/// The directories on the way to what was taken over so far, kept until everything hangs below them.
type Directories = HashMap<String, Reference>;

impl FileSystem {
    /// Takes over what daemons of this remote left when they ended: closed files are shown and sent, others are saved
    /// below `unsent`.
    ///
    /// # Errors
    /// The state's and the local disk's; what cannot be taken over now stays for the next mount.
    pub async fn resume(&self, unsent: &Path) -> Result<Resumed> {
        let mut resumed = Resumed::default();
        let mut directories = Directories::new();
        for row in self.state.journaled(Some(&self.namespace()))? {
            match self.spool.adopt(&row.spool) {
                Ok(true) => {}
                // Its daemon lives.
                Ok(false) => continue,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.forget_row(&row, &mut resumed)?;
                    continue;
                }
                Err(error) => {
                    warn!(path = row.path, %error, "a staged file is not taken over");
                    continue;
                }
            }
            match self.take_over(&row, &mut directories).await {
                Ok(TakenOver::Shown) => resumed.files += 1,
                Ok(TakenOver::Gone) => self.forget_row(&row, &mut resumed)?,
                Ok(TakenOver::Homeless(why)) => match self.save_row(&row, unsent).await {
                    Ok(()) => {
                        warn!(path = row.path, folder = %unsent.display(), why, "a staged file was saved");
                        resumed.saved += 1;
                    }
                    Err(error) => warn!(path = row.path, why, %error, "a staged file is neither sent nor saved"),
                },
                Err(error) => warn!(path = row.path, %error, "a staged file waits for the next mount"),
            }
        }
        if resumed != Resumed::default() {
            info!(
                files = resumed.files,
                saved = resumed.saved,
                gone = resumed.gone,
                "took over what was left"
            );
        }
        Ok(resumed)
    }

    /// After a power cut the journal may name what was sent and removed before.
    fn forget_row(&self, row: &JournalRow, resumed: &mut Resumed) -> Result<()> {
        warn!(
            path = row.path,
            "a staged file is gone from the local disk; if it was not sent before, its last change is lost"
        );
        resumed.gone += 1;
        self.strike_row(row)
    }

    fn strike_row(&self, row: &JournalRow) -> Result<()> {
        self.state.journal(&[JournalStep::Strike {
            spool: row.spool.clone(),
            file: row.file.clone(),
        }])
    }

    /// # Errors
    /// The provider's and the local disk's: it may go well later.
    async fn take_over(&self, row: &JournalRow, directories: &mut Directories) -> Result<TakenOver> {
        if row.phase == Phase::Writing {
            return Ok(TakenOver::Homeless(
                "it was being written when keymount ended".to_owned(),
            ));
        }
        if matches!(&row.durability, Durability::SinceBoot(then) if then != boot()) {
            let why = "it was closed a moment before the machine stopped, and may not be whole";
            return Ok(TakenOver::Homeless(why.to_owned()));
        }
        let backing = match self.spool.reopen(&row.spool, &row.file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(TakenOver::Gone),
            outcome => outcome?,
        };
        let damaged = |error: Error| Ok(TakenOver::Homeless(error.message().to_owned()));
        let replaces = match row.base.as_deref().map(base::read).transpose() {
            Ok(replaces) => replaces,
            Err(error) => return damaged(error),
        };
        let mut found = self.place_at(&row.path, directories).await;
        if let (Err(error), Some(perhaps)) = (&found, &row.perhaps)
            && is_nowhere(error)
        {
            found = self.place_at(perhaps, directories).await;
        }
        let (directory, name) = match found {
            Err(error) if is_nowhere(&error) => return damaged(error),
            outcome => outcome?,
        };
        let staged = Arc::new(Staged::left_behind(backing, &row.durability)?);
        let gave_way = row.perhaps.as_deref() == Some("");
        if gave_way
            && self
                .was_replaced((directory, &name), replaces.as_ref(), &staged)
                .await?
        {
            return Ok(TakenOver::Homeless("another file was renamed over it".to_owned()));
        }
        let number = self.kept(directory, &name).ino.map(Ino);
        let reference = match replaces {
            None => {
                let entry = Entry {
                    key: ObjectKey::new(""),
                    name,
                    kind: Kind::File,
                    size: 0,
                    modified: SystemTime::now(),
                    version: Version::new(""),
                    rights: self.entry(directory).await?.rights,
                    labels: Default::default(),
                    posix: Default::default(),
                };
                match self.table.attach_unsent(directory, entry, number, Arc::clone(&staged)) {
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => return damaged(error),
                    outcome => outcome?,
                }
            }
            Some(mut replaced) => {
                replaced.name = name;
                let now = self.table.question(directory)?.answered();
                let reference = self.table.attach(directory, replaced.clone(), number, now)?;
                let content = LocalContent {
                    staged: Arc::clone(&staged),
                    lineage: Lineage::begin(),
                    replaces: Some(replaced),
                };
                let taken = self.table.with(reference.ino(), |node| {
                    let taken = node.is_dirty();
                    if !taken {
                        node.content = Some(content);
                    }
                    taken
                })?;
                if taken {
                    return Ok(TakenOver::Homeless(
                        "there is another change of the same file".to_owned(),
                    ));
                }
                reference
            }
        };
        let ino = reference.ino();
        // What was set on it is in the state database.
        self.table.with(ino, |node| node.local = None)?;
        if row.durability != Durability::Flushed {
            // So that it is brought to the disk as what is closed now.
            let file = Arc::clone(staged.backing());
            let (row, changes) = (row.clone(), staged.changes());
            self.journal.post(vec![Step::Enter { file, row, changes }]);
        }
        self.queue.add(ino.0, Duration::ZERO);
        Ok(TakenOver::Shown)
    }

    /// The directory of a path and the name in it.
    async fn place_at(&self, path: &str, directories: &mut Directories) -> Result<(Ino, Name)> {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let name = Name::new(name)?;
        Ok((self.directory_at(above, directories).await?, name))
    }

    /// The directory at a path; each is looked up once.
    async fn directory_at(&self, path: &str, known: &mut Directories) -> Result<Ino> {
        if path.is_empty() {
            return Ok(Ino::ROOT);
        }
        if let Some(reference) = known.get(path) {
            return Ok(reference.ino());
        }
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = Box::pin(self.directory_at(above, known)).await?;
        let reference = self.find(parent, &Name::new(name)?).await?;
        let ino = reference.ino();
        if !self.entry(ino).await?.is_directory() {
            return Err(Error::new(ErrorKind::NotADirectory, format!("{path} is a file")));
        }
        known.insert(path.to_owned(), reference);
        Ok(ino)
    }

    async fn save_row(&self, row: &JournalRow, unsent: &Path) -> Result<()> {
        let backing = match self.spool.reopen(&row.spool, &row.file) {
            // There is nothing to save.
            Err(error) if error.kind() == ErrorKind::NotFound => return self.strike_row(row),
            outcome => outcome?,
        };
        let staged = Staged::left_behind(backing, &row.durability)?;
        self.complete_left_behind(&staged).await?;
        save_copy(&staged.file(), staged.len(), &unsent.join(&row.path))?;
        self.journal.post(vec![Step::Strike(Arc::clone(staged.backing()))]);
        Ok(())
    }
}
