//! `mount`: resolves, checks, starts the daemon, and waits until the directory answers.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use comfy_table::{ContentArrangement, Table, presets};
use serde::{Deserialize, Serialize};

use super::arguments::DaemonMode;
use super::below::Below;
use super::exit::{Exit, Failure};
use super::invocation::HelperRequest;
use super::{environment, read_env_file, secret_variables, secrets_of};
use crate::auth::GivenSecrets;
use crate::config::{Config, MountOptions, OptionLayer, ResolvedRemote};
use crate::control::MountReport;
use crate::daemon::{
    DaemonSpec, Handoff, MountPointState, MountSpec, NotMounted, OnFailure, Verbosity, detach_dead, mount_point_state,
};
use crate::paths::{Paths, own_uid};
use crate::provider::registry::RemotePath;

/// This program, whatever became of its file.
const SELF: &str = "/proc/self/exe";
/// How the C library's allocator (glibc; others ignore it) keeps its memory, read once when a process begins. Blocks come
/// and go by the ten thousand on many threads: with an arena for each, and with what is free given back and taken again at
/// once, a GiB read took 1.8 times the CPU and a third more memory.
const ALLOCATOR: (&str, &str) = (
    "GLIBC_TUNABLES",
    "glibc.malloc.arena_max=1:glibc.malloc.trim_threshold=67108864:glibc.malloc.mmap_threshold=8388608",
);
pub const FUSE_DEVICE: &str = "/dev/fuse";
pub const FUSE_HELPER: &str = "fusermount3";
pub const FUSE_CONFIGURATION: &str = "/etc/fuse.conf";

/// What to mount and how, whoever asked.
#[derive(Debug)]
pub struct MountRequest {
    pub target: Target,
    pub options: OptionLayer,
    pub mode: DaemonMode,
    pub verbosity: Verbosity,
    pub voice: Voice,
}

/// What goes where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    One {
        source: String,
        directory: PathBuf,
    },
    /// Every configured remote, below this directory.
    All {
        below: PathBuf,
    },
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
    Mounted {
        mounts: Vec<MountReport>,
        failed: Vec<FailedMount>,
    },
    Failed {
        exit: u8,
        message: String,
    },
}

/// A remote that isn't mounted while others are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FailedMount {
    pub remote: String,
    pub exit: u8,
    pub message: String,
}

impl FailedMount {
    pub fn new(remote: impl Into<String>, failure: &Failure) -> Self {
        Self {
            remote: remote.into(),
            exit: failure.exit as u8,
            message: failure.message().to_owned(),
        }
    }
}

impl From<&NotMounted> for FailedMount {
    fn from(failed: &NotMounted) -> Self {
        Self::new(&failed.remote, &Failure::from(failed.error.clone()))
    }
}

/// The code for some mounts and some failures.
pub fn exit_of(mounted: usize, failed: &[FailedMount]) -> Exit {
    match (mounted, failed) {
        (_, []) => Exit::Done,
        (0, [first, rest @ ..]) if rest.iter().all(|other| other.exit == first.exit) => Exit::from_number(first.exit),
        (0, _) => Exit::Other,
        _ => Exit::PartlyMounted,
    }
}

pub fn run(request: MountRequest, paths: Paths) -> Result<Exit, Failure> {
    let prepared = Prepared::new(&request, paths)?;
    match request.mode {
        DaemonMode::Foreground => {
            for FailedMount { remote, message, .. } in &prepared.failed {
                eprintln!("keymount: {remote} is not mounted: {message}");
            }
            Err(prepared.become_daemon())
        }
        DaemonMode::Background => {
            let (mounts, started) = prepared.start_daemon()?;
            let failed = [prepared.failed, started].concat();
            if request.voice == Voice::SayWhatHappened {
                match &request.target {
                    Target::One { .. } => tell_each(&mounts),
                    Target::All { .. } => println!("{}", table(&mounts, &failed)),
                }
            }
            Ok(exit_of(mounts.len(), &failed))
        }
    }
}

fn tell_each(mounts: &[MountReport]) {
    for mount in mounts {
        println!(
            "{} is mounted on {} (rights {})",
            mount.remote,
            mount.directory.display(),
            mount.rights
        );
    }
}

fn table(mounts: &[MountReport], failed: &[FailedMount]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["REMOTE", "DIRECTORY", "RIGHTS", "STATE"]);
    for mount in mounts {
        let directory = mount.directory.display().to_string();
        table.add_row([mount.remote.as_str(), &directory, &mount.rights, "mounted"]);
    }
    for FailedMount { remote, message, .. } in failed {
        table.add_row([remote.as_str(), "-", "-", &format!("not mounted: {message}")]);
    }
    table
}

/// As `mount(8)` asks.
pub fn run_as_helper(request: HelperRequest) -> Result<Exit, Failure> {
    let paths = Paths::from_environment(request.config.as_deref())?;
    if let Some(file) = &request.env_file {
        read_env_file(file)?;
    }
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
    /// Remotes that cannot be mounted, whatever the daemon does.
    failed: Vec<FailedMount>,
    below: Option<Below>,
}

impl Prepared {
    fn new(request: &MountRequest, paths: Paths) -> Result<Self, Failure> {
        match &request.target {
            Target::One { source, directory } => Self::one(request, source, directory, paths),
            Target::All { below } => Self::all(request, below, paths),
        }
    }

