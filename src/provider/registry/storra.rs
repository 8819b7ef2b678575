//! Storra Cloud: one account.

use reqwest::header::{COOKIE, HeaderName};
use serde::{Deserialize, Serialize};

use super::{Answer, COMMON_TOKEN_VARIABLE, Field, Form, Identity, KeysIdentity, Method, Need, Secret, first_set};
use crate::auth::{SecretSource, TokenKind, TokenPlacement};
use crate::model::{Error, ErrorKind, Result};

/// Storra documentation.
pub(super) const ENDPOINT: &str = "https://cloud.storra.host";
/// The first one: Storra documentation, "Security".
pub(super) const TOKEN_VARIABLES: &[&str] = &["CLOUD_API_KEY", "STORRA_API_KEY"];

pub(super) const FORM: Form = Form {
    kind: "storra",
    title: "Storra",
    about: "an account's cloud storage",
    fields: &[
        Field::endpoint(ENDPOINT),
        Field {
            key: "chmod_publishes",
            question: "Whether chmod o+r makes a file public",
            answer: Answer::Truth,
            need: Need::Unasked,
        },
    ],
    methods: &[Method {
        word: "api-key",
        about: "an API key (dashboard → Settings → API Keys)",
        fields: &[],
        secrets: &[Secret::required("key", "API key")],
    }],
};

/// How many of a key's first characters the list of keys shows (Storra documentation, "Dashboard API").
const SHOWN_CHARS: usize = 11;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorraSpec {
    pub key: SecretSource,
    /// The cookie of a session of the dashboard, which manages keys.
    pub keys_auth: Option<SecretSource>,
    /// Whether `chmod o+r` makes a file public.
    pub chmod_publishes: bool,
}

impl StorraSpec {
    pub(super) fn identity(&self) -> Identity<'_> {
        Identity::Token {
            source: &self.key,
            // Storra documentation, "Authentication".
            placement: TokenPlacement::Header(HeaderName::from_static("x-api-key")),
            kind: TokenKind {
                public_chars: SHOWN_CHARS,
                ..TokenKind::API_KEY
            },
        }
    }

    pub(super) fn keys_identity(&self) -> Option<KeysIdentity<'_>> {
        self.keys_auth.as_ref().map(|source| KeysIdentity {
            source,
            placement: TokenPlacement::Header(COOKIE),
            word: "dashboard cookie",
        })
    }

    /// The account of the environment's key.
    ///
    /// # Errors
    /// `NeedsLogin` when there is none.
    pub fn from_environment(environment: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        match first_set(TOKEN_VARIABLES, environment) {
            Some(key) => Ok(Self {
                key,
                keys_auth: None,
                chmod_publishes: false,
            }),
            None => Err(Error::new(
                ErrorKind::NeedsLogin,
                format!(
                    "Storra needs a key; set {COMMON_TOKEN_VARIABLE} or {}",
                    TOKEN_VARIABLES.join(" or ")
                ),
            )),
        }
    }
}
