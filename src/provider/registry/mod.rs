//! The providers there are: their names, their own settings and methods of authentication, the variables that people
//! already keep their tokens in.
//!
//! Settings here are plain data without secrets; `config` fills them and `daemon` builds the provider from them.

mod cloudsync;
mod cludz;
mod dstor;
mod form;
mod path;
mod reductstore;
mod s3;
mod storra;
mod webdav;

use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::auth::oauth::OauthSpec;
use crate::auth::{Scopes, SecretSource, StoredSecret, TokenKind, TokenPlacement};

pub use cloudsync::{CloudSyncAuth, CloudSyncSpec, cloudsync_server};
pub use cludz::{CludzAuth, CludzSpec, TokenSending};
pub use dstor::{DstorAuth, DstorSpec, Network, OnUnlink, SharedPlace};
pub use form::{Answer, Field, Form, Method, Need, Secret};
pub use path::RemotePath;
pub use reductstore::{REDUCTSTORE_PORT, RecordNames, ReductstoreAuth, ReductstoreSpec};
pub use s3::{DEFAULT_REGION, KeyId, S3Auth, S3Spec, StaticKey};
pub use storra::StorraSpec;
pub use webdav::{WebdavAuth, WebdavSpec, check_username};

/// The providers there are, in the order in which they are offered.
pub const FORMS: [&Form; 7] = [
    &cludz::FORM,
    &cloudsync::FORM,
    &storra::FORM,
    &dstor::FORM,
    &reductstore::FORM,
    &s3::FORM,
    &webdav::FORM,
];

/// The provider of this word.
pub fn form(kind: &str) -> Option<&'static Form> {
    FORMS.into_iter().find(|form| form.kind == kind)
}

/// Asked before every provider's own variables.
pub const COMMON_TOKEN_VARIABLE: &str = "KEYMOUNT_TOKEN";

/// Every variable that a provider's token may come from: none of them reaches a child process.
pub fn token_variables() -> impl Iterator<Item = &'static str> {
    let own = [
        cludz::TOKEN_VARIABLES,
        cloudsync::TOKEN_VARIABLES,
        storra::TOKEN_VARIABLES,
        dstor::TOKEN_VARIABLES,
        reductstore::TOKEN_VARIABLES,
        s3::TOKEN_VARIABLES,
        webdav::TOKEN_VARIABLES,
    ];
    std::iter::once(COMMON_TOKEN_VARIABLE).chain(own.into_iter().flatten().copied())
}

/// What a remote is at its provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "provider", rename_all = "lowercase")]
#[expect(clippy::large_enum_variant, reason = "there is one for each remote")]
pub enum ProviderSpec {
    Cludz(CludzSpec),
    CloudSync(CloudSyncSpec),
    Storra(StorraSpec),
    Dstor(DstorSpec),
    Reductstore(ReductstoreSpec),
    S3(S3Spec),
    Webdav(WebdavSpec),
}

