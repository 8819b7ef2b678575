//! What can be typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use super::completions::remotes;
use super::exit::{Exit, Failure};
use super::keys::{Ending, parse_life};
use super::mount::{MountRequest, Target, Voice};
use super::remote::arguments::RemoteArguments;
use crate::config::options::{parse_bandwidth, parse_duration, parse_size, parse_timeout, parse_umask};
use crate::config::{Bandwidth, OptionLayer};
use crate::daemon::Verbosity;

/// How long a login waits for the answer in the browser, as `--wait` says when it isn't given.
const LOGIN_WAIT: Duration = Duration::from_secs(300);

/// Mount a cloud provider's storage as a local directory, and the keys keep working.
#[derive(Debug, Parser)]
#[command(name = "keymount", version, about, after_help = after_help(), arg_required_else_help = true)]
pub struct Arguments {
    /// Read this configuration instead of ~/.config/keymount/config.toml
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Read variables from this file first: lines of NAME=value; only you may read it
    #[arg(long, global = true, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
    /// Say more in the log; twice says everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Mount a remote, and go to the background once the directory is ready
    Mount(MountArguments),
    /// Upload what is pending, then unmount
    #[command(visible_alias = "unmount")]
    Umount(UmountArguments),
    /// Renew the credential now: read its source again, drop cached metadata, ask for the rights anew
    Refresh(RefreshArguments),
    /// Grant keymount access to a remote in the browser, or type its token; mounts of it go on with the new one
    Login(LoginArguments),
    /// Forget what login got for a remote, and revoke it where the provider allows that
    Logout(LogoutArguments),
    /// Show mounts, credentials, rights, cache, pending uploads and the latest errors
    Status(StatusArguments),
    /// Files that are not at their provider yet: list them, try again, copy them out
    Pending(PendingArguments),
    /// Check FUSE, permissions, configuration, secrets, clock and connections, and say the repair
    Doctor,
    /// Configure, show, try and remove remotes
    Remote(RemoteArguments),
    /// List, make, replace and revoke the provider's keys
    Keys(KeysArguments),
    /// Write down the names that keymount keeps for a remote at dStor, or take such a list in
    Index(IndexArguments),
    /// Show or empty the cache of what was read
    Cache(CacheArguments),
    /// Measure how fast a remote is over this link, without mounting it
    ///
    /// It reads one file, the largest that it finds within some seconds unless --file names one, and small ones, through
    /// the same downloads as a mount with an empty cache. Nothing is stored unless --write says so.
    Bench(BenchArguments),
    /// Start built-in stand-ins of the providers, mount them, and say what to try
    Demo(DemoArguments),
    /// Print the script with which a shell completes keymount's arguments
    ///
    /// bash: put into ~/.bashrc: source <(keymount completions bash). zsh: the same in ~/.zshrc. fish: put into
    /// ~/.config/fish/completions/keymount.fish: keymount completions fish | source
    Completions(CompletionsArguments),
    /// Print the manual page, or write all of them into a folder
    Man(ManArguments),
    /// The process that serves mounts; started by `mount`
    #[command(name = "serve-mounts", hide = true)]
    Daemon(DaemonArguments),
}

#[derive(Debug, Args)]
pub struct MountArguments {
    /// A configured remote, or an address: cludz://UUID, storra://FOLDER, reductstore://HOST:PORT/BUCKET, reductstores://HOST
    #[arg(value_name = "REMOTE[:PATH]|URL", required_unless_present = "all", add = remotes())]
    source: Option<String>,
    /// An empty directory
    #[arg(value_name = "DIR", required_unless_present = "all")]
    directory: Option<PathBuf>,
    /// Mount every configured remote, each below this directory under its name; what is missing is made and removed again
    #[arg(long, value_name = "DIR", conflicts_with_all = ["source", "directory"])]
    all: Option<PathBuf>,
    /// Refuse every change (EROFS)
    #[arg(long)]
    read_only: bool,
    /// Let other users look in, as far as --umask allows
    #[arg(long)]
    allow_other: bool,
    /// The user that owns the files [default: you]
    #[arg(long, value_name = "NUMBER")]
    uid: Option<u32>,
    /// The group that owns the files [default: yours]
    #[arg(long, value_name = "NUMBER")]
    gid: Option<u32>,
    /// Permissions taken from group and others, in octal [default: 022]
    #[arg(long, value_name = "MASK", value_parser = parse_umask)]
    umask: Option<u32>,
    /// Keep read content here [default: ~/.cache/keymount]
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// Keep at most so much on disk, such as 500M or 20G [default: 10G]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    cache_size: Option<u64>,
    /// Keep read content in memory only
    #[arg(long)]
    no_disk_cache: bool,
    /// Believe attributes and listings for this long; 0 asks every time [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    attr_ttl: Option<Duration>,
    /// Give an operation up after this long without progress [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = parse_timeout)]
    op_timeout: Option<Duration>,
    /// Transfer at most so many bytes a second, such as 1M, or uploads:downloads, such as 500K:4M or 500K:off
    #[arg(long, value_name = "RATE[:RATE]", value_parser = parse_bandwidth)]
    bandwidth: Option<Bandwidth>,
    /// Let close wait until the provider has the file, and say whether it took it
    #[arg(long)]
    sync: bool,
    /// Let at most so much wait to be uploaded, such as 500M or 20G; beyond it writing fails [default: what the disk has]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    staging_size: Option<u64>,
    /// Mount also without a credential that works, and go on as soon as somebody has logged in
    #[arg(long)]
    wait_for_login: bool,
    /// Write the log here [default: ~/.local/state/keymount/keymount.log]
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// Stay in the foreground and log to the terminal, or tell systemd when ready
    #[arg(long)]
    foreground: bool,
    /// The options above as in fstab: ro,allow_other,umask=077,attr_ttl=1m
    #[arg(short = 'o', value_name = "LIST")]
    options: Vec<String>,
}

