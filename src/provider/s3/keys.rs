//! The access key of the moment: read from its secret sources, or got from the places where AWS programs look.
//!
//! A key signs and never travels, so it is no credential of a request: opendal's signer asks for it here. The signer
//! keeps what it got until it ends; a new generation stands for a new signer.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::time::SystemTime;

use async_trait::async_trait;
use parking_lot::Mutex;
use reqsign_aws_v4::{Credential as AwsCredential, DefaultCredentialProvider};
use reqsign_core::{Context, Env, OsEnv, ProvideCredential};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use tracing::info;

use crate::auth::{
    AfterRejection, Authenticator, CredentialState, Generation, GivenSecrets, Presented, RenewalCounts, Scopes, Vitals,
    marked,
};
use crate::model::{Error, ErrorKind, Result};
use crate::net::Credential;
use crate::provider::registry::{KeyId, S3Auth};

/// One access key, or the way to one.
pub struct AccessKeys {
    auth: S3Auth,
    current: Mutex<Current>,
    /// Held while the sources are read: what is adopted is never older than what is there.
    reading: tokio::sync::Mutex<()>,
    vitals: watch::Sender<Vitals>,
}

struct Current {
    key: Option<Key>,
    /// When the key ends by itself.
    until: Option<SystemTime>,
    generation: Generation,
    standing: Standing,
    /// Why there is no key, if there is none: the signer itself doesn't pass that on.
    missing: Option<Error>,
    /// The last key that the service refused.
    refused: Option<Key>,
    given: GivenSecrets,
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
    pub async fn open(auth: S3Auth, given: GivenSecrets) -> Result<Self> {
        let key = read(&auth, &given).await?;
        Ok(Self {
            auth,
            current: Mutex::new(Current {
                key,
                until: None,
                generation: Generation(1),
                standing: Standing::Good,
                missing: None,
                refused: None,
                given,
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

    /// Why nothing can be signed.
    pub(super) fn missing(&self) -> Option<Error> {
        self.current.lock().missing.clone()
    }

    /// The key to sign with.
    async fn key(&self, context: &Context) -> Result<AwsCredential> {
        let (key, given) = {
            let current = self.current.lock();
            (current.key.clone(), current.given.clone())
        };
        let S3Auth::Chain { profile } = &self.auth else {
            let key = key.ok_or_else(|| Error::new(ErrorKind::NeedsLogin, "there is no access key"))?;
            return Ok(AwsCredential {
                access_key_id: key.id,
                secret_access_key: key.secret.expose_secret().to_owned(),
                session_token: key.session.map(|session| session.expose_secret().to_owned()),
                expires_in: None,
            });
        };
        let mut builder = DefaultCredentialProvider::builder();
        if let Some(profile) = profile {
            builder = builder.with_profile(profile);
        }
        let context = context.clone().with_env(Environment(given));
        let found = builder.build().provide_credential(&context).await;
        let mut current = self.current.lock();
        let found = match found {
            Ok(Some(found)) => found,
            other => {
                let why = match other {
                    Err(error) => format!(" ({error})"),
                    Ok(_) => String::new(),
                };
                let message = format!(
                    "no AWS credential was found{why}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run: aws configure"
                );
                let error = Error::new(ErrorKind::NeedsLogin, message);
                current.missing = Some(error.clone());
                return Err(error);
            }
        };
        current.missing = None;
        current.until = found.expires_in.map(|time| time.as_system_time());
        current.key = Some(Key {
            id: found.access_key_id.clone(),
            secret: found.secret_access_key.clone().into(),
            session: found.session_token.clone().map(SecretString::from),
        });
        Ok(found)
    }

    /// Reads the sources and takes what they have; says whether that is another key than before.
    async fn read_again(&self, given: &GivenSecrets) -> Result<bool> {
        let key = read(&self.auth, given).await?;
        let mut current = self.current.lock();
        let is_same = match (&key, &current.key) {
            (Some(new), Some(old)) => new.is(old),
            // It is asked for when it is needed.
            (None, _) => false,
            (Some(_), None) => false,
        };
        if !is_same {
            current.key = key;
            current.until = None;
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
            if matches!(self.auth, S3Auth::Chain { .. }) {
                let again = match (&current.key, &current.refused) {
                    (Some(key), Some(refused)) => !key.is(refused),
                    (Some(_), None) => true,
                    (None, _) => false,
                };
                current.refused = current.key.clone();
                if again {
                    // A new signer asks the chain again, which may have another key by now.
                    current.generation = Generation(generation.0 + 1);
                    return AfterRejection::TryAgain;
                }
                if current.standing == Standing::Good {
                    current.standing = Standing::Rejected;
                }
                return AfterRejection::GiveUp;
            }
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
pub(super) struct Asked(pub(super) std::sync::Arc<AccessKeys>);

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asked(***)")
    }
}

impl ProvideCredential for Asked {
    type Credential = AwsCredential;

    async fn provide_credential(&self, context: &Context) -> reqsign_core::Result<Option<AwsCredential>> {
        let failed =
            |error: Error| reqsign_core::Error::credential_invalid(error.message().to_owned()).with_source(error);
        self.0.key(context).await.map(Some).map_err(failed)
    }
}

/// The daemon's environment, and before it what the person's process handed over.
struct Environment(GivenSecrets);

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment(***)")
    }
}

impl Env for Environment {
    fn var(&self, name: &str) -> Option<String> {
        match self.0.get(name) {
            Some(value) => Some(value.expose_secret().to_owned()),
            None => OsEnv.var(name),
        }
    }

    fn vars(&self) -> HashMap<String, String> {
        let mut all = OsEnv.vars();
        let given = self.0.iter();
        all.extend(given.map(|(name, value)| (name.to_owned(), value.expose_secret().to_owned())));
        all
    }

    fn home_dir(&self) -> Option<PathBuf> {
        OsEnv.home_dir()
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
        RenewalCounts::default()
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
        let current = self.current.lock();
        match current.standing {
            _ if current.missing.is_some() => CredentialState::NeedsLogin,
            Standing::Good => CredentialState::Valid { until: current.until },
            Standing::Rejected => CredentialState::Rejected,
        }
    }
}
