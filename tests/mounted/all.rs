//! `mount --all`: every remote below one directory, by one daemon, and each on its own.

use keymount::emulator::cludz::{Assumptions, CludzStore, Drive};
use keymount::emulator::{Fault, Rule, Running};
use tokio::runtime::Runtime;

use crate::sandbox::{Sandbox, Who, until};

/// Two drives, each on a server of its own.
struct Drives {
    person: Sandbox,
    first: Drive,
    second: Drive,
    servers: [Running; 2],
    _runtime: Runtime,
}

impl Drives {
    fn new(who: Who, more: &str) -> Self {
        let runtime = Runtime::new().unwrap();
        let stores = [0, 1].map(|_| CludzStore::new(Assumptions::default()));
        let [first, second] = stores.each_ref().map(CludzStore::add_drive);
        let servers = stores.map(|store| runtime.block_on(store.serve()).unwrap());
        let person = Sandbox::new(who);
        let remote = |name: &str, drive: &Drive, server: &Running, more: &str| {
            let token = person.file(&format!("work/{name}"), &drive.owner_token(), 0o600);
            format!(
                "[remotes.{name}]\nprovider = \"cludz\"\nstorage = \"{}\"\nendpoint = \"{}\"\n{more}\n\
                 [remotes.{name}.auth]\nmethod = \"token\"\ntoken = {{ file = \"{}\" }}\n",
                drive.id(),
                server.url(),
                token.display()
            )
        };
        let cache = person.path("work/own-cache").display().to_string();
        let text = [
            remote("first", &first, &servers[0], ""),
            remote(
                "second",
                &second,
                &servers[1],
                &format!("options = {{ read_only = true, cache_dir = \"{cache}\" }}"),
            ),
            more.to_owned(),
        ];
        person.configure(&text.concat());
        first.put("file", "one").unwrap();
        second.put("file", "two").unwrap();
        Self {
            person,
            first,
            second,
            servers,
            _runtime: runtime,
        }
    }

    fn sh(&self, script: &str) -> crate::sandbox::Said {
        self.person
            .sh(&format!("cd {} && {script}", self.person.path("work").display()))
    }
}

#[test]
fn one_daemon_serves_all_and_one_command_ends_them() {
    for who in Who::everybody() {
        let it = Drives::new(who, "");
        let all = it.person.path("work/all");
        let said = it
            .person
            .keymount(["mount".as_ref(), "--all".as_ref(), all.as_os_str()])
            .ok();
        assert!(said.contains("first") && said.contains("second"), "{said}");
        assert_eq!(it.person.daemons().len(), 1);
        assert_eq!(it.sh("cat all/first/file all/second/file").ok(), "onetwo");
        it.sh("echo x > all/second/new").refused("Read-only file system");
        assert!(
            it.person.path("work/own-cache/blocks").exists(),
            "the options of each remote hold"
        );

        let status = it.person.keymount(["status".as_ref(), all.as_os_str()]).ok();
        assert!(
            status.contains("all/first") && status.contains("all/second"),
            "{status}"
        );
        let refreshed = it.person.keymount(["refresh".as_ref(), all.as_os_str()]).ok();
        assert_eq!(refreshed.matches("credential valid").count(), 2, "{refreshed}");

        // Two folders of blocks; what an open file needs stays.
        let mut reader = it.person.start(&format!(
            "exec 3< {}/first/file; echo open; exec sleep 600",
            all.display()
        ));
        reader.wait_for("open");
        let cleared = it.person.keymount(["cache", "clear", "--json"]).ok();
        let cleared: Vec<serde_json::Value> = serde_json::from_str(&cleared).unwrap();
        let kept: Vec<u64> = cleared.iter().map(|folder| folder["kept"].as_u64().unwrap()).collect();
        assert_eq!(kept.iter().filter(|kept| **kept > 0).count(), 1, "{cleared:?}");
        assert!(
            cleared.iter().any(|folder| folder["freed"].as_u64() > Some(0)),
            "{cleared:?}"
        );
        drop(reader);
        assert_eq!(it.sh("cat all/first/file all/second/file").ok(), "onetwo");

        it.sh("echo new > all/first/new").ok();
        it.person.keymount(["umount".as_ref(), all.as_os_str()]).ok();
        assert_eq!(it.first.read("new").unwrap(), "new\n");
        until("the end of the daemon", || it.person.daemons().is_empty());
        assert!(!all.exists(), "what was made is removed");
    }
}

#[test]
fn one_that_cannot_be_mounted_is_told_and_stops_nobody() {
    let missing = "[remotes.third]\nprovider = \"storra\"\n[remotes.third.auth]\nmethod = \"api-key\"\nkey = { env = \"NOBODY\" }\n";
    let it = Drives::new(Who::me(), missing);
    let all = it.person.path("work/all");
    it.sh("mkdir -p all/second && echo mine > all/second/mine").ok();
    let mount = ["mount".as_ref(), "--all".as_ref(), all.as_os_str()];
    let said = it.person.keymount(mount);
    assert_eq!(said.code, Some(13), "{} {}", said.out, said.err);
    assert!(
        said.out.contains("is not empty") && said.out.contains("NOBODY"),
        "{}",
        said.out
    );
    assert_eq!(
        it.sh("cat all/first/file all/second/mine && ls all").ok(),
        "onemine\nfirst\nsecond\n"
    );

    let again = it.person.keymount(mount);
    assert_eq!(again.code, Some(1), "{} {}", again.out, again.err);
    assert!(again.out.contains("is mounted already"), "{}", again.out);
    it.person.keymount(["umount".as_ref(), all.as_os_str()]).ok();
    assert_eq!(it.sh("cat all/second/mine && ls all").ok(), "mine\nsecond\n");
}

/// A provider that answers nothing any more: the other one is neither slowed nor kept from its uploads.
#[test]
fn a_dead_provider_leaves_the_others_alone() {
    let it = Drives::new(Who::me(), "");
    let all = it.person.path("work/all");
    let options = ["--op-timeout", "10s"];
    let mut arguments = vec!["mount".as_ref(), "--all".as_ref(), all.as_os_str()];
    arguments.extend(options.iter().map(std::ffi::OsStr::new));
    it.person.keymount(arguments).ok();
    it.servers[1]
        .faults()
        .inject(Rule::when(1_000_000, |_, _| true, Fault::status(503)));
    it.sh("cat all/second/file").refused("");
    assert_eq!(it.sh("cat all/first/file").ok(), "one");
    it.sh("echo more > all/first/more").ok();
    it.person.keymount(["umount".as_ref(), all.as_os_str()]).ok();
    assert_eq!(it.first.read("more").unwrap(), "more\n");
    assert_eq!(it.second.read("file").unwrap(), "two");
}

#[test]
fn in_the_foreground_it_ends_with_a_signal_and_cleans_up() {
    let it = Drives::new(Who::me(), "");
    let all = it.person.path("work/all");
    let arguments = [
        "mount".as_ref(),
        "--foreground".as_ref(),
        "--all".as_ref(),
        all.as_os_str(),
    ];
    let daemon = it.person.start_keymount(arguments);
    until("both mounts", || {
        it.person.is_mounted("work/all/first") && it.person.is_mounted("work/all/second")
    });
    assert_eq!(it.sh("cat all/first/file").ok(), "one");
    daemon.signal("TERM");
    daemon.wait().ok();
    assert!(!all.exists());
}
