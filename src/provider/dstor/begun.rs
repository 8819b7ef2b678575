//! Uploads whose bytes the service has and whose end wasn't seen: trying again asks for that and sends nothing.

use std::collections::VecDeque;

use parking_lot::Mutex;
use secrecy::SecretString;

/// How many are remembered.
const REMEMBERED: usize = 64;

/// What an upload is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upload {
    pub(super) sha256: String,
    /// As the service shows it.
    pub(super) name: String,
}

/// In memory only: an upload's token is a secret.
#[derive(Default)]
pub(super) struct Begun(Mutex<VecDeque<(Upload, SecretString)>>);

impl Begun {
    pub(super) fn note(&self, upload: &Upload, token: SecretString) {
        let mut begun = self.0.lock();
        if begun.len() == REMEMBERED {
            begun.pop_front();
        }
        begun.push_back((upload.clone(), token));
    }

    /// Whoever asks for an upload must note it again if it is still under way.
    pub(super) fn take(&self, upload: &Upload) -> Option<SecretString> {
        let mut begun = self.0.lock();
        let at = begun.iter().position(|(known, _)| known == upload)?;
        begun.remove(at).map(|(_, token)| token)
    }
}
