//! The program as people and scripts run it, as far as nothing is mounted: words, exit codes, and no secret anywhere.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// In every secret of these tests; it must never be printed.
const CANARY: &str = "canary-7f3a";
const DRIVE: &str = "3f0c1f6e-9d2b-4a57-8c64-0e5b7a1d2c3f";

/// Somebody with a home of their own and a configuration.
struct Person {
    home: TempDir,
    variables: Vec<(&'static str, String)>,
}

/// How a command ended, and what it printed.
struct Said {
    command: String,
    code: Option<i32>,
    out: String,
    err: String,
}

impl Person {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let person = Self {
            home,
            variables: Vec::new(),
        };
        std::fs::create_dir(person.path("run")).unwrap();
        std::fs::set_permissions(person.path("run"), std::fs::Permissions::from_mode(0o700)).unwrap();
        person
    }

    fn with(mut self, variable: &'static str, value: &str) -> Self {
        self.variables.push((variable, value.to_owned()));
        self
    }

    fn configured(self, text: &str) -> Self {
        let folder = self.path(".config/keymount");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.toml"), text).unwrap();
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Said {
        self.run_as(Path::new(env!("CARGO_BIN_EXE_keymount")), arguments)
    }

    /// With this on the command's input.
    fn run_reading(&self, input: &str, arguments: &[&str]) -> Said {
        let file = self.path("input");
        std::fs::write(&file, input).unwrap();
        let input = std::fs::File::open(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        self.run_with(Path::new(env!("CARGO_BIN_EXE_keymount")), arguments, input.into())
    }

    fn run_as(&self, program: &Path, arguments: &[&str]) -> Said {
        self.run_with(program, arguments, Stdio::null())
    }

    fn run_with(&self, program: &Path, arguments: &[&str], input: Stdio) -> Said {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(self.home.path())
            .env_clear()
            .env("HOME", self.home.path())
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(input)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said {
            command: format!("keymount {}", arguments.join(" ")),
            code: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

impl Said {
    fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        assert!(
            !self.out.contains(CANARY) && !self.err.contains(CANARY),
            "a secret shows: {self}"
        );
        self
    }

    /// One sentence, as every failure has.
    fn in_one_line(self) -> Self {
        assert_eq!(self.err.lines().count(), 1, "{self}");
        assert!(self.err.starts_with("keymount: "), "{self}");
        self
    }

    fn saying(self, part: &str) -> Self {
        assert!(
            self.out.contains(part) || self.err.contains(part),
            "{part:?} is missing: {self}"
        );
        self
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}\nexit code {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.command, self.code, self.out, self.err
        )
    }
}

/// A remote whose endpoint nobody listens at.
fn drive(auth: &str) -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!(
        "[remotes.drive]\nprovider = \"cludz\"\nstorage = \"{DRIVE}\"\nendpoint = \"http://127.0.0.1:{port}\"\n\n\
         [remotes.drive.auth]\n{auth}\n"
    )
}

#[test]
fn help_lists_what_works_and_nothing_else() {
    let help = Person::new().run(&["--help"]).ends(0);
    let commands: Vec<&str> = help
        .out
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(
        commands,
        [
            "mount",
            "umount",
            "refresh",
            "login",
            "logout",
            "status",
            "pending",
            "doctor",
            "remote",
            "keys",
            "index",
            "cache",
            "bench",
            "demo",
            "completions",
            "man",
            "help"
        ],
        "{help}"
    );
    for code in 0..=13 {
        assert!(
            help.out.lines().any(|line| line.starts_with(&format!("  {code:>2}  "))),
            "exit code {code}: {help}"
        );
    }
    let help = Person::new().run(&["mount", "--help"]).ends(0);
    let mut options: Vec<&str> = help
        .out
        .split_whitespace()
        .filter(|word| word.starts_with("--"))
        .map(|word| word.trim_end_matches(['.', ',']))
        .collect();
    options.sort_unstable();
    options.dedup();
    assert_eq!(
        options,
        [
            "--all",
            "--allow-other",
            "--attr-ttl",
            "--bandwidth",
            "--cache-dir",
            "--cache-size",
            "--config",
            "--env-file",
            "--foreground",
            "--gid",
            "--help",
            "--log-file",
            "--no-disk-cache",
            "--op-timeout",
            "--read-only",
            "--staging-size",
            "--sync",
            "--uid",
            "--umask",
            "--verbose",
            "--wait-for-login",
        ]
    );
}

#[test]
fn wrong_usage_ends_with_2() {
    let person = Person::new();
    for arguments in [
        &[][..],
        &["mont"],
        &["mount", "drive"],
        &["mount", "drive", "dir", "--umask", "9"],
        &["mount", "drive", "dir", "--cache-size", "much"],
        &["mount", "drive", "dir", "--op-timeout", "0"],
        &["mount", "drive", "dir", "--bandwidth", "fast"],
        &["mount", "drive", "dir", "--all", "dir"],
        &["mount", "--all"],
        &["completions", "tcl"],
        &["man", "mont"],
        &["remote", "add"],
        &["remote", "add", "--provider", "cludz"],
        &["status", "--json", "--watch"],
    ] {
        person.run(arguments).ends(2);
    }
    person
        .run(&["mount", "drive", "dir", "-o", "alow_other"])
        .ends(2)
        .in_one_line()
        .saying("did you mean \"allow_other\"?");
}

#[test]
fn a_secret_in_an_argument_is_refused_and_not_repeated() {
    let person = Person::new();
    std::fs::create_dir(person.path("dir")).unwrap();
    for (argument, code) in [
        (format!("cludz://{CANARY}@{DRIVE}"), 3),
        (format!("cludz://{DRIVE}/?token={CANARY}"), 3),
        (format!("reductstore://user:{CANARY}@localhost/b"), 3),
    ] {
        person
            .run(&["mount", &argument, "dir"])
            .ends(code)
            .in_one_line()
            .saying("KEYMOUNT_TOKEN");
    }
    person
        .run(&["mount", "drive", "dir", &format!("--token={CANARY}")])
        .ends(2)
        .saying("takes no secret from the command line");
}

#[test]
fn mistakes_in_the_configuration_end_with_3_and_name_the_key() {
    for (text, part) in [
        ("remote = 1".to_owned(), "unknown key remote; did you mean \"remotes\"?"),
        ("[remotes.a\n".to_owned(), "line 1 is not TOML"),
        (
            drive("method = \"token\"\ntoken = { env = \"T\" }\nsned = \"header\""),
            "unknown key remotes.drive.auth.sned; did you mean \"send\"?",
        ),
        (
            drive(&format!("method = \"token\"\ntoken = \"{CANARY}\"")),
            "remotes.drive.auth.token holds the secret itself",
        ),
        (
            drive(&format!("method = \"token\"\ntoken = {{ env = \"{CANARY}\" }}")),
            "remotes.drive.auth.token must name an environment variable",
        ),
        (
            "[remotes.a]\nprovider = \"dropbox\"\n".to_owned(),
            "there are cludz, cloudsync, storra, dstor, reductstore, s3 and webdav",
        ),
    ] {
        let person = Person::new().configured(&text);
        for arguments in [
            &["remote", "list"][..],
            &["mount", "drive", "dir"],
            &["remote", "test", "drive"],
        ] {
            person
                .run(arguments)
                .ends(3)
                .in_one_line()
                .saying(part)
                .saying("config.toml");
        }
        person.run(&["doctor"]).ends(1).saying(part);
    }
}

#[test]
fn an_unknown_remote_names_the_nearest() {
    let person = Person::new().configured(&drive("method = \"none\""));
    person
        .run(&["mount", "driev", "dir"])
        .ends(3)
        .in_one_line()
        .saying("did you mean \"drive\"?");
}

#[test]
fn a_configuration_that_was_named_must_be_there() {
    let person = Person::new();
    person
        .run(&["--config", "none.toml", "remote", "list"])
        .ends(3)
        .in_one_line()
        .saying("none.toml");
    let person = Person::new().with("KEYMOUNT_CONFIG", "/nowhere/k.toml");
    person.run(&["remote", "list"]).ends(3).saying("/nowhere/k.toml");
    Person::new().run(&["remote", "list"]).ends(0).saying("no remotes");
}

#[test]
fn a_configuration_that_everybody_may_write_is_refused() {
    let person = Person::new().configured(&drive("method = \"none\""));
    let file = person.path(".config/keymount/config.toml");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    person
        .run(&["remote", "list"])
        .ends(3)
        .in_one_line()
        .saying("chmod o-w");
}

#[test]
fn missing_and_exposed_secrets_end_with_4() {
    let person = Person::new().configured(&drive("method = \"token\"\ntoken = { env = \"DRIVE_TOKEN\" }"));
    person
        .run(&["remote", "test", "drive"])
        .ends(4)
        .in_one_line()
        .saying("DRIVE_TOKEN");
    let person = Person::new().configured(&drive("method = \"token\"\ntoken = { file = \"~/token\" }"));
    person
        .run(&["remote", "test", "drive"])
        .ends(4)
        .in_one_line()
        .saying("token");
    std::fs::write(person.path("token"), CANARY).unwrap();
    std::fs::set_permissions(person.path("token"), std::fs::Permissions::from_mode(0o644)).unwrap();
    person
        .run(&["remote", "test", "drive"])
        .ends(4)
        .in_one_line()
        .saying("chmod 600");
}

const STORED: &str = "method = \"token\"\ntoken = { stored = true }";

#[test]
fn login_and_logout_say_where_a_token_is_that_keymount_does_not_keep() {
    for (auth, part) in [
        (
            "method = \"token\"\ntoken = { env = \"DRIVE_TOKEN\" }",
            "the environment variable DRIVE_TOKEN",
        ),
        (
            "method = \"token\"\ntoken = { file = \"~/token\" }",
            "token = { stored = true }",
        ),
        ("method = \"none\"", "needs no token"),
    ] {
        let person = Person::new().configured(&drive(auth));
        for command in ["login", "logout"] {
            person
                .run_reading(CANARY, &[command, "drive"])
                .ends(3)
                .in_one_line()
                .saying(part);
        }
    }
    let person = Person::new();
    person
        .run_reading(CANARY, &["login", &format!("cludz://{DRIVE}")])
        .ends(3)
        .in_one_line()
        .saying("config.toml");
    person.run(&["login", "nothing"]).ends(3).in_one_line();
    person
        .run(&["login", "nothing", &format!("--token={CANARY}")])
        .ends(2)
        .saying("takes no secret from the command line");
}

#[test]
fn a_stored_token_is_kept_closed_and_forgotten() {
    let person = Person::new().configured(&drive(STORED));
    let folder = person.path(".local/state/keymount/secrets");
    let file = folder.join("drive.token.secret");
    let missing = "no token is stored for drive; run: keymount login drive";
    person
        .run(&["remote", "test", "drive"])
        .ends(4)
        .in_one_line()
        .saying(missing);
    person.run(&["doctor"]).ends(1).saying(missing);
    person
        .run(&["login", "drive"])
        .ends(4)
        .in_one_line()
        .saying("no token was given");
    person
        .run_reading(CANARY, &["login", "drive"])
        .ends(5)
        .in_one_line()
        .saying("nothing was stored");
    assert!(!file.exists());
    person
        .run_reading(CANARY, &["login", "--no-check", "drive"])
        .ends(0)
        .saying("not checked");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    person.run(&["doctor"]).ends(1).saying("a token is kept in");
    person.run(&["remote", "list"]).ends(0).saying("keymount's store");

    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    for command in [&["doctor"][..], &["remote", "test", "drive"]] {
        let said = person.run(command).saying("chmod 600");
        assert_ne!(said.ends(if command.len() == 1 { 1 } else { 4 }).code, Some(0));
    }
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&file, CANARY).unwrap();
    person
        .run(&["remote", "test", "drive"])
        .ends(4)
        .in_one_line()
        .saying("is damaged");

    person
        .run(&["logout", "drive"])
        .ends(0)
        .saying("still accepts the token");
    assert!(!file.exists());
    person.run(&["logout", "drive"]).ends(0).saying("nothing to forget");
}

#[test]
fn mistakes_about_the_store_end_with_3() {
    for (text, part) in [
        (
            drive("method = \"token\"\ntoken = { stored = false }"),
            "remotes.drive.auth.token is { stored = true }",
        ),
        (
            format!("[store]\npassphrase = \"{CANARY}\"\n"),
            "store.passphrase holds the secret itself",
        ),
        (
            "[store]\npassphrase = { stored = true }\n".to_owned(),
            "store.passphrase opens the store",
        ),
        (
            "[store]\npasphrase = { env = \"A\" }\n".to_owned(),
            "did you mean \"passphrase\"?",
        ),
    ] {
        let person = Person::new().configured(&text);
        person.run(&["remote", "list"]).ends(3).in_one_line().saying(part);
    }
}

#[test]
fn nobody_at_the_endpoint_ends_with_5_and_doctor_fails() {
    let person = Person::new()
        .configured(&drive("method = \"token\"\ntoken = { env = \"DRIVE_TOKEN\" }"))
        .with("DRIVE_TOKEN", CANARY);
    person
        .run(&["remote", "test", "drive"])
        .ends(5)
        .in_one_line()
        .saying("cannot be reached");
    person
        .run(&["doctor"])
        .ends(1)
        .saying("FAIL  drive: ")
        .saying("config.toml is in order and has 1 remote");
}

#[test]
fn a_token_is_not_sent_in_the_clear_to_another_machine() {
    let person = Person::new()
        .configured(
            "[remotes.r]\nprovider = \"reductstore\"\nendpoint = \"http://192.0.2.1\"\n\n\
             [remotes.r.auth]\nmethod = \"token\"\ntoken = { env = \"T\" }\n",
        )
        .with("T", CANARY);
    person
        .run(&["remote", "test", "r"])
        .ends(3)
        .in_one_line()
        .saying("insecure = true");
}

#[test]
fn doctor_looks_at_everything_a_mount_needs() {
    let person = Person::new();
    let said = person.run(&["doctor"]);
    for part in [
        "/dev/fuse",
        "state can be written",
        "cached content can be written",
        "control socket",
        "config.toml",
    ] {
        assert!(said.out.contains(part), "{part:?} is missing: {said}");
    }
    let open = person.path("run/keymount");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
    person
        .run(&["doctor"])
        .ends(1)
        .saying("FAIL  the control socket")
        .saying("chmod 700");
}

#[test]
fn nothing_mounted_ends_with_9() {
    let person = Person::new();
    std::fs::create_dir(person.path("dir")).unwrap();
    for arguments in [
        &["umount", "dir"][..],
        &["unmount", "dir"],
        &["umount", "--lazy", "dir"],
        &["umount", "none"],
        &["refresh", "dir"],
        &["refresh", "no-such-remote"],
        &["status", "dir"],
        &["--unmount", "dir"],
        &["--refresh", "dir"],
        &["--status", "dir"],
    ] {
        person.run(arguments).ends(9).in_one_line().saying("nothing mounted");
    }
}

#[test]
fn status_is_json_for_programs() {
    let said = Person::new().run(&["status", "--json"]).ends(0);
    let value: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert!(value["daemons"].is_array() && value["dead"].is_array(), "{said}");
}

#[test]
fn an_unusable_directory_ends_with_6() {
    let person = Person::new().configured(&drive("method = \"none\""));
    std::fs::create_dir(person.path("full")).unwrap();
    std::fs::write(person.path("full/file"), "x").unwrap();
    for (directory, part) in [
        ("none", "mkdir -p none"),
        ("full", "not empty"),
        ("full/file", "not a directory"),
    ] {
        person
            .run(&["mount", "drive", directory])
            .ends(6)
            .in_one_line()
            .saying(part);
    }
    person.run(&["demo", "full"]).saying("has something in it");
    assert!(person.path("full/file").exists());
}

#[test]
fn mount_calls_it_by_its_other_names() {
    let person = Person::new().configured(&drive("method = \"none\""));
    for name in ["mount.keymount", "mount.fuse.keymount"] {
        let helper = person.path(name);
        symlink(env!("CARGO_BIN_EXE_keymount"), &helper).unwrap();
        person
            .run_as(&helper, &["drive"])
            .ends(2)
            .in_one_line()
            .saying("needs a remote and a directory");
        person
            .run_as(&helper, &["drive", "dir", "-o", "rw,_netdev,umaks=077"])
            .ends(2)
            .in_one_line()
            .saying("did you mean \"umask\"?");
        person
            .run_as(&helper, &["drive", "none", "-o", "rw,_netdev,nosuid,nodev,umask=077"])
            .ends(6)
            .in_one_line();
        person
            .run_as(&helper, &["drive", "none", "-o", "config=/nowhere/k.toml"])
            .ends(3)
            .in_one_line();
    }
}

#[test]
fn remotes_are_listed_with_the_place_of_their_token() {
    let person = Person::new()
        .configured(&drive("method = \"token\"\ntoken = { env = \"DRIVE_TOKEN\" }"))
        .with("DRIVE_TOKEN", CANARY);
    person
        .run(&["remote", "list"])
        .ends(0)
        .saying("drive")
        .saying("the environment variable DRIVE_TOKEN");
}

#[test]
fn the_daemons_own_command_is_not_for_people() {
    Person::new()
        .run(&["serve-mounts", "foreground"])
        .ends(1)
        .in_one_line()
        .saying("use: keymount mount");
}

/// The configuration file of somebody who has none yet.
fn written(person: &Person) -> String {
    std::fs::read_to_string(person.path(".config/keymount/config.toml")).unwrap_or_default()
}

/// Where nobody listens.
fn nowhere() -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("http://127.0.0.1:{port}")
}

