//! The access key of the moment: read from its secret sources, or got from the places where AWS programs look.
//!
//! A key signs and never travels, so it is no credential of a request: opendal's signer asks for it here. A new key is a
//! new generation, which stands for a new signer. A temporary key is renewed in the background before it ends; nobody
//! waits while it is good.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use parking_lot::Mutex;
use reqsign_aws_v4::Credential as AwsCredential;
use reqsign_core::{Context, ProvideCredential};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use tracing::{info, warn};

use super::chain::{Chain, Found};
use crate::auth::renewing::{Clock, Now, SystemClock};
use crate::auth::{
    AfterRejection, Authenticator, CredentialState, Generation, GivenSecrets, Presented, RenewalCounts, Scopes, Vitals,
    marked,
};
use crate::model::{Error, ErrorKind, Result};
use crate::net::{Backoff, Credential, Transport};
use crate::provider::registry::{KeyId, S3Auth};

/// One access key, or the way to one.
pub struct AccessKeys {
    auth: S3Auth,
    /// Where AWS programs look, if that is what was configured.
    chain: Option<Chain>,
    clock: Arc<dyn Clock>,
    current: Mutex<Current>,
    /// Held while the sources are read: what is adopted is never older than what is there.
    reading: tokio::sync::Mutex<()>,
    vitals: watch::Sender<Vitals>,
}

struct Current {
    key: Option<Key>,
    /// When the key ends by itself.
    end: Option<End>,
    generation: Generation,
    standing: Standing,
    /// Why there is no key, if there is none: the signer itself doesn't pass that on.
    missing: Option<Error>,
    /// The last key that the service refused.
    refused: Option<Key>,
    given: GivenSecrets,
    renewal: Renewal,
    counts: RenewalCounts,
}

/// The end of a temporary key by both clocks, and how long its life is.
#[derive(Clone, Copy, Debug)]
struct End {
    wall: SystemTime,
    boot: Duration,
    life: Duration,
}

impl End {
    fn new(until: SystemTime, now: Now) -> Self {
        let life = until.duration_since(now.wall).unwrap_or_default();
        Self {
            wall: until,
            boot: now.boot + life,
            life,
        }
    }

    fn is_over(&self, now: Now) -> bool {
        now.wall >= self.wall || now.boot >= self.boot
    }

    /// From min(max(60 s, a tenth of its life), a third of its life) before its end on.
    fn is_due(&self, now: Now) -> bool {
        let margin = (self.life / 10).max(Duration::from_secs(60)).min(self.life / 3);
        let ahead = Now {
            wall: now.wall + margin,
            boot: now.boot + margin,
        };
        self.is_over(ahead)
    }
}

/// Asking for the next key.
#[derive(Clone, Copy, Debug, Default)]
struct Renewal {
    is_running: bool,
    /// In a row.
    failures: u32,
    /// By the clock that nobody sets.
    not_before: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Good,
    Rejected,
}

#[derive(Clone)]
struct Key {
    id: String,
    secret: SecretString,
    session: Option<SecretString>,
}

impl Key {
    fn is(&self, other: &Self) -> bool {
        let session = |key: &Self| key.session.as_ref().map(|session| session.expose_secret().to_owned());
        self.id == other.id
            && self.secret.expose_secret() == other.secret.expose_secret()
            && session(self) == session(other)
    }
}

impl AccessKeys {
    /// # Errors
    /// As reading the sources fails. Where AWS programs look is looked at with the first request.
    pub async fn open(auth: S3Auth, given: GivenSecrets, transport: Transport) -> Result<Self> {
        Self::with_clock(auth, given, transport, Arc::new(SystemClock)).await
    }

    /// As `open`, for tests: by these clocks.
    ///
    /// # Errors
    /// As `open`.
    pub async fn with_clock(
        auth: S3Auth,
        given: GivenSecrets,
        transport: Transport,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let key = read(&auth, &given).await?;
        Ok(Self {
            chain: match &auth {
                S3Auth::Chain { profile } => Some(Chain::new(profile.clone(), transport)),
                S3Auth::Static(_) | S3Auth::None => None,
            },
            auth,
            clock,
            current: Mutex::new(Current {
                key,
                end: None,
                generation: Generation(1),
                standing: Standing::Good,
                missing: None,
                refused: None,
                given,
                renewal: Renewal::default(),
                counts: RenewalCounts::default(),
            }),
            reading: tokio::sync::Mutex::default(),
            vitals: watch::Sender::new(Vitals {
                usable: true,
                scopes: None,
            }),
        })
    }

    pub(super) fn generation(&self) -> Generation {
        self.current.lock().generation
    }

