//! CloudSync: one account, all its workspaces or one.

use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::{Access, Answer, COMMON_TOKEN_VARIABLE, Field, Form, Identity, Method, Need, Secret, first_set};
use crate::auth::oauth::{AuthorizationServer, OFFLINE, OauthSpec, TokenBodies};
use crate::auth::{Scopes, SecretSource, TokenKind, TokenPlacement};
use crate::model::{Error, ErrorKind, Result};

/// CloudSync documentation, as is the other one.
pub(super) const ENDPOINT: &str = "https://api.cloudsync.io/v1";
const AUTH_ENDPOINT: &str = "https://auth.cloudsync.io";
pub(super) const TOKEN_VARIABLES: &[&str] = &[API_KEY_VARIABLE, ACCESS_TOKEN_VARIABLE];
const API_KEY_VARIABLE: &str = "CLOUDSYNC_API_KEY";
const ACCESS_TOKEN_VARIABLE: &str = "CLOUDSYNC_ACCESS_TOKEN";

pub(super) const FORM: Form = Form {
    kind: "cloudsync",
    title: "CloudSync",
    about: "an account's workspaces, or one of them",
    fields: &[
        Field {
            key: "workspace",
            question: "Which workspace (its id or short name)",
            answer: Answer::Text { example: "my-project" },
            need: Need::Optional("all of them"),
        },
        Field::endpoint(ENDPOINT),
        Field {
            key: "auth_endpoint",
            question: "Address of the authorization server",
            answer: Answer::Text { example: AUTH_ENDPOINT },
            need: Need::Unasked,
        },
    ],
    methods: &[
        Method {
            word: "api-key",
            about: "an API key (Account Settings → API Keys)",
            fields: &[],
            secrets: &[Secret::required("key", "API key")],
        },
        Method {
            word: "oauth",
            about: "you agree in your browser, and access is renewed by itself",
            fields: &[
                Field {
                    key: "client_id",
                    question: "The application's client id",
                    answer: Answer::Text { example: "app_abc123" },
                    need: Need::Required,
                },
                Field {
                    key: "scopes",
                    question: "What to ask for",
                    answer: Answer::Text {
                        example: "files:read workspaces:read",
                    },
                    need: Need::Optional("what a mount needs"),
                },
                Field {
                    key: "issuer",
                    question: "Address of another authorization server",
                    answer: Answer::Text {
                        example: "https://login.example.org",
                    },
                    need: Need::Unasked,
                },
            ],
            secrets: &[Secret {
                key: "client_secret",
                word: "client secret",
                need: Need::Optional("the application has none"),
            }],
        },
        Method {
            word: "access-token",
            about: "an access token that somebody else got; it works until it ends",
            fields: &[],
            secrets: &[Secret::required("token", "access token")],
        },
    ],
};

/// How many of a key's first characters the list of keys shows (CloudSync documentation, "List API Keys").
const SHOWN_CHARS: usize = 12;

/// What a key's beginning says of the environment it is for (CloudSync documentation, "Key Types").
const ENVIRONMENTS: &[(&str, &str)] = &[("sk_live_", "production"), ("sk_test_", "sandbox")];

/// What each scope is for (CloudSync documentation, "Scopes").
const SCOPES: [(&str, &str); 5] = [
    ("files:read", "Read file contents"),
    ("files:write", "Create and modify files"),
    ("workspaces:read", "List and view workspaces"),
    ("workspaces:write", "Create and manage workspaces"),
    ("offline_access", "Stay connected"),
];

/// What a mount needs. Workspaces are made and managed elsewhere, so changing them is not asked for.
pub(super) fn scopes_for(access: Access) -> Scopes {
    Scopes::documented(match access {
        Access::Read => &["files:read", "workspaces:read", OFFLINE],
        Access::Write => &["files:read", "files:write", "workspaces:read", OFFLINE],
    })
}

pub(super) fn scope_meaning(scope: &str) -> Option<&'static str> {
    SCOPES
        .iter()
        .find(|(word, _)| *word == scope)
        .map(|(_, meaning)| *meaning)
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudSyncSpec {
    /// The id or the short name of the workspace to mount; all without one.
    pub workspace: Option<String>,
    pub auth: CloudSyncAuth,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "kebab-case")]
pub enum CloudSyncAuth {
    ApiKey {
        key: SecretSource,
    },
    Oauth(Box<OauthSpec>),
    /// A token that somebody else got: it works until it ends.
    AccessToken {
        token: SecretSource,
    },
}

/// CloudSync's authorization server at its own address or another one.
///
/// # Errors
/// `InvalidInput` when the address has no place for paths.
pub fn cloudsync_server(base: Option<Url>) -> Result<AuthorizationServer> {
    let invalid = || {
        Error::new(
            ErrorKind::InvalidInput,
            "the authorization server's address is malformed",
        )
    };
    let base = match base {
        Some(base) => base,
        None => Url::parse(AUTH_ENDPOINT).map_err(|_| invalid())?,
    };
    let at = |path: [&str; 2]| -> Result<Url> {
        let mut url = base.clone();
        url.path_segments_mut()
            .map_err(|()| invalid())?
            .pop_if_empty()
            .extend(path);
        Ok(url)
    };
    Ok(AuthorizationServer::Known {
        authorize: at(["oauth", "authorize"])?,
        token: at(["oauth", "token"])?,
        bodies: TokenBodies::Json,
        metadata: base,
    })
}

impl CloudSyncSpec {
    pub(super) fn identity(&self) -> Identity<'_> {
        match &self.auth {
            CloudSyncAuth::ApiKey { key } => Identity::Token {
                source: key,
                placement: TokenPlacement::Bearer,
                kind: TokenKind {
                    environments: ENVIRONMENTS,
                    public_chars: SHOWN_CHARS,
                    ..TokenKind::API_KEY
                },
            },
            CloudSyncAuth::AccessToken { token } => Identity::Token {
                source: token,
                placement: TokenPlacement::Bearer,
                kind: TokenKind::ACCESS_TOKEN,
            },
            CloudSyncAuth::Oauth(oauth) => Identity::Oauth(oauth),
        }
    }

    pub(super) fn secret_source_mut(&mut self) -> Option<&mut SecretSource> {
        match &mut self.auth {
            CloudSyncAuth::ApiKey { key } => Some(key),
            CloudSyncAuth::AccessToken { token } => Some(token),
            CloudSyncAuth::Oauth(_) => None,
        }
    }
}

impl CloudSyncAuth {
    /// The key or the access token of the environment.
    ///
    /// # Errors
    /// `NeedsLogin` when there is neither.
    pub fn from_environment(environment: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        match first_set(TOKEN_VARIABLES, environment) {
            Some(SecretSource::Env(variable)) if variable == ACCESS_TOKEN_VARIABLE => Ok(Self::AccessToken {
                token: SecretSource::Env(variable),
            }),
            Some(key) => Ok(Self::ApiKey { key }),
            None => Err(Error::new(
                ErrorKind::NeedsLogin,
                format!(
                    "CloudSync needs a key; set {COMMON_TOKEN_VARIABLE} or {API_KEY_VARIABLE} or {ACCESS_TOKEN_VARIABLE}"
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_asked_for_than_a_mount_needs() {
        let read = scopes_for(Access::Read);
        assert_eq!(read.to_string(), "files:read offline_access workspaces:read");
        let write = scopes_for(Access::Write);
        assert_eq!(write.beyond(&read).to_string(), "files:write");
        assert!(write.iter().all(|scope| scope_meaning(scope).is_some()));
        assert_eq!(scope_meaning("users:read"), None);
    }
}
