//! The providers there are: their names, their own settings and methods of authentication, the variables that people
//! already keep their tokens in.
//!
//! Settings here are plain data without secrets; `config` fills them and `daemon` builds the provider from them.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;
use reqwest::header::HeaderName;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::auth::{SecretSource, TokenPlacement};
use crate::model::{Error, ErrorKind, Name, Result};

/// The words for `provider = "…"`, in the order in which they are offered.
pub const PROVIDERS: [&str; 2] = ["cludz", "reductstore"];

/// Cludz documentation.
const CLUDZ_ENDPOINT: &str = "https://storage.cludz.net";
/// `RS_PORT`'s default in ReductStore's configuration reference.
pub const REDUCTSTORE_PORT: u16 = 8383;

/// Asked before every provider's own variables.
pub const COMMON_TOKEN_VARIABLE: &str = "KEYMOUNT_TOKEN";
const CLUDZ_TOKEN_VARIABLES: [&str; 2] = [COMMON_TOKEN_VARIABLE, "CLUDZ_STORAGE_TOKEN"];
const REDUCTSTORE_TOKEN_VARIABLES: [&str; 3] = [COMMON_TOKEN_VARIABLE, "RS_API_TOKEN", "REDUCT_API_TOKEN"];

/// Every variable that a provider's token may come from: none of them reaches a child process.
pub fn token_variables() -> impl Iterator<Item = &'static str> {
    CLUDZ_TOKEN_VARIABLES.into_iter().chain(REDUCTSTORE_TOKEN_VARIABLES)
}

/// What a remote is at its provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "provider", rename_all = "lowercase")]
pub enum ProviderSpec {
    Cludz(CludzSpec),
    Reductstore(ReductstoreSpec),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CludzSpec {
    /// The id of the drive.
    pub storage: Uuid,
    pub auth: CludzAuth,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "lowercase")]
pub enum CludzAuth {
    Token {
        token: SecretSource,
        send: TokenSending,
    },
    /// Public folders need no token.
    None,
}

/// Where Cludz's token travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenSending {
    #[default]
    Header,
    /// In the address, where proxies and logs see it: only when asked for.
    Query,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReductstoreSpec {
    /// The bucket to mount; all buckets without one.
    pub bucket: Option<String>,
    pub names: RecordNames,
    pub auth: ReductstoreAuth,
    /// The token that manages tokens, where it isn't the one that is used for files.
    pub keys_auth: Option<SecretSource>,
}

/// How records are shown as files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordNames {
    /// Ordinary names, kept in a label of the record.
    #[default]
    Label,
    /// The record's time stamp, as the vendor's export writes it.
    Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "lowercase")]
pub enum ReductstoreAuth {
    Token { token: SecretSource },
    None,
}

impl ProviderSpec {
    /// The word that names it in a configuration.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Cludz(_) => "cludz",
            Self::Reductstore(_) => "reductstore",
        }
    }

    /// The provider's own address, where there is one service for all.
    pub fn default_endpoint(&self) -> Option<Url> {
        match self {
            Self::Cludz(_) => Url::parse(CLUDZ_ENDPOINT).ok(),
            Self::Reductstore(_) => None,
        }
    }

    /// Where the token comes from and where it goes in a request, if one is used.
    pub fn token(&self) -> Option<(&SecretSource, TokenPlacement)> {
        match self {
            Self::Cludz(cludz) => match &cludz.auth {
                // Both names: Cludz documentation, "Authentication".
                CludzAuth::Token { token, send } => Some(match send {
                    TokenSending::Header => (token, TokenPlacement::Header(HeaderName::from_static("token"))),
                    TokenSending::Query => (token, TokenPlacement::Query("token")),
                }),
                CludzAuth::None => None,
            },
            Self::Reductstore(reductstore) => match &reductstore.auth {
                ReductstoreAuth::Token { token } => Some((token, TokenPlacement::Bearer)),
                ReductstoreAuth::None => None,
            },
        }
    }

    /// Where the credential that manages keys comes from, where it isn't the one that is used for files.
    pub fn keys_source(&self) -> Option<&SecretSource> {
        match self {
            Self::Cludz(_) => None,
            Self::Reductstore(reductstore) => reductstore.keys_auth.as_ref(),
        }
    }

    /// The same remote with its token from elsewhere, if it uses one.
    pub fn with_token_from(mut self, source: SecretSource) -> Self {
        match &mut self {
            Self::Cludz(CludzSpec {
                auth: CludzAuth::Token { token, .. },
                ..
            })
            | Self::Reductstore(ReductstoreSpec {
                auth: ReductstoreAuth::Token { token },
                ..
            }) => *token = source,
            Self::Cludz(_) | Self::Reductstore(_) => {}
        }
        self
    }

    /// Where a person revokes a token, as the end of a sentence.
    pub fn revocation(&self) -> &'static str {
        match self {
            // Where Cludz's documentation says that the token is.
            Self::Cludz(_) => "in Cludz's dashboard, Drive → Settings → Storage Token",
            Self::Reductstore(_) => "at the server, with: keymount keys revoke REMOTE NAME",
        }
    }

    /// Where the token comes from, if one is used.
    pub fn secret_source(&self) -> Option<&SecretSource> {
        self.token().map(|(source, _)| source)
    }
}

