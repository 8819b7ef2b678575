//! Taking over what daemons of this remote left in the journal when they ended.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::warn;

use super::inode::{Lineage, LocalContent, Node, entry_of_this_host};
use super::reference::Reference;
use super::{FileSystem, Ino};
use crate::model::{Entry, Error, ErrorKind, Kind, Name, Result};
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

/// What became of a row.
pub(super) enum Outcome {
    Shown,
    /// It cannot be shown where it was; there is a copy.
    Saved,
    /// Its content isn't there any more.
    Gone,
    /// The provider has it, or the journal doesn't name it any more.
    NothingLeft,
    /// Another daemon has it.
    Living,
}

/// What becomes of what is staged.
enum TakenOver {
    Shown,
    /// It cannot be shown and sent where it was, for this reason.
    Homeless(String),
    Gone,
    /// The provider has these very bytes there.
    Stored,
}

/// A closed file and where it is to be shown.
struct Left<'a> {
    row: &'a JournalRow,
    directory: Ino,
    name: Name,
    staged: Arc<Staged>,
}

/// Whether an error means that there is no such place.
fn is_nowhere(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidName
    )
}

/// The directories on the way to what was taken over so far, kept until everything hangs below them.
pub(super) type Directories = HashMap<String, Reference>;

impl FileSystem {
    /// Takes one file over, and saves it below `unsent` if it can't be shown.
    ///
    /// # Errors
    /// The provider's and the local disk's: it may go well later.
    pub(super) async fn take_over(
        &self,
        row: &JournalRow,
        unsent: &Path,
        directories: &mut Directories,
    ) -> Result<Outcome> {
        match self.spool.adopt(&row.spool) {
            Ok(true) => {}
            Ok(false) => return Ok(Outcome::Living),
            Err(error) if error.kind() == ErrorKind::NotFound => return self.forget_row(row),
            Err(error) => return Err(error),
        }
        fail_point!("resume.adopted");
        // No directory gets another name between the look at the path and the end.
        let names = self.renaming.read().await;
        let now = self.state.journaled_file(&row.spool, &row.file)?;
        let Some(row) = &now else {
            return Ok(Outcome::NothingLeft);
        };
        let taken_over = self.show_or_tell(row, directories).await?;
        drop(names);
        match taken_over {
            TakenOver::Shown => {
                if row.postponed.is_some() {
                    self.postpone(row, None);
                }
                Ok(Outcome::Shown)
            }
            TakenOver::Gone => self.forget_row(row),
            TakenOver::Stored => Ok(Outcome::NothingLeft),
            TakenOver::Homeless(why) => match self.save_row(row, unsent).await {
                Ok(()) => {
                    warn!(path = row.path, folder = %unsent.display(), why, "a staged file was saved");
                    Ok(Outcome::Saved)
                }
                Err(error) => Err(error.context(why)),
            },
        }
    }

    /// After a power cut the journal may name what was sent and removed before.
    fn forget_row(&self, row: &JournalRow) -> Result<Outcome> {
        warn!(
            path = row.path,
            "a staged file is gone from the local disk; if it was not sent before, its last change is lost"
        );
        self.strike_row(row)?;
        Ok(Outcome::Gone)
    }

    fn strike_row(&self, row: &JournalRow) -> Result<()> {
        self.state.journal(&[JournalStep::Strike {
            spool: row.spool.clone(),
            file: row.file.clone(),
        }])
    }

    async fn show_or_tell(&self, row: &JournalRow, directories: &mut Directories) -> Result<TakenOver> {
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
        let staged = Arc::new(Staged::left_behind(backing, &row.durability, row.unanswered.clone())?);
        let gave_way = row.perhaps.as_deref() == Some("");
        if gave_way
            && self
                .was_replaced((directory, &name), replaces.as_ref(), &staged)
                .await?
        {
            return Ok(TakenOver::Homeless("another file was renamed over it".to_owned()));
        }
        let file = Left {
            row,
            directory,
            name,
            staged,
        };
        match self.show(&file, replaces).await? {
            Some(shown) => self.is_shown(&file, shown.ino()),
            None if gave_way || self.was_left_too(&file) => Ok(TakenOver::Homeless(
                "there is another change of the same file".to_owned(),
            )),
            None => self.show_beside(&file).await,
        }
    }

