//! Directories that are getting another name at the provider. Until its answer is known here, what is below may have either
//! key there: nothing below is begun to be sent, and "not found" by one of those keys says nothing.
//!
//! Not whose turn it is to give a directory another name: that is one at a time.

use tokio::sync::watch;

use super::{FileSystem, Ino};
use crate::model::{Error, ErrorKind, Holder};

/// The directory that is on its way, and how many have arrived or stayed.
#[derive(Default)]
pub struct Moving {
    state: watch::Sender<State>,
    mover: Holder,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    directory: Option<Ino>,
    ended: u64,
}

/// A moment, as far as directories moved before or after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(u64);

/// As long as this lives, a directory is on its way.
pub struct Move<'a>(&'a Moving);

impl Drop for Move<'_> {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| {
            state.directory = None;
            state.ended += 1;
        });
    }
}

impl Moving {
    /// To be called before the provider is asked, by whose turn it is.
    pub fn begin(&self, directory: Ino) -> Move<'_> {
        self.mover.is_current();
        self.state.send_modify(|state| state.directory = Some(directory));
        Move(self)
    }

    pub fn mark(&self) -> Mark {
        Mark(self.state.borrow().ended)
    }

    /// Waits for a directory that something is in, and gives how it is then.
    async fn passed(&self, is_in: impl Fn(Ino) -> bool) -> Mark {
        let mut state = self.state.subscribe();
        let passed = state.wait_for(|state| !state.directory.is_some_and(&is_in));
        // The sender lives as long as `self`.
        let _ = self.mover.wait(passed).await;
        self.mark()
    }
}

impl FileSystem {
    /// Returns when no directory is on its way that this is, or is in.
    pub(super) async fn stands_still(&self, ino: Ino) -> Mark {
        self.moving
            .passed(|directory| self.table.is_within(ino, directory))
            .await
    }

    /// Whether something is to be asked for again, as it wasn't found by a key that may have been void by then. Then the new
    /// one is known when this returns.
    pub(super) async fn was_moved(&self, ino: Ino, since: Mark, error: &Error) -> bool {
        error.kind() == ErrorKind::NotFound && self.stands_still(ino).await != since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_below_waits_and_who_asked_before_asks_again() {
        let moving = Moving::default();
        let (above, elsewhere) = (Ino(7), Ino(8));
        let before = moving.mark();
        let on_its_way = moving.begin(above);
        assert_eq!(moving.passed(|directory| directory == elsewhere).await, before);
        let mut waits = std::pin::pin!(moving.passed(|directory| directory == above));
        assert!(futures_util::poll!(waits.as_mut()).is_pending());
        drop(on_its_way);
        assert_ne!(waits.await, before);
        assert_eq!(moving.passed(|_| true).await, moving.mark());
    }
}
