//! `completions`: what a shell needs to complete keymount's arguments, names of remotes included.
//!
//! The script that a shell loads asks keymount itself each time Tab is pressed, through a variable of the environment.

use std::ffi::OsString;
use std::io::Write;

use clap::CommandFactory;
use clap_complete::env::{CompleteEnv, Shells};
use clap_complete::{ArgValueCandidates, CompletionCandidate};

use super::arguments::{Arguments, CompletionsArguments};
use super::exit::{Exit, Failure};
use crate::config::Config;
use crate::paths::Paths;

/// Set by the shell's script to its own name when it asks for completions.
const VARIABLE: &str = "KEYMOUNT_COMPLETE";
const PROGRAM: &str = "keymount";

pub fn run(arguments: &CompletionsArguments) -> Result<Exit, Failure> {
    let shell = arguments.shell.to_string();
    let shells = Shells::builtins();
    let Some(script) = shells.completer(&shell) else {
        return Err(Failure::new(
            Exit::Usage,
            format!("there are no completions for {shell}"),
        ));
    };
    let mut text = Vec::new();
    script.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut text)?;
    std::io::stdout().write_all(&text)?;
    Ok(Exit::Done)
}

/// Answers a shell that asks for completions; `false` when nobody asked.
///
/// # Errors
/// When the shell is an unknown one.
pub fn answer(arguments: &[OsString]) -> Result<bool, Failure> {
    CompleteEnv::with_factory(Arguments::command)
        .var(VARIABLE)
        .try_complete(arguments.iter().cloned(), std::env::current_dir().ok().as_deref())
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))
}

/// Completes the names of the configured remotes.
pub fn remotes() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let config = Paths::from_environment(None)
            .ok()
            .and_then(|paths| Config::load(&paths).ok());
        let names = config.iter().flat_map(Config::remotes);
        names
            .map(|(name, remote)| CompletionCandidate::new(name).help(Some(remote.provider.title().into())))
            .collect()
    })
}
