//! The real ReductStore server, mounted: rights as modes, bytes both ways, and a server that dies under a reader.

use std::process::{Command, Stdio};

use crate::sandbox::{Sandbox, Who, until};
use crate::server::{ReductServer, TOKEN};

/// A server with a bucket `data`, and somebody who has it configured under a token.
pub struct Store {
    server: ReductServer,
    person: Sandbox,
}

impl Store {
    pub fn new(who: Who) -> Self {
        let it = Self {
            server: ReductServer::start(&[]),
            person: Sandbox::new(who),
        };
        it.curl(&["-X", "POST", &it.server.url("b/data"), "-d", "{}"]);
        it.configure(TOKEN, "bucket = \"data\"");
        it
    }

    fn configure(&self, token: &str, more: &str) {
        self.configure_of(&self.person, token, more);
    }

    /// The bucket as somebody else's remote `store`, with full rights.
    pub fn configure_for(&self, person: &Sandbox) {
        self.configure_of(person, TOKEN, "bucket = \"data\"");
    }

    fn configure_of(&self, person: &Sandbox, token: &str, more: &str) {
        let file = person.file("work/token", token, 0o600);
        person.configure(&format!(
            "[remotes.store]\nprovider = \"reductstore\"\nendpoint = \"{}\"\n{more}\n\
             [remotes.store.auth]\nmethod = \"token\"\ntoken = {{ file = \"{}\" }}\n",
            self.server.endpoint(),
            file.display()
        ));
    }

