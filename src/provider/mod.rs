//! The contract between keymount and a storage service.
//!
//! A provider turns the operations below into requests and the answers into entries. It keeps no cache, no retries and
//! no credentials of its own (`api` has the last two), and it enforces no rights: it reports them and passes on refusals.

mod awaited;
mod body;
mod clash;
pub mod cloudsync;
pub mod cludz;
mod content;
pub mod dstor;
mod extras;
pub mod faulty;
mod feed;
pub mod keys;
mod learned_rights;
pub mod memory;
pub mod reductstore;
pub mod register;
pub mod registry;
pub mod s3;
pub mod storra;
mod unbroken;
pub mod webdav;

pub use awaited::Awaited;
pub use content::{Content, hex};
pub use extras::Extras;
pub use feed::{Change, ChangeFeed};

use std::collections::BTreeMap;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use self::keys::KeyInfo;
use crate::model::{
    Entry, Error, Kind, Name, ObjectId, ObjectKey, PosixAttributes, Result, ToldAttributes, Usage, Version,
};

/// What `Capabilities::lists_ahead` is where a service sets no limit that a walk would reach. At 20 ms, eight at a time
/// left `find` over 100 directories waiting for the line half of its time, as the service's own time comes on top; small
/// files are fetched ahead over more connections than this.
pub const LISTS_AHEAD: usize = 16;

/// Bytes as they arrive. An error item ends the stream; without one all bytes asked for were delivered and checked.
pub type ByteStream = BoxStream<'static, Result<Bytes, Error>>;

/// How a provider answers a read of a part of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// Any byte range, each answer belonging to one version.
    Ranges,
    /// Only whole objects; nothing may be served before the stream ended without error.
    WholeOnly,
    /// Only whole objects, of which each byte belongs to the version as soon as it comes: it may be served then.
    WholeInOrder,
}

/// Whether the provider keeps labels (extended attributes) with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelSupport {
    /// `set_labels` works.
    Stored,
    /// Only one is kept: who may see an entry, under the name `VISIBILITY`.
    Visibility(ChmodEffect),
    /// The provider has no place for them.
    None,
}

/// Where a provider keeps what POSIX has of a file beside its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeSupport {
    /// With the file: uploads carry it, and `set_attributes` changes it.
    Stored,
    /// As `Stored`, but only an upload changes it.
    WithContent,
    /// Nowhere.
    None,
}

/// The label that says who may see an entry: `private`, `public`, or what else the provider has. It is shown and set as
/// `user.keymount.visibility`.
pub const VISIBILITY: &str = "keymount.visibility";

/// What `chmod` does to what others may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChmodEffect {
    /// Nothing: modes are kept here.
    KeptHere,
    /// Reading by others (`o+r`) makes an entry public, and taking that away makes it private.
    Publishes,
}

/// What names a file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedBy {
    /// The object and its version.
    Object,
    /// The version alone, whichever object has it: bytes that were read once serve all of them, and renames lose none.
    Content,
    /// As `Content` where the version begins with `prefix`, which says that it is a checksum; else as `Object`.
    ContentIf { prefix: &'static str },
}

/// Plain facts about a provider, fixed while it is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    pub reads: Reads,
    pub bytes: NamedBy,
    pub labels: LabelSupport,
    /// Of files; directories have none.
    pub attributes: AttributeSupport,
    /// The largest file, in bytes.
    pub max_file_size: Option<u64>,
    /// The longest name, in the unit that the provider counts (characters).
    pub max_name_chars: Option<usize>,
    /// Whether directories can be renamed.
    pub rename_directories: bool,
    /// Whether a file can move to another directory.
    pub move_files: bool,
    /// How many directories may be listed at the same time before anybody asks for them. Few where the service counts
    /// questions, none where a listing costs no question or all are one.
    pub lists_ahead: usize,
}

/// What an upload is for.
#[derive(Clone, Debug)]
pub enum Target {
    /// A name that is free as far as is known. Taken all the same: `AlreadyExists`, and nothing is changed.
    New { parent: ObjectKey, name: Name },
    /// New content for this entry. Another version at the provider: `Changed`, and nothing is changed.
    Replace { parent: ObjectKey, entry: Entry },
}

/// One side of a rename.
#[derive(Clone, Debug)]
pub struct Place {
    pub parent: ObjectKey,
    pub name: Name,
}

/// What changes among an entry's labels: `None` removes.
pub type LabelChanges = BTreeMap<String, Option<String>>;