/// What a mount is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// How a remote proves who asks for its files.
#[derive(Clone, Debug, PartialEq)]
pub enum Identity<'a> {
    /// Nobody in particular.
    Anonymous,
    /// A token that lives as long as its service likes.
    Token {
        source: &'a SecretSource,
        placement: TokenPlacement,
        kind: TokenKind,
    },
    /// Tokens that are renewed with what a person granted.
    Oauth(&'a OauthSpec),
    /// Tokens that are got with a key or a password.
    TempToken(&'a DstorSpec),
    /// A key that signs requests and never travels.
    AccessKey(&'a S3Auth),
}

/// The credential that manages keys, where it isn't the one that is used for files.
#[derive(Clone, Debug, PartialEq)]
pub struct KeysIdentity<'a> {
    pub source: &'a SecretSource,
    pub placement: TokenPlacement,
    /// What a person calls it: `token`.
    pub word: &'static str,
}

impl ProviderSpec {
    /// The word that names it in a configuration.
    pub fn kind(&self) -> &'static str {
        self.form().kind
    }

    /// What a person has to say to configure such a remote.
    pub fn form(&self) -> &'static Form {
        match self {
            Self::Cludz(_) => &cludz::FORM,
            Self::CloudSync(_) => &cloudsync::FORM,
            Self::Storra(_) => &storra::FORM,
            Self::Dstor(_) => &dstor::FORM,
            Self::Reductstore(_) => &reductstore::FORM,
            Self::S3(_) => &s3::FORM,
            Self::Webdav(_) => &webdav::FORM,
        }
    }

    /// The word of `auth.method`.
    pub fn method(&self) -> &'static str {
        match self.identity() {
            Identity::Anonymous => Method::NONE.word,
            Identity::Token { kind, .. } => kind.method,
            Identity::Oauth(_) => "oauth",
            Identity::TempToken(dstor) => dstor.auth.method(),
            Identity::AccessKey(auth) => auth.method(),
        }
    }

    /// What a person calls the secret that proves who asks: `token`, `API key`, `password`.
    pub fn secret_word(&self) -> &'static str {
        let method = self.form().method(self.method());
        method
            .and_then(Method::main_secret)
            .map_or("token", |secret| secret.word)
    }

    /// The provider's name as it writes it itself.
    pub fn title(&self) -> &'static str {
        self.form().title
    }

    /// What to ask a person for, where the provider grants scopes.
    pub fn scopes_for(&self, access: Access) -> Scopes {
        match self {
            Self::CloudSync(_) => cloudsync::scopes_for(access),
            _ => Scopes::default(),
        }
    }

    /// What a scope is for, in the provider's words.
    pub fn scope_meaning(&self, scope: &str) -> Option<&'static str> {
        match self {
            Self::CloudSync(_) => cloudsync::scope_meaning(scope),
            _ => None,
        }
    }

    /// The provider's own address, where there is one service for all.
    pub fn default_endpoint(&self) -> Option<Url> {
        let text = match self {
            Self::S3(s3) => return Url::parse(&s3.endpoint()).ok(),
            Self::Cludz(_) => cludz::ENDPOINT,
            Self::CloudSync(_) => cloudsync::ENDPOINT,
            Self::Storra(_) => storra::ENDPOINT,
            Self::Dstor(dstor) => dstor.network.endpoint(),
            Self::Reductstore(_) | Self::Webdav(_) => return None,
        };
        Url::parse(text).ok()
    }

    /// How its files are asked for.
    pub fn identity(&self) -> Identity<'_> {
        match self {
            Self::Cludz(cludz) => cludz.identity(),
            Self::CloudSync(cloudsync) => cloudsync.identity(),
            Self::Storra(storra) => storra.identity(),
            Self::Dstor(dstor) => Identity::TempToken(dstor),
            Self::Reductstore(reductstore) => reductstore.identity(),
            Self::S3(s3) => s3.identity(),
            Self::Webdav(webdav) => webdav.identity(),
        }
    }

    /// The credential that manages keys, where it isn't the one that is used for files.
    pub fn keys_identity(&self) -> Option<KeysIdentity<'_>> {
        match self {
            Self::Cludz(_) | Self::CloudSync(_) | Self::Dstor(_) | Self::S3(_) | Self::Webdav(_) => None,
            Self::Storra(storra) => storra.keys_identity(),
            Self::Reductstore(reductstore) => reductstore.keys_identity(),
        }
    }

    /// Whether a remote can have a credential of its own to manage keys.
    pub fn has_keys_auth(&self) -> bool {
        matches!(self, Self::Storra(_) | Self::Reductstore(_))
    }

    /// Where the one secret is that the person gave, if there is one: a token, a key, a password.
    pub fn secret_source(&self) -> Option<&SecretSource> {
        match self.identity() {
            Identity::Anonymous | Identity::Oauth(_) => None,
            Identity::Token { source, .. } => Some(source),
            Identity::TempToken(dstor) => Some(dstor.auth.secret_source()),
            Identity::AccessKey(auth) => auth.secret_source(),
        }
    }

    /// The configuration's word for where a person's credential is: `env`, `stored`.
    pub fn place_word(&self) -> Option<&'static str> {
        match self.identity() {
            Identity::Oauth(oauth) => Some(oauth.kept.word()),
            _ => self.secret_source().map(SecretSource::word),
        }
    }

    /// Where keymount keeps a token that it got with the person's secret, for as long as the token lives.
    pub fn kept_token(&self) -> Option<&StoredSecret> {
        match self.identity() {
            Identity::TempToken(dstor) => dstor.kept.as_ref(),
            Identity::Anonymous | Identity::Token { .. } | Identity::Oauth(_) | Identity::AccessKey(_) => None,
        }
    }

    /// Everything secret that a mount reads.
    fn secret_sources(&self) -> Vec<&SecretSource> {
        match self.identity() {
            Identity::Oauth(oauth) => oauth.secret_sources(),
            Identity::AccessKey(auth) => auth.secret_sources(),
            _ => self.secret_source().into_iter().collect(),
        }
    }

    /// Everything that keymount keeps for such a remote in its stores.
    pub fn stored_secrets(&self) -> impl Iterator<Item = &StoredSecret> {
        let granted = match self.identity() {
            Identity::Oauth(oauth) => Some(&oauth.kept),
            _ => self.kept_token(),
        };
        let manager = self.keys_identity().map(|keys| keys.source);
        self.secret_sources()
            .into_iter()
            .chain(manager)
            .filter_map(SecretSource::stored)
            .chain(granted)
    }

    /// The variables whose values the person's process must hand over to mount.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        let kept = match self.identity() {
            Identity::Oauth(oauth) => oauth.kept.variable(),
            Identity::TempToken(dstor) => dstor.kept.as_ref().and_then(|kept| kept.variable()),
            Identity::Anonymous | Identity::Token { .. } | Identity::AccessKey(_) => None,
        };
        let chain = match self.identity() {
            Identity::AccessKey(auth) => auth.chain_variables(),
            _ => &[],
        };
        self.secret_sources()
            .into_iter()
            .filter_map(SecretSource::variable)
            .chain(kept)
            .chain(chain.iter().copied())
    }

    /// Those, and the ones to manage keys.
    pub fn key_variables(&self) -> impl Iterator<Item = &str> {
        let own = self.keys_identity().and_then(|keys| keys.source.variable());
        self.variables().chain(own)
    }

    /// The same remote with its token from elsewhere, if it uses one that a person gave. What was got with another one
    /// is not used, and what is got with this one is not kept.
    pub fn with_token_from(mut self, source: SecretSource) -> Self {
        let place = match &mut self {
            Self::Cludz(cludz) => cludz.secret_source_mut(),
            Self::CloudSync(cloudsync) => cloudsync.secret_source_mut(),
            Self::Storra(storra) => Some(&mut storra.key),
            Self::Dstor(dstor) => {
                dstor.kept = None;
                Some(dstor.auth.secret_source_mut())
            }
            Self::Reductstore(reductstore) => reductstore.secret_source_mut(),
            Self::S3(s3) => s3.secret_source_mut(),
            Self::Webdav(webdav) => webdav.secret_source_mut(),
        };
        if let Some(place) = place {
            *place = source;
        }
        self
    }

    /// The same remote with its credential for keys from elsewhere, if it can have one of its own.
    pub fn with_keys_from(mut self, source: SecretSource) -> Self {
        match &mut self {
            Self::Storra(storra) => storra.keys_auth = Some(source),
            Self::Reductstore(reductstore) => reductstore.keys_auth = Some(source),
            Self::Cludz(_) | Self::CloudSync(_) | Self::Dstor(_) | Self::S3(_) | Self::Webdav(_) => {}
        }
        self
    }

    /// Where a person revokes a token, as the end of a sentence.
    pub fn revocation(&self) -> &'static str {
        match self {
            // Where the documentation of each says that tokens and keys are.
            Self::Cludz(_) => "in Cludz's dashboard, Drive → Settings → Storage Token",
            Self::CloudSync(CloudSyncSpec {
                auth: CloudSyncAuth::Oauth(_),
                ..
            }) => "in CloudSync, Account Settings",
            Self::CloudSync(_) => "in CloudSync, Account Settings → API Keys, or with: keymount keys revoke REMOTE KEY",
            Self::Storra(_) => {
                "in Storra's dashboard, Settings → API Keys, or with: keymount keys revoke REMOTE PREFIX"
            }
            Self::Dstor(_) => "in dStor's console",
            Self::S3(_) => "at the service, where its access keys are",
            Self::Webdav(_) => "at the server, where its users' passwords are",
            Self::Reductstore(_) => "at the server, with: keymount keys revoke REMOTE NAME",
        }
    }
}

