//! One change of a node at the provider after the other.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::model::Holder;

/// Whose turn it is. Who waits moves with whom it is waiting for, as far as deadlines go.
#[derive(Default)]
pub struct Turn {
    lock: Arc<Mutex<()>>,
    holder: Holder,
}

impl Turn {
    /// Waits for the turn; it ends with what this gives.
    pub async fn take(&self) -> OwnedMutexGuard<()> {
        let turn = self.holder.wait(Arc::clone(&self.lock).lock_owned()).await;
        self.holder.is_current();
        turn
    }

    pub fn is_taken(&self) -> bool {
        self.lock.try_lock().is_err()
    }
}