#[derive(Debug, Args)]
pub struct UmountArguments {
    /// The mounted directory
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Take it away even if it is in use; those who use it keep what they have open
    #[arg(long)]
    pub lazy: bool,
    /// Don't wait for uploads: what is pending is sent by the next mount of this remote
    #[arg(long, conflicts_with = "lazy")]
    pub no_wait: bool,
}

#[derive(Debug, Args)]
pub struct RefreshArguments {
    /// A mounted directory, or a remote: then all its mounts
    #[arg(value_name = "DIR|REMOTE", add = remotes())]
    pub target: String,
}

#[derive(Debug, Args)]
pub struct LoginArguments {
    /// A configured remote with method = "oauth", or whose token is { stored = true } or { keyring = true }
    #[arg(value_name = "REMOTE", add = remotes())]
    pub remote: String,
    /// Keep the token without asking the provider whether it is good
    #[arg(long)]
    pub no_check: bool,
    /// Open no browser: print the address, for a browser anywhere, and read where it ended (OAuth)
    #[arg(long)]
    pub no_browser: bool,
    /// Print a code to type on another device, where the provider offers that (OAuth)
    #[arg(long, conflicts_with = "no_browser")]
    pub device: bool,
    /// Wait this long for the answer in the browser (OAuth)
    #[arg(long, value_name = "TIME", value_parser = parse_timeout, default_value = "5m")]
    pub wait: Duration,
    /// Type the credential that manages keys, of [remotes.REMOTE.keys_auth], and not the one for files
    #[arg(long)]
    pub keys: bool,
}

impl LoginArguments {
    /// As typed without options.
    pub fn of(remote: &str) -> Self {
        Self {
            remote: remote.to_owned(),
            no_check: false,
            no_browser: false,
            device: false,
            wait: LOGIN_WAIT,
            keys: false,
        }
    }
}

#[derive(Debug, Args)]
pub struct LogoutArguments {
    /// A configured remote with method = "oauth", or whose token is { stored = true } or { keyring = true }
    #[arg(value_name = "REMOTE", add = remotes())]
    pub remote: String,
}

#[derive(Debug, Args)]
pub struct StatusArguments {
    /// Only this mount
    #[arg(value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// For programs
    #[arg(long, conflicts_with = "watch")]
    pub json: bool,
    /// Show it again every second until Ctrl-C
    #[arg(long)]
    pub watch: bool,
}

#[derive(Debug, Args)]
pub struct PendingArguments {
    #[command(subcommand)]
    pub command: PendingCommand,
}