    /// Sees to it that there is a key which is good now, and starts to get the next one when it is time.
    ///
    /// # Errors
    /// `NeedsLogin` when there is none.
    pub(super) async fn ready(self: &Arc<Self>) -> Result<()> {
        let Some(chain) = &self.chain else { return Ok(()) };
        let now = self.clock.now();
        let generation = {
            let mut current = self.current.lock();
            let waits = current.renewal.is_running || now.boot < current.renewal.not_before;
            let (is_good, is_due) = match (&current.key, &current.end) {
                (None, _) => (false, true),
                (Some(_), None) => (true, false),
                (Some(_), Some(end)) => (!end.is_over(now), end.is_due(now)),
            };
            if is_good {
                if is_due && !waits {
                    current.renewal.is_running = true;
                    let keys = Arc::clone(self);
                    tokio::spawn(async move { keys.renew().await });
                }
                return Ok(());
            }
            // Who has failed a moment ago would fail again.
            if now.boot < current.renewal.not_before
                && let Some(missing) = &current.missing
            {
                return Err(missing.clone());
            }
            current.generation
        };
        let _one = self.reading.lock().await;
        if self.generation() != generation {
            return Ok(());
        }
        let asked = self.ask(chain).await.map(drop);
        self.tell();
        asked
    }

    async fn renew(&self) {
        if let Some(chain) = &self.chain {
            let _one = self.reading.lock().await;
            if let Err(error) = self.ask(chain).await {
                warn!(%error, "the next access key is not there yet");
            }
        }
        self.current.lock().renewal.is_running = false;
        self.tell();
    }

    /// Asks the places where AWS programs look, and takes what they have; says whether that is another key than before.
    async fn ask(&self, chain: &Chain) -> Result<bool> {
        let given = self.current.lock().given.clone();
        let found = chain.ask(&given).await;
        let now = self.clock.now();
        let mut current = self.current.lock();
        match found {
            Ok(found) => Ok(current.adopt(found, now)),
            Err(error) => {
                current.renewal.failures += 1;
                current.renewal.not_before = now.boot + Backoff::TOKENS.pause(current.renewal.failures, None);
                let is_good = current.key.is_some() && current.end.is_none_or(|end| !end.is_over(now));
                if !is_good {
                    current.missing = Some(error.clone());
                }
                Err(error)
            }
        }
    }

    /// Reads the sources and takes what they have; says whether that is another key than before.
    async fn read_again(&self, given: &GivenSecrets) -> Result<bool> {
        if let Some(chain) = &self.chain {
            return self.ask(chain).await;
        }
        let key = read(&self.auth, given).await?;
        let mut current = self.current.lock();
        let is_same = match (&key, &current.key) {
            (Some(new), Some(old)) => new.is(old),
            (None, None) => true,
            (None, Some(_)) | (Some(_), None) => false,
        };
        if !is_same {
            current.key = key;
            current.end = None;
            current.generation = Generation(current.generation.0 + 1);
            current.standing = Standing::Good;
            current.missing = None;
            info!("the access key is read anew");
        }
        Ok(!is_same)
    }

    /// What to do after the service refused the key of this generation.
    async fn judge(&self, generation: Generation) -> AfterRejection {
        let _one = self.reading.lock().await;
        let given = {
            let mut current = self.current.lock();
            if current.generation != generation {
                return AfterRejection::TryAgain;
            }
            // The places where AWS programs look are asked once for each key that was refused.
            let refused_before = match (&current.key, &current.refused) {
                (Some(key), Some(refused)) => key.is(refused),
                _ => false,
            };
            if self.chain.is_some() && refused_before {
                current.standing = Standing::Rejected;
                return AfterRejection::GiveUp;
            }
            current.refused = current.key.clone();
            current.given.clone()
        };
        if matches!(self.read_again(&given).await, Ok(true)) {
            return AfterRejection::TryAgain;
        }
        let mut current = self.current.lock();
        if current.generation == generation && current.standing == Standing::Good {
            current.standing = Standing::Rejected;
            info!("the service rejected the access key; change it at its source, then run: keymount refresh");
        }
        AfterRejection::GiveUp
    }

    /// What opendal's signer signs with.
    fn key(&self) -> Result<AwsCredential> {
        let key = self.current.lock().key.clone();
        let key = key.ok_or_else(|| Error::new(ErrorKind::NeedsLogin, "there is no access key"))?;
        Ok(AwsCredential {
            access_key_id: key.id,
            secret_access_key: key.secret.expose_secret().to_owned(),
            session_token: key.session.map(|session| session.expose_secret().to_owned()),
            // Its end is minded here.
            expires_in: None,
        })
    }

    /// Tells those who watch whether the key can be used.
    fn tell(&self) {
        let usable = {
            let current = self.current.lock();
            current.standing == Standing::Good && current.missing.is_none()
        };
        self.vitals
            .send_if_modified(|vitals| std::mem::replace(&mut vitals.usable, usable) != usable);
    }
}

