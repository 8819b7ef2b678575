//! `mount`: resolves, checks, starts the daemon, and waits until the directory answers.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::arguments::DaemonMode;
use super::exit::{Exit, Failure};
use super::invocation::HelperRequest;
use super::{environment, secret_variables, secrets_of};
use crate::config::{Config, OptionLayer, ResolvedRemote};
use crate::control::MountReport;
use crate::daemon::{DaemonSpec, Handoff, MountPointState, MountSpec, Verbosity, detach_dead, mount_point_state};
use crate::paths::{Paths, own_uid};

/// This program, whatever became of its file.
const SELF: &str = "/proc/self/exe";
pub const FUSE_DEVICE: &str = "/dev/fuse";
pub const FUSE_HELPER: &str = "fusermount3";
pub const FUSE_CONFIGURATION: &str = "/etc/fuse.conf";

/// What to mount and how, whoever asked.
#[derive(Debug)]
pub struct MountRequest {
    pub source: String,
    pub directory: PathBuf,
    pub options: OptionLayer,
    pub mode: DaemonMode,
    pub verbosity: Verbosity,
    pub voice: Voice,
}

/// Whether success is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    SayWhatHappened,
    Silent,
}

/// The one line by which the daemon tells its starter how it went.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Readiness {
    Mounted(Vec<MountReport>),
    Failed { exit: u8, message: String },
}

pub fn run(request: MountRequest, paths: Paths) -> Result<Exit, Failure> {
    let prepared = Prepared::new(&request, paths)?;
    match request.mode {
        DaemonMode::Foreground => Err(prepared.become_daemon()),
        DaemonMode::Background => {
            let mounted = prepared.start_daemon()?;
            if request.voice == Voice::SayWhatHappened {
                for mount in mounted {
                    println!(
                        "{} is mounted on {} (rights {})",
                        mount.remote,
                        mount.directory.display(),
                        mount.rights
                    );
                }
            }
            Ok(Exit::Done)
        }
    }
}

/// As `mount(8)` asks.
pub fn run_as_helper(request: HelperRequest) -> Result<Exit, Failure> {
    let paths = Paths::from_environment(request.config.as_deref())?;
    if request.only_check {
        Prepared::new(&request.mount, paths)?;
        return Ok(Exit::Done);
    }
    run(request.mount, paths)
}

/// Everything known and checked that can be without a daemon.
struct Prepared {
    handoff: Handoff,
    /// Variables that the daemon's environment must not have.
    secret_variables: Vec<String>,
}

impl Prepared {
    fn new(request: &MountRequest, paths: Paths) -> Result<Self, Failure> {
        let (config, remote) = resolve(&request.source, &paths)?;
        let gid = rustix::process::getgid().as_raw();
        let options = remote.mount_options(request.options.clone(), own_uid(), gid);
        let directory = mount_point(&request.directory)?;
        fuse_available(options.allow_other)?;
        let paths = match &options.cache_dir {
            Some(folder) => paths.with_cache(folder),
            None => paths,
        };
        let log_file = match request.mode {
            DaemonMode::Foreground => options.log_file.clone(),
            DaemonMode::Background => Some(options.log_file.clone().unwrap_or_else(|| paths.log_file())),
        };
        let secret_variables = secret_variables(config.as_ref(), Some(&remote));
        let given = secrets_of(&remote);
        let mount = MountSpec {
            remote,
            directory,
            options,
        };
        Ok(Self {
            handoff: Handoff {
                spec: DaemonSpec {
                    paths,
                    mounts: vec![mount],
                    log_file,
                },
                verbosity: request.verbosity,
                given,
            },
            secret_variables,
        })
    }

    fn command(&self, mode: &str) -> Result<Command, Failure> {
        let mut command = Command::new(SELF);
        command.arg0("keymount").args(["serve-mounts", mode]);
        command.stdin(Stdio::from(self.handoff.to_file()?));
        for variable in &self.secret_variables {
            command.env_remove(variable);
        }
        Ok(command)
    }

    /// Gives this process over to the daemon; comes back only with a failure.
    fn become_daemon(&self) -> Failure {
        match self.command("foreground") {
            Ok(mut command) => Failure::new(Exit::Other, format!("the daemon cannot be started: {}", command.exec())),
            Err(failure) => failure,
        }
    }

