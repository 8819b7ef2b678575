//! ReductStore: one server, all its buckets or one.

use serde::{Deserialize, Serialize};

use super::{Answer, Field, Form, Identity, KeysIdentity, Method, Need, Secret, first_set};
use crate::auth::{SecretSource, TokenKind, TokenPlacement};

/// `RS_PORT`'s default in ReductStore's configuration reference.
pub const REDUCTSTORE_PORT: u16 = 8383;
pub(super) const TOKEN_VARIABLES: &[&str] = &["RS_API_TOKEN", "REDUCT_API_TOKEN"];

pub(super) const FORM: Form = Form {
    kind: "reductstore",
    title: "ReductStore",
    about: "a server's buckets, or one of them",
    fields: &[
        Field {
            key: "endpoint",
            question: "The server's address",
            answer: Answer::Text {
                example: "https://reduct.example:8383",
            },
            need: Need::Required,
        },
        Field {
            key: "bucket",
            question: "Which bucket",
            answer: Answer::Text { example: "photos" },
            need: Need::Optional("all of them"),
        },
        Field {
            key: "names",
            question: "What files are called",
            answer: Answer::Choice(&["label", "timestamp"]),
            need: Need::Unasked,
        },
    ],
    methods: &[
        Method {
            word: "token",
            about: "an access token of the server",
            fields: &[],
            secrets: &[Secret::required("token", "token")],
        },
        Method {
            about: "nothing: a server without authentication",
            ..Method::NONE
        },
    ],
};

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

impl ReductstoreSpec {
    pub(super) fn identity(&self) -> Identity<'_> {
        match &self.auth {
            ReductstoreAuth::None => Identity::Anonymous,
            ReductstoreAuth::Token { token } => Identity::Token {
                source: token,
                placement: TokenPlacement::Bearer,
                kind: TokenKind::TOKEN,
            },
        }
    }

    pub(super) fn keys_identity(&self) -> Option<KeysIdentity<'_>> {
        self.keys_auth.as_ref().map(|source| KeysIdentity {
            source,
            placement: TokenPlacement::Bearer,
            word: "token",
        })
    }

    pub(super) fn secret_source_mut(&mut self) -> Option<&mut SecretSource> {
        match &mut self.auth {
            ReductstoreAuth::Token { token } => Some(token),
            ReductstoreAuth::None => None,
        }
    }
}

impl ReductstoreAuth {
    /// The token of the environment, else none: a server without authentication.
    pub fn from_environment(environment: &dyn Fn(&str) -> Option<String>) -> Self {
        match first_set(TOKEN_VARIABLES, environment) {
            Some(token) => Self::Token { token },
            None => Self::None,
        }
    }
}