impl Current {
    /// Takes what the chain has found; says whether that is another key.
    fn adopt(&mut self, found: Found, now: Now) -> bool {
        let key = Key {
            id: found.key.access_key_id.clone(),
            secret: found.key.secret_access_key.clone().into(),
            session: found.key.session_token.clone().map(SecretString::from),
        };
        self.renewal.failures = 0;
        self.missing = None;
        self.end = found.until.map(|until| End::new(until, now));
        let is_same = self.key.as_ref().is_some_and(|old| old.is(&key));
        // A source that gives the same key until it ends is not asked all the time.
        self.renewal.not_before = match is_same {
            true => now.boot + Backoff::TOKENS.first_pause,
            false => Duration::ZERO,
        };
        if !is_same {
            if self.key.is_some() {
                info!("there is a new access key");
            }
            self.key = Some(key);
            self.generation = Generation(self.generation.0 + 1);
            self.standing = Standing::Good;
        }
        !is_same
    }
}

/// The key as its sources have it; `None` where AWS programs look.
async fn read(auth: &S3Auth, given: &GivenSecrets) -> Result<Option<Key>> {
    let S3Auth::Static(sources) = auth else {
        return Ok(None);
    };
    Ok(Some(Key {
        id: match &sources.access_key_id {
            KeyId::Text(id) => id.clone(),
            KeyId::Source(source) => source.read(given).await?.expose_secret().to_owned(),
        },
        secret: sources.secret_access_key.read(given).await?,
        session: match &sources.session_token {
            Some(source) => Some(source.read(given).await?),
            None => None,
        },
    }))
}

/// What opendal's signer asks.
#[derive(Clone)]
pub(super) struct Asked(pub(super) Arc<AccessKeys>);

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asked(***)")
    }
}

impl ProvideCredential for Asked {
    type Credential = AwsCredential;

    async fn provide_credential(&self, _: &Context) -> reqsign_core::Result<Option<AwsCredential>> {
        let failed =
            |error: Error| reqsign_core::Error::credential_invalid(error.message().to_owned()).with_source(error);
        self.0.key().map(Some).map_err(failed)
    }
}

#[async_trait]
impl Authenticator for AccessKeys {
    fn method(&self) -> &'static str {
        self.auth.method()
    }

    fn environment(&self) -> Option<&'static str> {
        None
    }

    fn public_prefix(&self) -> Option<String> {
        None
    }

    fn mark(&self, salt: &[u8]) -> Option<u16> {
        self.current.lock().key.as_ref().map(|key| marked(&key.secret, salt))
    }

    fn scopes(&self) -> Option<Scopes> {
        None
    }

    fn counts(&self) -> RenewalCounts {
        self.current.lock().counts
    }

    /// Nothing: requests are signed before they are sent.
    async fn present(&self) -> Result<Presented> {
        Ok(Presented {
            credential: Credential::None,
            generation: self.generation(),
        })
    }

    async fn rejected(&self, generation: Generation) -> AfterRejection {
        let after = self.judge(generation).await;
        self.tell();
        after
    }

    fn accepted(&self, generation: Generation) {
        {
            let mut current = self.current.lock();
            if current.generation == generation {
                current.standing = Standing::Good;
                current.refused = None;
            }
        }
        self.tell();
    }

    async fn refresh(&self, given: &GivenSecrets) -> Result<()> {
        let _one = self.reading.lock().await;
        let merged = {
            let mut current = self.current.lock();
            current.given.merge(given);
            current.refused = None;
            current.renewal.not_before = Duration::ZERO;
            current.given.clone()
        };
        let read = self.read_again(&merged).await;
        self.tell();
        read.map(drop)
    }

    fn vitals(&self) -> watch::Receiver<Vitals> {
        self.vitals.subscribe()
    }

    async fn close(&self) {}

    fn state(&self) -> CredentialState {
        let now = self.clock.now();
        let current = self.current.lock();
        let until = current.end.map(|end| end.wall);
        match current.standing {
            _ if current.missing.is_some() => CredentialState::NeedsLogin,
            Standing::Rejected => CredentialState::Rejected,
            Standing::Good if current.end.is_some_and(|end| end.is_over(now)) => CredentialState::Expired,
            Standing::Good if current.renewal.is_running => CredentialState::Renewing { until },
            Standing::Good => CredentialState::Valid { until },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_key_is_renewed_before_its_end_by_either_clock() {
        let now = Now {
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000),
            boot: Duration::from_secs(500),
        };
        let later = |wall: u64, boot: u64| Now {
            wall: now.wall + Duration::from_secs(wall),
            boot: now.boot + Duration::from_secs(boot),
        };
        let hour = End::new(now.wall + Duration::from_secs(3600), now);
        // A tenth of its life before its end.
        assert!(!hour.is_due(later(3239, 3239)) && hour.is_due(later(3240, 3240)));
        assert!(!hour.is_over(later(3599, 3599)) && hour.is_over(later(3600, 3600)));
        // A clock that was set back makes nothing live longer.
        assert!(hour.is_over(later(0, 3600)) && hour.is_due(later(0, 3240)));
        // A minute before, and never more than a third.
        let minutes = End::new(now.wall + Duration::from_secs(300), now);
        assert!(!minutes.is_due(later(239, 239)) && minutes.is_due(later(240, 240)));
        let short = End::new(now.wall + Duration::from_secs(30), now);
        assert!(!short.is_due(later(19, 19)) && short.is_due(later(20, 20)));
    }
}
