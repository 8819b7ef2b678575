//! The person's browser, and what the person copies out of another one.

use std::io::{BufRead, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use tokio::sync::mpsc;

use crate::auth::store::MAX_SECRET;
use crate::cli::environment;

/// The desktop's way to open an address (xdg-utils).
const OPENER: &str = "xdg-open";

/// Opens the address in the person's browser; `false` when there is no display or nobody to open it.
///
/// All users of the machine can read the address in the arguments of what opens it. `hidden` names the variables that no
/// child process may see.
pub fn open(address: &str, hidden: &[String]) -> bool {
    let has_display = ["WAYLAND_DISPLAY", "DISPLAY"]
        .into_iter()
        .any(|name| environment(name).is_some_and(|value| !value.is_empty()));
    if !has_display {
        return false;
    }
    let mut command = Command::new(OPENER);
    command
        .arg(address)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C ends the login and not the browser.
        .process_group(0);
    for name in hidden {
        command.env_remove(name);
    }
    command.spawn().is_ok()
}

/// The lines that the person types or pastes from now on; none after the input's end.
pub fn pasted_lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(1);
    // A thread of its own: it ends with the process, whoever still reads.
    std::thread::spawn(move || {
        let input = std::io::stdin().lock().take(MAX_SECRET as u64);
        for line in input.lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}
