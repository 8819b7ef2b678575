//! Cludz: one drive.

use reqwest::header::HeaderName;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Answer, Field, Form, Identity, Method, Need, Secret, first_set};
use crate::auth::{SecretSource, TokenKind, TokenPlacement};

/// Cludz documentation.
pub(super) const ENDPOINT: &str = "https://storage.cludz.net";
pub(super) const TOKEN_VARIABLES: &[&str] = &["CLUDZ_STORAGE_TOKEN"];

pub(super) const FORM: Form = Form {
    kind: "cludz",
    title: "Cludz",
    about: "a drive, or what is public in one",
    fields: &[
        Field {
            key: "storage",
            question: "The drive's id (dashboard → Drive → Settings)",
            answer: Answer::Text {
                example: "3f0c1f6e-9d2b-4a57-8c64-0e5b7a1d2c3f",
            },
            need: Need::Required,
        },
        Field::endpoint(ENDPOINT),
    ],
    methods: &[
        Method {
            word: "token",
            about: "a storage token (dashboard → Drive → Settings → Storage Token)",
            fields: &[Field {
                key: "send",
                question: "Where the token travels",
                answer: Answer::Choice(&["header", "query"]),
                need: Need::Unasked,
            }],
            secrets: &[Secret::required("token", "token")],
        },
        Method::NONE,
    ],
};

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

impl CludzSpec {
    pub(super) fn identity(&self) -> Identity<'_> {
        match &self.auth {
            CludzAuth::None => Identity::Anonymous,
            CludzAuth::Token { token, send } => Identity::Token {
                source: token,
                // Both names: Cludz documentation, "Authentication".
                placement: match send {
                    TokenSending::Header => TokenPlacement::Header(HeaderName::from_static("token")),
                    TokenSending::Query => TokenPlacement::Query("token"),
                },
                kind: TokenKind::TOKEN,
            },
        }
    }

    pub(super) fn secret_source_mut(&mut self) -> Option<&mut SecretSource> {
        match &mut self.auth {
            CludzAuth::Token { token, .. } => Some(token),
            CludzAuth::None => None,
        }
    }
}

impl CludzAuth {
    /// The token of the environment, else none: the drive's public folders.
    pub fn from_environment(environment: &dyn Fn(&str) -> Option<String>) -> Self {
        match first_set(TOKEN_VARIABLES, environment) {
            Some(token) => Self::Token {
                token,
                send: TokenSending::default(),
            },
            None => Self::None,
        }
    }
}