#[derive(Debug, Subcommand)]
pub enum PendingCommand {
    /// List them, also those of remotes that aren't mounted
    List {
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Try now to send what waits, without the usual pause
    Retry {
        /// A mounted directory, or a remote [default: all mounts]
        #[arg(value_name = "DIR|REMOTE")]
        target: Option<String>,
    },
    /// Copy them into a folder, below the name of their remote; nothing is removed
    Export {
        /// The folder; it is made if need be
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
        /// Only this remote's
        #[arg(value_name = "REMOTE")]
        remote: Option<String>,
    },
}

#[derive(Debug, Args)]
pub struct KeysArguments {
    #[command(subcommand)]
    pub command: KeysCommand,
}

/// Keys at the provider (ReductStore: access tokens).
///
/// This takes a key that may manage keys (ReductStore: one with full access). It comes from [remotes.NAME.keys_auth],
/// else it is the one that the remote is mounted with.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// List the keys: names, rights and ends, never the secrets
    List {
        /// A configured remote, or an address
        #[arg(value_name = "REMOTE|URL", add = remotes())]
        source: String,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Make a key
    ///
    /// The provider tells the secret once. It goes to the file of --write-to, or with --print to standard output and
    /// nowhere else. Without one of them nothing is made, so that no secret gets into a log by accident.
    Create(CreateArguments),
    /// Replace the key that a remote is mounted with by a new one with the same rights, while it stays mounted
    ///
    /// A new key is made, tried, and written to where the remote reads its secret. Then every mount takes it, and only
    /// then the old key is revoked. Whatever fails on the way, a working key is in place, and it is said what to clean
    /// up. The remote's secret source must be a file, or --write-to names one; else nothing is made.
    Rotate(RotateArguments),
    /// Revoke a key
    ///
    /// On a terminal it asks first. A key that this remote or one of its mounts uses is revoked with --yes only.
    Revoke(RevokeArguments),
}

#[derive(Debug, Args)]
pub struct CreateArguments {
    /// A configured remote, or an address
    #[arg(value_name = "REMOTE|URL", add = remotes())]
    pub source: String,
    /// The new key's name
    pub name: String,
    /// ReductStore: it may read this bucket; a name may end with *
    #[arg(long, value_name = "BUCKET")]
    pub read: Vec<String>,
    /// ReductStore: it may write this bucket and delete in it, which doesn't include reading
    #[arg(long, value_name = "BUCKET")]
    pub write: Vec<String>,
    /// CloudSync: it may do this, such as files:read; may be given several times
    #[arg(long, value_name = "PERMISSION")]
    pub permission: Vec<String>,
    /// It may do everything, and manage keys
    #[arg(long, conflicts_with_all = ["read", "write", "permission"])]
    pub full_access: bool,
    /// It ends after this time (90d, 12h) or at this date (2027-01-31, UTC)
    #[arg(long, value_name = "TIME|DATE")]
    pub expires: Option<Ending>,
    /// It ends when it wasn't used for this time (30d, 12h)
    #[arg(long, value_name = "TIME", value_parser = parse_life)]
    pub ttl: Option<Duration>,
    /// It may be used from this address or network only; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    pub allow_address: Vec<String>,
    /// Write the secret to this new file, readable by you only
    #[arg(long, value_name = "FILE", conflicts_with = "print")]
    pub write_to: Option<PathBuf>,
    /// Print the secret, and nothing else, to standard output
    #[arg(long)]
    pub print: bool,
}

#[derive(Debug, Args)]
pub struct RotateArguments {
    /// A configured remote, or an address
    #[arg(value_name = "REMOTE|URL", add = remotes())]
    pub source: String,
    /// Write the new secret to this file instead of the one that the remote reads
    #[arg(long, value_name = "FILE")]
    pub write_to: Option<PathBuf>,
    /// The new key ends after this time (90d, 12h) or at this date (2027-01-31, UTC) [default: a life as long as the old one's]
    #[arg(long, value_name = "TIME|DATE")]
    pub expires: Option<Ending>,
    /// The name or the id of the key in use, for servers that don't tell it
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
}

#[derive(Debug, Args)]
pub struct RevokeArguments {
    /// A configured remote, or an address
    #[arg(value_name = "REMOTE|URL", add = remotes())]
    pub source: String,
    /// The key's name, or its id where several have that name
    pub key: String,
    /// Don't ask, and revoke it even if it is in use
    #[arg(long, short)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub struct IndexArguments {
    #[command(subcommand)]
    pub command: IndexCommand,
}

#[derive(Debug, Subcommand)]
pub enum IndexCommand {
    /// Write all names with their contents' hashes, one on a line: a backup, or something to compare
    Export {
        /// A configured remote at dStor, or dstor://
        #[arg(value_name = "REMOTE|URL")]
        source: String,
        /// Where to; readable by you only, for whoever knows a hash can read the content [default: standard output]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Take in what export wrote, or a list like it: all of it, or nothing if a line is wrong
    Import {
        /// A configured remote at dStor, or dstor://
        #[arg(value_name = "REMOTE|URL")]
        source: String,
        /// The list; - is standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Remove and replace what the list doesn't have so; without this, what has a name stays as it is
        #[arg(long)]
        replace: bool,
    },
}

#[derive(Debug, Args)]
pub struct CacheArguments {
    #[command(subcommand)]
    pub command: CacheCommand,
}

#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// Show where it is, how much it holds and who uses it
    Show {
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Forget what was read. What open files need stays, and so does what isn't at its provider yet
    Clear {
        /// For programs
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub struct CompletionsArguments {
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub struct ManArguments {
    /// Only the page of this command
    #[arg(value_name = "COMMAND")]
    pub command: Option<String>,
    /// Write all pages into this folder, which is made if need be
    #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
    pub to: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct DemoArguments {
    /// Mount below this directory, which is made and removed again
    #[arg(value_name = "DIR", default_value = "keymount-demo")]
    pub directory: PathBuf,
}

#[derive(Debug, Args)]
pub struct BenchArguments {
    /// A configured remote, or an address
    #[arg(value_name = "REMOTE[:PATH]|URL", add = remotes())]
    pub source: String,
    /// Read this file, from the remote's directory [default: the largest that is found]
    #[arg(long, value_name = "PATH")]
    pub file: Option<String>,
    /// Measure writing, too: files of random bytes in a new directory, which is removed afterwards
    #[arg(long)]
    pub write: bool,
    /// Take at most this long; removing what was written may take up to 30 seconds more
    #[arg(long, value_name = "NUMBER", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct DaemonArguments {
    #[arg(value_enum)]
    pub mode: DaemonMode,
}

/// Where the process that serves mounts lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DaemonMode {
    /// It tells its starter when it is ready, and leaves the terminal.
    Background,
    Foreground,
}

impl MountArguments {
    /// # Errors
    /// When `-o` has an unknown or malformed option.
    pub fn into_request(self, verbose: u8) -> Result<MountRequest, Failure> {
        let mut list = OptionLayer::default();
        for options in &self.options {
            list.set_list(options)
                .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
        }
        let flag = |given: bool| given.then_some(true);
        let typed = OptionLayer {
            read_only: flag(self.read_only),
            allow_other: flag(self.allow_other),
            uid: self.uid,
            gid: self.gid,
            umask: self.umask,
            cache_dir: self.cache_dir.map(|path| crate::paths::absolute(&path)),
            cache_size: self.cache_size,
            no_disk_cache: flag(self.no_disk_cache),
            wait_for_login: flag(self.wait_for_login),
            attr_ttl: self.attr_ttl,
            op_timeout: self.op_timeout,
            bandwidth: self.bandwidth,
            sync: flag(self.sync),
            staging_size: self.staging_size,
            log_file: self.log_file.map(|path| crate::paths::absolute(&path)),
        };
        let target = match (self.all, self.source, self.directory) {
            (Some(below), ..) => Target::All { below },
            (None, Some(source), Some(directory)) => Target::One { source, directory },
            (None, ..) => return Err(Failure::new(Exit::Usage, "mount needs a remote and a directory")),
        };
        Ok(MountRequest {
            target,
            options: list.under(typed),
            mode: if self.foreground {
                DaemonMode::Foreground
            } else {
                DaemonMode::Background
            },
            verbosity: Verbosity::from_count(verbose),
            voice: Voice::SayWhatHappened,
        })
    }
}

fn after_help() -> String {
    format!(
        "Also: keymount --unmount DIR, keymount --refresh DIR, keymount --status [DIR].\n\
         Linked as mount.keymount it serves mount -t keymount and fstab.\n\
         A secret is never an argument: run keymount login, see the configuration's secret sources, or set KEYMOUNT_TOKEN.\n\n{}",
        Exit::table()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_mount_option_has_its_flag() {
        let command = Arguments::command();
        let mount = command.find_subcommand("mount").unwrap();
        for option in &crate::config::OPTIONS {
            let flag = option.name.replace('_', "-");
            assert!(
                mount.get_arguments().any(|argument| argument.get_long() == Some(&flag)),
                "--{flag}"
            );
        }
    }

    #[test]
    fn flags_win_over_the_list() {
        let arguments = Arguments::parse_from([
            "keymount",
            "mount",
            "drive",
            "/mnt",
            "--umask",
            "077",
            "-o",
            "umask=022,ro",
            "-o",
            "attr_ttl=0",
        ]);
        let Command::Mount(mount) = arguments.command else {
            panic!("mount was typed")
        };
        let request = mount.into_request(0).unwrap();
        assert_eq!(request.options.umask, Some(0o077));
        assert_eq!(request.options.read_only, Some(true));
        assert_eq!(request.options.attr_ttl, Some(Duration::ZERO));
    }
}
