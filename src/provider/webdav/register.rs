//! One file of a server that several machines write in turn, by strong entity tags as conditions.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::header::ETAG;

use super::client::{Client, Condition, Form};
use super::wire;
use crate::model::{Error, ErrorKind, Result, Version};
use crate::provider::Content;
use crate::provider::register::{Held, READS, Register, gathered, replaced, version_of};

pub(super) struct WebdavRegister {
    client: Arc<Client>,
    path: String,
}

impl WebdavRegister {
    pub(super) fn new(client: Arc<Client>, path: String) -> Self {
        Self { client, path }
    }

    /// Makes the folders on the way.
    async fn make_way(&self) -> Result<()> {
        let ends = self.path.match_indices('/').map(|(end, _)| end);
        for folder in ends.map(|end| &self.path[..end]) {
            match self.client.make_collection(folder).await {
                // It is there (405).
                Err(error) if error.kind() == ErrorKind::InvalidInput => {}
                outcome => outcome?,
            }
        }
        Ok(())
    }

    async fn put(&self, bytes: &Bytes, over: Option<&Version>) -> Result<Option<Version>> {
        let condition = over.map_or(Condition::Free, Condition::Version);
        let content = Content::from_bytes(bytes)?;
        self.client.put(&self.path, &content, condition, None).await
    }
}

#[async_trait]
impl Register for WebdavRegister {
    fn place(&self) -> String {
        format!("{}/{}", self.client.identity().trim_end_matches('/'), self.path)
    }

    async fn read(&self, known: Option<&Version>, limit: u64) -> Result<Held> {
        for _ in 0..READS {
            let now = match self.client.describe(&self.path).await {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Held::Nothing),
                now => now?,
            };
            if now.is_directory() {
                let message = format!("{} is a folder", self.place());
                return Err(Error::new(ErrorKind::IsADirectory, message));
            }
            if wire::etag_of(&now.version).is_none() {
                let message = format!(
                    "the server of {} gives no strong entity tags, so it cannot hold a shared index; name a remote at \
                     another service",
                    self.place()
                );
                return Err(Error::unsupported(message));
            }
            if known == Some(&now.version) {
                return Ok(Held::Same);
            }
            let answer = match self.client.get(&self.path, None, now.condition()).await {
                Err(error) if matches!(error.kind(), ErrorKind::Changed | ErrorKind::NotFound) => continue,
                answer => answer?,
            };
            let told = answer
                .header(ETAG.as_str())
                .and_then(|told| wire::Tag::of(told, now.size));
            if told.is_some_and(|told| told.version != now.version) {
                continue;
            }
            let bytes = gathered(answer.stream("read the shared index"), limit).await?;
            // A server that ignores the condition may have sent another version.
            match self.client.describe(&self.path).await {
                Ok(after) if after.version == now.version && after.size == bytes.len() as u64 => {
                    return Ok(Held::Bytes(bytes, now.version));
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Err(replaced(&self.place()))
    }

    async fn write(&self, bytes: Bytes, over: Option<&Version>) -> Result<Version> {
        let written = match self.put(&bytes, over).await {
            // A folder on the way is missing (404, or 409 as RFC 4918 has it), or what was to be replaced is gone.
            Err(error) if error.kind() == ErrorKind::NotFound => match over {
                None => {
                    self.make_way().await?;
                    self.put(&bytes, over).await
                }
                Some(_) => Err(replaced(&self.place())),
            },
            written => written,
        };
        match written? {
            Some(version) => Ok(version),
            None => version_of(self, &bytes).await,
        }
    }

    fn beside(&self, suffix: &str) -> Arc<dyn Register> {
        let path = format!("{}{suffix}", self.path);
        Arc::new(Self::new(Arc::clone(&self.client), path))
    }

    async fn remove(&self) -> Result<()> {
        self.client.delete(&self.path, Form::Plain, None).await
    }
}
