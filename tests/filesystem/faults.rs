//! Whatever the provider does at whatever step: nothing is lost, nothing is there twice, and whoever reads or writes what
//! is staged gets an answer at once.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use keymount::fs::{Access, Ino, RenameMode};
use keymount::model::{Error, ErrorKind};
use keymount::provider::faulty::{Fault, Gate, Operation, Times};
use tokio::time::{Instant, timeout};

use crate::kernel::open_emptied;
use crate::support::{Fixture, os};

/// How long an operation may take, as a mount has it unless told otherwise.
const DEADLINE: Duration = Duration::from_secs(30);

/// What a provider can do to a request, by what keymount makes of it.
fn faults() -> Vec<Fault> {
    let kinds = [
        // Gone, and slow.
        ErrorKind::Unreachable,
        ErrorKind::TimedOut,
        // 5xx that passes, and that says nothing.
        ErrorKind::Busy,
        ErrorKind::BadData,
        ErrorKind::RateLimited { retry_after: None },
        // 401, 403, 413, 507.
        ErrorKind::NeedsLogin,
        ErrorKind::Denied,
        ErrorKind::TooLarge,
        ErrorKind::NoSpace,
        ErrorKind::Quota,
    ];
    let mut faults: Vec<Fault> = kinds.map(Fault::Fail).into();
    faults.extend([ErrorKind::Unreachable, ErrorKind::TimedOut, ErrorKind::BadData].map(Fault::FailAfterEffect));
    faults.extend([
        Fault::Delay(DEADLINE * 4),
        Fault::Stall(Gate::new()),
        Fault::StallAnswer(Gate::new()),
        Fault::Short,
        Fault::Panic,
    ]);
    faults
}

const OPERATIONS: [Operation; 10] = [
    Operation::Upload,
    Operation::Lookup,
    Operation::Stat,
    Operation::List,
    Operation::Read,
    Operation::Rename,
    Operation::RemoveFile,
    Operation::CreateDirectory,
    Operation::SetAttributes,
    Operation::Usage,
];

/// As the kernel's requests are run: in a task, for no longer than the deadline.
async fn within<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, ErrorKind> {
    let mut task = tokio::spawn(work);
    match timeout(DEADLINE, &mut task).await {
        Ok(Ok(outcome)) => outcome.map_err(|error| error.kind()),
        Ok(Err(_)) => Err(ErrorKind::Internal),
        Err(_) => {
            task.abort();
            Err(ErrorKind::TimedOut)
        }
    }
}

/// Those by which a name is found, before its content matters.
const FINDING: [Operation; 3] = [Operation::Lookup, Operation::Stat, Operation::List];

struct Run {
    it: Fixture,
    /// What must be there, by name; more than one content where the outcome isn't known.
    expected: BTreeMap<&'static str, Vec<&'static str>>,
    /// Names that may be there or not.
    uncertain: Vec<&'static str>,
}

impl Run {
    /// Writes a file and closes it. From opening on this needs nobody.
    async fn write(&mut self, name: &'static str, bytes: &'static str) {
        let fs = self.it.fs.clone();
        let opened = within(async move {
            match fs.lookup(Ino::ROOT, os(name)).await {
                Ok(found) => open_emptied(&fs, found.keep().attributes.ino, Access::Write).await,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let made = fs.create(Ino::ROOT, os(name), Access::Write, 0o644, 0).await?;
                    made.0.keep();
                    Ok(made.1)
                }
                Err(error) => Err(error),
            }
        });
        let Ok(opened) = opened.await else { return };
        let (fs, begun) = (self.it.fs.clone(), Instant::now());
        let written = within(async move {
            fs.write(opened.handle, Some(0), Bytes::from_static(bytes.as_bytes()))
                .await?;
            fs.flush(opened.handle).await
        });
        let written = written.await;
        assert_eq!(written, Ok(()), "{name}");
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "close waited {:?}",
            begun.elapsed()
        );
        self.it.close(opened.handle).await;
        self.expected.insert(name, vec![bytes]);
    }

    /// Reads what is staged, which needs nobody once it is found.
    async fn read(&self, name: &'static str, operation: Operation) {
        let Some(expected) = self.expected.get(name) else {
            return;
        };
        let fs = self.it.fs.clone();
        let read = within(async move {
            let ino = fs.lookup(Ino::ROOT, os(name)).await?.keep().attributes.ino;
            let opened = fs.open(ino, Access::Read).await?;
            let bytes = fs.read(opened.handle, 0, 100).await;
            fs.close(opened.handle);
            bytes
        });
        match read.await {
            Ok(bytes) => assert!(
                expected.iter().any(|text| text.as_bytes() == bytes),
                "{name}: {bytes:?}"
            ),
            Err(error) => assert!(FINDING.contains(&operation), "{name}: {error:?}"),
        }
    }
}

