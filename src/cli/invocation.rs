//! The ways in: `keymount COMMAND`, the flag forms, and `mount(8)` calling us by another name.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::arguments::{Arguments, DaemonMode};
use super::exit::{Exit, Failure};
use super::mount::{MountRequest, Target, Voice};
use crate::config::OptionLayer;
use crate::daemon::Verbosity;

/// What was asked for.
#[derive(Debug)]
pub enum Invocation {
    Command(Box<Arguments>),
    MountHelper(Box<HelperRequest>),
    /// Help, the version or a usage error was printed already.
    Answered(Exit),
}

/// A mount that `mount(8)` asks for.
#[derive(Debug)]
pub struct HelperRequest {
    pub mount: MountRequest,
    pub config: Option<PathBuf>,
    pub env_file: Option<PathBuf>,
    /// `-f`: check everything but don't mount.
    pub only_check: bool,
}

/// The names by which `mount(8)` calls a helper: `mount.<type>` and `mount.<type>.<subtype>`.
const HELPER_NAMES: [&str; 2] = ["mount.keymount", "mount.fuse.keymount"];

/// # Errors
/// When `mount(8)`'s arguments are malformed.
pub fn read(arguments: Vec<OsString>) -> Result<Invocation, Failure> {
    let called_as = arguments.first().map(Path::new).and_then(Path::file_name);
    if called_as.is_some_and(|name| HELPER_NAMES.iter().any(|known| name == OsStr::new(known))) {
        return helper(arguments.into_iter().skip(1)).map(|request| Invocation::MountHelper(Box::new(request)));
    }
    match Arguments::try_parse_from(with_flag_forms(arguments)) {
        Ok(arguments) => Ok(Invocation::Command(Box::new(arguments))),
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            let _ = error.print();
            if looks_like_a_secret(&error) {
                eprintln!(
                    "keymount takes no secret from the command line, where every user can read it: set KEYMOUNT_TOKEN, \
                     or configure a remote with a secret source."
                );
            }
            Ok(Invocation::Answered(exit))
        }
    }
}

/// `--unmount DIR`, `--refresh DIR` and `--status [DIR]` mean the commands of these names.
fn with_flag_forms(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let mut index = 1;
    while let Some(argument) = arguments.get(index).and_then(|argument| argument.to_str()) {
        let command = match argument {
            "--unmount" | "--umount" => Some("umount"),
            "--refresh" => Some("refresh"),
            "--status" => Some("status"),
            _ => None,
        };
        if let Some(command) = command {
            arguments[index] = command.into();
            break;
        }
        match argument {
            "--config" | "--env-file" => index += 2,
            option if option.starts_with('-') => index += 1,
            _ => break,
        }
    }
    arguments
}

fn looks_like_a_secret(error: &clap::Error) -> bool {
    const WORDS: [&str; 5] = ["token", "secret", "password", "key", "credential"];
    match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(argument))) => {
            argument.starts_with('-') && WORDS.iter().any(|word| argument.contains(word))
        }
        _ => false,
    }
}

/// The calling convention of mount(8), "External helpers": `mount.TYPE SPEC DIR [-sfnv] [-N NS] [-o OPTIONS] [-t TYPE]`.
fn helper(arguments: impl Iterator<Item = OsString>) -> Result<HelperRequest, Failure> {
    let usage = |sentence: String| Failure::new(Exit::Usage, sentence);
    let mut places = Vec::new();
    let mut lists = Vec::new();
    let (mut only_check, mut verbose, mut sloppy, mut read_only) = (false, 0, false, false);
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        let Some(letters) = argument.to_str().and_then(|text| text.strip_prefix('-')) else {
            places.push(argument);
            continue;
        };
        if let Some(attached) = letters.strip_prefix('o') {
            let list = if attached.is_empty() {
                arguments
                    .next()
                    .and_then(|list| list.into_string().ok())
                    .ok_or_else(|| usage("-o needs a list of options".to_owned()))?
            } else {
                attached.to_owned()
            };
            lists.push(list);
            continue;
        }
        if letters == "t" || letters == "N" {
            arguments.next();
            continue;
        }
        for letter in letters.chars() {
            match letter {
                'f' => only_check = true,
                'v' => verbose += 1,
                's' => sloppy = true,
                'r' => read_only = true,
                'n' | 'w' => {}
                other => {
                    return Err(usage(format!(
                        "unknown option -{other}; mount(8) calls: mount.keymount REMOTE DIR -o OPTIONS"
                    )));
                }
            }
        }
    }
    let Ok([source, directory]) = <[OsString; 2]>::try_from(places) else {
        return Err(usage(
            "mount.keymount needs a remote and a directory: mount.keymount REMOTE DIR [-o OPTIONS]".to_owned(),
        ));
    };
    let source = source
        .into_string()
        .map_err(|_| usage("the remote's name is not UTF-8".to_owned()))?;
    let mut options = OptionLayer::default();
    let (mut config, mut env_file) = (None, None);
    for word in lists.iter().flat_map(|list| list.split(',')) {
        if let Some(file) = word.strip_prefix("config=") {
            config = Some(PathBuf::from(file));
            continue;
        }
        if let Some(file) = word.strip_prefix("env_file=") {
            env_file = Some(PathBuf::from(file));
            continue;
        }
        match options.set_list(word) {
            Ok(()) => {}
            Err(_) if sloppy => {}
            Err(error) => return Err(usage(error.to_string())),
        }
    }
    if read_only {
        options.read_only = Some(true);
    }
    Ok(HelperRequest {
        mount: MountRequest {
            target: Target::One {
                source,
                directory: directory.into(),
            },
            options,
            mode: DaemonMode::Background,
            verbosity: Verbosity::from_count(verbose),
            voice: Voice::Silent,
        },
        config,
        env_file,
        only_check,
    })
}

