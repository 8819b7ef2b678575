//! The hidden command that the daemon runs under: reads its task from its input and tells its starter how it went.

use std::io::Write;

use super::arguments::DaemonMode;
use super::exit::{Exit, Failure};
use super::mount::Readiness;
use crate::control::MountReport;
use crate::daemon::{self, Handoff, LogTarget};

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
    let about = spec
        .mounts
        .iter()
        .map(|mount| mount.remote.label())
        .collect::<Vec<_>>()
        .join(", ");
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
    let ready = |mounts: &[MountReport]| {
        if mode == DaemonMode::Background {
            tell(&Readiness::Mounted(mounts.to_vec()));
            if let Err(error) = daemon::leave_terminal(for_streams.as_ref()) {
                tracing::warn!(%error, "the terminal could not be left");
            }
        }
    };
    let ended = runtime
        .block_on(daemon::run(spec, given, ready))
        .map_err(|error| Failure::from(error).about(about))?;
    runtime.shutdown_background();
    Ok(if ended.pending.is_empty() {
        Exit::Done
    } else {
        Exit::PendingLeft
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