    fn one(request: &MountRequest, source: &str, directory: &Path, paths: Paths) -> Result<Self, Failure> {
        let (config, remote) = resolve(source, &paths)?;
        let options = options(&remote, request);
        let directory = mount_point(directory)?;
        fuse_available(options.allow_other)?;
        let log_file = options.log_file.clone();
        let secret_variables = secret_variables(config.as_ref(), Some(&remote));
        let given = secrets_of(&remote);
        let mount = MountSpec {
            remote,
            directory,
            options,
            made: Vec::new(),
        };
        Ok(Self {
            handoff: handoff(
                request,
                paths,
                vec![mount],
                OnFailure::NothingIsMounted,
                log_file,
                given,
            ),
            secret_variables,
            failed: Vec::new(),
            below: None,
        })
    }

    fn all(request: &MountRequest, below: &Path, paths: Paths) -> Result<Self, Failure> {
        let config = Config::load(&paths)?;
        let remotes: Vec<ResolvedRemote> = config
            .remotes()
            .map(|(name, remote)| remote.resolve(name, RemotePath::default()))
            .collect();
        if remotes.is_empty() {
            return Err(Failure::new(
                Exit::Configuration,
                format!(
                    "{} has no remotes to mount; run: keymount remote add",
                    config.path().display()
                ),
            ));
        }
        let options: Vec<MountOptions> = remotes.iter().map(|remote| options(remote, request)).collect();
        fuse_available(options.iter().any(|options| options.allow_other))?;
        let mut given = GivenSecrets::default();
        let secret_variables = secret_variables(Some(&config), None);
        let (mut mounts, mut failed) = (Vec::new(), Vec::new());
        let mut below = Below::make(below)?;
        for (remote, options) in remotes.into_iter().zip(options) {
            let directory = below.directory(&remote.name);
            match directory.and_then(|directory| mount_point(&directory)) {
                Ok(directory) => {
                    given.merge(&secrets_of(&remote));
                    mounts.push(MountSpec {
                        made: below.made_for(&directory),
                        remote,
                        directory,
                        options,
                    });
                }
                Err(failure) => failed.push(FailedMount::new(&remote.name, &failure)),
            }
        }
        if mounts.is_empty() {
            below.remove();
            let failures: Vec<String> = failed.iter().map(|failed| failed.message.clone()).collect();
            return Err(Failure::new(exit_of(0, &failed), failures.join("; ")));
        }
        // One daemon has one log; those of single remotes are for when they are mounted alone.
        let log_file = request.options.log_file.clone();
        Ok(Self {
            handoff: handoff(request, paths, mounts, OnFailure::OthersGoOn, log_file, given),
            secret_variables,
            failed,
            below: Some(below),
        })
    }

    fn command(&self, mode: &str) -> Result<Command, Failure> {
        let mut command = Command::new(SELF);
        command.arg0("keymount").args(["serve-mounts", mode]);
        command.stdin(Stdio::from(self.handoff.to_file()?));
        if std::env::var_os(ALLOCATOR.0).is_none() {
            command.env(ALLOCATOR.0, ALLOCATOR.1);
        }
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

    fn start_daemon(&self) -> Result<(Vec<MountReport>, Vec<FailedMount>), Failure> {
        let started = self.wait_for_daemon();
        if let (Err(_), Some(below)) = (&started, &self.below) {
            below.remove();
        }
        started
    }

    fn wait_for_daemon(&self) -> Result<(Vec<MountReport>, Vec<FailedMount>), Failure> {
        let mut child = self.command("background")?.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        match serde_json::from_str(&line) {
            Ok(Readiness::Mounted { mounts, failed }) => Ok((mounts, failed)),
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

fn options(remote: &ResolvedRemote, request: &MountRequest) -> MountOptions {
    let gid = rustix::process::getgid().as_raw();
    remote.mount_options(request.options.clone(), own_uid(), gid)
}

fn handoff(
    request: &MountRequest,
    paths: Paths,
    mounts: Vec<MountSpec>,
    on_failure: OnFailure,
    log_file: Option<PathBuf>,
    given: GivenSecrets,
) -> Handoff {
    let log_file = match request.mode {
        DaemonMode::Foreground => log_file,
        DaemonMode::Background => Some(log_file.unwrap_or_else(|| paths.log_file())),
    };
    Handoff {
        spec: DaemonSpec {
            paths,
            mounts,
            on_failure,
            log_file,
        },
        verbosity: request.verbosity,
        given,
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

    #[test]
    fn the_code_says_whether_all_some_or_none_is_mounted() {
        let failed = |exit: Exit| FailedMount::new("r", &Failure::new(exit, "why"));
        let (credentials, unreachable) = (failed(Exit::Credentials), failed(Exit::Unreachable));
        assert_eq!(exit_of(2, &[]), Exit::Done);
        assert_eq!(exit_of(1, std::slice::from_ref(&credentials)), Exit::PartlyMounted);
        assert_eq!(
            exit_of(0, &[credentials.clone(), credentials.clone()]),
            Exit::Credentials
        );
        assert_eq!(exit_of(0, &[credentials, unreachable]), Exit::Other);
    }
}