#[cfg(test)]
mod tests {
    use super::super::arguments::Command;
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    fn helper_request(text: &str) -> Result<HelperRequest, String> {
        match read(words(text)) {
            Ok(Invocation::MountHelper(request)) => Ok(*request),
            Ok(other) => panic!("{text} was taken for {other:?}"),
            Err(failure) => {
                assert_eq!(failure.exit, Exit::Usage);
                Err(failure.to_string())
            }
        }
    }

    #[test]
    fn mount_calls_by_either_name() {
        let request = helper_request(
            "/sbin/mount.keymount drive:photos /mnt/drive -o rw,_netdev,user,noexec,nosuid,nodev,allow_other,uid=1000,config=/etc/k.toml,env_file=/etc/k.env",
        )
        .unwrap();
        let target = Target::One {
            source: "drive:photos".into(),
            directory: "/mnt/drive".into(),
        };
        assert_eq!(request.mount.target, target);
        assert_eq!(request.mount.options.uid, Some(1000));
        assert_eq!(request.mount.options.allow_other, Some(true));
        assert_eq!(request.mount.options.read_only, None);
        assert_eq!(request.config.as_deref(), Some(Path::new("/etc/k.toml")));
        assert_eq!(request.env_file.as_deref(), Some(Path::new("/etc/k.env")));
        let request = helper_request("mount.fuse.keymount drive /mnt -fnv -oro,umask=077 -t fuse.keymount").unwrap();
        assert!(request.only_check);
        assert_eq!(request.mount.verbosity, Verbosity::Debug);
        assert_eq!(request.mount.options.read_only, Some(true));
        assert_eq!(request.mount.options.umask, Some(0o077));
    }

    #[test]
    fn mounts_mistakes_have_their_sentences() {
        for (text, part) in [
            ("mount.keymount drive", "needs a remote and a directory"),
            ("mount.keymount a b c", "needs a remote and a directory"),
            ("mount.keymount a b -o", "-o needs a list"),
            ("mount.keymount a b -x", "unknown option -x"),
            ("mount.keymount a b -o umaks=1", "did you mean \"umask\"?"),
        ] {
            let error = helper_request(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(helper_request("mount.keymount a b -s -o umaks=1").is_ok());
    }

    #[test]
    fn flag_forms_are_commands() {
        let command = |text: &str| match read(words(text)) {
            Ok(Invocation::Command(arguments)) => arguments.command,
            other => panic!("{text}: {other:?}"),
        };
        assert!(matches!(command("keymount --unmount /mnt"), Command::Umount(_)));
        assert!(matches!(
            command("keymount --config c --refresh /mnt"),
            Command::Refresh(_)
        ));
        assert!(matches!(command("keymount --status"), Command::Status(_)));
        assert!(matches!(
            command("keymount -v --status --json /mnt"),
            Command::Status(_)
        ));
        assert!(matches!(command("keymount unmount /mnt"), Command::Umount(_)));
    }

    #[test]
    fn a_flag_after_the_command_is_left_alone() {
        let untouched = words("keymount mount --status /mnt");
        assert_eq!(with_flag_forms(untouched.clone()), untouched);
    }

    #[test]
    fn a_secret_in_the_arguments_is_noticed() {
        for (text, noticed) in [
            ("keymount mount a b --token=x", true),
            ("keymount mount a b --api-key x", true),
            ("keymount mount a b --colour", false),
        ] {
            let error = Arguments::try_parse_from(words(text)).unwrap_err();
            assert_eq!(looks_like_a_secret(&error), noticed, "{text}");
        }
    }
}