#[test]
fn a_remote_is_added_shown_and_removed_without_a_terminal() {
    let person = Person::new().with("PATH_OF_NOTHING", CANARY);
    let storage = format!("storage={DRIVE}");
    let endpoint = format!("endpoint={}", nowhere());
    let add = |more: &[&str]| {
        let common = [
            "remote",
            "add",
            "drive",
            "--provider",
            "cludz",
            "--set",
            &storage,
            "--set",
            &endpoint,
        ];
        person.run_reading(CANARY, &[&common[..], more].concat())
    };
    add(&[]).ends(5).in_one_line().saying("drive: nothing was written");
    assert_eq!(written(&person), "");
    assert!(!person.path(".local/state/keymount/secrets").exists());

    add(&["--no-check", "--set", "options.umask=077"])
        .ends(0)
        .saying("the token is kept in")
        .saying("keymount mount drive DIR");
    let text = written(&person);
    assert!(
        text.contains("token = { stored = true }") && text.contains("umask = \"077\""),
        "{text}"
    );
    assert!(!text.contains(CANARY));
    let mode = |path: &str| std::fs::metadata(person.path(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(".config/keymount/config.toml"), 0o600);
    let kept = ".local/state/keymount/secrets/drive.token.secret";
    assert_eq!(mode(kept), 0o600);

    add(&["--no-check"])
        .ends(3)
        .in_one_line()
        .saying("there is a remote drive already");
    person.run(&["remote", "list"]).ends(0).saying("keymount's store");
    person
        .run(&["remote", "show", "drive"])
        .ends(0)
        .saying(DRIVE)
        .saying("auth.token")
        .saying("{ stored = true }");
    let json = person.run(&["remote", "show", "drive", "--json"]).ends(0);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["written"]["auth"]["token"]["stored"], true);
    assert_eq!((&json["provider"], &json["method"]), (&"cludz".into(), &"token".into()));

    person
        .run(&["remote", "remove", "driev", "--yes"])
        .ends(3)
        .saying("did you mean \"drive\"?");
    person
        .run(&["remote", "remove", "drive"])
        .ends(2)
        .in_one_line()
        .saying("nothing was removed; say --yes");
    assert!(person.path(kept).exists());
    person
        .run(&["remote", "remove", "drive", "--yes"])
        .ends(0)
        .saying("token is forgotten")
        .saying("goes on accepting the token of drive");
    assert!(!person.path(kept).exists());
    assert!(!written(&person).contains("drive"));
}

