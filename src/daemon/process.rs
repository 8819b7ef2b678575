//! What a process must do to become a daemon and to keep its memory to itself.

use std::fs::File;

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit};

use crate::model::Result;

/// What `ps` shows: the daemon was started through `/proc/self/exe`, whose name would stick.
pub fn take_name() {
    // A name is a courtesy.
    let _ = rustix::thread::set_name(c"keymount");
}

/// No core dump and no debugger of the same user: the memory holds secrets.
pub fn protect_memory() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // Both only ever take away; where a sandbox forbids them, the mount works all the same.
    let _ = rustix::process::setrlimit(Resource::Core, none);
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Leaves the terminal, its directory and its streams; what is printed from now on goes to the log file, if there is one.
///
/// # Errors
/// When `/dev/null` or `/` is not what it should be.
pub fn leave_terminal(log: Option<&File>) -> Result<()> {
    // Fails only for the leader of a process group, who is on its own already.
    let _ = rustix::process::setsid();
    rustix::process::umask(Mode::from_raw_mode(0o077));
    std::env::set_current_dir("/")?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null).map_err(std::io::Error::from)?;
    rustix::stdio::dup2_stdout(&null).map_err(std::io::Error::from)?;
    rustix::stdio::dup2_stderr(log.unwrap_or(&null)).map_err(std::io::Error::from)?;
    Ok(())
}