/// The first of a provider's variables that holds something.
fn first_set(variables: &[&str], environment: &dyn Fn(&str) -> Option<String>) -> Option<SecretSource> {
    variables
        .iter()
        .find(|name| environment(name).is_some_and(|value| !value.is_empty()))
        .map(|name| SecretSource::Env((*name).to_owned()))
}

impl CludzAuth {
    /// The token of the environment, else none: the drive's public folders.
    pub fn from_environment(environment: &dyn Fn(&str) -> Option<String>) -> Self {
        match first_set(&CLUDZ_TOKEN_VARIABLES, environment) {
            Some(token) => Self::Token {
                token,
                send: TokenSending::default(),
            },
            None => Self::None,
        }
    }
}

impl ReductstoreAuth {
    /// The token of the environment, else none: a server without authentication.
    pub fn from_environment(environment: &dyn Fn(&str) -> Option<String>) -> Self {
        match first_set(&REDUCTSTORE_TOKEN_VARIABLES, environment) {
            Some(token) => Self::Token { token },
            None => Self::None,
        }
    }
}

/// The directory of a remote that is mounted; empty for its root.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RemotePath(Vec<Name>);

impl RemotePath {
    pub fn names(&self) -> &[Name] {
        &self.0
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The first name and what is below it.
    pub fn split_first(self) -> Option<(Name, Self)> {
        let mut names = self.0.into_iter();
        let first = names.next()?;
        Some((first, Self(names.collect())))
    }
}

impl FromStr for RemotePath {
    type Err = Error;

    /// Names between slashes; slashes at the ends and doubled ones say nothing.
    fn from_str(text: &str) -> Result<Self> {
        text.split('/')
            .filter(|part| !part.is_empty())
            .map(|part| {
                Name::new(part).map_err(|error| {
                    Error::new(
                        ErrorKind::InvalidInput,
                        format!("the path {text:?} cannot be mounted: {error}"),
                    )
                })
            })
            .collect::<Result<_>>()
            .map(Self)
    }
}

impl TryFrom<String> for RemotePath {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<RemotePath> for String {
    fn from(path: RemotePath) -> Self {
        path.to_string()
    }
}

impl fmt::Display for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("/")?;
            }
            f.write_str(name.as_str())?;
        }
        Ok(())
    }
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

    #[test]
    fn paths_are_names_between_slashes() {
        let path: RemotePath = "/a//b c/".parse().unwrap();
        assert_eq!(path.to_string(), "a/b c");
        assert!("".parse::<RemotePath>().unwrap().is_root());
        assert_eq!(
            "a/../b".parse::<RemotePath>().unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
        let json = serde_json::to_string(&path).unwrap();
        assert_eq!(serde_json::from_str::<RemotePath>(&json).unwrap(), path);
    }
}