#[test]
fn a_secret_that_is_kept_elsewhere_is_named_and_not_read_into_the_file() {
    let person = Person::new().with("DRIVE_TOKEN", CANARY);
    let storage = format!("storage={DRIVE}");
    for (option, place, in_file) in [
        ("--secret-env", "DRIVE_TOKEN", "token = { env = \"DRIVE_TOKEN\" }"),
        ("--secret-file", "~/token", "token = { file = \"~/token\" }"),
        (
            "--secret-command",
            "pass show 'my drive'",
            "token = { command = [\"pass\", \"show\", \"my drive\"] }",
        ),
        ("--secret-systemd", "drive", "token = { systemd = \"drive\" }"),
    ] {
        let name = option.trim_start_matches("--secret-");
        person
            .run(&[
                "remote",
                "add",
                name,
                "--provider=cludz",
                "--set",
                &storage,
                option,
                place,
                "--no-check",
            ])
            .ends(0);
        assert!(written(&person).contains(in_file), "{}", written(&person));
    }
    assert!(!written(&person).contains(CANARY));
    person
        .run(&[
            "remote",
            "add",
            "x",
            "--provider=cludz",
            "--set",
            &format!("token={CANARY}"),
        ])
        .ends(2)
        .in_one_line()
        .saying("token is a secret");
    person
        .run(&[
            "remote",
            "add",
            "x",
            "--provider=cludz",
            "--set",
            "storage=1",
            "--secret-env=A",
        ])
        .ends(3)
        .in_one_line()
        .saying("remotes.x.storage is the drive's id");
    person
        .run(&["remote", "add", "x", &format!("--token={CANARY}")])
        .ends(2)
        .saying("takes no secret from the command line");
}

