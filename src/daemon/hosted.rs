//! One mount of this daemon, from the kernel's "mounted" to the last upload after its end.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{info, warn};

use super::drain::{Drains, drain};
use super::first_seen::first_seen;
use super::stack::{RootAtStart, Stack};
use super::{Detach, MountSpec, Stage, StartError};
use crate::auth::{GivenSecrets, Vitals};
use crate::cache::ContentId;
use crate::control::{
    CredentialReport, ErrorReport, KeyReport, Known, MountReport, MountState, Mounted, PendingReport, SinceReport,
    UnmountError, UnmountMode, Unmounted, seconds,
};
use crate::fuse::{self, MountSettings, Session};
use crate::model::{ErrorKind, Result};
use crate::paths::Paths;
use crate::provider::keys::KeyInfo;

/// How long uploads may stand still after somebody unmounted without asking us: then what is left is saved and the
/// daemon ends.
const FINISHING_STALL: Duration = Duration::from_secs(600);
/// The first and the longest pause before the rights are asked for again after a failure.
const FOLLOWING: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How often, and with which pause, a mount that is in use is tried to be taken away once more before that is said.
const BUSY_LOOKS: u32 = 8;
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// How long the kernel may take to let go of a mount that nobody uses.
const LETTING_GO: Duration = Duration::from_secs(10);

/// Where a mount is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Mounted,
    /// Out of the tree; somebody still has something of it open.
    Detached,
    /// The mount is gone; uploads go on.
    Finishing,
    Finished,
}

/// A mounted directory with everything below it.
pub struct HostedMount {
    spec: MountSpec,
    stack: Stack,
    session: Session,
    phase: watch::Sender<Phase>,
    unsent: PathBuf,
    /// Held by whoever uploads before an unmount, so that two requests don't do it twice.
    draining: tokio::sync::Mutex<()>,
    saved: Mutex<Vec<PendingReport>>,
    /// Whether `unsent` has copies.
    exported: AtomicBool,
    /// When this key was first seen, if nothing else dates it.
    seen: Mutex<Option<SystemTime>>,
    first_seen: PathBuf,
    /// Whether what earlier daemons left was looked at; it can't be before the root is known.
    resumed: AtomicBool,
    /// The credential as of which the rights are known. Held while they are found out: twice in a row would make the kernel
    /// drop what it was just told.
    known: tokio::sync::Mutex<Vitals>,
}

impl HostedMount {
    /// Mounts; the directory answers when this returns.
    pub async fn start(spec: MountSpec, paths: &Paths, stack: Stack) -> Result<Arc<Self>, StartError> {
        let settings = MountSettings {
            directory: spec.directory.clone(),
            remote: spec.remote.label(),
            read_only: spec.options.read_only,
            allow_other: spec.options.allow_other,
            op_timeout: spec.options.op_timeout,
        };
        let unsent = paths.unsent(&spec.remote.label());
        let known = matches!(stack.root, RootAtStart::Known);
        if known && !spec.options.read_only {
            stack.fs.resume(&unsent).await.map_err(Stage::Local.failed())?;
        }
        let session = fuse::mount(Arc::clone(&stack.fs), settings)
            .await
            .map_err(Stage::Mount.failed())?;
        stack.fs.start_sending();
        stack.fs.start_fetching_ahead();
        info!(
            remote = spec.remote.label(),
            directory = %spec.directory.display(),
            rights = %stack.fs.root_rights(),
            "mounted"
        );
        let vitals = match stack.root {
            RootAtStart::Known => stack.authenticator.vitals().borrow().clone(),
            RootAtStart::Awaited => Vitals::default(),
        };
        let hosted = Arc::new(Self {
            known: tokio::sync::Mutex::new(vitals),
            unsent,
            spec,
            stack,
            session,
            phase: watch::Sender::new(Phase::Mounted),
            draining: tokio::sync::Mutex::default(),
            saved: Mutex::default(),
            exported: AtomicBool::new(false),
            resumed: AtomicBool::new(known),
            seen: Mutex::default(),
            first_seen: paths.first_seen(),
        });
        hosted.date_key();
        tokio::spawn(Arc::clone(&hosted).outlive());
        tokio::spawn(Arc::clone(&hosted).follow_credential());
        tokio::spawn(Arc::clone(&hosted).follow_changes());
        Ok(hosted)
    }

