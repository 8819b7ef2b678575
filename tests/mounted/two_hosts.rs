//! Two daemons that know nothing of each other, each with a state, a cache and a configuration of its own, on one store:
//! whatever either of them was told to be stored is there at the end, in its file or beside it.
//!
//! A run is a seeded list of operations for each of two threads, one on each mount. Every write adds a line of its own to
//! what the file had when it was opened, so that the lines that exist at the end say what was kept. A line may be missing
//! only when somebody removed or replaced its file after it was stored, or while it was.
//! moto looks at a condition first and stores then, and WsgiDAV looks for locks after it has emptied the file: both serve one
//! request at a time here, else they lose what they have acknowledged.
//! `KEYMOUNT_TEST_OPERATIONS` is the number of operations (200), `KEYMOUNT_TEST_SEED` another start.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;
use tokio::runtime::Runtime;

use crate::garage::Garage;
use crate::s3_server::{self, BUCKET, KEY_ID, S3Server, SECRET_KEY};
use crate::sandbox::{Sandbox, Who, until};
use crate::webdav_server::{DavServer, PASSWORD, Software, USER};

/// Names that both edit. The last one is the only one that is ever removed.
const NAMES: [&str; 4] = ["a", "b", "c", "gone"];

/// What one thread did, with the moments of its beginning and its end.
#[derive(Debug)]
enum Done {
    /// Stored: `fsync` said so.
    Stored { file: String, line: String },
    /// Put over what had the name, or removed it.
    Ended { file: String },
    /// Given another name.
    #[allow(dead_code, reason = "it is shown when something is lost")]
    Moved { from: String, to: String },
}

#[derive(Debug)]
struct Event {
    /// Which operation of which host.
    by: (usize, usize),
    from: u64,
    to: u64,
    done: Done,
}

struct Host {
    number: usize,
    folder: PathBuf,
    random: Rng,
    events: Vec<Event>,
    refused: BTreeMap<ErrorKind, usize>,
    /// Operations begun, by which each line and each new name is told apart.
    count: usize,
}

/// Order of all events on both hosts.
static CLOCK: AtomicU64 = AtomicU64::new(0);

fn tick() -> u64 {
    CLOCK.fetch_add(1, Ordering::SeqCst)
}

impl Host {
    fn run(mut self, operations: usize, start: &Barrier, also: &[i32]) -> Self {
        start.wait();
        for _ in 0..operations {
            self.count += 1;
            let from = tick();
            let outcome = match self.random.u32(..100) {
                0..45 => self.edit(from),
                45..60 => self.save_by_rename(from),
                60..75 => self.create(from),
                75..90 => self.move_away(from),
                _ => self.remove(from),
            };
            if let Err(error) = outcome {
                // What a person is told when somebody else was faster. Anything else is wrong.
                let number = error.raw_os_error();
                assert!(
                    number.is_some_and(|number| number == libc::ESTALE || also.contains(&number))
                        || matches!(
                            error.kind(),
                            ErrorKind::NotFound | ErrorKind::AlreadyExists | ErrorKind::ResourceBusy
                        ),
                    "host {}, operation {}: {error}",
                    self.number,
                    self.count
                );
                *self.refused.entry(error.kind()).or_default() += 1;
            }
        }
        self
    }

    fn any_name(&mut self) -> String {
        NAMES[self.random.usize(..NAMES.len())].to_owned()
    }

    fn line(&self) -> String {
        format!("host {} operation {}\n", self.number, self.count)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn note(&mut self, from: u64, done: Done) {
        let to = tick();
        let by = (self.number, self.count);
        self.events.push(Event { by, from, to, done });
    }

    /// Adds a line to a file that is there or isn't.
    fn edit(&mut self, from: u64) -> std::io::Result<()> {
        let (file, line) = (self.any_name(), self.line());
        let mut open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.path(&file))?;
        let mut text = String::new();
        open.read_to_string(&mut text)?;
        text += &line;
        open.rewind()?;
        open.write_all(text.as_bytes())?;
        open.sync_all()?;
        self.note(from, Done::Stored { file, line });
        Ok(())
    }

