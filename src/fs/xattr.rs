//! Extended attributes: `user.keymount.*` says what keymount knows, other `user.*` names are the provider's labels, or are
//! kept beside the content (`shared`), on this host where the provider has no place for them. Who may see an entry,
//! `user.keymount.visibility`, is the one of keymount's that can be set, with those of `extras`.

use std::ffi::OsStr;

use super::inode::Presence;
use super::{FileSystem, Ino};
use crate::model::{Action, Error, ErrorKind, Result};
use crate::provider::{ChmodEffect, LabelChanges, LabelSupport, VISIBILITY};
use crate::state::LocalXattr;

const USER: &str = "user.";
const OWN: &str = "user.keymount.";

/// How `setxattr` treats what exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetMode {
    Any,
    /// `XATTR_CREATE`.
    Create,
    /// `XATTR_REPLACE`.
    Replace,
}

/// Where an attribute is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Provider,
    Here,
}

fn is_not_for_labels(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported)
}

fn no_attribute(name: &str) -> Error {
    Error::new(ErrorKind::NoAttribute, format!("there is no attribute {name}"))
}

impl FileSystem {
    /// # Errors
    /// `NoAttribute`.
    pub async fn get_xattr(&self, ino: Ino, name: &OsStr) -> Result<Vec<u8>> {
        let name = name.to_string_lossy();
        if let Some(own) = name.strip_prefix(OWN)
            && let Some((_, value)) = self.own_attributes(ino)?.into_iter().find(|(known, _)| *known == own)
        {
            return Ok(value.into_bytes());
        }
        if let Some(own) = name.strip_prefix(OWN)
            && let Some(value) = self.extra(ino, own).await?
        {
            return Ok(value.into_bytes());
        }
        let Some(label) = name.strip_prefix(USER) else {
            return Err(no_attribute(&name));
        };
        let value = self.table.with(ino, |node| node.entry.labels.get(label).cloned())?;
        match value {
            Some(value) => Ok(value.into_bytes()),
            None => self.beside(ino, label).await?.ok_or_else(|| no_attribute(&name)),
        }
    }

    /// Without the visibility: a tool that copies the attributes of a public file would publish the copy.
    ///
    /// # Errors
    /// `Changed` for a node that is gone.
    pub async fn list_xattrs(&self, ino: Ino) -> Result<Vec<String>> {
        let own = self
            .own_attributes(ino)?
            .into_iter()
            .map(|(name, _)| format!("{OWN}{name}"));
        let labels = self
            .table
            .with(ino, |node| node.entry.labels.keys().cloned().collect::<Vec<_>>())?;
        let mut here: Vec<String> = self.xattrs_beside(ino)?.into_keys().collect();
        here.retain(|name| !labels.contains(name));
        Ok(own
            .chain(
                labels
                    .into_iter()
                    .chain(here)
                    .filter(|label| label != VISIBILITY)
                    .map(|label| format!("{USER}{label}")),
            )
            .collect())
    }

