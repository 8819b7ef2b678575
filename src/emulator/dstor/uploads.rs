//! Uploads: posts are staged until the last announced one is there, and then become content step by step.
//!
//! Responsible for upload tokens and for where an upload stands. Not responsible for reading requests.

use uuid::Uuid;

use super::assumptions::{self, Processing};
use super::objects::PathedFile;

/// Where an upload fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The upload request itself: it is answered with `errorAtStage`.
    Receiving,
    /// Handing the content to IPFS.
    AddingToIpfs,
    /// Noting the files in the account.
    SavingData,
}

impl Stage {
    /// The word of `errorAtStage`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Receiving => assumptions::STAGE_RECEIVING,
            Self::AddingToIpfs => "ADDING_TO_IPFS",
            Self::SavingData => "SAVING_DATA",
        }
    }
}

/// How an upload fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadFailure {
    /// When.
    pub stage: Stage,
    /// The text of `errorExplanation`.
    pub explanation: String,
}

/// Where an upload stands, and all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    Adding,
    Saving,
    /// Names and hashes.
    Done(Vec<(String, String)>),
    Failed(UploadFailure),
}

#[derive(Debug, Clone)]
pub(super) struct Upload {
    pub(super) account: Uuid,
    /// Names joined by `/`; the root is empty.
    pub(super) directory: String,
    /// What the latest post said that said anything.
    pub(super) comment: Option<String>,
    /// Unix seconds.
    pub(super) expires: i64,
    pub(super) missing_posts: u32,
    /// How it is going to fail.
    pub(super) failure: Option<UploadFailure>,
    looks: u32,
    files: Vec<PathedFile>,
    end: Option<Standing>,
}

/// What has come of an upload.
pub(super) enum Progress {
    /// This is how it stands.
    Stands(Standing),
    /// It is time to keep these files, and then to [`Upload::finish`].
    Keep(Vec<PathedFile>),
}

/// Why a post isn't taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Untaken {
    /// All announced posts have arrived.
    TooMany,
    /// Two files have one name, or one is where another needs a folder.
    SameName,
}

impl Upload {
    pub(super) fn new(account: Uuid, directory: String, posts: u32, expires: i64) -> Self {
        Self {
            account,
            directory,
            comment: None,
            expires,
            missing_posts: posts,
            failure: None,
            looks: 0,
            files: Vec::new(),
            end: None,
        }
    }

    /// Takes one post's files.
    pub(super) fn take(&mut self, files: Vec<PathedFile>) -> Result<(), Untaken> {
        if self.missing_posts == 0 || self.end.is_some() {
            return Err(Untaken::TooMany);
        }
        let earlier = self.files.len();
        self.files.extend(files);
        for (at, (names, _)) in self.files.iter().enumerate().skip(earlier) {
            let clashes = |(other, _): &PathedFile| other.starts_with(names) || names.starts_with(other);
            if self.files[..at].iter().any(clashes) {
                self.files.truncate(earlier);
                return Err(Untaken::SameName);
            }
        }
        self.missing_posts -= 1;
        Ok(())
    }

    /// Looks at it once, which is what lets it go on.
    pub(super) fn look(&mut self, processing: Processing) -> Progress {
        if let Some(end) = &self.end {
            return Progress::Stands(end.clone());
        }
        if self.missing_posts > 0 {
            return Progress::Stands(Standing::Adding);
        }
        self.looks = self.looks.saturating_add(1);
        if self.looks <= processing.adding {
            return Progress::Stands(Standing::Adding);
        }
        let is_saved = self.looks > processing.adding.saturating_add(processing.saving);
        match self.failure.take() {
            Some(failure) if is_saved || failure.stage != Stage::SavingData => {
                Progress::Stands(self.finish(Standing::Failed(failure)))
            }
            failure => {
                self.failure = failure;
                if is_saved {
                    Progress::Keep(std::mem::take(&mut self.files))
                } else {
                    Progress::Stands(Standing::Saving)
                }
            }
        }
    }

    /// Notes how it ended.
    pub(super) fn finish(&mut self, end: Standing) -> Standing {
        self.files.clear();
        self.end.insert(end).clone()
    }
}