#[test]
fn a_malformed_configuration_is_left_as_it_is() {
    let person = Person::new().configured("[remotes.a\n");
    let add = ["remote", "add", "--provider=storra", "--secret-env=K", "--no-check"];
    person.run(&add).ends(3).in_one_line().saying("line 1 is not TOML");
    person.run(&["remote", "remove", "a", "--yes"]).ends(3).in_one_line();
    assert_eq!(written(&person), "[remotes.a\n");
}

#[test]
fn a_file_of_variables_is_read_and_reaches_no_child() {
    let token = "token = { env = \"DRIVE_TOKEN\" }";
    let person = Person::new().configured(&drive(&format!("method = \"token\"\n{token}")));
    let test = ["--env-file", "my.env", "remote", "test", "drive"];
    person.run(&test).ends(4).in_one_line().saying("my.env");
    std::fs::write(
        person.path("my.env"),
        format!("# mine\nexport DRIVE_TOKEN='{CANARY}'\n"),
    )
    .unwrap();
    std::fs::set_permissions(person.path("my.env"), std::fs::Permissions::from_mode(0o640)).unwrap();
    person.run(&test).ends(4).in_one_line().saying("chmod 600");
    std::fs::set_permissions(person.path("my.env"), std::fs::Permissions::from_mode(0o600)).unwrap();
    person.run(&test).ends(5).in_one_line().saying("cannot be reached");
    let shows = "token = { command = [\"sh\", \"-c\", \"env > seen; echo x\"] }";
    let person = person.configured(&drive(&format!("method = \"token\"\n{shows}")));
    person.run(&test).ends(5);
    let seen = std::fs::read_to_string(person.path("seen")).unwrap();
    assert!(seen.contains("HOME=") && !seen.contains(CANARY), "{seen}");
}

