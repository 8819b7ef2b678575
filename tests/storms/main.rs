//! Services that say "not now" to everything for a while: nothing fails that can wait, nobody is asked in vain, and what
//! cannot wait fails at once. Every provider with a stand-in; time is the test's.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod clients;
mod clock;
#[path = "../support/cloudsync.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod cloudsync_support;
#[path = "../support/cludz.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod cludz_support;
#[path = "../support/dstor.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod dstor_support;
mod hours;
#[path = "../support/storra.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod storra_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::TryStreamExt;
use keymount::emulator::{Fault, Rule, Running};
use keymount::model::{Entry, ErrorKind, Name, ObjectKey, Result};
use keymount::provider::{Content, Provider, Target};
use tokio::task::JoinHandle;

use clients::{Client, Kind};
use clock::StoppedClock;

/// Readers at the same time, each with a file of its own.
const READERS: usize = 16;
/// What an operation has, in seconds; the transport is set up for it.
const DEADLINE: u64 = 30;
/// How often a test looks whether other threads are done, while time stands still.
const PATIENCE: usize = 1000;

/// A refusal of everything while it is closed.
#[derive(Clone, Copy, Debug)]
struct Storm {
    status: u16,
    /// In seconds.
    retry_after: Option<u64>,
}

/// What stands at the service's door.
#[derive(Default)]
struct Door {
    closed: AtomicBool,
    refused: AtomicUsize,
}

