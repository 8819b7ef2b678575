//! S3 and what speaks like it: one bucket, or what is below one prefix of it.

use serde::{Deserialize, Serialize};

use super::{Answer, Field, Form, Identity, Method, Need, RemotePath, Secret};
use crate::auth::SecretSource;

/// The region of Amazon's oldest endpoint; most other services take any.
pub const DEFAULT_REGION: &str = "us-east-1";
const ID_VARIABLE: &str = "AWS_ACCESS_KEY_ID";
const SECRET_VARIABLE: &str = "AWS_SECRET_ACCESS_KEY";
const SESSION_VARIABLE: &str = "AWS_SESSION_TOKEN";
/// Names of the AWS command line, in the order in which it asks for them.
const REGION_VARIABLES: &[&str] = &["AWS_REGION", "AWS_DEFAULT_REGION"];
const ENDPOINT_VARIABLES: &[&str] = &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
const PROFILE_VARIABLE: &str = "AWS_PROFILE";
/// What the person's process hands over.
pub(super) const TOKEN_VARIABLES: &[&str] = &[ID_VARIABLE, SECRET_VARIABLE, SESSION_VARIABLE];

pub(super) const FORM: Form = Form {
    kind: "s3",
    title: "S3",
    about: "a bucket at Amazon, or at anything that speaks like it",
    fields: &[
        Field {
            key: "bucket",
            question: "Which bucket",
            answer: Answer::Text { example: "photos" },
            need: Need::Required,
        },
        Field {
            key: "region",
            question: "Its region",
            answer: Answer::Text {
                example: DEFAULT_REGION,
            },
            need: Need::Default(DEFAULT_REGION),
        },
        Field {
            key: "endpoint",
            question: "Address of the service",
            answer: Answer::Text {
                example: "https://s3.example.org",
            },
            need: Need::Optional("Amazon's"),
        },
        Field {
            key: "prefix",
            question: "Only what is below this prefix",
            answer: Answer::Text { example: "2024/summer" },
            need: Need::Optional("the whole bucket"),
        },
    ],
    methods: &[
        Method {
            word: "static",
            about: "an access key",
            fields: &[Field {
                key: "access_key_id",
                question: "The access key's id",
                answer: Answer::Text {
                    example: "AKIAIOSFODNN7EXAMPLE",
                },
                need: Need::Required,
            }],
            secrets: &[
                Secret::required("secret_access_key", "secret access key"),
                Secret {
                    key: "session_token",
                    word: "session token",
                    need: Need::Unasked,
                },
            ],
        },
        Method {
            word: "chain",
            about: "wherever AWS programs look: environment, files, single sign-on, the machine's own identity",
            fields: &[Field {
                key: "profile",
                question: "Which profile of ~/.aws",
                answer: Answer::Text { example: "work" },
                need: Need::Optional("the default one"),
            }],
            secrets: &[],
        },
        Method {
            about: "nothing: a public bucket",
            ..Method::NONE
        },
    ],
};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct S3Spec {
    pub bucket: String,
    pub region: String,
    /// The part of the bucket that is the remote's root.
    pub prefix: RemotePath,
    pub auth: S3Auth,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "lowercase")]
pub enum S3Auth {
    /// One access key, or a temporary one with its session token.
    Static(Box<StaticKey>),
    /// Wherever AWS programs look: environment, files, single sign-on, the machine's own identity.
    Chain { profile: Option<String> },
    /// Public buckets need no key.
    None,
}

/// Where an access key's parts are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticKey {
    pub access_key_id: KeyId,
    pub secret_access_key: SecretSource,
    pub session_token: Option<SecretSource>,
}

/// The part of an access key that is no secret; it is often kept beside the one that is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyId {
    Text(String),
    Source(SecretSource),
}

impl S3Spec {
    /// A bucket with what the environment says about it, as the AWS command line would ask for it.
    ///
    /// The second is the variable that names an endpoint, with its value.
    pub fn from_environment(
        bucket: String,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> (Self, Option<(&'static str, String)>) {
        let named = |names: &[&'static str]| {
            let mut values = names.iter().filter_map(|name| Some((*name, environment(name)?)));
            values.find(|(_, value)| !value.is_empty())
        };
        let set = |names| named(names).map(|(_, value)| value);
        let spec = Self {
            bucket,
            region: set(REGION_VARIABLES).unwrap_or_else(|| DEFAULT_REGION.to_owned()),
            prefix: RemotePath::default(),
            auth: S3Auth::Chain {
                profile: set(&[PROFILE_VARIABLE]),
            },
        };
        (spec, named(ENDPOINT_VARIABLES))
    }

    /// Amazon S3 user guide, "Amazon S3 path-style access".
    pub(super) fn endpoint(&self) -> String {
        format!("https://s3.{}.amazonaws.com", self.region)
    }

    pub(super) fn identity(&self) -> Identity<'_> {
        match &self.auth {
            S3Auth::None => Identity::Anonymous,
            auth => Identity::AccessKey(auth),
        }
    }

    pub(super) fn secret_source_mut(&mut self) -> Option<&mut SecretSource> {
        match &mut self.auth {
            S3Auth::Static(key) => Some(&mut key.secret_access_key),
            S3Auth::Chain { .. } | S3Auth::None => None,
        }
    }
}

impl S3Auth {
    /// The configuration's word.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Static(_) => "static",
            Self::Chain { .. } => "chain",
            Self::None => "none",
        }
    }

    /// The secret of the access key, where a person gave one.
    pub(super) fn secret_source(&self) -> Option<&SecretSource> {
        match self {
            Self::Static(key) => Some(&key.secret_access_key),
            Self::Chain { .. } | Self::None => None,
        }
    }

    /// All that must be read to sign.
    pub(super) fn secret_sources(&self) -> Vec<&SecretSource> {
        let Self::Static(key) = self else {
            return Vec::new();
        };
        let id = match &key.access_key_id {
            KeyId::Source(source) => Some(source),
            KeyId::Text(_) => None,
        };
        std::iter::once(&key.secret_access_key)
            .chain(id)
            .chain(&key.session_token)
            .collect()
    }

    /// Variables that are used when they are set.
    pub(super) fn chain_variables(&self) -> &'static [&'static str] {
        match self {
            Self::Chain { .. } => TOKEN_VARIABLES,
            Self::Static(_) | Self::None => &[],
        }
    }
}