#[test]
fn shells_get_completions_with_the_names_of_remotes() {
    let mut person = Person::new().configured(&drive("method = \"none\""));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        person.run(&["completions", shell]).ends(0).saying("KEYMOUNT_COMPLETE");
    }
    person.variables.push(("KEYMOUNT_COMPLETE", "fish".to_owned()));
    for (typed, offered) in [
        (&["keymount", "m"][..], "mount"),
        (&["keymount", "mount", ""], "drive"),
        (&["keymount", "remote", "remove", "d"], "drive"),
        (&["keymount", "mount", "drive", "dir", "--band"], "--bandwidth"),
    ] {
        let said = person.run(&[&["--"], typed].concat()).ends(0);
        assert!(
            said.out.lines().any(|line| line.split('\t').next() == Some(offered)),
            "{said}"
        );
    }
}

#[test]
fn manual_pages_come_from_the_same_source_as_the_help() {
    let person = Person::new();
    person
        .run(&["man"])
        .ends(0)
        .saying(".TH keymount 1")
        .saying("Exit codes");
    person.run(&["man", "mount"]).ends(0).saying("bandwidth");
    person.run(&["man", "--to", "pages"]).ends(0).saying("man -l");
    let pages = std::fs::read_dir(person.path("pages")).unwrap().flatten();
    let pages: Vec<_> = pages.map(|page| page.file_name().into_string().unwrap()).collect();
    assert!(pages.contains(&"keymount-remote-add.1".to_owned()), "{pages:?}");
    assert!(!pages.iter().any(|page| page.contains("serve-mounts")), "{pages:?}");
}