impl Door {
    fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    /// Refuses everything but what keeps the clock, whenever it is closed.
    fn guard(running: &Running, storm: Storm) -> Arc<Self> {
        let door = Arc::new(Self::default());
        let at_the_door = Arc::clone(&door);
        let headers = storm
            .retry_after
            .map(|seconds| ("retry-after".to_owned(), seconds.to_string()));
        let refusal = Fault::Status {
            status: storm.status,
            headers: headers.into_iter().collect(),
            body: String::new(),
        };
        let refuses = move |_: &reqwest::Method, target: &str| {
            let refuses = at_the_door.closed.load(Ordering::SeqCst) && !target.contains(clock::MARK);
            at_the_door.refused.fetch_add(usize::from(refuses), Ordering::SeqCst);
            refuses
        };
        running.faults().inject(Rule::when(usize::MAX, refuses, refusal));
        door
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn content(number: usize) -> Vec<u8> {
    format!("content of {number}").into_bytes()
}

async fn upload(provider: &dyn Provider, root: &ObjectKey, text: &str, bytes: &[u8]) -> Result<Entry> {
    let target = Target::New {
        parent: root.clone(),
        name: name(text),
    };
    provider.upload(&target, &Content::from_bytes(bytes).unwrap()).await
}

async fn read(provider: &dyn Provider, entry: &Entry) -> Result<Vec<u8>> {
    let chunks: Vec<_> = provider
        .read(&entry.object(), 0..entry.size)
        .await?
        .try_collect()
        .await?;
    Ok(chunks.concat())
}

/// A provider with files, behind a door, in a time that stands still.
struct Bench {
    client: Client,
    files: Vec<Entry>,
    door: Arc<Door>,
    clock: StoppedClock,
}

impl Bench {
    async fn new(kind: Kind, storm: Storm) -> Self {
        let client = kind.client(Duration::from_secs(DEADLINE)).await;
        let mut files = Vec::new();
        for number in 0..READERS {
            let file = upload(&*client.provider, &client.root, &format!("f{number}"), &content(number)).await;
            files.push(file.unwrap());
        }
        let door = Door::guard(&client.running, storm);
        let clock = StoppedClock::stop(client.running.url());
        Self {
            client,
            files,
            door,
            clock,
        }
    }

    fn close(&self) {
        self.door.closed.store(true, Ordering::SeqCst);
    }

    fn open(&self) {
        self.door.closed.store(false, Ordering::SeqCst);
    }

    fn start_reading(&self, number: usize) -> JoinHandle<Result<()>> {
        let (provider, entry) = (Arc::clone(&self.client.provider), self.files[number].clone());
        tokio::spawn(async move {
            let bytes = read(&*provider, &entry).await?;
            assert_eq!(bytes, content(number));
            Ok(())
        })
    }

    fn start_listing(&self) -> JoinHandle<Result<()>> {
        let (provider, root) = (Arc::clone(&self.client.provider), self.client.root.clone());
        tokio::spawn(async move {
            let listed = provider.list(&root).await?;
            assert!(listed.len() >= READERS, "{listed:?}");
            Ok(())
        })
    }

    fn start_uploading(&self) -> JoinHandle<Result<()>> {
        let (provider, root) = (Arc::clone(&self.client.provider), self.client.root.clone());
        tokio::spawn(async move { upload(&*provider, &root, "new", b"news").await.map(drop) })
    }

    fn start_all(&self) -> Vec<JoinHandle<Result<()>>> {
        let mut all = self.start_all_but_uploading();
        all.push(self.start_uploading());
        all
    }

    fn start_all_but_uploading(&self) -> Vec<JoinHandle<Result<()>>> {
        let mut all: Vec<_> = (0..READERS).map(|number| self.start_reading(number)).collect();
        all.push(self.start_listing());
        all
    }

    /// Waits for the first refusal; no time passes.
    async fn until_refused(&self) {
        for _ in 0..PATIENCE {
            if self.door.refused() > 0 {
                return;
            }
            self.clock.settle().await;
        }
        panic!("{:?}: nothing was asked", self.client.kind);
    }

    /// Lets time pass until all is done, for so many seconds at most; gives how long it took.
    async fn finish(&self, work: &[JoinHandle<Result<()>>], most: u64) -> u64 {
        for second in 0..=most {
            // Work on files is done by other threads, which take their own time: where none may pass here any more,
            // theirs is awaited.
            let looks = if second == most { PATIENCE } else { 3 };
            for _ in 0..looks {
                self.clock.settle().await;
                if work.iter().all(JoinHandle::is_finished) {
                    return second;
                }
            }
            self.clock.advance(Duration::from_secs(1)).await;
        }
        let waiting: Vec<_> = work.iter().map(|one| u8::from(!one.is_finished())).collect();
        panic!("{:?}: after {most} s these still wait: {waiting:?}", self.client.kind);
    }
}

async fn outcomes(work: Vec<JoinHandle<Result<()>>>) -> Vec<Result<()>> {
    let mut outcomes = Vec::new();
    for one in work {
        outcomes.push(one.await.unwrap());
    }
    outcomes
}

fn is_limited(outcome: &Result<()>) -> bool {
    matches!(outcome, Err(error) if matches!(error.kind(), ErrorKind::RateLimited { .. }))
}

/// Sixteen readers, a listing and an upload while the service is closed for six seconds and asks for seven.
async fn waits_as_asked(kind: Kind, status: u16) {
    let bench = Bench::new(
        kind,
        Storm {
            status,
            retry_after: Some(7),
        },
    )
    .await;
    bench.close();
    // One hears it.
    let first = bench.start_reading(0);
    bench.clock.settle().await;
    assert_eq!(bench.door.refused(), 1, "{kind:?}");
    // The others needn't ask.
    let others = bench.start_all();
    for _ in 0..6 {
        bench.clock.settle().await;
        bench.clock.advance(Duration::from_secs(1)).await;
    }
    let budgets = kind.budgets(status);
    assert!(
        bench.door.refused() <= budgets,
        "{kind:?}: {} refused",
        bench.door.refused()
    );
    bench.open();
    let mut work = vec![first];
    work.extend(others);
    bench.finish(&work, DEADLINE - 6).await;
    for outcome in outcomes(work).await {
        outcome.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
    }
    assert!(bench.door.refused() <= budgets, "{kind:?}");
}

/// The same without a word about when to come again, and all at once.
async fn finds_out_itself(kind: Kind, status: u16) {
    let bench = Bench::new(
        kind,
        Storm {
            status,
            retry_after: None,
        },
    )
    .await;
    bench.close();
    let work = bench.start_all();
    for _ in 0..10 {
        bench.clock.settle().await;
        bench.clock.advance(Duration::from_secs(1)).await;
    }
    // Those that were on their way when the first was refused, then one after each pause: 0.1 s, doubled up to 2 s,
    // and shortened by half at most.
    let on_their_way = work.len();
    let most = on_their_way + 14 * kind.budgets(status);
    assert!(
        bench.door.refused() <= most,
        "{kind:?}: {} of {most} refused",
        bench.door.refused()
    );
    bench.open();
    bench.finish(&work, DEADLINE - 10).await;
    for outcome in outcomes(work).await {
        outcome.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
    }
}

/// What would have to wait longer than it may fails at once, and nobody asks again until the time is over.
async fn fails_at_once(kind: Kind, status: u16) {
    let bench = Bench::new(
        kind,
        Storm {
            status,
            retry_after: Some(600),
        },
    )
    .await;
    bench.close();
    let first = vec![bench.start_reading(0)];
    bench.finish(&first, 0).await;
    assert!(outcomes(first).await.iter().all(is_limited), "{kind:?}");
    for _ in 0..3 {
        let work = vec![bench.start_reading(1), bench.start_uploading()];
        assert_eq!(bench.finish(&work, 0).await, 0);
        let outcomes = outcomes(work).await;
        assert!(outcomes.iter().all(is_limited), "{kind:?}: {outcomes:?}");
        bench.clock.advance(Duration::from_secs(100)).await;
    }
    let budgets = kind.budgets(status);
    assert!(
        bench.door.refused() <= budgets,
        "{kind:?}: {} refused",
        bench.door.refused()
    );
    bench.open();
    bench.clock.advance(Duration::from_secs(500)).await;
    let work = bench.start_all();
    bench.finish(&work, DEADLINE).await;
    for outcome in outcomes(work).await {
        outcome.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
    }
}

/// A service that stays closed: everything ends within its deadline.
async fn gives_up_in_time(kind: Kind, status: u16) {
    let bench = Bench::new(
        kind,
        Storm {
            status,
            retry_after: None,
        },
    )
    .await;
    bench.close();
    // An upload begins when its checksum is known, and that takes another thread's time, in which none passes here.
    let upload = bench.start_uploading();
    bench.until_refused().await;
    let mut work = bench.start_all_but_uploading();
    work.push(upload);
    let on_their_way = work.len();
    bench.finish(&work[..READERS], DEADLINE).await;
    // Where everything is listed at once, whoever waited for another's listing then asks itself.
    bench.finish(&work, DEADLINE).await;
    let outcomes = outcomes(work).await;
    assert!(outcomes[..READERS].iter().all(is_limited), "{kind:?}: {outcomes:?}");
    assert!(is_limited(&outcomes[READERS + 1]), "{kind:?}: {outcomes:?}");
    let most = on_their_way + 32 * kind.budgets(status);
    assert!(
        bench.door.refused() <= most,
        "{kind:?}: {} of {most} refused",
        bench.door.refused()
    );
}

macro_rules! storms {
    ($($provider:ident: $kind:expr;)*) => {$(
        mod $provider {
            use super::*;

            #[tokio::test]
            async fn too_many_requests_with_a_wait() {
                waits_as_asked($kind, 429).await;
            }

            #[tokio::test]
            async fn unavailable_with_a_wait() {
                waits_as_asked($kind, 503).await;
            }

            #[tokio::test]
            async fn too_many_requests_without_a_word() {
                finds_out_itself($kind, 429).await;
            }

            #[tokio::test]
            async fn a_wait_beyond_the_deadline() {
                fails_at_once($kind, 429).await;
            }

            #[tokio::test]
            async fn unavailable_beyond_the_deadline() {
                fails_at_once($kind, 503).await;
            }

            #[tokio::test]
            async fn a_storm_without_end() {
                gives_up_in_time($kind, 429).await;
            }
        }
    )*};
}

storms! {
    cludz: Kind::Cludz;
    cloudsync: Kind::CloudSync;
    storra: Kind::Storra;
    dstor: Kind::Dstor;
    reductstore: Kind::ReductStore;
}