    /// # Errors
    /// `Unsupported` for keymount's own and for names outside of `user.`.
    pub async fn set_xattr(&self, ino: Ino, name: &OsStr, value: &[u8], mode: SetMode) -> Result<()> {
        if let Some(own) = name.to_string_lossy().strip_prefix(OWN)
            && self.set_extra(ino, own, Some(value)).await?
        {
            return Ok(());
        }
        let (label, place) = self.settable(ino, name).await?;
        let is_label = self.table.with(ino, |node| node.entry.labels.contains_key(&label))?;
        let exists = is_label || self.beside(ino, &label).await?.is_some();
        match mode {
            SetMode::Create if exists => {
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    format!("the label {label} exists"),
                ));
            }
            SetMode::Replace if !exists => return Err(no_attribute(&label)),
            _ => {}
        }
        if let (Place::Provider, Ok(text)) = (place, std::str::from_utf8(value)) {
            let changes = LabelChanges::from([(label.clone(), Some(text.to_owned()))]);
            match self.change_labels(ino, changes).await {
                Ok(()) => return self.keep_beside(ino, &label, None),
                // A directory, or what no label can hold.
                Err(error) if is_not_for_labels(&error) && label != VISIBILITY => {}
                Err(error) => return Err(error),
            }
        }
        if label == VISIBILITY {
            return Err(Error::new(ErrorKind::InvalidInput, "a visibility is a word"));
        }
        if is_label {
            self.change_labels(ino, LabelChanges::from([(label.clone(), None)]))
                .await?;
        }
        self.keep_beside(ino, &label, Some(value))
    }

    /// # Errors
    /// `NoAttribute`, and as `set_xattr`.
    pub async fn remove_xattr(&self, ino: Ino, name: &OsStr) -> Result<()> {
        if let Some(own) = name.to_string_lossy().strip_prefix(OWN)
            && self.set_extra(ino, own, None).await?
        {
            return Ok(());
        }
        let (label, _) = self.settable(ino, name).await?;
        if self.table.with(ino, |node| node.entry.labels.contains_key(&label))? {
            return self.change_labels(ino, LabelChanges::from([(label, None)])).await;
        }
        if self.beside(ino, &label).await?.is_none() {
            return Err(no_attribute(&label));
        }
        self.keep_beside(ino, &label, None)
    }

    /// The value that is no label's.
    async fn beside(&self, ino: Ino, label: &str) -> Result<Option<Vec<u8>>> {
        self.ask_attributes(ino).await?;
        Ok(self.xattrs_beside(ino)?.remove(label))
    }

    /// Keeps a value here until the provider has it.
    fn keep_beside(&self, ino: Ino, label: &str, value: Option<&[u8]>) -> Result<()> {
        let is_told = self.table.with(ino, |node| {
            let told = node.entry.posix.told();
            told.is_some_and(|told| told.xattrs.contains_key(label))
        })?;
        let change = match value {
            Some(value) => Some(LocalXattr::Set(value.to_owned())),
            None => is_told.then_some(LocalXattr::Removed),
        };
        let one = self.keeping.lock();
        if let Some(path) = self.table.path(ino) {
            self.state.set_xattr(&self.namespace(), &path, label, change.as_ref())?;
        }
        drop(one);
        self.touched(ino);
        self.attributes_were_set(ino);
        Ok(())
    }

    /// The name and the place of an attribute that may be set.
    async fn settable(&self, ino: Ino, name: &OsStr) -> Result<(String, Place)> {
        let name = name.to_string_lossy();
        let support = self.provider.capabilities().labels;
        let is_visibility = name.strip_prefix(USER) == Some(VISIBILITY);
        if is_visibility && matches!(support, LabelSupport::Visibility(_)) {
            self.require(&self.entry(ino).await?, Action::Write)?;
            return Ok((VISIBILITY.to_owned(), Place::Provider));
        }
        if name.starts_with(OWN) {
            let message = format!("{name} is what keymount reports; it cannot be set");
            // Tools that copy attributes along go on without those that a file system cannot keep.
            return Err(Error::unsupported(message));
        }
        let Some(label) = name.strip_prefix(USER) else {
            return Err(Error::unsupported(format!(
                "only attributes that begin with {USER} can be kept"
            )));
        };
        self.require(&self.entry(ino).await?, Action::Write)?;
        let place = match support {
            LabelSupport::Stored => Place::Provider,
            LabelSupport::Visibility(_) | LabelSupport::None => Place::Here,
        };
        Ok((label.to_owned(), place))
    }

    /// Where `chmod` publishes: gives an entry the visibility that a mode asks for. A file that is being written is never
    /// published so: tools that copy a file give the copy its mode before they are done with it.
    pub(super) async fn follow_mode(&self, ino: Ino, mode: u32) -> Result<()> {
        /// Others may read.
        const READ_BY_OTHERS: u32 = 0o004;
        let publishes = LabelSupport::Visibility(ChmodEffect::Publishes);
        if self.provider.capabilities().labels != publishes || ino == Ino::ROOT {
            return Ok(());
        }
        let (is_written, is_public) = self.table.with(ino, |node| {
            let visibility = node.entry.labels.get(VISIBILITY).map(String::as_str);
            (node.is_ours() || node.writers > 0, visibility == Some("public"))
        })?;
        let wanted = mode & READ_BY_OTHERS != 0;
        if wanted == is_public || (wanted && is_written) {
            return Ok(());
        }
        let value = if wanted { "public" } else { "private" };
        self.change_labels(
            ino,
            LabelChanges::from([(VISIBILITY.to_owned(), Some(value.to_owned()))]),
        )
        .await
    }

    async fn change_labels(&self, ino: Ino, changes: LabelChanges) -> Result<()> {
        let _turn = self.turn(ino).await?;
        // Labels belong to what is stored, so a new file is stored first.
        self.send_staged(ino).await?;
        let keys = self.keys_beside(ino)?;
        let entry = self.entry(ino).await?;
        let lineage = self.table.with(ino, |node| node.lineage)?;
        let changed = self.provider.set_labels(&entry, &changes).await;
        let changed = changed.inspect_err(|error| {
            self.doubt(&[ino]);
            self.may_be_changed(ino, entry.size, error);
        })?;
        self.with_new_version(ino, &entry.version, |node| node.confirm_same_content(changed, lineage))?;
        self.doubt_key(ino, keys);
        Ok(())
    }

    fn own_attributes(&self, ino: Ino) -> Result<Vec<(&'static str, String)>> {
        let provider = self.provider.kind().to_owned();
        let away = self.provider_is_away();
        self.table.with(ino, |node| {
            let state = match (node.presence, node.is_dirty()) {
                (Presence::Local, _) => "kept on this host only",
                (Presence::Unsent, _) => "not sent yet",
                (Presence::AtProvider, true) => "changed here",
                (Presence::AtProvider, false) if away => "stale",
                (Presence::AtProvider, false) => "stored",
            };
            let mut own = vec![
                ("provider", provider),
                ("rights", self.rights(&node.entry).to_string()),
                ("state", state.to_owned()),
            ];
            if node.presence == Presence::AtProvider {
                own.push(("remote_id", node.entry.key.to_string()));
                own.push(("version", node.entry.version.to_string()));
            }
            if let Some(error) = &node.last_error {
                own.push(("last_error", error.to_string()));
            }
            own
        })
    }
}
