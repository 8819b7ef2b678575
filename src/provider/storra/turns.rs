//! One change of a path after the other, as far as this process makes them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use crate::model::Holder;

/// How many paths are remembered before those that nobody waits for are forgotten.
const MANY: usize = 64;

#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<String, Weak<Turn>>>);

#[derive(Default)]
struct Turn {
    lock: Arc<tokio::sync::Mutex<()>>,
    holder: Holder,
}

/// The turn at one path; it ends with this.
pub(super) struct Taken {
    _turn: Arc<Turn>,
    _guard: OwnedMutexGuard<()>,
}

impl Turns {
    /// Waits for the turn at each of these paths, in an order in which nobody waits in a circle.
    pub(super) async fn take(&self, paths: &[&str]) -> Vec<Taken> {
        let mut paths = paths.to_vec();
        paths.sort_unstable();
        paths.dedup();
        let mut taken = Vec::new();
        for path in paths {
            let turn = self.turn(path);
            let guard = turn.holder.wait(Arc::clone(&turn.lock).lock_owned()).await;
            turn.holder.is_current();
            taken.push(Taken {
                _turn: turn,
                _guard: guard,
            });
        }
        taken
    }

    fn turn(&self, path: &str) -> Arc<Turn> {
        let mut turns = self.0.lock();
        if let Some(turn) = turns.get(path).and_then(Weak::upgrade) {
            return turn;
        }
        if turns.len() >= MANY {
            turns.retain(|_, turn| turn.strong_count() > 0);
        }
        let turn = Arc::new(Turn::default());
        turns.insert(path.to_owned(), Arc::downgrade(&turn));
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn a_path_is_one_turn_at_a_time_and_others_do_not_wait() {
        let turns = Turns::default();
        let first = turns.take(&["b", "a", "a"]).await;
        assert_eq!(first.len(), 2);
        assert!(turns.take(&["c"]).now_or_never().is_some());
        let mut second = Box::pin(turns.take(&["a"]));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        assert_eq!(second.await.len(), 1);
    }

    #[tokio::test]
    async fn paths_that_nobody_waits_for_are_forgotten() {
        let turns = Turns::default();
        for number in 0..MANY * 3 {
            turns.take(&[&number.to_string()]).await;
        }
        assert!(turns.0.lock().len() <= MANY);
    }
}
