//! One object of a bucket that several machines write in turn, by S3's conditional writes.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::change::Changes;
use super::store::Condition;
use crate::model::{Error, ErrorKind, ObjectId, ObjectKey, PosixAttributes, Result, Version};
use crate::provider::Content;
use crate::provider::register::{Held, READS, Register, gathered, replaced, version_of};

pub(super) struct S3Register {
    changes: Arc<Changes>,
    key: String,
}

impl S3Register {
    pub(super) fn new(changes: Arc<Changes>, key: String) -> Self {
        Self { changes, key }
    }
}

#[async_trait]
impl Register for S3Register {
    fn place(&self) -> String {
        format!("{}/{}", self.changes.store.identity(), self.key)
    }

    async fn read(&self, known: Option<&Version>, limit: u64) -> Result<Held> {
        for _ in 0..READS {
            let now = match self.changes.store.object(&self.key).await {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Held::Nothing),
                now => now?,
            };
            if known == Some(&now.version) {
                return Ok(Held::Same);
            }
            if now.size > limit {
                let message = format!("{} is longer than {limit} bytes", self.place());
                return Err(Error::new(ErrorKind::TooLarge, message));
            }
            let object = ObjectId {
                key: ObjectKey::new(self.key.as_str()),
                version: now.version.clone(),
                size: now.size,
            };
            let read = async { gathered(self.changes.store.read(&object, 0..now.size).await?, limit).await };
            match read.await {
                Err(error) if matches!(error.kind(), ErrorKind::Changed | ErrorKind::NotFound) => {}
                bytes => return Ok(Held::Bytes(bytes?, now.version)),
            }
        }
        Err(replaced(&self.place()))
    }

    async fn write(&self, bytes: Bytes, over: Option<&Version>) -> Result<Version> {
        let condition = over.map_or(Condition::Free, Condition::Version);
        let content = Content::from_bytes(&bytes)?;
        match self
            .changes
            .store
            .put(
                &self.key,
                &content,
                &PosixAttributes::default(),
                condition,
                async || Ok(None),
            )
            .await
        {
            Ok(sent) => match sent.version {
                Some(version) => Ok(version),
                None => version_of(self, &bytes).await,
            },
            // What was to be replaced is gone.
            Err(error) if error.kind() == ErrorKind::NotFound && over.is_some() => Err(replaced(&self.place())),
            Err(error) => Err(error),
        }
    }

    fn beside(&self, suffix: &str) -> Arc<dyn Register> {
        let key = format!("{}{suffix}", self.key);
        Arc::new(Self::new(Arc::clone(&self.changes), key))
    }

    async fn remove(&self) -> Result<()> {
        self.changes.store.delete(&self.key, Condition::Unchecked).await
    }
}