    fn start_daemon(&self) -> Result<Vec<MountReport>, Failure> {
        let mut child = self.command("background")?.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        match serde_json::from_str(&line) {
            Ok(Readiness::Mounted(mounts)) => Ok(mounts),
            Ok(Readiness::Failed { exit, message }) => {
                let _ = child.wait();
                Err(Failure::new(Exit::from_number(exit), message))
            }
            Err(_) => {
                let _ = child.wait();
                let log = self.handoff.spec.log_file.as_deref().unwrap_or(Path::new("the log"));
                Err(Failure::new(
                    Exit::Other,
                    format!("the daemon ended before it was ready; {} may say why", log.display()),
                ))
            }
        }
    }
}

/// A broken configuration matters only to those who use it: an address needs none.
pub fn resolve(source: &str, paths: &Paths) -> Result<(Option<Config>, ResolvedRemote), Failure> {
    match Config::load(paths) {
        Ok(config) => {
            let remote = config.resolve(source, &environment)?;
            Ok((Some(config), remote))
        }
        Err(_) if source.contains("://") => Ok((None, ResolvedRemote::from_address(source, &environment)?)),
        Err(error) => Err(error.into()),
    }
}

/// The directory as an absolute path without links, if it can be mounted on. A dead mount of ours is taken away.
pub fn mount_point(directory: &Path) -> Result<PathBuf, Failure> {
    let refuse = |why: &str| Failure::new(Exit::MountPoint, format!("{} {why}", directory.display()));
    let quoted = directory.display();
    let state = mount_point_state(directory).map_err(|error| refuse(&format!("cannot be looked at: {error}")))?;
    match state {
        MountPointState::Empty => {}
        MountPointState::DeadKeymount => {
            detach_dead(directory)
                .map_err(|error| refuse(&format!("has a dead mount that cannot be removed: {error}")))?;
            return mount_point(directory);
        }
        MountPointState::Missing => return Err(refuse(&format!("does not exist; run: mkdir -p {quoted}"))),
        MountPointState::NotADirectory => return Err(refuse("is not a directory")),
        MountPointState::NotEmpty => return Err(refuse("is not empty, and a mount would hide what is in it")),
        MountPointState::Keymount => {
            return Err(refuse(&format!("is mounted already; run: keymount umount {quoted}")));
        }
        MountPointState::OtherMount => return Err(refuse("is the mount point of something else")),
    }
    directory
        .canonicalize()
        .map_err(|error| refuse(&format!("cannot be looked at: {error}")))
}

/// # Errors
/// With the sentence that makes FUSE available.
pub fn fuse_available(allow_other: bool) -> Result<(), Failure> {
    let refuse = |sentence: String| Err(Failure::new(Exit::FuseUnavailable, sentence));
    if !Path::new(FUSE_DEVICE).exists() {
        return refuse(format!(
            "{FUSE_DEVICE} does not exist; as root run: modprobe fuse (in a container, start it with --device {FUSE_DEVICE} --cap-add SYS_ADMIN)"
        ));
    }
    if own_uid() == 0 {
        return Ok(());
    }
    if fuse_helper().is_none() {
        return refuse(format!(
            "{FUSE_HELPER} is not installed; as root run: apt-get install fuse3"
        ));
    }
    if allow_other && !user_allow_other() {
        return refuse(format!(
            "only root may let other users in; as root put the line user_allow_other into {FUSE_CONFIGURATION}"
        ));
    }
    Ok(())
}

/// The program that mounts for ordinary users.
pub fn fuse_helper() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(FUSE_HELPER))
        .find(|file| file.is_file())
}

/// Whether the administrator lets ordinary users use `allow_other` (mount.fuse3(8)).
pub fn user_allow_other() -> bool {
    std::fs::read_to_string(FUSE_CONFIGURATION)
        .is_ok_and(|text| text.lines().any(|line| line.trim() == "user_allow_other"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_cannot_be_mounted_on_is_told_why() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        for (path, part) in [
            (folder.path().join("none"), "mkdir -p"),
            (file, "is not a directory"),
            (folder.path().to_path_buf(), "is not empty"),
        ] {
            let failure = mount_point(&path).unwrap_err();
            assert_eq!(failure.exit, Exit::MountPoint);
            assert!(failure.message().contains(part), "{failure}");
        }
        let empty = folder.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        assert!(mount_point(&empty).is_ok());
    }

    #[test]
    fn readiness_survives_the_pipe() {
        let failed = Readiness::Failed {
            exit: 4,
            message: "no token".into(),
        };
        let line = serde_json::to_string(&failed).unwrap();
        assert!(matches!(
            serde_json::from_str(&line).unwrap(),
            Readiness::Failed { exit: 4, .. }
        ));
    }
}