/// A storage service, seen as a tree of entries.
///
/// No method has a default: a wrapper must forward each. Every method may fail with `NeedsLogin`, `Denied`,
/// `Unreachable`, `TimedOut`, `RateLimited` and `BadData`; the errors named below are those with a meaning of their own.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// The word that names it in a configuration: `cludz`.
    fn kind(&self) -> &'static str;

    /// Kind, endpoint and storage in one line: two remotes with equal identities hold the same objects.
    fn identity(&self) -> String;

    fn capabilities(&self) -> &Capabilities;

    /// The key that the service is called with, as it told at the last `probe`; `None` when it doesn't tell or another
    /// key is in use since.
    fn current_key(&self) -> Option<KeyInfo>;

    /// Tells of changes made by others since now; `None` when they are found only by asking.
    fn changes(&self) -> Option<Box<dyn ChangeFeed>>;

    /// What the service keeps beside files and labels; `None` where there is nothing.
    fn extras(&self) -> Option<&dyn Extras>;

    /// Whether a child of this kind could have this name, without asking the service.
    ///
    /// # Errors
    /// `InvalidName`, `NameTooLong`; `InvalidInput` or `Unsupported` where such children cannot be made at all.
    fn check_name(&self, parent: &ObjectKey, kind: Kind, name: &Name) -> Result<()>;

    /// Proves that the service answers and the credential is good, finds out the rights anew, and gives the root.
    ///
    /// # Errors
    /// `NotFound` when the mounted directory doesn't exist, `NotADirectory` when it is a file.
    async fn probe(&self) -> Result<Entry>;

    /// The child of a directory.
    ///
    /// # Errors
    /// `NotFound`.
    async fn lookup(&self, parent: &ObjectKey, name: &Name) -> Result<Entry>;

    /// The entry as it is now.
    ///
    /// # Errors
    /// `NotFound` also when the key was replaced by another object.
    async fn stat(&self, entry: &Entry) -> Result<Entry>;

    /// All children of a directory, in any order, each name once.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`.
    async fn list(&self, directory: &ObjectKey) -> Result<Vec<Entry>>;

    /// Bytes of exactly this version. The range is always `0..size` but with `Reads::Ranges`.
    ///
    /// # Errors
    /// `NotFound`; `Changed` when the object has another version now; `BadData` when bytes are missing or wrong.
    async fn read(&self, object: &ObjectId, range: Range<u64>) -> Result<ByteStream>;

    /// # Errors
    /// `AlreadyExists`, `InvalidName`, `NameTooLong`.
    async fn create_directory(&self, parent: &ObjectKey, name: &Name) -> Result<Entry>;

    /// Stores a whole file and gives the entry as stored, after making sure that its length and checksum are right as
    /// far as the provider can tell. The content's attributes go with it where there is a place for them: the entry says
    /// what is kept of them.
    ///
    /// # Errors
    /// `AlreadyExists`, `Changed`, `TooLarge`, `Quota`, `NoSpace`, `InvalidName`, `NameTooLong`; `BadData` when what is
    /// stored isn't what was sent.
    async fn upload(&self, target: &Target, content: &Content) -> Result<Entry>;

    /// # Errors
    /// `NotFound`.
    async fn remove_file(&self, entry: &Entry) -> Result<()>;

    /// # Errors
    /// `NotFound`, `NotEmpty`.
    async fn remove_directory(&self, entry: &Entry) -> Result<()>;

    /// Gives an entry another place, over `replaced` when there is one. Until the new name holds the entry, the entry
    /// is never without a name.
    ///
    /// # Errors
    /// `CrossDevice` when the provider cannot move it there, `AlreadyExists` when the name is taken by something else
    /// than `replaced`, `NotFound`, `InvalidName`, `NameTooLong`.
    async fn rename(&self, entry: &Entry, from: &Place, to: &Place, replaced: Option<&Entry>) -> Result<Entry>;

    /// # Errors
    /// `Unsupported` without `LabelSupport::Stored`; `InvalidInput` for a label that it cannot hold.
    async fn set_labels(&self, entry: &Entry, changes: &LabelChanges) -> Result<Entry>;

    /// Gives a file these attributes instead of those that it has, and leaves its content alone.
    ///
    /// # Errors
    /// `Unsupported` without `AttributeSupport::Stored`, and where this service turns out to keep none.
    async fn set_attributes(&self, entry: &Entry, attributes: &PosixAttributes) -> Result<Entry>;

    /// What is stored and may be stored. Called in the background, never by `df` itself.
    ///
    /// # Errors
    /// `Unsupported` when the provider doesn't tell.
    async fn usage(&self) -> Result<Usage>;
}

impl Target {
    pub fn parent(&self) -> &ObjectKey {
        match self {
            Self::New { parent, .. } | Self::Replace { parent, .. } => parent,
        }
    }

    pub fn name(&self) -> &Name {
        match self {
            Self::New { name, .. } => name,
            Self::Replace { entry, .. } => &entry.name,
        }
    }

    /// The attributes that an upload leaves a file with, as far as they fit. What is replaced and not known passes on what
    /// the content leaves open.
    pub fn attributes(&self, content: &Content, there: &ToldAttributes) -> PosixAttributes {
        let ours = content.attributes().cloned().unwrap_or_default();
        let is_unknown = matches!(self, Self::Replace { entry, .. } if entry.posix == ToldAttributes::Untold);
        match there.told().filter(|_| is_unknown) {
            Some(before) => ours.over(before).fitting(),
            None => ours.fitting(),
        }
    }

    pub fn replaced_version(&self) -> Option<&Version> {
        match self {
            Self::New { .. } => None,
            Self::Replace { entry, .. } => Some(&entry.version),
        }
    }
}
