//! The command line: arguments, one file a command, and everything that is printed.
//!
//! It asks daemons and starts them; it knows no provider's protocol and no kernel interface.

mod arguments;
mod below;
mod bench;
mod cache;
mod completions;
mod daemon;
mod demo;
mod doctor;
mod exit;
mod holders;
mod index;
mod invocation;
mod keys;
mod locate;
mod login;
mod logout;
mod man;
mod mount;
mod pending;
mod refresh;
mod remote;
mod status;
mod terminal;
mod umount;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;

use secrecy::ExposeSecret;

use crate::auth::{GivenSecrets, env_file};
use crate::config::{Config, ResolvedRemote};
use arguments::{Arguments, Command};
use exit::{Exit, Failure};
use invocation::Invocation;

/// Runs the command that these arguments say, and prints at most one sentence about its failure.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    match completions::answer(&arguments) {
        Ok(false) => {}
        Ok(true) => return Exit::Done.into(),
        Err(failure) => {
            eprintln!("keymount: {failure}");
            return failure.exit.into();
        }
    }
    let outcome = match invocation::read(arguments) {
        Ok(Invocation::Command(arguments)) => dispatch(*arguments),
        Ok(Invocation::MountHelper(request)) => mount::run_as_helper(*request),
        Ok(Invocation::Answered(exit)) => return exit.into(),
        Err(failure) => Err(failure),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("keymount: {failure}");
            failure.exit.into()
        }
    }
}

fn dispatch(arguments: Arguments) -> Result<Exit, Failure> {
    let Arguments {
        config,
        env_file,
        verbose,
        command,
    } = arguments;
    if let Some(file) = env_file {
        read_env_file(&file)?;
    }
    let paths = crate::paths::Paths::from_environment(config.as_deref())?;
    match command {
        Command::Mount(mount) => mount::run(mount.into_request(verbose)?, paths),
        Command::Umount(arguments) => block_on(umount::run(&arguments, &paths)),
        Command::Refresh(arguments) => block_on(refresh::run(&arguments, &paths)),
        Command::Login(arguments) => block_on(login::run(&arguments, &paths)),
        Command::Logout(arguments) => block_on(logout::run(&arguments, &paths)),
        Command::Status(arguments) => block_on(status::run(&arguments, &paths)),
        Command::Pending(arguments) => block_on(pending::run(&arguments, &paths)),
        Command::Doctor => block_on(doctor::run(&paths)),
        Command::Remote(arguments) => block_on(remote::run(&arguments, &paths)),
        Command::Keys(arguments) => block_on(keys::run(&arguments, &paths)),
        Command::Cache(arguments) => block_on(cache::run(&arguments, &paths)),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Man(arguments) => man::run(&arguments),
        Command::Index(arguments) => block_on(index::run(&arguments, &paths)),
        Command::Bench(arguments) => block_on(bench::run(&arguments, &paths)),
        Command::Demo(arguments) => demo::run(&arguments, &paths, verbose),
        Command::Daemon(arguments) => daemon::run(arguments.mode),
    }
}

/// Runs a short command; daemons have a runtime of their own.
fn block_on(work: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(work);
    // A look at a dead mount may hang for ever; the command needn't.
    runtime.shutdown_background();
    outcome
}

/// Variables of `--env-file`, which never get into this process's environment: its children would have them.
static ENV_FILE: OnceLock<GivenSecrets> = OnceLock::new();

fn read_env_file(file: &Path) -> Result<(), Failure> {
    let given = env_file::read(file).map_err(|error| Failure::new(Exit::Credentials, error.message()))?;
    // A command has one, and it is read before anything else.
    let _ = ENV_FILE.set(given);
    Ok(())
}

/// A variable's value: the file that was named has the first word.
fn environment(name: &str) -> Option<String> {
    let given = ENV_FILE.get().and_then(|given| given.get(name));
    match given {
        Some(value) => Some(value.expose_secret().to_owned()),
        None => std::env::var(name).ok(),
    }
}

/// The values of this process's variables that a remote's secret is kept in.
fn given_secrets<'a>(variables: impl IntoIterator<Item = &'a str>) -> GivenSecrets {
    let mut given = GivenSecrets::default();
    for name in variables {
        if let Some(value) = environment(name).filter(|value| !value.is_empty()) {
            given.insert(name, value.into());
        }
    }
    given
}

/// What a provider calls something, without what would act on a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

fn secrets_of(remote: &ResolvedRemote) -> GivenSecrets {
    given_secrets(remote.variables())
}

/// Every variable that may hold a secret: none of them reaches a child process.
fn secret_variables(config: Option<&Config>, remote: Option<&ResolvedRemote>) -> Vec<String> {
    let common = crate::provider::registry::token_variables().map(str::to_owned);
    let configured = config.into_iter().flat_map(Config::secret_variables).map(str::to_owned);
    let own = remote
        .into_iter()
        .flat_map(ResolvedRemote::key_variables)
        .map(str::to_owned);
    common.chain(configured).chain(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_providers_names_do_not_act_on_the_terminal() {
        assert_eq!(printable("a\u{1b}[2J\nb"), "a\u{fffd}[2J\u{fffd}b");
    }
}