    /// Waits for the end of the mount, then for its uploads.
    async fn outlive(self: Arc<Self>) {
        self.session.ended().await;
        self.tidy();
        if self.waiting() > 0 {
            info!(files = self.waiting(), "unmounted; uploads go on");
            self.advance(Phase::Finishing);
            let _one = self.draining.lock().await;
            if *self.phase.borrow() != Phase::Finished {
                drain(&*self, FINISHING_STALL).await;
            }
        }
        if *self.phase.borrow() != Phase::Finished {
            self.settle(self.spec.options.op_timeout).await;
        }
        self.save_unsent();
        self.stack.fs.write_kept().await;
        self.advance(Phase::Finished);
    }

    /// Sees what others change, as far as the provider tells, until the mount is gone.
    async fn follow_changes(self: Arc<Self>) {
        tokio::select! {
            () = self.session.ended() => {}
            () = self.finished() => {}
            () = self.stack.fs.follow_changes() => {}
        }
    }

    /// Finds the rights out anew when the credential begins to work, and when it may do something else than before.
    async fn follow_credential(self: Arc<Self>) {
        let mut vitals = self.stack.authenticator.vitals();
        let mut pause = FOLLOWING.0;
        loop {
            let wait = match self.follow(&mut vitals).await {
                Ok(()) => {
                    pause = FOLLOWING.0;
                    None
                }
                Err(error) => {
                    warn!(%error, "the rights are not known yet");
                    let wait = pause;
                    pause = (pause * 2).min(FOLLOWING.1);
                    Some(wait)
                }
            };
            tokio::select! {
                () = self.finished() => return,
                changed = vitals.changed() => if changed.is_err() {
                    return;
                },
                () = async { tokio::time::sleep(wait.unwrap_or_default()).await }, if wait.is_some() => {}
            }
        }
    }

    async fn follow(&self, vitals: &mut watch::Receiver<Vitals>) -> Result<()> {
        let mut known = self.known.lock().await;
        let now = vitals.borrow_and_update().clone();
        if !now.usable || now == *known {
            // Only what it may do when it works counts.
            known.usable &= now.usable;
            return Ok(());
        }
        self.stack.fs.refresh().await?;
        *known = now;
        self.resume().await;
        info!(
            remote = self.spec.remote.label(),
            rights = %self.stack.fs.root_rights(),
            "the rights were found out anew"
        );
        Ok(())
    }

    /// Notes since when the key is known here, where its place doesn't say how old it is.
    fn date_key(&self) {
        let source = self.spec.remote.provider.secret_source();
        if source.is_none_or(|source| source.written().is_some()) {
            return;
        }
        let credential = self.stack.authenticator.as_ref();
        match first_seen(&self.first_seen, &self.spec.remote.name, credential, SystemTime::now()) {
            Ok(seen) => *self.seen.lock() = seen,
            Err(error) => warn!(%error, "since when the key is in use isn't known"),
        }
    }

    /// Since when a key is in use that somebody has to replace; by the best witness.
    fn key_since(&self, made: Option<SystemTime>) -> Option<SinceReport> {
        let source = self.spec.remote.provider.secret_source()?;
        let known = if source.stored().is_some() {
            Known::Stored
        } else {
            Known::Changed
        };
        let since = made.map(|at| (at, Known::Made));
        let since = since.or_else(|| source.written().map(|at| (at, known)));
        let (at, known) = since.or_else(|| self.seen.lock().map(|at| (at, Known::Seen)))?;
        Some(SinceReport { at: seconds(at), known })
    }

    /// Takes over what earlier daemons of this remote left, as far as that isn't done.
    async fn resume(&self) {
        let is_done = self.resumed.load(Ordering::Acquire) && self.stack.fs.left_over() == 0;
        if self.spec.options.read_only || is_done {
            return;
        }
        match self.stack.fs.resume(&self.unsent).await {
            Ok(_) => self.resumed.store(true, Ordering::Release),
            Err(error) => warn!(%error, "what an earlier mount left is not taken over"),
        }
    }

