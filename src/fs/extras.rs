//! Attributes that the provider keeps beside labels, `provider::Extras`: asked for by name, never listed, never cached.

use super::{FileSystem, Ino};
use crate::model::{Action, Entry, Error, ErrorKind, Result};
use crate::provider::Extras;

/// The longest value of an attribute, in bytes (XATTR_SIZE_MAX of Linux).
const LONGEST: usize = 64 * 1024;

impl FileSystem {
    /// The value of one, or `None` when the name isn't that of one.
    pub(super) async fn extra(&self, ino: Ino, name: &str) -> Result<Option<String>> {
        let Some((entry, extras)) = self.extra_of(ino, name).await? else {
            return Ok(None);
        };
        self.require(&entry, Action::Read)?;
        let value = extras.get(&entry, name).await?;
        if value.len() > LONGEST {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("{name} has more than the {LONGEST} bytes that an attribute can hold"),
            ));
        }
        Ok(Some(value))
    }

    /// Sets or removes one; `false` when the name isn't that of one.
    pub(super) async fn set_extra(&self, ino: Ino, name: &str, value: Option<&[u8]>) -> Result<bool> {
        if self.extra_of(ino, name).await?.is_none() {
            return Ok(false);
        }
        let text = value.map(std::str::from_utf8).transpose();
        let text = text.map_err(|_| Error::new(ErrorKind::InvalidInput, format!("{name} holds text only")))?;
        let _turn = self.turn(ino).await?;
        // It is about what is stored, so what was changed here is stored first.
        self.send_staged(ino).await?;
        let Some((entry, extras)) = self.extra_of(ino, name).await? else {
            return Ok(false);
        };
        self.require(&entry, Action::Write)?;
        let outcome = extras.set(&entry, name, text).await;
        if entry.is_directory() {
            self.everything_changed();
        } else {
            self.doubt(&[ino]);
            if let Some((parent, _)) = self.place(ino)? {
                self.doubt(&[parent]);
            }
            self.tell_kernel(move |kernel| kernel.forget_attributes(ino));
        }
        outcome.map(|()| true)
    }

    async fn extra_of(&self, ino: Ino, name: &str) -> Result<Option<(Entry, &dyn Extras)>> {
        let Some(extras) = self.provider.extras() else {
            return Ok(None);
        };
        let entry = self.entry(ino).await?;
        Ok(extras.has(&entry, name).then_some((entry, extras)))
    }
}
