//! Exchanging two names. No provider does that in one step, so both must stand for what only this host has.

use std::ffi::OsStr;

use tracing::warn;

use super::inode::Presence;
use super::{FileSystem, Ino};
use crate::model::{Action, Error, ErrorKind, Name, Result};

impl FileSystem {
    /// `RENAME_EXCHANGE`.
    ///
    /// # Errors
    /// `InvalidInput` when the provider has one of the two, `Denied`, `ReadOnly`, and as `lookup`.
    pub async fn exchange(&self, first: (Ino, &OsStr), second: (Ino, &OsStr)) -> Result<()> {
        let places = [(first.0, Name::from_os(first.1)?), (second.0, Name::from_os(second.1)?)];
        let there = [
            self.find(places[0].0, &places[0].1).await?,
            self.find(places[1].0, &places[1].1).await?,
        ];
        let numbers = there.each_ref().map(|reference| reference.ino());
        if numbers[0] == numbers[1] {
            return Ok(());
        }
        for (number, (directory, name)) in numbers.iter().zip([&places[1], &places[0]]) {
            let (entry, directory) = (self.entry(*number).await?, self.entry(*directory).await?);
            self.require(&entry, Action::Write)?;
            self.require(&directory, Action::Write)?;
            self.provider.check_name(&directory.key, entry.kind, name)?;
        }
        let _turns = self.turns(numbers[0], Some(numbers[1])).await?;
        for (number, (directory, name)) in numbers.iter().zip(&places) {
            // Whose turn it was before may have renamed or removed it.
            if !self.table.has_name(*number, *directory, name) {
                return Err(Error::not_found(name));
            }
            self.recognise(*number).await?;
            if self.table.with(*number, |node| node.presence)? == Presence::AtProvider {
                let message = format!("the provider has {name}, and cannot exchange two names");
                return Err(Error::new(ErrorKind::InvalidInput, message));
            }
        }
        self.table.exchange(&places[0], &places[1])?;
        let paths = places
            .each_ref()
            .map(|(directory, name)| self.path_below(*directory, name));
        if let [Some(first), Some(second)] = &paths
            && let Err(error) = self.state.exchange(&self.namespace(), first, second)
        {
            warn!(first, second, %error, "the modes and times of what was renamed are not kept");
        }
        self.enter_exchanged(numbers).await;
        for (number, (directory, _)) in numbers.iter().zip(&places) {
            self.touched(*number);
            self.names_changed(*directory);
        }
        Ok(())
    }
}