    /// Detaches. What keeps a mount busy for a moment only, such as what we just had the kernel forget, is waited for.
    async fn detach(&self, how: Detach) -> Result<()> {
        for _ in 0..BUSY_LOOKS {
            match self.session.detach(how).await {
                Err(error) if error.kind() == ErrorKind::Busy => tokio::time::sleep(BUSY_PAUSE).await,
                outcome => return outcome,
            }
        }
        self.session.detach(how).await
    }

    /// Removes the directories that were made for this mount and are empty. Those for others may be among them; the last
    /// one that goes takes them along.
    fn tidy(&self) {
        remove_made(&self.spec);
    }

    /// Lets those who share the tree see what was changed in it.
    async fn settle(&self, patience: Duration) {
        if let Some(shared) = &self.stack.shared {
            shared.settle(patience).await;
        }
    }

    /// Never back.
    fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let forward = to > *phase;
            if forward {
                *phase = to;
            }
            forward
        });
    }

    /// Waits until the mount is gone and its uploads are done or given up.
    pub async fn finished(&self) {
        let mut phase = self.phase.subscribe();
        // The sender lives as long as this mount.
        let _ = phase.wait_for(|phase| *phase == Phase::Finished).await;
    }

    /// Takes the mount away because the process ends, after uploading as long as that gets on.
    pub async fn end(&self, stall: Duration) {
        if *self.phase.borrow() == Phase::Finished {
            return;
        }
        drain(self, stall).await;
        self.settle(stall).await;
        if *self.phase.borrow() == Phase::Mounted {
            match self.session.detach(Detach::IfUnused).await {
                Err(error) if error.kind() == ErrorKind::Busy => {
                    warn!(directory = %self.spec.directory.display(), "still in use; it goes when the last user does");
                    if let Err(error) = self.session.detach(Detach::Lazy).await {
                        warn!(%error, "the directory stays mounted");
                    }
                }
                // Gone already is what was wanted.
                Err(error) if error.kind() != ErrorKind::NotFound => warn!(%error, "the directory stays mounted"),
                _ => {}
            }
            self.tidy();
        }
        self.save_unsent();
        self.stack.fs.write_kept().await;
        self.advance(Phase::Finished);
    }

    /// Content that open files of this mount need.
    pub fn content_in_use(&self) -> HashSet<ContentId> {
        self.stack.fs.content_in_use()
    }

    /// Finishes what the credential has begun.
    pub async fn close(&self) {
        self.stack.authenticator.close().await;
        if let Some(shared) = &self.stack.shared {
            shared.close().await;
        }
    }

    /// Sees to it that what the provider doesn't have outlives this process: in the journal, for the next mount, else in
    /// copies that the person finds. Gives what was ever left so.
    pub fn save_unsent(&self) -> Vec<PendingReport> {
        let mut saved = self.saved.lock();
        let pending = self.pending();
        if pending.is_empty() || !saved.is_empty() {
            return saved.clone();
        }
        self.stack.fs.stop_sending();
        let folder = &self.unsent;
        match self.stack.fs.keep_pending() {
            Ok(()) => {
                info!(files = pending.len(), "not at the provider; the next mount sends them");
                *saved = pending;
                return saved.clone();
            }
            Err(error) => warn!(%error, "the journal does not take what is pending"),
        }
        self.exported.store(true, Ordering::Release);
        match crate::paths::private_directory(folder).and_then(|()| self.stack.fs.export_unsent(folder)) {
            Ok(_) => warn!(files = pending.len(), folder = %folder.display(), "not at the provider; saved here"),
            Err(error) => warn!(%error, files = pending.len(), "not at the provider and not saved"),
        }
        *saved = pending;
        saved.clone()
    }

    fn pending(&self) -> Vec<PendingReport> {
        let describe = |file: crate::fs::PendingFile| PendingReport {
            path: file.path,
            bytes: file.bytes,
            error: file.error,
        };
        self.stack.fs.pending().into_iter().map(describe).collect()
    }
}

/// As far as they are empty.
pub fn remove_made(spec: &MountSpec) {
    for directory in &spec.made {
        // One that holds something stays.
        let _ = std::fs::remove_dir(directory);
    }
}

fn key_report(key: KeyInfo) -> KeyReport {
    KeyReport {
        id: key.id,
        name: key.name,
        idle_limit: key.idle_limit.map(|limit| limit.as_secs()),
        addresses: key.addresses,
    }
}