    /// Asks the server itself, with full rights; gives the body.
    fn curl(&self, arguments: &[&str]) -> Vec<u8> {
        let mut command = Command::new("curl");
        command.args([
            "-sS",
            "--fail-with-body",
            "-H",
            &format!("Authorization: Bearer {TOKEN}"),
        ]);
        let output = command.args(arguments).stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{arguments:?}: {text} {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    /// A token of its own for some rights on the bucket.
    fn token(&self, name: &str, permissions: &str) -> String {
        let body = format!("{{\"permissions\":{permissions}}}");
        let url = self.server.url(&format!("tokens/{name}"));
        let json = ["-X", "POST", &url, "-H", "Content-Type: application/json", "-d", &body];
        let answer: serde_json::Value = serde_json::from_slice(&self.curl(&json)).unwrap();
        answer["value"].as_str().unwrap().to_owned()
    }
}

#[test]
fn ordinary_tools_work() {
    Who::each(|who| {
        let it = Store::new(who);
        it.person.mount("store", &[]);
        it.person.sh("echo hello > 'a file.txt' && cat 'a file.txt' && mkdir -p 'some dir/.git' && echo x > 'some dir/.git/config'").ok();
        it.person.sh("echo old > text && echo new > text.tmp && sync text.tmp && mv text.tmp text && test \"$(cat text)\" = new").ok();
        it.person
            .sh("mv 'some dir' moved && cat moved/.git/config && ls -lR && df . && stat text")
            .ok();
        it.person.sh("setfattr -n user.color -v blue text && getfattr -d text | grep -q 'user.color=\"blue\"' && getfattr -d text | grep -q user.keymount.remote_id").ok();
        it.person.sh("seq 100000 > big && cp big copy && cmp big copy && echo tail >> copy && ! cmp -s big copy && truncate -s 10 copy && test \"$(stat -c %s copy)\" = 10").ok();
        it.person.sh("rm -r moved && ! test -e moved && ls").ok();
        it.person.unmount();
    });
}

#[test]
fn a_token_that_keymount_keeps_mounts_and_heals() {
    let it = Store::new(Who::me());
    it.person.configure(&format!(
        "[remotes.store]\nprovider = \"reductstore\"\nendpoint = \"{}\"\nbucket = \"data\"\n\
         [remotes.store.auth]\nmethod = \"token\"\ntoken = {{ stored = true }}\n",
        it.server.endpoint()
    ));
    it.person
        .keymount_reading("not-a-token", ["login", "store"])
        .fails(4, "nothing was stored");
    let permissions = "{\"read\":[\"data\"],\"write\":[\"data\"]}";
    let first = it.token("first", permissions);
    it.person.keymount_reading(&first, ["login", "store"]).ok();
    it.person.mount("store", &["--attr-ttl", "0"]);
    it.person.sh("echo text > file").ok();
    it.curl(&["-X", "DELETE", &it.server.url("tokens/first")]);
    it.person.sh("echo more > other").refused("Permission denied");
    let second = it.token("second", permissions);
    let said = it.person.keymount_reading(&second, ["login", "store"]).ok();
    assert!(said.contains("credential valid"), "{said}");
    it.person.sh("echo more > other && cat file other").ok();
    let said = it.person.keymount(["logout", "store"]).ok();
    assert!(said.contains("keymount keys revoke"), "{said}");
    it.person.unmount();
}

/// A full, a read-only and a write-only token on one bucket: the modes, and every call that each forbids.
#[test]
fn tokens_show_as_modes_and_are_enforced() {
    let denied = "Permission denied";
    Who::each(|who| {
        let it = Store::new(who);
        it.person.mount("store", &[]);
        it.person
            .sh("echo text > file && mkdir folder && echo x > folder/inside")
            .ok();
        assert_eq!(
            it.person.sh("stat -c %A . folder file").ok(),
            "drwxr-xr-x\ndrwxr-xr-x\n-rw-r--r--\n"
        );
        it.person.sh("echo more >> file && mv file renamed && mv renamed file && rm folder/inside && rmdir folder && mkdir folder").ok();
        it.person.unmount();

        it.configure(&it.token("reader", "{\"read\":[\"data\"]}"), "bucket = \"data\"");
        it.person.mount("store", &[]);
        assert_eq!(
            it.person.sh("stat -c %A . folder file").ok(),
            "dr-xr-xr-x\ndr-xr-xr-x\n-r--r--r--\n"
        );
        it.person.sh("ls && cat file").ok();
        for script in [
            "echo x > new",
            "echo x >> file",
            "truncate -s 0 file",
            "rm -f file",
            "mkdir d",
            "rmdir folder",
            "mv file g",
            "chmod 777 file",
            "touch file",
            "setfattr -n user.a -v b file",
        ] {
            it.person.sh(script).refused(denied);
        }
        it.person.unmount();

        it.configure(&it.token("writer", "{\"write\":[\"data\"]}"), "bucket = \"data\"");
        it.person.mount("store", &[]);
        assert_eq!(
            it.person.sh("stat -c %A .").ok(),
            "d-wx-wx-wx\n".replace("wx-wx-wx", "wx--x--x")
        );
        it.person.sh("ls").refused(denied);
        it.person.sh("echo blind > written-blind").ok();
        it.person.sh("cat written-blind").refused(denied);
        it.person.sh("echo x > again && rm again && mkdir made").ok();
        // Whether a directory is empty is told only to those who may read.
        it.person.sh("rmdir made").refused(denied);
        it.person.unmount();

        it.configure(TOKEN, "bucket = \"data\"");
        it.person.mount("store", &[]);
        assert_eq!(it.person.sh("cat written-blind").ok(), "blind\n");
        it.person.unmount();
    });
}

/// Without a bucket, buckets are directories; without full access none can be made.
#[test]
fn buckets_are_directories() {
    let it = Store::new(Who::me());
    it.configure(TOKEN, "");
    it.person.mount("store", &[]);
    it.person
        .sh("test \"$(ls)\" = data && mkdir more && echo x > more/f && ls -l more && mv more other && cat other/f")
        .ok();
    it.person.sh("echo x > file").refused("Operation not supported");
    it.person.sh("rmdir other").refused("not empty");
    it.person.sh("rm other/f && rmdir other && test \"$(ls)\" = data").ok();
    it.person.unmount();
    it.configure(&it.token("user", "{\"read\":[\"data\"],\"write\":[\"data\"]}"), "");
    it.person.mount("store", &[]);
    assert_eq!(it.person.sh("stat -c %A . data").ok(), "dr-xr-xr-x\ndrwxr-xr-x\n");
    it.person.sh("mkdir another").refused("Permission denied");
    it.person.sh("echo x > data/f && cat data/f").ok();
    it.person.unmount();
}

/// 200 records of mixed size go in through the mount and are read back by curl, and the reverse.
#[test]
fn bytes_are_the_same_on_both_sides() {
    let it = Store::new(Who::me());
    let sizes: Vec<u64> = (0..200)
        .map(|n: u64| match n {
            0 => 0,
            1 => 1,
            199 => 64 << 20,
            n if n % 50 == 0 => (n << 15) + 7,
            n => n * n * 3 % 90_000,
        })
        .collect();
    let list = sizes
        .iter()
        .enumerate()
        .map(|(n, size)| format!("{n} {size}\n"))
        .collect::<String>();
    let list = it.person.file("work/sizes", &list, 0o644);
    let sums = it.person.path("work/sums");
    it.person.mount_as_usual("store", &[]);
    it.person.sh(&format!(
        "mkdir in && while read n size; do head -c $size /dev/urandom > in/$n || exit 1; done < {} && cd in && sha256sum * > {}",
        list.display(), sums.display()
    )).ok();
    it.person.unmount();

    let sums = std::fs::read_to_string(sums).unwrap();
    assert_eq!(sums.lines().count(), 200);
    let query = it.curl(&[
        "-X",
        "POST",
        &it.server.url("b/data/in/q"),
        "-H",
        "Content-Type: application/json",
        "-d",
        "{\"query_type\":\"QUERY\",\"only_metadata\":true}",
    ]);
    let id = serde_json::from_slice::<serde_json::Value>(&query).unwrap()["id"].to_string();
    let mut found = 0;
    loop {
        let batch = String::from_utf8(it.curl(&["-I", &it.server.url(&format!("b/data/in/batch?q={id}"))])).unwrap();
        for line in batch.lines() {
            let Some(rest) = line.strip_prefix("x-reduct-time-") else {
                continue;
            };
            let (time, meta) = rest.split_once(": ").unwrap();
            let name = meta
                .split(',')
                .find_map(|part| part.trim().strip_prefix("name="))
                .unwrap();
            let url = it.server.url(&format!("b/data/in?ts={time}"));
            let sum = Command::new("sh")
                .arg("-c")
                .arg(format!(
                    "curl -sS --fail -H 'Authorization: Bearer {TOKEN}' '{url}' | sha256sum"
                ))
                .output()
                .unwrap();
            let sum = String::from_utf8(sum.stdout).unwrap();
            let number = name.trim_start_matches("%3");
            let wanted = sums
                .lines()
                .find(|line| line.split_whitespace().next() == sum.split_whitespace().next());
            assert!(wanted.is_some(), "{name} ({number}) has other bytes");
            found += 1;
        }
        if batch.contains("x-reduct-last: true") || batch.starts_with("HTTP/1.1 204") {
            break;
        }
    }
    assert_eq!(found, 200);

    for (n, size) in sizes.iter().enumerate().take(199) {
        let file = it.person.file(
            "work/body",
            &String::from_utf8(vec![b'a' + (n % 26) as u8; *size as usize]).unwrap(),
            0o644,
        );
        let data = format!("@{}", file.display());
        it.curl(&[
            "-X",
            "POST",
            &it.server.url(&format!("b/data/out?ts={}", n + 1)),
            "-H",
            "Content-Type: text/plain",
            "--data-binary",
            &data,
        ]);
    }
    it.person.mount("store", &[]);
    assert_eq!(it.person.sh("ls out | wc -l").ok().trim(), "199");
    let checks = sizes.iter().enumerate().take(199).map(|(n, size)| {
        let letter = char::from(b'a' + (n % 26) as u8);
        format!(
            "test $(stat -c %s out/{0}.txt) = {size} && test $(tr -d {letter} < out/{0}.txt | wc -c) = 0 || exit {0}\n",
            n + 1
        )
    });
    it.person.sh(&checks.collect::<String>()).ok();
    it.person.unmount();
}

/// The attachments of an entry are attributes of its directory and go with it.
#[test]
fn attachments_are_attributes_of_directories() {
    let it = Store::new(Who::me());
    it.person.mount("store", &[]);
    let sh = |script: &str| it.person.sh(script);
    sh("mkdir d && echo x > d/file && setfattr -n user.keymount.attachment.schema -v '{\"a\":1}' d").ok();
    sh("setfattr -n user.keymount.attachment.note -v old d && setfattr -n user.keymount.attachment.note -v text d")
        .ok();
    sh("setfattr -n user.keymount.attachment.top -v bucket .").ok();
    sh("mv d e && ls e && getfattr --only-values -n user.keymount.attachments e").says("file\nnote\nschema\n");
    sh("getfattr --only-values -n user.keymount.attachment.schema e").says("{\"a\":1}");
    sh("getfattr --only-values -n user.keymount.attachment.note e").says("text");
    sh("getfattr --only-values -n user.keymount.attachment.top .").says("bucket");
    sh("getfattr -d e | grep -q attachment").refused("");
    sh("setfattr -x user.keymount.attachment.note e && getfattr --only-values -n user.keymount.attachments e")
        .says("schema\n");
    sh("getfattr -n user.keymount.attachment.note e").refused("No such attribute");
    sh("setfattr -n user.keymount.attachment.note -v again e && getfattr --only-values -n user.keymount.attachment.note e")
        .says("again");
    sh("setfattr -n 'user.keymount.attachment.$x' -v y e").refused("Invalid argument");
    sh("setfattr -n user.keymount.attachments -v y e").refused("not supported");
    sh("getfattr -n user.keymount.attachments e/file").refused("No such attribute");
    sh("rm e/file && rmdir e && ls").says("");
    it.person.unmount();
    it.configure(&it.token("reader", "{\"read\":[\"data\"]}"), "bucket = \"data\"");
    it.person.mount("store", &[]);
    sh("getfattr --only-values -n user.keymount.attachment.top .").says("bucket");
    sh("setfattr -n user.keymount.attachment.top -v y .").refused("Permission denied");
    it.person.unmount();
}

/// What another client stores and removes is seen although the kernel was told that it may rely on what it has.
#[test]
fn changes_of_others_show_long_before_the_attributes_are_too_old() {
    let it = Store::new(Who::me());
    it.person.mount("store", &["--attr-ttl", "1h"]);
    it.person.sh("mkdir d && echo own > d/own && ls -l d && cat d/own").ok();
    let store = |name: &str, at: u64, text: &str| {
        let (url, name) = (
            it.server.url(&format!("b/data/d?ts={at}")),
            format!("x-reduct-label-name: {name}"),
        );
        it.curl(&["-X", "POST", &url, "-H", &name, "-d", text]);
    };
    let year_2100 = 4_102_444_800_000_000;
    store("theirs", year_2100, "by another client");
    until("the new file to be there", || {
        it.person.sh("ls d").out == "own\ntheirs\n"
    });
    assert_eq!(it.person.sh("cat d/theirs").ok(), "by another client");
    // The newest record of a name is the file.
    store("own", year_2100 + 1, "replaced");
    until("the new content to be there", || {
        it.person.sh("cat d/own").out == "replaced" && it.person.sh("stat -c %s d/own").out == "8\n"
    });
    let url = it.server.url(&format!("b/data/d?ts={year_2100}"));
    it.curl(&["-X", "DELETE", &url]);
    until("the file to be gone", || it.person.sh("cat d/theirs").code != Some(0));
    it.person.sh("! ls d | grep -q theirs && cd d && pwd && ls").ok();
    it.person.unmount();
}

/// Names as the vendor's export tool writes them.
#[test]
fn the_export_form_of_names_works() {
    let it = Store::new(Who::me());
    it.configure(TOKEN, "bucket = \"data\"\nnames = \"timestamp\"");
    it.curl(&[
        "-X",
        "POST",
        &it.server.url("b/data/e?ts=1700000000000000"),
        "-H",
        "Content-Type: image/png",
        "-d",
        "pixels",
    ]);
    it.person.mount("store", &[]);
    assert_eq!(it.person.sh("ls e && cat e/*").ok(), "1700000000000000.png\npixels");
    it.person
        .sh("echo x > e/1700000000000001.txt && cat e/1700000000000001.txt")
        .ok();
    assert_eq!(it.curl(&[&it.server.url("b/data/e?ts=1700000000000001")]), b"x\n");
    it.person.sh("echo x > e/name.txt").refused("Invalid argument");
    it.person.unmount();
}

/// The server is killed under a reader and comes back: right bytes or an error, and the mount works on without help.
#[test]
fn a_server_that_dies_and_comes_back() {
    let mut it = Store::new(Who::me());
    it.person.mount("store", &["--attr-ttl", "0", "--op-timeout", "15s"]);
    it.person.sh("seq 1000000 > numbers && seq 10 > small").ok();
    it.person.unmount();
    it.person
        .mount("store", &["--attr-ttl", "0", "--op-timeout", "15s", "--no-disk-cache"]);
    let sum = it.person.sh("seq 1000000 | sha256sum").ok();
    let mut reader = it
        .person
        .start("echo start; for n in 1 2 3 4 5 6; do sha256sum < numbers || echo error; done");
    reader.wait_for("start");
    it.server.kill();
    it.person.sh("cat small2").refused("");
    it.server.restart();
    let said = reader.wait();
    for line in said.out.lines().filter(|line| *line != "start") {
        assert!(
            line == sum.trim() || line == "error" || line.starts_with("e3b0c442"),
            "wrong bytes: {line}"
        );
    }
    until("the mount to work again", || it.person.sh("cat small").code == Some(0));
    assert_eq!(it.person.sh("sha256sum < numbers").ok(), sum);
    it.person.sh("echo again > written && cat written").ok();
    it.person.unmount();
}
