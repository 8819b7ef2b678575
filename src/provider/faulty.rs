//! A decorator that makes a provider fail on demand and counts how often it is called.
//!
//! What happens is decided by rules that a test queues; without rules it only counts. It invents no faults of its own.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::keys::KeyInfo;
use super::{ByteStream, Capabilities, ChangeFeed, Content, Extras, LabelChanges, Place, Provider, Target};
use crate::model::{
    Entry, Error, ErrorKind, Kind, Name, ObjectId, ObjectKey, PosixAttributes, Result, Rights, Usage, Version,
};

/// The methods of `Provider` that ask the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    Probe,
    Lookup,
    Stat,
    List,
    Read,
    CreateDirectory,
    Upload,
    RemoveFile,
    RemoveDirectory,
    Rename,
    SetLabels,
    SetAttributes,
    Usage,
}

/// What goes wrong with one call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It fails and changed nothing.
    Fail(ErrorKind),
    /// It is carried out, and then says that it failed: the answer was lost.
    FailAfterEffect(ErrorKind),
    /// It takes so long before it begins.
    Delay(Duration),
    /// It does nothing until the gate is opened, then goes on as if nothing had been.
    Stall(Gate),
    /// It is carried out at once, and the answer waits until the gate is opened.
    StallAnswer(Gate),
    /// It panics.
    Panic,
    /// A read's stream gives this many bytes and then this error. Other operations fail without effect.
    Break { after: u64, kind: ErrorKind },
    /// A read's stream gives this many bytes, then waits for the gate, then goes on. Other operations stall at once.
    StallAfter { bytes: u64, gate: Gate },
    /// A read's stream has the right length and every byte inverted, without an error. Others are unharmed.
    WrongBytes,
    /// An upload stores all but the last byte and tells what it stored. Others are unharmed.
    Short,
    /// It says that all went well and did nothing: changes invent their entry, a listing is empty, a read ends at
    /// once, `stat` repeats what it was given, `lookup` finds nothing; `probe` and `usage` are unharmed.
    NoEffect,
}

/// How many calls a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    Next(u32),
    Always,
}

/// Holds calls back until it is opened, and says how many arrived.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<GateState>>);

#[derive(Clone, Copy, Debug, Default)]
struct GateState {
    reached: u64,
    open: bool,
}

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(GateState::default())))
    }
}

impl Gate {
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets all go on that wait, and all that come later.
    pub fn open(&self) {
        self.0.send_modify(|state| state.open = true);
    }

    /// Returns once `calls` calls arrived at the gate, counted from its making.
    pub async fn reached(&self, calls: u64) {
        self.wait(|state| state.reached >= calls).await;
    }

    async fn pass(&self) {
        self.0.send_modify(|state| state.reached += 1);
        self.wait(|state| state.open).await;
    }

    async fn wait(&self, until: impl Fn(&GateState) -> bool) {
        let mut state = self.0.subscribe();
        // The sender lives as long as `self`, so waiting ends only with the condition.
        let _ = state.wait_for(until).await;
    }
}

/// A provider with faults. Clones share rules and counts.
pub struct Faulty<P: ?Sized> {
    shared: Arc<Mutex<Shared>>,
    inner: Arc<P>,
}

#[derive(Default)]
struct Shared {
    rules: HashMap<Operation, VecDeque<Rule>>,
    calls: HashMap<Operation, u64>,
    /// The directories that were listed, in the order in which they were asked for.
    listed: Vec<ObjectKey>,
}

struct Rule {
    times: Times,
    fault: Fault,
}

impl<P: ?Sized> Clone for Faulty<P> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<P: Provider> Faulty<P> {
    pub fn new(inner: P) -> Self {
        Self::over(Arc::new(inner))
    }
}

impl<P: ?Sized + Provider> Faulty<P> {
    pub fn over(inner: Arc<P>) -> Self {
        Self {
            shared: Arc::default(),
            inner,
        }
    }

    pub fn inner(&self) -> &P {
        &self.inner
    }