#[async_trait]
impl Drains for HostedMount {
    fn waiting(&self) -> usize {
        self.stack.fs.waiting()
    }

    async fn send_all(&self) -> Result<()> {
        self.stack.fs.drain().await
    }
}

#[async_trait]
impl Mounted for HostedMount {
    fn report(&self) -> MountReport {
        let state = match *self.phase.borrow() {
            Phase::Mounted => MountState::Mounted,
            Phase::Detached => MountState::Detached,
            Phase::Finishing => MountState::Finishing,
            Phase::Finished => MountState::Ended,
        };
        let problems = self.stack.fs.problems();
        let last_errors = problems.into_iter().map(|problem| ErrorReport {
            at: seconds(problem.at),
            path: problem.path,
            message: problem.message,
        });
        let shared = self.stack.shared.iter().filter_map(|shared| {
            let (at, error) = shared.sharing.problem()?;
            Some(ErrorReport {
                at: seconds(at),
                path: String::new(),
                message: format!("the shared index {}: {error}", shared.sharing.place()),
            })
        });
        let authenticator = &self.stack.authenticator;
        let key = self.stack.fs.provider().current_key();
        MountReport {
            id: 0,
            remote: self.spec.remote.label(),
            provider: self.stack.fs.provider().kind().to_owned(),
            endpoint: self.spec.remote.endpoint.to_string(),
            directory: self.spec.directory.clone(),
            state,
            read_only: self.spec.options.read_only,
            rights: self.stack.fs.root_rights().to_string(),
            credential: CredentialReport::new(authenticator.as_ref(), key.as_ref().and_then(|key| key.expires))
                .in_use_since(self.key_since(key.as_ref().and_then(|key| key.created)))
                .kept_in(self.spec.remote.provider.place_word(), self.spec.remote.variables())
                .with_key(key.map(key_report)),
            cache: self.stack.cache_report(&self.spec.options),
            pending: self.pending(),
            last_errors: last_errors.chain(shared).collect(),
        }
    }

    async fn refresh(&self, given: &GivenSecrets) -> Result<()> {
        let mut known = self.known.lock().await;
        self.stack.authenticator.refresh(given).await?;
        self.date_key();
        if let Some(shared) = &self.stack.shared {
            shared.refresh(given).await?;
        }
        let now = self.stack.authenticator.vitals().borrow().clone();
        self.stack.fs.refresh().await?;
        *known = now;
        self.resume().await;
        info!(
            remote = self.spec.remote.label(),
            rights = %self.stack.fs.root_rights(),
            "refreshed"
        );
        Ok(())
    }

    fn retry_pending(&self) {
        self.stack.fs.retry_pending();
    }

    async fn unmount(&self, mode: UnmountMode) -> Result<Unmounted, UnmountError> {
        let _one = self.draining.lock().await;
        if *self.phase.borrow() == Phase::Mounted {
            if mode != UnmountMode::NoWait {
                drain(self, self.spec.options.op_timeout).await;
                self.settle(self.spec.options.op_timeout).await;
            }
            let how = match mode {
                UnmountMode::IfUnused | UnmountMode::NoWait => Detach::IfUnused,
                UnmountMode::Lazy => Detach::Lazy,
            };
            match self.detach(how).await {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if error.kind() == ErrorKind::Busy => return Err(UnmountError::Busy),
                Err(error) => return Err(UnmountError::Failed(error)),
            }
            self.tidy();
            if mode == UnmountMode::Lazy {
                self.advance(Phase::Detached);
            } else if tokio::time::timeout(LETTING_GO, self.session.ended()).await.is_err() {
                warn!("the kernel has not let go of the mount yet");
            }
        }
        let pending = match mode {
            UnmountMode::IfUnused | UnmountMode::NoWait => self.save_unsent(),
            // Whoever still uses it may write yet.
            UnmountMode::Lazy => self.pending(),
        };
        let saved_in = self.exported.load(Ordering::Acquire).then(|| self.unsent.clone());
        self.stack.fs.write_kept().await;
        if mode != UnmountMode::Lazy {
            self.advance(Phase::Finished);
        }
        Ok(Unmounted { pending, saved_in })
    }
}