#[test]
fn the_cache_is_shown_and_emptied_without_a_daemon() {
    let person = Person::new();
    person
        .run(&["cache", "show"])
        .ends(0)
        .saying("nobody")
        .saying(".cache/keymount");
    let blocks = person.path(".cache/keymount/blocks/blocks");
    std::fs::create_dir_all(&blocks).unwrap();
    for kind in ["map", "data"] {
        std::fs::write(blocks.join(format!("{}.{kind}", "ab".repeat(32))), [1; 5000]).unwrap();
    }
    let folders = |said: Said| -> serde_json::Value { serde_json::from_str(&said.out).unwrap() };
    let shown = folders(person.run(&["cache", "show", "--json"]).ends(0));
    assert_eq!((&shown[0]["versions"], &shown[0]["bytes"]), (&1.into(), &16384.into()));
    let cleared = folders(person.run(&["cache", "clear", "--json"]).ends(0));
    assert_eq!((&cleared[0]["freed"], &cleared[0]["kept"]), (&16384.into(), &0.into()));
    assert_eq!(std::fs::read_dir(&blocks).unwrap().count(), 0);
}

#[test]
fn a_login_asks_for_the_secret_by_its_name() {
    for (provider, auth, word) in [
        ("storra", "method = \"api-key\"\nkey = { stored = true }", "API key"),
        (
            "webdav\"\nendpoint = \"http://127.0.0.1:9",
            "method = \"basic\"\nusername = \"me\"\npassword = { stored = true }",
            "password",
        ),
        (
            "s3\"\nbucket = \"b",
            "method = \"static\"\naccess_key_id = \"A\"\nsecret_access_key = { stored = true }",
            "secret access key",
        ),
    ] {
        let text = format!("[remotes.r]\nprovider = \"{provider}\"\n[remotes.r.auth]\n{auth}\n");
        let person = Person::new().configured(&text);
        person
            .run_reading("", &["login", "r"])
            .ends(4)
            .in_one_line()
            .saying(&format!("no {word} was given"));
        person
            .run_reading(CANARY, &["login", "--no-check", "r"])
            .ends(0)
            .saying(&format!("the {word} is not checked"));
    }
}

