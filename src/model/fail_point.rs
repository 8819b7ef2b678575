//! Places where a test may kill this process, by name.
//!
//! Only builds for tests have them: without the feature `fail-points` the macro is nothing. It knows no test; which place
//! and which visit is told by an environment variable.

/// Here the process may be killed, as by `kill -9`.
macro_rules! fail_point {
    ($name:literal) => {
        #[cfg(feature = "fail-points")]
        $crate::model::fail_point::reached($name);
    };
}

#[cfg(feature = "fail-points")]
pub use armed::{NAMES, VARIABLE, reached};

#[cfg(feature = "fail-points")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    /// `name:visit`, counted from 1.
    pub const VARIABLE: &str = "KEYMOUNT_FAIL_POINT";

    /// All of them: those of a file's way to the provider in their order, then those of parts, conflicts and taking over.
    pub const NAMES: [&str; 28] = [
        "spool.created",
        "staged.written",
        "staged.truncated",
        "staged.replaced",
        "close.begun",
        "journal.begun",
        "journal.labelled",
        "journal.committed",
        "journal.answered",
        "flush.synced",
        "upload.begun",
        "upload.stored",
        "upload.struck",
        "spool.idle",
        "rename.begun",
        "rename.stored",
        "unlink.begun",
        "unlink.stored",
        "map.begun",
        "map.told",
        "map.synced",
        "map.filled",
        "map.adopted",
        "conflict.renamed",
        "conflict.entered",
        "resume.adopted",
        "resume.shown",
        "resume.saved",
    ];

    struct Armed {
        name: String,
        visits_left: AtomicU64,
    }

    /// Kills the process if this is the visit that was asked for.
    pub fn reached(name: &str) {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        debug_assert!(NAMES.contains(&name), "{name} is not listed");
        let armed = ARMED.get_or_init(|| {
            let wanted = std::env::var(VARIABLE).ok()?;
            let (name, visit) = wanted.rsplit_once(':')?;
            Some(Armed {
                name: name.to_owned(),
                visits_left: AtomicU64::new(visit.parse().ok()?),
            })
        });
        if let Some(armed) = armed
            && armed.name == name
            && armed.visits_left.fetch_sub(1, Ordering::AcqRel) == 1
        {
            let _ = kill_process(getpid(), Signal::KILL);
            loop {
                std::thread::park();
            }
        }
    }
}