    /// Shows it where it was; `None` when this mount has something else there that counts, or that is in use.
    async fn show(&self, file: &Left<'_>, replaces: Option<Entry>) -> Result<Option<Reference>> {
        let Left {
            directory,
            name,
            staged,
            ..
        } = file;
        let kept = self.kept(*directory, name);
        let number = kept.ino.map(Ino);
        let known = self.table.child(*directory, name);
        let Some(mut replaced) = replaces else {
            if known.is_some() || kept.special.is_some() {
                return Ok(None);
            }
            let entry = self.unsent_entry(*directory, name.clone()).await?;
            return match self.table.attach_unsent(*directory, entry, number, Arc::clone(staged)) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
                outcome => outcome.map(Some),
            };
        };
        replaced.name = name.clone();
        let is_taken = |node: &mut Node| {
            let is_in_use = node.writers > 0 || (node.opens > 0 && node.entry.version != replaced.version);
            node.is_ours() || is_in_use || node.entry.is_directory()
        };
        let _turn = match &known {
            // A directory's turn is not to be waited for here: who renames it waits for us.
            Some(known) if self.table.with(known.ino(), is_taken)? => return Ok(None),
            None if kept.special.is_some() => return Ok(None),
            // Nobody sends it or begins a change of it meanwhile.
            Some(known) => Some(self.turn(known.ino()).await?),
            None => None,
        };
        if let Some(known) = &known
            && self.table.with(known.ino(), is_taken)?
        {
            return Ok(None);
        }
        let now = self.table.question(*directory)?.answered();
        let reference = self.table.attach(*directory, replaced.clone(), number, now)?;
        let content = LocalContent {
            staged: Arc::clone(staged),
            lineage: Lineage::begin(),
            replaces: Some(replaced.clone()),
        };
        let shown = self.table.with(reference.ino(), |node| {
            let shown = !is_taken(node);
            if shown {
                node.content = Some(content);
            }
            shown
        })?;
        if shown && known.is_some() {
            self.forget_pages(reference.ino());
        }
        Ok(shown.then_some(reference))
    }

    /// Whether its name has something that was left, too: one of the two was to replace the other.
    fn was_left_too(&self, file: &Left<'_>) -> bool {
        let known = self.table.child(file.directory, &file.name);
        let staged = self.staged_of(known.map(|known| known.ino()));
        staged.is_some_and(|staged| staged.is_dirty() && staged.backing().spool != self.spool.own())
    }

    /// Shows it under the name of a conflict, beside what has its name.
    async fn show_beside(&self, file: &Left<'_>) -> Result<TakenOver> {
        let Left {
            directory,
            name,
            staged,
            ..
        } = file;
        let key = self.entry(*directory).await?.key;
        match self.provider.lookup(&key, name).await {
            Ok(there) if there.kind == Kind::File && self.holds(&there, staged).await? => {
                self.strike(staged);
                return Ok(TakenOver::Stored);
            }
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let clash = Error::new(ErrorKind::AlreadyExists, format!("{name} was changed again"));
        let beside = async {
            let aside = self.conflict_name(*directory, name, &clash).await?;
            let entry = self.unsent_entry(*directory, aside.clone()).await?;
            let shown = self.table.attach_unsent(*directory, entry, None, Arc::clone(staged))?;
            Ok::<_, Error>((aside, shown))
        };
        match beside.await {
            Ok((aside, shown)) => {
                warn!(file = %name, kept_as = %aside, "there is another change of this file; both are kept");
                let outcome = self.is_shown(file, shown.ino());
                self.enter_again(shown.ino()).await;
                outcome
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Ok(TakenOver::Homeless(error.message().to_owned()))
            }
            Err(error) => Err(error),
        }
    }

    async fn unsent_entry(&self, directory: Ino, name: Name) -> Result<Entry> {
        let rights = self.entry(directory).await?.rights;
        Ok(entry_of_this_host(name, rights, SystemTime::now()))
    }

    /// It hangs in the tree, and is sent.
    fn is_shown(&self, file: &Left<'_>, ino: Ino) -> Result<TakenOver> {
        let Left { row, staged, .. } = file;
        // What was set on it is in the state database.
        self.table.with(ino, |node| node.local = None)?;
        fail_point!("resume.shown");
        if row.durability != Durability::Flushed {
            // So that it is brought to the disk as what is closed now.
            let file = Arc::clone(staged.backing());
            let row = Box::new(JournalRow {
                postponed: None,
                ..(*row).clone()
            });
            let changes = staged.changes();
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
        let staged = Staged::left_behind(backing, &row.durability, row.unanswered.clone())?;
        self.complete_left_behind(&staged).await?;
        save_copy(&staged.file(), staged.len(), &unsent.join(&row.path))?;
        fail_point!("resume.saved");
        self.journal.post(vec![Step::Strike(Arc::clone(staged.backing()))]);
        Ok(())
    }
}
