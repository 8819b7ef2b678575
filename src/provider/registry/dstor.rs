//! dStor: one account on one of the two networks.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Answer, COMMON_TOKEN_VARIABLE, Field, Form, Method, Need, RemotePath, Secret, first_set};
use crate::auth::{SecretSource, StoredSecret};
use crate::model::{Error, ErrorKind, Result};
use crate::provider::dstor::Endpoints;

pub(super) const TOKEN_VARIABLES: &[&str] = &["DSTOR_API_KEY"];

pub(super) const FORM: Form = Form {
    kind: "dstor",
    title: "dStor",
    about: "an account's contents, under names that are kept on this machine",
    fields: &[
        Field {
            key: "network",
            question: "Which network",
            answer: Answer::Choice(&["production", "testnet"]),
            need: Need::Optional("production"),
        },
        Field {
            key: "endpoint",
            question: "Address of the service",
            answer: Answer::Text {
                example: "https://api.dstor.cloud",
            },
            need: Need::Optional("the network's own"),
        },
        Field {
            key: "on_unlink",
            question: "What removing a file means",
            answer: Answer::Choice(&["forget", "deny"]),
            need: Need::Unasked,
        },
        Field {
            key: "index",
            question: "A list of contents that were stored elsewhere",
            answer: Answer::Text {
                example: "~/contents.json",
            },
            need: Need::Unasked,
        },
    ],
    methods: &[
        Method {
            word: "temp-token",
            about: "an API key, with which tokens are got",
            fields: &[Field {
                key: "lifetime",
                question: "How long a token lives",
                answer: Answer::Text { example: "12h" },
                need: Need::Unasked,
            }],
            secrets: &[Secret::required("api_key", "API key")],
        },
        Method {
            word: "login",
            about: "email and password",
            fields: &[Field {
                key: "email",
                question: "Your email address at dStor",
                answer: Answer::Text {
                    example: "me@example.org",
                },
                need: Need::Required,
            }],
            secrets: &[Secret::required("password", "password")],
        },
    ],
};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DstorSpec {
    pub network: Network,
    pub on_unlink: OnUnlink,
    /// What only dStor's customers know how to call.
    pub endpoints: Endpoints,
    /// A list of contents that were stored elsewhere, to take into the tree.
    pub index: Option<PathBuf>,
    /// Where the tree is shared with other machines.
    pub shared: Option<SharedPlace>,
    pub auth: DstorAuth,
    /// Where the token of the moment is kept for all processes; in memory only without it.
    pub kept: Option<StoredSecret>,
}

/// An object at another remote, an S3 bucket or a WebDAV server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedPlace {
    /// Its name in the configuration.
    pub remote: String,
    pub path: RemotePath,
}

/// Keys and tokens of one network are unknown to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    #[default]
    Production,
    Testnet,
}

/// What removing a file means where the service may not be able to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnlink {
    /// Its name goes; its content stays at the service, unless an endpoint to delete it is configured.
    #[default]
    Forget,
    /// Nothing can be removed.
    Deny,
}

/// What temporary tokens are got with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "kebab-case")]
pub enum DstorAuth {
    TempToken {
        api_key: SecretSource,
        /// How long a token is asked to live; the service's own choice without it.
        lifetime: Option<Duration>,
    },
    Login {
        email: String,
        password: SecretSource,
    },
}

impl Network {
    /// dStor documentation, "Access token".
    pub(super) fn endpoint(self) -> &'static str {
        match self {
            Self::Production => "https://api.dstor.cloud",
            Self::Testnet => "https://api.testnet.dstor.cloud",
        }
    }

    /// The configuration's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Testnet => "testnet",
        }
    }
}

impl DstorAuth {
    /// The configuration's word.
    pub fn method(&self) -> &'static str {
        match self {
            Self::TempToken { .. } => "temp-token",
            Self::Login { .. } => "login",
        }
    }

    pub fn secret_source(&self) -> &SecretSource {
        match self {
            Self::TempToken { api_key, .. } => api_key,
            Self::Login { password, .. } => password,
        }
    }

    pub(super) fn secret_source_mut(&mut self) -> &mut SecretSource {
        match self {
            Self::TempToken { api_key, .. } => api_key,
            Self::Login { password, .. } => password,
        }
    }
}

impl DstorSpec {
    /// The account of the environment's key, on the production network.
    ///
    /// # Errors
    /// `NeedsLogin` when there is none.
    pub fn from_environment(environment: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        match first_set(TOKEN_VARIABLES, environment) {
            Some(api_key) => Ok(Self {
                network: Network::Production,
                on_unlink: OnUnlink::default(),
                endpoints: Endpoints::default(),
                index: None,
                shared: None,
                auth: DstorAuth::TempToken {
                    api_key,
                    lifetime: None,
                },
                kept: None,
            }),
            None => Err(Error::new(
                ErrorKind::NeedsLogin,
                format!(
                    "dStor needs a key; set {COMMON_TOKEN_VARIABLE} or {}",
                    TOKEN_VARIABLES.join(" or ")
                ),
            )),
        }
    }
}
