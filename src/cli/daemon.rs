//! The hidden command that the daemon runs under: reads its task from its input and tells its starter how it went.

use std::io::Write;

use super::arguments::DaemonMode;
use super::exit::{Exit, Failure};
use super::mount::{FailedMount, Readiness, exit_of};
use crate::control::MountReport;
use crate::daemon::{self, Handoff, LogTarget, NotMounted};

pub fn run(mode: DaemonMode) -> Result<Exit, Failure> {
    daemon::take_name();
    daemon::protect_memory();
    match serve(mode) {
        Err(failure) if mode == DaemonMode::Background => {
            tell(&Readiness::Failed {
                exit: failure.exit as u8,
                message: failure.to_string(),
            });
            Ok(failure.exit)
        }
        outcome => outcome,
    }
}

fn serve(mode: DaemonMode) -> Result<Exit, Failure> {
    let Handoff { spec, verbosity, given } = Handoff::read(std::io::stdin().lock())?;
    let about: Vec<_> = spec.mounts.iter().map(|mount| mount.remote.label()).collect();
    let about = about.join(", ");
    let mut for_streams = None;
    let log = match &spec.log_file {
        Some(path) => {
            let LogTarget::File(file) = LogTarget::file(path)? else {
                return Err(Failure::new(Exit::Other, "a log file is a file"));
            };
            for_streams = file.try_clone().ok();
            LogTarget::File(file)
        }
        None => LogTarget::Stderr,
    };
    daemon::start_logging(log, verbosity);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut failed = Vec::new();
    let ready = |mounts: &[MountReport], not_mounted: &[NotMounted]| {
        failed = not_mounted.iter().map(FailedMount::from).collect();
        if mode == DaemonMode::Foreground {
            for FailedMount { remote, message, .. } in &failed {
                eprintln!("keymount: {remote} is not mounted: {message}");
            }
        } else {
            tell(&Readiness::Mounted {
                mounts: mounts.to_vec(),
                failed: failed.clone(),
            });
            if let Err(error) = daemon::leave_terminal(for_streams.as_ref()) {
                tracing::warn!(%error, "the terminal could not be left");
            }
        }
    };
    let ended = runtime
        .block_on(daemon::run(spec, given, ready))
        .map_err(|error| Failure::from(error).about(about))?;
    runtime.shutdown_background();
    Ok(match (ended.mounted, ended.pending.is_empty()) {
        (0, _) => exit_of(0, &failed),
        (_, true) => Exit::Done,
        (_, false) => Exit::PendingLeft,
    })
}

/// One line for the process that waits. When nobody waits any more, nobody needs it.
fn tell(readiness: &Readiness) {
    if let Ok(line) = serde_json::to_string(readiness) {
        let mut stdout = std::io::stdout().lock();
        let _ = writeln!(stdout, "{line}");
        let _ = stdout.flush();
    }
}
