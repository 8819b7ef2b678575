//! `umount`: uploads what is pending, with a bar, and takes the mount away.

use std::path::Path;
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use super::arguments::UmountArguments;
use super::exit::{Exit, Failure};
use super::{holders, locate};
use crate::control::{Daemon, Daemons, MountReport, UnmountMode, Unmounted};
use crate::daemon::{Detach, MountPointState, detach, detach_dead, mount_point_state};
use crate::model::{Error, ErrorKind};
use crate::paths::Paths;

/// How often the bar is moved.
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub async fn run(arguments: &UmountArguments, paths: &Paths) -> Result<Exit, Failure> {
    let directory = &arguments.directory;
    let daemons = Daemons::find(paths).await?;
    let mounts = locate::mounts_at(&daemons, directory);
    if mounts.is_empty() {
        return without_daemon(directory, arguments.lazy);
    }
    let mut exit = Exit::Done;
    for (daemon, mount) in mounts {
        let mode = if arguments.lazy {
            UnmountMode::Lazy
        } else if arguments.no_wait {
            UnmountMode::NoWait
        } else {
            UnmountMode::IfUnused
        };
        match unmount(daemon, mount, mode).await {
            Ok(unmounted) if unmounted.pending.is_empty() => {}
            Ok(unmounted) => {
                tell_pending(mount, mode, &unmounted);
                exit = Exit::PendingLeft;
            }
            Err(error) if error.kind() == ErrorKind::Busy => return Err(busy(&mount.directory)),
            // The daemon ended after its last mount, before its answer was through.
            Err(error) if error.kind() == ErrorKind::Unreachable && is_gone(&mount.directory) => {}
            Err(error) => return Err(Failure::from(error).about(mount.directory.display())),
        }
    }
    Ok(exit)
}

async fn unmount(daemon: &Daemon, mount: &MountReport, mode: UnmountMode) -> Result<Unmounted, Error> {
    let bar = bar(mount);
    let mut unmounting = std::pin::pin!(daemon.unmount(mount.id, mode));
    let outcome = loop {
        match tokio::time::timeout(LOOK_EVERY, unmounting.as_mut()).await {
            Ok(outcome) => break outcome,
            Err(_) => {
                if let Ok(report) = daemon.status().await
                    && let Some(now) = report.mounts.iter().find(|now| now.id == mount.id)
                {
                    move_bar(&bar, now);
                }
            }
        }
    };
    bar.finish_and_clear();
    outcome
}

/// Shown on a terminal only, and only when there is something to wait for.
fn bar(mount: &MountReport) -> ProgressBar {
    if mount.pending.is_empty() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(mount.pending_bytes());
    if let Ok(style) = ProgressStyle::with_template("uploading {bar:30} {bytes}/{total_bytes} {msg}") {
        bar.set_style(style);
    }
    move_bar(&bar, mount);
    bar
}

fn move_bar(bar: &ProgressBar, mount: &MountReport) {
    let left = mount.pending_bytes();
    let total = bar.length().unwrap_or_default().max(left);
    bar.set_length(total);
    bar.set_position(total - left);
    bar.set_message(match mount.pending.len() {
        1 => "1 file left".to_owned(),
        files => format!("{files} files left"),
    });
}

fn tell_pending(mount: &MountReport, mode: UnmountMode, unmounted: &Unmounted) {
    let files = unmounted.pending.len();
    let where_to = match &unmounted.saved_in {
        Some(folder) => format!("copies are in {}", folder.display()),
        None if mode == UnmountMode::Lazy => "the daemon goes on uploading; see: keymount status".to_owned(),
        None => format!(
            "kept, and sent by the next: keymount mount {} {}",
            mount.remote,
            mount.directory.display()
        ),
    };
    eprintln!(
        "keymount: {}: {files} {} not at the provider; {where_to}",
        mount.directory.display(),
        if files == 1 { "file is" } else { "files are" },
    );
    for file in &unmounted.pending {
        let why = file.error.as_deref().unwrap_or("not sent yet");
        eprintln!("  {} ({}): {why}", file.path, HumanBytes(file.bytes));
    }
}

fn busy(directory: &Path) -> Failure {
    Failure::new(
        Exit::Busy,
        format!(
            "{} is in use {}; end it and try again, or run: keymount umount --lazy {}",
            directory.display(),
            holders::sentence(&holders::holders(directory)),
            directory.display()
        ),
    )
}

fn is_gone(directory: &Path) -> bool {
    !matches!(
        mount_point_state(directory),
        Ok(MountPointState::Keymount | MountPointState::DeadKeymount)
    )
}

/// Its daemon is dead, or is another user's, or doesn't answer.
fn without_daemon(directory: &Path, lazy: bool) -> Result<Exit, Failure> {
    let shown = directory.display();
    let state = mount_point_state(directory)
        .map_err(|error| Failure::new(Exit::NotMounted, format!("{shown} cannot be looked at: {error}")))?;
    let outcome = match state {
        MountPointState::DeadKeymount => detach_dead(directory),
        MountPointState::Keymount => {
            let how = if lazy { Detach::Lazy } else { Detach::IfUnused };
            let target = directory.canonicalize().unwrap_or_else(|_| directory.to_path_buf());
            detach(&target, how)
        }
        _ => {
            return Err(Failure::new(
                Exit::NotMounted,
                format!("keymount has nothing mounted on {shown}"),
            ));
        }
    };
    match outcome {
        Ok(()) => Ok(Exit::Done),
        Err(error) if error.kind() == ErrorKind::Busy => Err(busy(directory)),
        Err(error) => Err(Failure::from(error).about(shown)),
    }
}
