//! How many requests a new small file takes, counted on the wire in front of real servers.
//!
//! A program makes the files one after the other in a directory that was made before, while they are sent. What a mount finds
//! out once is found out by a first file, which doesn't count. `KEYMOUNT_TEST_FILES` is how many are counted (200, and 50 where each takes several).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use keymount::fs::Ino;
use keymount::provider::Provider;

use crate::counting::CountingProxy;
use crate::mounted::Mounted;
use crate::{s3, webdav};

/// In bytes.
const SIZE: usize = 4096;

/// What a busy machine may ask beyond what each file takes, as a listing that is too old. One more for each would be
/// twice that.
const SPARE: f64 = 0.5;

/// A time of a file that is so close to the server's isn't worth a request (`provider::webdav`).
const CLOSE: Duration = Duration::from_secs(2);

/// What all files took.
struct Taken {
    /// Requests for each file, with everything that the file system asks beside.
    each: f64,
    /// Those that don't count: they only tell what a file is to have beside its content.
    described: usize,
    /// When the program began with each file.
    begun: Vec<SystemTime>,
}

/// How many files, unless it is told.
fn files(usually: usize) -> usize {
    let given = std::env::var("KEYMOUNT_TEST_FILES");
    given.map_or(usually, |text| text.parse().expect("a number"))
}

fn name(number: usize) -> String {
    format!("file {number:06}")
}

async fn requests_for_each(what: &str, count: usize, proxy: &CountingProxy, provider: impl Provider) -> Taken {
    // As a mount has it.
    let it = Mounted::new(Arc::new(provider), Duration::from_secs(10)).await;
    let made = it
        .fs
        .make_directory(Ino::ROOT, OsStr::new("new"), 0o755, 0)
        .await
        .unwrap();
    let directory = made.keep().attributes.ino;
    it.fs.start_sending();
    it.write_in(directory, "first", Bytes::from_static(b"first")).await;
    sent(&it).await;
    proxy.forget();
    let mut begun = Vec::with_capacity(count);
    for number in 0..count {
        let bytes = Bytes::from(vec![number as u8; SIZE]);
        begun.push(SystemTime::now());
        it.write_in(directory, &name(number), bytes).await;
    }
    sent(&it).await;
    let asked = proxy.asked();
    let mut methods: BTreeMap<&str, usize> = BTreeMap::new();
    for request in &asked {
        *methods.entry(&request.method).or_default() += 1;
    }
    let described = methods.get("PROPPATCH").copied().unwrap_or_default();
    let each = (asked.len() - described) as f64 / count as f64;
    println!("{what}: {each:.3} requests for each of {count} new files: {methods:?}");
    let stored = it.contents_of("new").await;
    assert_eq!(stored.len(), count + 1);
    assert_eq!(stored.values().filter(|bytes| bytes.len() == SIZE).count(), count);
    Taken { each, described, begun }
}

/// Returns when the provider has everything.
async fn sent(it: &Mounted) {
    while it.fs.waiting() > 0 || !it.fs.pending().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn at_moto(software: s3::Software, count: usize) -> f64 {
    let server = s3::S3Server::start(software);
    server.make_bucket().await;
    let proxy = CountingProxy::before(server.port());
    let keys = s3::key(s3::given(s3::SECRET_KEY)).await;
    let client = s3::client_at(&proxy.endpoint(), s3::REGION, "folder", keys);
    requests_for_each(&format!("{software:?}"), count, &proxy, client)
        .await
        .each
}

async fn at_share(software: webdav::Software) -> f64 {
    let server = webdav::DavServer::start(software);
    let proxy = CountingProxy::before(server.port());
    let password = webdav::password(webdav::given(webdav::PASSWORD)).await;
    let client = webdav::client_at(&proxy.endpoint(), "", password);
    let taken = requests_for_each(&format!("{software:?}"), files(50), &proxy, client).await;
    // What is stored long after it was written is given its own time, where the server takes it; nothing else is.
    let folder = server.data().join("new");
    let stored = |number: usize| std::fs::metadata(folder.join(name(number))).and_then(|file| file.modified());
    let is_late = |number: usize, begun: SystemTime| {
        let after = stored(number).unwrap().duration_since(begun);
        after.is_ok_and(|after| after >= CLOSE)
    };
    let all = taken.begun.iter().enumerate();
    let late = all.filter(|(number, begun)| is_late(*number, **begun)).count();
    let described = taken.described;
    assert!(
        described <= late,
        "{software:?}: {described} were described, {late} were late"
    );
    taken.each
}

/// As at Amazon S3: one to store it, and a look for several together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_bucket_with_conditions() {
    let each = at_moto(s3::Software::MotoWithCopies, files(200)).await;
    assert!(each <= 1.0 + SPARE, "{each}");
}

/// Under a lock for each: stored, listed, looked at whether the name is free, stored, looked at, given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_bucket_with_locks() {
    let each = at_moto(s3::Software::Moto, files(50)).await;
    assert!(each <= 7.0 + SPARE, "{each}");
}

/// Locked, stored, read again, given back; at Apache, before it is locked and after that, made as an empty file and looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_share() {
    for software in webdav::Software::ALL {
        let each = at_share(software).await;
        let most = if software == webdav::Software::Apache { 6.0 } else { 4.0 };
        assert!(each <= most + SPARE, "{software:?}: {each}");
    }
}