    /// As editors save: another file, then its name.
    fn save_by_rename(&mut self, from: u64) -> std::io::Result<()> {
        let (file, line) = (self.any_name(), self.line());
        let other = self.path(&format!("{file} saved {} {}", self.number, self.count));
        let mut text = match std::fs::read_to_string(self.path(&file)) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            text => text?,
        };
        text += &line;
        let mut open = File::create(&other)?;
        open.write_all(text.as_bytes())?;
        open.sync_all()?;
        drop(open);
        let renamed = std::fs::rename(&other, self.path(&file));
        // Its lines are there under the one name or the other.
        self.note(
            from,
            Done::Stored {
                file: file.clone(),
                line,
            },
        );
        self.note(from, Done::Ended { file });
        renamed
    }

    /// Both hosts make files of the same names at about the same time.
    fn create(&mut self, from: u64) -> std::io::Result<()> {
        let (file, line) = (format!("new {}", self.count / 5), self.line());
        let mut open = OpenOptions::new().write(true).create_new(true).open(self.path(&file))?;
        open.write_all(line.as_bytes())?;
        open.sync_all()?;
        self.note(from, Done::Stored { file, line });
        Ok(())
    }

    fn move_away(&mut self, from: u64) -> std::io::Result<()> {
        let file = self.any_name();
        let away = format!("{file} away {} {}", self.number, self.count);
        std::fs::rename(self.path(&file), self.path(&away))?;
        self.note(from, Done::Moved { from: file, to: away });
        Ok(())
    }

    fn remove(&mut self, from: u64) -> std::io::Result<()> {
        let removed = std::fs::remove_file(self.path("gone"));
        self.note(
            from,
            Done::Ended {
                file: "gone".to_owned(),
            },
        );
        removed
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// Runs both hosts on `store`, which the configuration of `hosts` names, and looks at it with the last one.
fn lose_nothing(hosts: &[Sandbox; 3]) {
    lose_nothing_but(hosts, &[]);
}

/// The same, where programs may be told these errors, too.
fn lose_nothing_but(hosts: &[Sandbox; 3], also: &[i32]) {
    let operations = number("KEYMOUNT_TEST_OPERATIONS", 200) as usize;
    let seed = number("KEYMOUNT_TEST_SEED", 1);
    println!("KEYMOUNT_TEST_SEED={seed} KEYMOUNT_TEST_OPERATIONS={operations}");
    for host in &hosts[..2] {
        host.mount_as_usual("store", &["--attr-ttl", "0"]);
    }
    hosts[0].sh("mkdir shared").ok();
    hosts[1].sh("test -d shared").ok();
    let start = Barrier::new(2);
    let done: Vec<Host> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|number| {
                let host = Host {
                    number,
                    folder: hosts[number].mount_point().join("shared"),
                    random: Rng::with_seed(seed * 2 + number as u64),
                    events: Vec::new(),
                    refused: BTreeMap::new(),
                    count: 0,
                };
                let start = &start;
                scope.spawn(move || host.run(operations / 2, start, also))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for host in &hosts[..2] {
        host.unmount();
        host.keymount(["pending", "list"]).says("nothing is pending\n");
    }
    hosts[2].mount("store", &[]);
    let there = texts(&hosts[2].mount_point().join("shared"));
    hosts[2].unmount();

    let all = || done.iter().flat_map(|host| &host.events);
    let ended: Vec<_> = all()
        .filter_map(|event| match &event.done {
            Done::Ended { file } => Some((file, event)),
            Done::Stored { .. } | Done::Moved { .. } => None,
        })
        .collect();
    let (mut kept, mut excused, mut lost) = (0, 0, Vec::new());
    for event in all() {
        let Done::Stored { file, line } = &event.done else {
            continue;
        };
        if there.values().any(|text| text.contains(line.as_str())) {
            kept += 1;
            continue;
        }
        // Replacing ends what was stored while the replacement was made; removing ends all there was.
        let is_excused = ended.iter().any(|(name, end)| {
            let at_once = end.to > event.from && (file == "gone" || end.from < event.to);
            *name == file && at_once && end.by != event.by
        });
        if is_excused {
            excused += 1;
        } else {
            lost.push(line);
        }
    }
    let refused: Vec<_> = done.iter().map(|host| &host.refused).collect();
    let conflicts = there.keys().filter(|name| name.contains("conflict from")).count();
    println!("{kept} kept, {excused} removed or replaced, {conflicts} conflicts, refused: {refused:?}");
    let mut told: Vec<_> = all().collect();
    told.sort_by_key(|event| event.from);
    assert!(
        lost.is_empty(),
        "seed {seed}: lost {lost:?}\nof {there:#?}\nafter {told:#?}"
    );
    assert!(kept * 4 > operations, "too little was stored to say anything");
    assert!(
        there.keys().all(|name| !name.starts_with(".keymount")),
        "something is left over: {:?}",
        there.keys()
    );
}

/// All files in a folder.
fn texts(folder: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read_to_string(entry.path()).unwrap())
        })
        .collect()
}

