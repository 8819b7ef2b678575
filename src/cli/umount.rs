//! `umount`: uploads what is pending, with a bar, and takes the mount away.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use super::arguments::UmountArguments;
use super::exit::{Exit, Failure};
use super::{holders, locate};
use crate::control::{Daemon, DaemonReport, Daemons, Ending, MountReport, UnmountMode, Unmounted};
use crate::daemon::{Detach, MountPointState, detach, detach_dead, mount_point_state};
use crate::model::{Error, ErrorKind};
use crate::paths::Paths;

/// So long the daemon may take to let go of the cache and of what is staged. A mount that begins before that
/// would have a cache of its own, and leave what is staged to that daemon.
const LETS_GO: Duration = Duration::from_secs(10);
/// How often the bar is moved.
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub async fn run(arguments: &UmountArguments, paths: &Paths) -> Result<Exit, Failure> {
    let directory = &arguments.directory;
    let daemons = Daemons::find(paths).await?;
    let mounts = locate::mounts_at(&daemons, directory);
    if mounts.is_empty() {
        return without_daemon(directory, arguments.lazy);
    }
    let mode = if arguments.lazy {
        UnmountMode::Lazy
    } else if arguments.no_wait {
        UnmountMode::NoWait
    } else {
        UnmountMode::IfUnused
    };
    let mut endings = match mode {
        // It goes on uploading.
        UnmountMode::Lazy => HashMap::new(),
        UnmountMode::IfUnused | UnmountMode::NoWait => endings(&mounts),
    };
    let (mut exit, mut failure) = (Exit::Done, None);
    for ((daemon, mount), outcome) in mounts.iter().zip(unmount(&mounts, mode).await) {
        let failed = match outcome {
            Ok(unmounted) if unmounted.pending.is_empty() => continue,
            Ok(unmounted) => {
                tell_pending(mount, mode, &unmounted);
                exit = Exit::PendingLeft;
                continue;
            }
            Err(error) if error.kind() == ErrorKind::Busy => busy(&mount.directory),
            // The daemon ended after its last mount, before its answer was through.
            Err(error) if error.kind() == ErrorKind::Unreachable && is_gone(&mount.directory) => continue,
            Err(error) => Failure::from(error).about(mount.directory.display()),
        };
        endings.remove(&daemon.report.pid);
        match failure {
            None => failure = Some(failed),
            Some(_) => eprintln!("keymount: {failed}"),
        }
    }
    futures_util::future::join_all(endings.into_values().map(|ending| ending.within(LETS_GO))).await;
    failure.map_or(Ok(exit), Err)
}

/// Of the daemons that have nothing else mounted, by their process.
fn endings(mounts: &[(&Daemon, &MountReport)]) -> HashMap<u32, Ending> {
    let daemons = mounts.iter().map(|(daemon, _)| daemon);
    let ending = daemons.filter(|daemon| {
        daemon
            .report
            .mounts
            .iter()
            .all(|mount| goes(mounts, &daemon.report, mount))
    });
    ending
        .filter_map(|daemon| Some((daemon.report.pid, daemon.ending()?)))
        .collect()
}

/// Whether a daemon's mount is one of these.
fn goes(mounts: &[(&Daemon, &MountReport)], of: &DaemonReport, mount: &MountReport) -> bool {
    let mut all = mounts.iter();
    all.any(|(daemon, going)| daemon.report.pid == of.pid && going.id == mount.id)
}

/// All at once, with one bar: none waits for the uploads of another.
async fn unmount(mounts: &[(&Daemon, &MountReport)], mode: UnmountMode) -> Vec<Result<Unmounted, Error>> {
    let bar = bar(mounts.iter().map(|(_, mount)| *mount));
    let all = mounts.iter().map(|(daemon, mount)| daemon.unmount(mount.id, mode));
    let mut unmounting = std::pin::pin!(futures_util::future::join_all(all));
    let mut daemons: Vec<&Daemon> = mounts.iter().map(|(daemon, _)| *daemon).collect();
    daemons.dedup_by_key(|daemon| daemon.report.pid);
    let outcomes = loop {
        match tokio::time::timeout(LOOK_EVERY, unmounting.as_mut()).await {
            Ok(outcomes) => break outcomes,
            Err(_) => {
                let mut now = Vec::new();
                for daemon in &daemons {
                    // One that is gone has nothing left.
                    if let Ok(report) = daemon.status().await {
                        let going = report.mounts.iter().filter(|mount| goes(mounts, &report, mount));
                        now.extend(going.cloned());
                    }
                }
                move_bar(&bar, now.iter());
            }
        }
    };
    bar.finish_and_clear();
    outcomes
}

/// Shown on a terminal only, and only when there is something to wait for.
fn bar<'a>(mounts: impl Iterator<Item = &'a MountReport> + Clone) -> ProgressBar {
    if mounts.clone().all(|mount| mount.pending.is_empty()) {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(mounts.clone().map(MountReport::pending_bytes).sum());
    if let Ok(style) = ProgressStyle::with_template("uploading {bar:30} {bytes}/{total_bytes} {msg}") {
        bar.set_style(style);
    }
    move_bar(&bar, mounts);
    bar
}

fn move_bar<'a>(bar: &ProgressBar, mounts: impl Iterator<Item = &'a MountReport> + Clone) {
    let left = mounts.clone().map(MountReport::pending_bytes).sum();
    let total = bar.length().unwrap_or_default().max(left);
    bar.set_length(total);
    bar.set_position(total - left);
    bar.set_message(match mounts.map(|mount| mount.pending.len()).sum() {
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