    /// Adds a rule; the rules of one operation are used up one after the other.
    pub fn inject(&self, operation: Operation, times: Times, fault: Fault) {
        let rule = Rule { times, fault };
        self.shared.lock().rules.entry(operation).or_default().push_back(rule);
    }

    /// Drops all rules; calls that wait at a gate go on waiting.
    pub fn heal(&self) {
        self.shared.lock().rules.clear();
    }

    /// How often an operation was called, failed calls included.
    pub fn calls(&self, operation: Operation) -> u64 {
        self.shared.lock().calls.get(&operation).copied().unwrap_or_default()
    }

    /// How often any operation was called.
    pub fn all_calls(&self) -> u64 {
        self.shared.lock().calls.values().sum()
    }

    /// The directories that were asked for, in order.
    pub fn listed(&self) -> Vec<ObjectKey> {
        self.shared.lock().listed.clone()
    }

    pub fn reset_counts(&self) {
        let mut shared = self.shared.lock();
        shared.calls.clear();
        shared.listed.clear();
    }

    /// Counts the call and waits where a rule says so; gives what is left to go wrong.
    async fn enter(&self, operation: Operation) -> Result<Course> {
        let fault = self.shared.lock().next(operation);
        match fault {
            None => Ok(Course::Unharmed),
            Some(Fault::Fail(kind)) => Err(injected(kind)),
            Some(Fault::FailAfterEffect(kind)) => Ok(Course::FailAfter(kind)),
            Some(Fault::NoEffect) => Ok(Course::NoEffect),
            Some(Fault::Short) => Ok(Course::Short),
            Some(Fault::Stall(gate)) => {
                gate.pass().await;
                Ok(Course::Unharmed)
            }
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                Ok(Course::Unharmed)
            }
            Some(Fault::StallAnswer(gate)) => Ok(Course::StallAnswer(gate)),
            Some(Fault::Panic) => panic!("an injected panic in {operation:?}"),
            Some(Fault::StallAfter { bytes, gate }) if operation == Operation::Read => {
                Ok(Course::StallAfter { bytes, gate })
            }
            Some(Fault::StallAfter { gate, .. }) => {
                gate.pass().await;
                Ok(Course::Unharmed)
            }
            Some(Fault::Break { after, kind }) if operation == Operation::Read => Ok(Course::Break { after, kind }),
            Some(Fault::Break { kind, .. }) => Err(injected(kind)),
            Some(Fault::WrongBytes) => Ok(Course::WrongBytes),
        }
    }
}

impl Shared {
    fn next(&mut self, operation: Operation) -> Option<Fault> {
        *self.calls.entry(operation).or_default() += 1;
        let rules = self.rules.get_mut(&operation)?;
        while let Some(rule) = rules.front_mut() {
            match &mut rule.times {
                Times::Always => return Some(rule.fault.clone()),
                Times::Next(0) => {
                    rules.pop_front();
                }
                Times::Next(left) => {
                    *left -= 1;
                    return Some(rule.fault.clone());
                }
            }
        }
        None
    }
}

/// What happens to a call that got past the entrance.
enum Course {
    Unharmed,
    FailAfter(ErrorKind),
    StallAnswer(Gate),
    NoEffect,
    Short,
    Break { after: u64, kind: ErrorKind },
    StallAfter { bytes: u64, gate: Gate },
    WrongBytes,
}

impl Course {
    /// The answer that the caller gets instead of the real one.
    async fn after<T>(&self, answer: Result<T>) -> Result<T> {
        match (self, answer) {
            (Self::FailAfter(kind), Ok(_)) => Err(injected(*kind)),
            (Self::StallAnswer(gate), answer) => {
                gate.pass().await;
                answer
            }
            (_, answer) => answer,
        }
    }