/// Three homes with this configuration each.
fn hosts(secret: &str, toml: impl Fn(usize, &Path) -> String) -> [Sandbox; 3] {
    hosts_of(Who::me(), secret, toml)
}

fn hosts_of(who: Who, secret: &str, toml: impl Fn(usize, &Path) -> String) -> [Sandbox; 3] {
    [0, 1, 2].map(|number| {
        let person = Sandbox::new(who);
        let file = person.file("work/secret", secret, 0o600);
        person.configure(&toml(number, &file));
        person
    })
}

fn bucket(endpoint: &str, region: &str, key_id: &str, secret: &Path) -> String {
    format!(
        "[remotes.store]\nprovider = \"s3\"\nendpoint = \"{endpoint}\"\nregion = \"{region}\"\nbucket = \"{BUCKET}\"\n\
         [remotes.store.auth]\nmethod = \"static\"\naccess_key_id = \"{key_id}\"\n\
         secret_access_key = {{ file = \"{}\" }}\n",
        secret.display()
    )
}

#[test]
fn of_a_bucket_at_moto() {
    of_a_bucket(s3_server::Software::Moto);
}

/// Without locks, as at Amazon S3.
#[test]
fn of_a_bucket_at_moto_that_minds_every_condition() {
    of_a_bucket(s3_server::Software::MotoWithCopies);
}

fn of_a_bucket(software: s3_server::Software) {
    let server = S3Server::start(software);
    Runtime::new().unwrap().block_on(server.make_bucket());
    let hosts = hosts(SECRET_KEY, |_, secret| {
        bucket(&server.endpoint(), "us-east-1", KEY_ID, secret)
    });
    lose_nothing(&hosts);
}

/// Each host at a node of its own.
#[test]
fn of_a_bucket_at_a_garage_cluster() {
    let garage = Runtime::new().unwrap().block_on(Garage::start());
    let hosts = hosts(garage.secret_key(), |number, secret| {
        bucket(&garage.endpoint(number), crate::garage::REGION, garage.key_id(), secret)
    });
    lose_nothing(&hosts);
}

fn share(server: &DavServer, also: &[i32]) {
    let hosts = hosts(PASSWORD, |_, secret| {
        format!(
            "[remotes.store]\nprovider = \"webdav\"\nendpoint = \"{}\"\n[remotes.store.auth]\nmethod = \"basic\"\n\
             username = \"{USER}\"\npassword = {{ file = \"{}\" }}\n",
            server.endpoint(),
            secret.display()
        )
    });
    lose_nothing_but(&hosts, also);
}

#[test]
fn of_a_share_at_wsgidav() {
    share(&DavServer::start_in_turn(), &[]);
}

/// Why WsgiDAV has to take one request after the other, shown without keymount: it looks whether a name that is to be locked
/// has a file, reads the rest of the request, and makes an empty file. What somebody else has stored meanwhile is lost.
#[test]
fn wsgidav_by_itself_empties_what_is_stored_while_a_name_is_locked() {
    const LOCK: &str = "<?xml version=\"1.0\"?><lockinfo xmlns=\"DAV:\"><lockscope><exclusive/></lockscope>\
                        <locktype><write/></locktype></lockinfo>";
    let server = DavServer::start(Software::WsgiDav);
    let address = server.endpoint();
    let address = address.trim_start_matches("http://").trim_end_matches('/');
    let credential = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("{USER}:{PASSWORD}"));
    let begin = |method: &str, name: &str, len: usize| {
        let mut connection = TcpStream::connect(address).unwrap();
        let head = format!(
            "{method} /{name} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Basic {credential}\r\n\
             Content-Length: {len}\r\nContent-Type: application/xml\r\nTimeout: Second-60\r\nDepth: 0\r\n\
             Connection: close\r\n\r\n"
        );
        connection.write_all(head.as_bytes()).unwrap();
        connection
    };
    let end = |mut connection: TcpStream, body: &str| {
        connection.write_all(body.as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    };
    // It may be slow to look, and then it finds the file.
    let lost = (0..100).any(|number| {
        let name = format!("new{number}");
        let locking = begin("LOCK", &name, LOCK.len());
        let stored = end(begin("PUT", &name, 5), "words");
        assert!(stored.starts_with("HTTP/1.1 201"), "{stored}");
        let locked = end(locking, LOCK);
        assert!(locked.starts_with("HTTP/1.1 20"), "{locked}");
        let there = end(begin("GET", &name, 0), "");
        assert!(there.starts_with("HTTP/1.1 200"), "{there}");
        !there.ends_with("words")
    });
    assert!(lost, "it may take several requests at once in the test above");
}

