//! A person with a home of their own, who runs keymount and ordinary tools. Nothing of it outlives the test.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;

use crate::script::write_script;

/// Who runs the commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Root,
    /// An ordinary user, who mounts through `fusermount3`.
    User {
        uid: u32,
        gid: u32,
    },
}

impl Who {
    /// Everybody whom this process can be: root and the user that `scripts/test` made, or just the one who runs it.
    pub fn everybody() -> Vec<Self> {
        let me = std::fs::metadata("/proc/self").expect("/proc is mounted");
        if me.uid() != 0 {
            return vec![Self::User {
                uid: me.uid(),
                gid: me.gid(),
            }];
        }
        let name = std::env::var("KEYMOUNT_TEST_USER")
            .expect("as root, the mounted tests need KEYMOUNT_TEST_USER; run them with scripts/test");
        let users = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd is readable");
        let line = users.lines().find(|line| line.split(':').next() == Some(name.as_str()));
        let fields: Vec<&str> = line
            .unwrap_or_else(|| panic!("there is no user {name}"))
            .split(':')
            .collect();
        let number = |index: usize| fields[index].parse().expect("a number in /etc/passwd");
        vec![
            Self::Root,
            Self::User {
                uid: number(2),
                gid: number(3),
            },
        ]
    }

    /// Does this as everybody, at the same time.
    pub fn each(test: impl Fn(Self) + Sync) {
        Self::each_with(&[()], |who, ()| test(who));
    }

    /// Does this as everybody with everything, all at the same time.
    pub fn each_with<T: Copy + Send>(with: &[T], test: impl Fn(Self, T) + Sync) {
        let test = &test;
        std::thread::scope(|scope| {
            let everybody = Self::everybody();
            let cases = everybody
                .into_iter()
                .flat_map(|who| with.iter().map(move |with| (who, *with)));
            let running: Vec<_> = cases.map(|(who, with)| scope.spawn(move || test(who, with))).collect();
            // The first that fails says what is wrong; the others are waited for.
            for case in running {
                if let Err(panic) = case.join() {
                    std::panic::resume_unwind(panic);
                }
            }
        });
    }

    /// The one who started the test.
    pub fn me() -> Self {
        Self::everybody()[0]
    }

    fn become_for(self, command: &mut Command) {
        if let (Self::User { uid, gid }, true) = (self, running_as_root()) {
            command.uid(uid).gid(gid);
        }
    }
}

fn running_as_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

/// The program under test, where everybody may execute it.
fn program() -> &'static Path {
    static COPY: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = COPY.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        open_to_all(folder.path());
        let path = folder.path().join("keymount");
        let built = std::env::var_os("KEYMOUNT_TEST_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_keymount").into());
        // By another process: what this one has open for writing, a child that is started meanwhile has, too, and it
        // can't be run.
        let copied = Command::new("cp").arg(built).arg(&path).status().unwrap();
        assert!(copied.success());
        (folder, path)
    });
    path
}

fn open_to_all(folder: &Path) {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A home with a configuration and a mount point, and the commands run there.
pub struct Sandbox {
    pub who: Who,
    folder: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "it failed:\n{}\n{}", self.out, self.err);
        self.out
    }

    /// The command went well and printed this and nothing else.
    #[track_caller]
    pub fn says(self, words: &str) {
        assert_eq!(self.ok(), words);
    }

    /// The command failed with this code, and one sentence says why.
    #[track_caller]
    pub fn fails(self, code: i32, words: &str) {
        assert_eq!(self.code, Some(code), "another exit code:\n{}\n{}", self.out, self.err);
        assert!(self.err.contains(words), "{words:?} is not in {:?}", self.err);
        assert_eq!(
            self.err.trim().lines().count(),
            1,
            "more than one sentence: {}",
            self.err
        );
    }

    /// A tool was refused with this message of the C library.
    #[track_caller]
    pub fn refused(self, message: &str) {
        assert_ne!(self.code, Some(0), "it was not refused: {}", self.out);
        assert!(self.err.contains(message), "not {message:?} but: {}", self.err);
    }
}