async fn run(operation: Operation, fault: Fault, times: u32) {
    let what = format!("{times} times {fault:?} at {operation:?}");
    let it = Fixture::in_background();
    for name in ["old", "moved", "removed"] {
        it.write(name, b"first").await;
    }
    it.sent().await;
    it.names(Ino::ROOT).await;
    let mut run = Run {
        it,
        expected: BTreeMap::from([("old", vec!["first"])]),
        uncertain: Vec::new(),
    };
    run.it.provider.inject(operation, Times::Next(times), fault.clone());
    run.write("old", "second").await;
    run.write("new", "text").await;
    run.read("old", operation).await;
    run.read("new", operation).await;
    run.write("old", "the third").await;

    let fs = run.it.fs.clone();
    let moved = within(async move {
        fs.rename((Ino::ROOT, os("moved")), (Ino::ROOT, os("there")), RenameMode::Replace)
            .await
    });
    match moved.await {
        Ok(()) => drop(run.expected.insert("there", vec!["first"])),
        Err(_) => run.uncertain.extend(["moved", "there"]),
    }
    let fs = run.it.fs.clone();
    if within(async move { fs.unlink(Ino::ROOT, os("removed")).await })
        .await
        .is_err()
    {
        run.uncertain.push("removed");
    }
    run.write("late", "last").await;
    let acknowledged = ["old", "new", "late"].map(|name| run.expected.contains_key(name));
    assert!(
        FINDING.contains(&operation) || acknowledged == [true; 3],
        "{what}: {acknowledged:?}"
    );
    // Every attempt that fails by itself has failed.
    tokio::time::sleep(Duration::from_secs(400)).await;
    run.it.provider.heal();
    if let Fault::Stall(gate) | Fault::StallAnswer(gate) = &fault {
        gate.open();
    }
    let healed = Instant::now();
    while !run.it.fs.pending().is_empty() {
        run.it.fs.retry_pending();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(
            healed.elapsed() < Duration::from_secs(3600),
            "{what}: {:?}",
            run.it.fs.pending()
        );
    }
    let names = run.it.names(Ino::ROOT).await;
    for (name, contents) in &run.expected {
        let stored = run
            .it
            .store
            .content(name)
            .unwrap_or_else(|| panic!("{what}: {name} is lost: {names:?}"));
        assert!(
            contents.iter().any(|text| text.as_bytes() == stored),
            "{what}: {name} has {stored:?}"
        );
        assert_eq!(run.it.read(name).await, stored, "{what}: {name}");
    }
    for name in &names {
        let known = run.expected.contains_key(name.as_str()) || run.uncertain.contains(&name.as_str());
        assert!(known, "{what}: {names:?}");
    }
    let moved = names.iter().filter(|name| ["moved", "there"].contains(&name.as_str()));
    assert_eq!(moved.count(), 1, "{what}: {names:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_or_doubled_whatever_the_provider_does() {
    let mut runs = 0;
    for operation in OPERATIONS {
        for fault in faults() {
            for times in [1, 3] {
                // Each run has gates of its own.
                let fault = match &fault {
                    Fault::Stall(_) => Fault::Stall(Gate::new()),
                    Fault::StallAnswer(_) => Fault::StallAnswer(Gate::new()),
                    other => other.clone(),
                };
                run(operation, fault, times).await;
                runs += 1;
            }
        }
    }
    println!("{runs} runs");
}