/// A drive with a large file and a few small ones, as `d`.
fn measured_drive() -> (Person, keymount::emulator::cludz::Drive, keymount::emulator::Running) {
    use keymount::emulator::cludz::{Assumptions, CludzStore};
    let store = CludzStore::new(Assumptions::default());
    let drive = store.add_drive();
    let server = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(store.serve())
        .unwrap();
    drive.put("notes/small", "0123456789").unwrap();
    drive.put("films/long", vec![7; 3 << 20]).unwrap();
    let person = Person::new()
        .with("DRIVE_TOKEN", &drive.owner_token())
        .configured(&format!(
            "[remotes.d]\nprovider = \"cludz\"\nstorage = \"{}\"\nendpoint = \"{}\"\n\
         [remotes.d.auth]\nmethod = \"token\"\ntoken = {{ env = \"DRIVE_TOKEN\" }}\n",
            drive.id(),
            server.url()
        ));
    (person, drive, server)
}

fn work<'a>(document: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let works = document["works"].as_array().unwrap();
    works
        .iter()
        .find(|row| row["work"] == name)
        .unwrap_or_else(|| panic!("{name}: {document}"))
}

#[test]
fn bench_reads_the_largest_file_and_changes_nothing() {
    let (person, drive, _server) = measured_drive();
    let before = drive.list("");
    let said = person.run(&["bench", "d", "--json"]).ends(0);
    let document: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(document["file"]["path"], "films/long", "{said}");
    assert_eq!(work(&document, "cold_sequential")["bytes"], 3 << 20, "{said}");
    assert_eq!(work(&document, "small_files")["bytes"], 10, "{said}");
    for (name, operations) in [("request", 20), ("cold_random_4k_1", 100), ("cold_random_4k_16", 1600)] {
        let row = work(&document, name);
        let done = row["operations"].as_u64().unwrap();
        // On a busy machine the time may be over before.
        assert!((1..=operations).contains(&done), "{name}: {said}");
        assert!(row["p50_ms"].as_f64().unwrap() > 0.0, "{name}: {said}");
    }
    assert_eq!(document["works"].as_array().unwrap().len(), 5, "{said}");
    assert_eq!(drive.list(""), before);
    let said = person
        .run(&["bench", "d", "--file", "notes/small", "--seconds", "5"])
        .ends(0);
    assert!(said.out.contains("notes/small (10 B)"), "{said}");
    assert!(
        said.out.contains("random 4 KiB, one at a time: the largest file"),
        "{said}"
    );
    person
        .run(&["bench", "d", "--file", "notes"])
        .ends(1)
        .saying("is a directory");
}

#[test]
fn bench_writes_only_when_told_and_leaves_nothing() {
    let (person, drive, _server) = measured_drive();
    let before = drive.list("");
    let said = person.run(&["bench", "d", "--write", "--json"]).ends(0);
    let document: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    for name in ["write_4m", "write_4k"] {
        assert!(work(&document, name)["operations"].as_u64() > Some(0), "{name}: {said}");
    }
    assert_eq!(drive.list(""), before);
}