/// The first variable of these that holds something; the common one is asked before them.
fn first_set(variables: &[&str], environment: &dyn Fn(&str) -> Option<String>) -> Option<SecretSource> {
    std::iter::once(&COMMON_TOKEN_VARIABLE)
        .chain(variables)
        .find(|name| environment(name).is_some_and(|value| !value.is_empty()))
        .map(|name| SecretSource::Env((*name).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_variable_comes_first_and_empty_ones_do_not_count() {
        let set = |pairs: &'static [(&'static str, &'static str)]| {
            move |name: &str| {
                pairs
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| (*value).to_owned())
            }
        };
        let source = |auth: &ReductstoreAuth| match auth {
            ReductstoreAuth::Token { token } => token.to_string(),
            ReductstoreAuth::None => "none".to_owned(),
        };
        let both = set(&[("REDUCT_API_TOKEN", "a"), ("KEYMOUNT_TOKEN", "b")]);
        assert!(source(&ReductstoreAuth::from_environment(&both)).ends_with("KEYMOUNT_TOKEN"));
        let order = set(&[("REDUCT_API_TOKEN", "a"), ("RS_API_TOKEN", "b"), ("KEYMOUNT_TOKEN", "")]);
        assert!(source(&ReductstoreAuth::from_environment(&order)).ends_with("RS_API_TOKEN"));
        let other = set(&[("CLUDZ_STORAGE_TOKEN", "a")]);
        assert_eq!(ReductstoreAuth::from_environment(&other), ReductstoreAuth::None);
        assert_ne!(CludzAuth::from_environment(&other), CludzAuth::None);
    }
}