impl Sandbox {
    pub fn new(who: Who) -> Self {
        let folder = tempfile::Builder::new().prefix("mounted-").tempdir().unwrap();
        open_to_all(folder.path());
        let it = Self {
            who,
            folder,
            variables: Vec::new(),
        };
        for name in ["mnt", "config/keymount", "state", "cache", "run", "work"] {
            std::fs::create_dir_all(it.path(name)).unwrap();
        }
        std::fs::set_permissions(it.path("run"), std::fs::Permissions::from_mode(0o700)).unwrap();
        it.own(it.folder.path());
        it
    }

    /// A path in the home.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn mount_point(&self) -> PathBuf {
        self.path("mnt")
    }

    /// An empty directory beside it.
    pub fn other_mount_point(&self) -> PathBuf {
        let path = self.path("other");
        std::fs::create_dir_all(&path).unwrap();
        self.own(&path);
        path
    }

    /// An environment variable for every command from now on.
    pub fn variable(&mut self, name: &str, value: &str) {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Writes `config.toml`.
    pub fn configure(&self, toml: &str) {
        self.file("config/keymount/config.toml", toml, 0o600);
    }

    /// A file in the home.
    pub fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        if mode & 0o111 == 0 {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        } else {
            write_script(&path, text, mode);
        }
        self.own(&path);
        path
    }

    /// Runs keymount to its end.
    #[track_caller]
    pub fn keymount<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Said {
        Said::of(self.command(program()).args(arguments).output().unwrap())
    }

    /// Runs keymount to its end, with this on its input.
    #[track_caller]
    pub fn keymount_reading<S: AsRef<OsStr>>(&self, input: &str, arguments: impl IntoIterator<Item = S>) -> Said {
        let mut command = self.command(program());
        command.args(arguments).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Whoever refuses at once reads nothing.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        Said::of(child.wait_with_output().unwrap())
    }

    /// Runs keymount to its end. To the first thing that it shows on an indented line, this answers on its input.
    #[track_caller]
    pub fn keymount_answering<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        answer: impl FnOnce(&str) -> String,
    ) -> Said {
        let mut command = self.command(program());
        command.args(arguments).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut heard = String::new();
        let shown = loop {
            let start = heard.len();
            assert!(said.read_line(&mut heard).unwrap() > 0, "it showed nothing: {heard}");
            if let Some(shown) = heard[start..].strip_prefix("  ") {
                break shown.trim().to_owned();
            }
        };
        let mut input = child.stdin.take().unwrap();
        writeln!(input, "{}", answer(&shown)).unwrap();
        drop(input);
        said.read_to_string(&mut heard).unwrap();
        let mut said = Said::of(child.wait_with_output().unwrap());
        said.err = heard;
        said
    }

    /// Runs a shell script on a terminal of its own, types each answer when its question is asked, and gives what the
    /// terminal showed. `$KEYMOUNT` is the program.
    #[track_caller]
    pub fn on_a_terminal(&self, script: &str, answers: &[(&str, &str)]) -> String {
        let mut command = self.command("script");
        command.args(["-qfec", script, "/dev/null"]).env("KEYMOUNT", program());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut keyboard = child.stdin.take().unwrap();
        let mut screen = child.stdout.take().unwrap();
        let (mut shown, mut seen, mut piece) = (String::new(), 0, [0; 1024]);
        let mut answers = answers.iter();
        let mut next = answers.next();
        loop {
            if let Some((question, answer)) = next
                && let Some(at) = shown[seen..].find(question)
            {
                seen += at + question.len();
                keyboard.write_all(answer.as_bytes()).unwrap();
                next = answers.next();
                continue;
            }
            match screen.read(&mut piece).unwrap() {
                0 => break,
                length => shown += &String::from_utf8_lossy(&piece[..length]),
            }
        }
        assert!(next.is_none(), "it was not asked for {next:?}: {shown}");
        drop(keyboard);
        child.wait().unwrap();
        shown
    }

    /// Mounts on `mnt` so that what was closed is at the provider: most tests look there at once.
    #[track_caller]
    pub fn mount(&self, what: &str, options: &[&str]) {
        self.mount_as_usual(what, &[&["-o", "sync"], options].concat());
    }

    /// Mounts on `mnt`; uploads go on in the background.
    #[track_caller]
    pub fn mount_as_usual(&self, what: &str, options: &[&str]) {
        let mnt = self.mount_point();
        let mut arguments: Vec<&OsStr> = vec!["mount".as_ref(), what.as_ref(), mnt.as_ref()];
        arguments.extend(options.iter().map(OsStr::new));
        self.keymount(arguments).ok();
    }

    #[track_caller]
    pub fn unmount(&self) {
        self.keymount(["umount".as_ref(), self.mount_point().as_os_str()]).ok();
    }

    /// Runs a shell script in the mount.
    #[track_caller]
    pub fn sh(&self, script: &str) -> Said {
        Said::of(self.shell(script).output().unwrap())
    }

    /// Starts a shell script in the mount; it is ended with the test.
    pub fn start(&self, script: &str) -> Running {
        let mut command = self.shell(script);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Running(Some(command.spawn().unwrap()))
    }

    /// A shell in the mount that runs one line after another.
    pub fn open_shell(&self) -> Shell {
        let mut command = self.shell("exec 2>&1\nwhile IFS= read -r line; do eval \"$line\"; echo \"= $?\"; done");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        Shell {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            _running: Running(Some(child)),
        }
    }

    /// Starts keymount without waiting for its end.
    pub fn start_keymount<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Running {
        let mut command = self.command(program());
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running(Some(command.spawn().unwrap()))
    }

    pub fn is_mounted(&self, name: &str) -> bool {
        let path = self.path(name);
        mounts_below(&path).contains(&path)
    }

    /// The daemons that serve this home, by their sockets: what else `/proc` tells of them is hidden from their own user.
    pub fn daemons(&self) -> Vec<u32> {
        let sockets = std::fs::read_dir(self.path("run/keymount"))
            .into_iter()
            .flatten()
            .flatten();
        let pids = sockets.filter_map(|entry| {
            entry
                .path()
                .file_stem()?
                .to_str()?
                .strip_prefix("daemon-")?
                .parse::<u32>()
                .ok()
        });
        let alive = |pid: &u32| std::fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name == b"keymount\n");
        pids.filter(alive).collect()
    }

    fn shell(&self, script: &str) -> Command {
        let mut command = self.command("/bin/sh");
        command.arg("-c").arg(format!("cd \"$MNT\" || exit 99\n{script}"));
        command
    }

    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        self.who.become_for(&mut command);
        command
            .env_clear()
            .stdin(Stdio::null())
            .current_dir(self.folder.path())
            .process_group(0);
        let path = std::env::var_os("PATH").unwrap_or_default();
        command
            .env("PATH", path)
            .env("LC_ALL", "C")
            .env("MNT", self.mount_point())
            .env("RUST_BACKTRACE", "1");
        command.env("HOME", self.folder.path());
        for (variable, folder) in [
            ("XDG_CONFIG_HOME", "config"),
            ("XDG_STATE_HOME", "state"),
            ("XDG_CACHE_HOME", "cache"),
            ("XDG_RUNTIME_DIR", "run"),
        ] {
            command.env(variable, self.path(folder));
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Gives what is below a path to the one who acts here.
    fn own(&self, path: &Path) {
        if let (Who::User { uid, gid }, true) = (self.who, running_as_root()) {
            let mut command = Command::new("chown");
            let status = command
                .arg("-R")
                .arg(format!("{uid}:{gid}"))
                .arg(path)
                .status()
                .unwrap();
            assert!(status.success());
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for daemon in self.daemons() {
            let _ = Command::new("kill").arg("-KILL").arg(daemon.to_string()).status();
        }
        for mount in mounts_below(self.folder.path()).into_iter().rev() {
            let _ = match self.who {
                Who::Root => Command::new("umount").arg("-l").arg(&mount).status(),
                Who::User { .. } => self.command("fusermount3").arg("-uz").arg(&mount).status(),
            };
        }
        if std::thread::panicking() {
            let log = self.path("state/keymount");
            for entry in std::fs::read_dir(log).into_iter().flatten().flatten() {
                if entry.path().extension().is_some_and(|extension| extension == "log") {
                    eprintln!(
                        "{}:\n{}",
                        entry.path().display(),
                        std::fs::read_to_string(entry.path()).unwrap_or_default()
                    );
                }
            }
        }
    }
}

/// A file of `/proc` about a daemon, empty where the daemon hides it: its memory, from its own user too.
pub fn told_of(daemon: u32, name: &str) -> Vec<u8> {
    match std::fs::read(format!("/proc/{daemon}/{name}")) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Vec::new(),
        Err(error) => panic!("{name} of {daemon}: {error}"),
    }
}

fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let points = table
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(PathBuf::from);
    points.filter(|point| point.starts_with(folder)).collect()
}

/// One process that goes on, with the files it has opened, until the test is over.
pub struct Shell {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _running: Running,
}

impl Shell {
    /// Runs a line; gives what it printed, errors too, and whether it went well.
    #[track_caller]
    pub fn run(&mut self, line: &str) -> (String, bool) {
        writeln!(self.input, "{line}").unwrap();
        let mut printed = String::new();
        loop {
            let start = printed.len();
            assert!(self.output.read_line(&mut printed).unwrap() > 0, "it ended: {printed}");
            if let Some(code) = printed[start..].strip_prefix("= ") {
                let good = code.trim() == "0";
                printed.truncate(start);
                return (printed, good);
            }
        }
    }

    /// Runs a line that prints this and goes well.
    #[track_caller]
    pub fn says(&mut self, line: &str, words: &str) {
        assert_eq!(self.run(line), (words.to_owned(), true), "{line}");
    }
}

/// A process of the test, killed when the test is over.
pub struct Running(Option<Child>);

impl Running {
    pub fn id(&self) -> u32 {
        self.0.as_ref().map_or(0, Child::id)
    }

    pub fn has_ended(&mut self) -> bool {
        let child = self.0.as_mut().expect("it is waited for once");
        child.try_wait().unwrap().is_some()
    }

    pub fn wait(mut self) -> Said {
        Said::of(
            self.0
                .take()
                .expect("it is waited for once")
                .wait_with_output()
                .unwrap(),
        )
    }

    /// Waits for a line on its standard output that has these words; gives all lines until then.
    pub fn wait_for(&mut self, words: &str) -> String {
        use std::io::Read;
        let out = self
            .0
            .as_mut()
            .and_then(|child| child.stdout.as_mut())
            .expect("its output is piped");
        let (mut text, mut byte) = (Vec::new(), [0]);
        while out.read(&mut byte).unwrap() == 1 {
            text.push(byte[0]);
            if byte[0] == b'\n' && String::from_utf8_lossy(&text).contains(words) {
                return String::from_utf8_lossy(&text).into_owned();
            }
        }
        panic!("it ended without saying {words:?}: {}", String::from_utf8_lossy(&text));
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.id().to_string())
            .status()
            .unwrap();
        assert!(status.success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until something holds, looking again after each short pause; the limit only ends a test that would hang.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed().as_secs() < 60, "{what} did not happen");
        std::thread::yield_now();
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
}