/// It stores in place, and for a moment tells the old length and sends the new bytes, which is EIO for a reader.
#[test]
fn of_a_share_at_rclone() {
    share(&DavServer::start(Software::Rclone), &[libc::EIO]);
}

/// What a host has not seen it neither removes nor replaces, however old its own picture is.
#[test]
fn what_the_other_host_has_changed_is_kept() {
    Who::each(what_the_other_has_changed_is_kept_by);
}

fn what_the_other_has_changed_is_kept_by(who: Who) {
    let server = S3Server::start(s3_server::Software::Moto);
    Runtime::new().unwrap().block_on(server.make_bucket());
    let hosts = hosts_of(who, SECRET_KEY, |_, secret| {
        bucket(&server.endpoint(), "us-east-1", KEY_ID, secret)
    });
    for host in &hosts[..2] {
        host.mount("store", &["--attr-ttl", "1h"]);
    }
    hosts[0].sh("echo one > a && echo one > b && ls").says("a\nb\n");
    hosts[1].sh("echo two > a && echo two > b").ok();
    hosts[0]
        .sh("echo mine > c && mv c b && cat b 'b (conflict from '* && ls | wc -l")
        .says("two\nmine\n3\n");
    hosts[0].sh("cat a").ok();
    hosts[1].sh("echo three > a").ok();
    hosts[0].sh("rm a").refused("Device or resource busy");
    hosts[0].sh("cat a && rm a && ls | wc -l").says("three\n2\n");
    for host in &hosts[..2] {
        host.unmount();
    }
}

/// A tree is copied while a node is killed in the middle: nobody notices, and everything is there.
#[test]
fn a_copy_goes_on_when_a_node_is_killed() {
    const FILES: usize = 60;
    let runtime = Runtime::new().unwrap();
    let mut garage = runtime.block_on(Garage::start());
    let people = hosts(garage.secret_key(), |number, secret| {
        bucket(&garage.endpoint(number), crate::garage::REGION, garage.key_id(), secret)
    });
    let person = &people[0];
    person
        .sh(&format!(
            "cd ../work && mkdir -p tree/deep/er && n=0 && while [ $n -lt {FILES} ]; do \
             head -c $((n * 3000)) /dev/urandom > tree/deep/file$n || exit 1; n=$((n + 1)); done && \
             head -c 20000000 /dev/urandom > tree/deep/er/big && : > tree/empty && chmod 640 tree/empty"
        ))
        .ok();
    // So slowly that it takes half a minute, however quick the machine is.
    person.mount_as_usual("store", &["--bandwidth", "1M:off"]);
    let copying = person.start("cp -a ../work/tree . && diff -r ../work/tree tree");
    let mut before = 0;
    until("the first files are stored", || {
        before = runtime.block_on(garage.stored_objects(0));
        before >= 10
    });
    garage.kill(1);
    assert!(before < FILES as u64, "the copy was over before the node was killed");
    copying.wait().ok();
    person.unmount();
    person.keymount(["pending", "list"]).says("nothing is pending\n");
    // Through another node, by somebody who has nothing of it in a cache.
    let source = person.path("work/tree");
    let same = format!("diff -r {} tree", source.display());
    people[2].mount("store", &[]);
    people[2].sh(&same).ok();
    people[2].unmount();
    // The killed one, too, gives all of it when it is back.
    runtime.block_on(garage.start_again(1));
    people[1].mount("store", &[]);
    people[1].sh(&same).ok();
    people[1].unmount();
}

/// The node that a mount talks to is killed: what was closed is kept and sent when the node is back.
#[test]
fn a_mount_outlives_its_own_node() {
    let runtime = Runtime::new().unwrap();
    let mut garage = runtime.block_on(Garage::start());
    let people = hosts(garage.secret_key(), |number, secret| {
        bucket(&garage.endpoint(number), crate::garage::REGION, garage.key_id(), secret)
    });
    let person = &people[0];
    person.mount_as_usual("store", &["--op-timeout", "15s"]);
    person
        .sh("mkdir work && echo kept > work/old && sync work/old && cat work/old && ls work")
        .says("kept\nold\n");
    garage.kill(0);
    person.sh("cat work/old").says("kept\n");
    person
        .sh("echo changed > work/old && echo new > work/new && cat work/old work/new")
        .says("changed\nnew\n");
    let waiting = person.keymount(["pending", "list"]).ok();
    assert!(waiting.contains("old") && waiting.contains("new"), "{waiting}");
    runtime.block_on(garage.start_again(0));
    person.unmount();
    people[2].mount("store", &[]);
    people[2].sh("cat work/old work/new").says("changed\nnew\n");
    people[2].unmount();
}