    fn is_lie(&self) -> bool {
        matches!(self, Self::NoEffect)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<P: ?Sized + Provider> Provider for Faulty<P> {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn identity(&self) -> String {
        self.inner.identity()
    }

    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn current_key(&self) -> Option<KeyInfo> {
        self.inner.current_key()
    }

    fn changes(&self) -> Option<Box<dyn ChangeFeed>> {
        self.inner.changes()
    }

    fn extras(&self) -> Option<&dyn Extras> {
        self.inner.extras()
    }

    fn check_name(&self, parent: &ObjectKey, kind: Kind, name: &Name) -> Result<()> {
        self.inner.check_name(parent, kind, name)
    }

    async fn probe(&self) -> Result<Entry> {
        let course = self.enter(Operation::Probe).await?;
        course.after(self.inner.probe().await).await
    }

    async fn lookup(&self, parent: &ObjectKey, name: &Name) -> Result<Entry> {
        let course = self.enter(Operation::Lookup).await?;
        if course.is_lie() {
            return Err(Error::not_found(format_args!("{:?}", name.as_str())));
        }
        course.after(self.inner.lookup(parent, name).await).await
    }

    async fn stat(&self, entry: &Entry) -> Result<Entry> {
        let course = self.enter(Operation::Stat).await?;
        if course.is_lie() {
            return Ok(entry.clone());
        }
        course.after(self.inner.stat(entry).await).await
    }

    async fn list(&self, directory: &ObjectKey) -> Result<Vec<Entry>> {
        self.shared.lock().listed.push(directory.clone());
        let course = self.enter(Operation::List).await?;
        if course.is_lie() {
            return Ok(Vec::new());
        }
        course.after(self.inner.list(directory).await).await
    }

    async fn read(&self, object: &ObjectId, range: Range<u64>) -> Result<ByteStream> {
        let course = self.enter(Operation::Read).await?;
        if course.is_lie() {
            return Ok(stream::empty().boxed());
        }
        let whole = course.after(self.inner.read(object, range).await).await?;
        Ok(match course {
            Course::Break { after, kind } => {
                let broken = stream::once(async move { Err(injected(kind)) });
                first(whole, after).chain(broken).boxed()
            }
            Course::StallAfter { bytes, gate } => stalled(whole, bytes, gate),
            Course::WrongBytes => whole.map(|chunk| chunk.map(inverted)).boxed(),
            Course::Unharmed | Course::FailAfter(_) | Course::StallAnswer(_) | Course::NoEffect | Course::Short => {
                whole
            }
        })
    }

    async fn create_directory(&self, parent: &ObjectKey, name: &Name) -> Result<Entry> {
        let course = self.enter(Operation::CreateDirectory).await?;
        if course.is_lie() {
            return Ok(invented(parent, name, Kind::Directory, 0));
        }
        course.after(self.inner.create_directory(parent, name).await).await
    }

    async fn upload(&self, target: &Target, content: &Content) -> Result<Entry> {
        let course = self.enter(Operation::Upload).await?;
        if course.is_lie() {
            let fresh = invented(target.parent(), target.name(), Kind::File, content.len());
            return Ok(match target {
                Target::New { .. } => fresh,
                Target::Replace { entry, .. } => Entry {
                    size: fresh.size,
                    version: fresh.version,
                    ..entry.clone()
                },
            });
        }
        if matches!(course, Course::Short) {
            let chunks: Vec<Bytes> = content.stream().try_collect().await?;
            let bytes = chunks.concat();
            let short = Content::from_bytes(&bytes[..bytes.len().saturating_sub(1)])?;
            return self.inner.upload(target, &short).await;
        }
        course.after(self.inner.upload(target, content).await).await
    }

    async fn remove_file(&self, entry: &Entry) -> Result<()> {
        let course = self.enter(Operation::RemoveFile).await?;
        if course.is_lie() {
            return Ok(());
        }
        course.after(self.inner.remove_file(entry).await).await
    }

    async fn remove_directory(&self, entry: &Entry) -> Result<()> {
        let course = self.enter(Operation::RemoveDirectory).await?;
        if course.is_lie() {
            return Ok(());
        }
        course.after(self.inner.remove_directory(entry).await).await
    }

    async fn rename(&self, entry: &Entry, from: &Place, to: &Place, replaced: Option<&Entry>) -> Result<Entry> {
        let course = self.enter(Operation::Rename).await?;
        if course.is_lie() {
            return Ok(Entry {
                name: to.name.clone(),
                ..entry.clone()
            });
        }
        course.after(self.inner.rename(entry, from, to, replaced).await).await
    }

    async fn set_labels(&self, entry: &Entry, changes: &LabelChanges) -> Result<Entry> {
        let course = self.enter(Operation::SetLabels).await?;
        if course.is_lie() {
            let mut lie = entry.clone();
            for (name, value) in changes {
                match value {
                    Some(value) => lie.labels.insert(name.clone(), value.clone()),
                    None => lie.labels.remove(name),
                };
            }
            return Ok(lie);
        }
        course.after(self.inner.set_labels(entry, changes).await).await
    }

    async fn set_attributes(&self, entry: &Entry, attributes: &PosixAttributes) -> Result<Entry> {
        let course = self.enter(Operation::SetAttributes).await?;
        if course.is_lie() {
            return Ok(Entry {
                posix: attributes.clone().into(),
                ..entry.clone()
            });
        }
        course.after(self.inner.set_attributes(entry, attributes).await).await
    }

    async fn usage(&self) -> Result<Usage> {
        let course = self.enter(Operation::Usage).await?;
        course.after(self.inner.usage().await).await
    }
}

fn injected(kind: ErrorKind) -> Error {
    Error::new(kind, "an injected fault")
}

fn inverted(bytes: Bytes) -> Bytes {
    bytes.iter().map(|byte| !byte).collect()
}

/// The entry that a lying service would have made. Its version is none that the real one gives.
fn invented(parent: &ObjectKey, name: &Name, kind: Kind, size: u64) -> Entry {
    Entry {
        key: ObjectKey::new(format!("{parent}/{name}")),
        name: name.clone(),
        kind,
        size,
        modified: std::time::SystemTime::now(),
        version: Version::new(format!("invented-{}", uuid::Uuid::new_v4())),
        rights: Rights::ALL,
        labels: Default::default(),
        posix: Default::default(),
    }
}

/// The stream's first bytes, at most `limit` of them.
fn first(whole: ByteStream, limit: u64) -> ByteStream {
    stream::try_unfold((whole, limit), |(mut rest, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let Some(chunk) = rest.next().await.transpose()? else {
            return Ok(None);
        };
        let kept = chunk.slice(..chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
        let left = left - kept.len() as u64;
        Ok(Some((kept, (rest, left))))
    })
    .boxed()
}

/// The whole stream, held up at the gate once `limit` bytes were given.
fn stalled(whole: ByteStream, limit: u64, gate: Gate) -> ByteStream {
    enum Held {
        Before { left: u64, gate: Gate },
        Free,
    }
    let start = Held::Before { left: limit, gate };
    stream::try_unfold((whole, Bytes::new(), start), |(mut rest, mut kept, held)| async move {
        let left = match held {
            Held::Before { left: 0, gate } => {
                gate.pass().await;
                None
            }
            Held::Before { left, gate } => Some((left, gate)),
            Held::Free => None,
        };
        if kept.is_empty() {
            match rest.next().await.transpose()? {
                Some(chunk) => kept = chunk,
                None => return Ok(None),
            }
        }
        Ok(Some(match left {
            None => (std::mem::take(&mut kept), (rest, kept, Held::Free)),
            Some((left, gate)) => {
                let now = kept.split_to(kept.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
                let left = left - now.len() as u64;
                (now, (rest, kept, Held::Before { left, gate }))
            }
        }))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::memory::Memory;

    async fn bytes_of(faulty: &Faulty<Memory>, entry: &Entry) -> (Vec<u8>, Option<ErrorKind>) {
        let mut stream = faulty.read(&entry.object(), 0..entry.size).await.unwrap();
        let mut all = Vec::new();
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(chunk) => all.extend_from_slice(&chunk),
                Err(error) => return (all, Some(error.kind())),
            }
        }
        (all, None)
    }

    #[tokio::test]
    async fn rules_are_used_up_in_order_and_calls_counted() {
        let faulty = Faulty::new(Memory::default());
        let entry = faulty.inner().put("f", "content").unwrap();
        faulty.inject(Operation::Stat, Times::Next(2), Fault::Fail(ErrorKind::Unreachable));
        faulty.inject(Operation::Stat, Times::Next(1), Fault::Fail(ErrorKind::NeedsLogin));
        let mut kinds = Vec::new();
        for _ in 0..4 {
            kinds.push(faulty.stat(&entry).await.err().map(|error| error.kind()));
        }
        let gone = Some(ErrorKind::Unreachable);
        assert_eq!(kinds, [gone, gone, Some(ErrorKind::NeedsLogin), None]);
        assert_eq!((faulty.calls(Operation::Stat), faulty.all_calls()), (4, 4));
        faulty.inject(Operation::Stat, Times::Always, Fault::Fail(ErrorKind::Denied));
        assert!(faulty.stat(&entry).await.is_err() && faulty.stat(&entry).await.is_err());
        faulty.heal();
        assert!(faulty.stat(&entry).await.is_ok());
    }

    #[tokio::test]
    async fn streams_break_and_lie() {
        let faulty = Faulty::new(Memory::default());
        let entry = faulty.inner().put("f", vec![7u8; 200_000]).unwrap();
        let fault = Fault::Break {
            after: 100_000,
            kind: ErrorKind::Unreachable,
        };
        faulty.inject(Operation::Read, Times::Next(1), fault);
        faulty.inject(Operation::Read, Times::Next(1), Fault::WrongBytes);
        assert_eq!(
            bytes_of(&faulty, &entry).await,
            (vec![7; 100_000], Some(ErrorKind::Unreachable))
        );
        assert_eq!(bytes_of(&faulty, &entry).await, (vec![!7; 200_000], None));
        assert_eq!(bytes_of(&faulty, &entry).await, (vec![7; 200_000], None));
    }

    #[tokio::test]
    async fn stalled_calls_and_streams_go_on_when_the_gate_opens() {
        let faulty = Faulty::new(Memory::default());
        let entry = faulty.inner().put("f", vec![7u8; 200_000]).unwrap();
        let (call, stream) = (Gate::new(), Gate::new());
        faulty.inject(Operation::Stat, Times::Next(1), Fault::Stall(call.clone()));
        let fault = Fault::StallAfter {
            bytes: 70_000,
            gate: stream.clone(),
        };
        faulty.inject(Operation::Read, Times::Next(1), fault);
        let task = tokio::spawn({
            let (faulty, entry) = (faulty.clone(), entry.clone());
            async move { (faulty.stat(&entry).await.is_ok(), bytes_of(&faulty, &entry).await) }
        });
        call.reached(1).await;
        call.open();
        stream.reached(1).await;
        assert!(!task.is_finished());
        stream.open();
        assert_eq!(task.await.unwrap(), (true, (vec![7; 200_000], None)));
    }

    #[tokio::test]
    async fn an_effect_may_happen_though_the_answer_says_no_and_the_other_way_round() {
        let faulty = Faulty::new(Memory::default());
        let parent = faulty.probe().await.unwrap().key;
        let new = |name: &str| Target::New {
            parent: parent.clone(),
            name: Name::new(name).unwrap(),
        };
        let content = Content::from_bytes(b"abc").unwrap();
        let lost = Fault::FailAfterEffect(ErrorKind::Unreachable);
        faulty.inject(Operation::Upload, Times::Next(1), lost);
        faulty.inject(Operation::Upload, Times::Next(1), Fault::NoEffect);
        assert!(faulty.upload(&new("a"), &content).await.is_err());
        assert_eq!(faulty.upload(&new("b"), &content).await.unwrap().size, 3);
        assert_eq!(faulty.inner().content("a").as_deref(), Some(&b"abc"[..]));
        assert_eq!(faulty.inner().content("b"), None);
    }
}
