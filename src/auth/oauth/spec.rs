//! What a remote says about its authorization server. No secret is in it.

use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::auth::{Scopes, SecretSource, StoredSecret};

/// Who asks which server for what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OauthSpec {
    pub server: AuthorizationServer,
    /// Public; made when the application was registered.
    pub client_id: String,
    /// Applications on people's machines often have none.
    pub client_secret: Option<SecretSource>,
    /// What to ask for; what the mount needs without it.
    pub scopes: Option<Scopes>,
    /// Where the grant is kept.
    pub kept: StoredSecret,
}

/// Where people and programs meet to grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthorizationServer {
    /// Two addresses that the provider documents. What else the server offers may be in its metadata (RFC 8414) below
    /// `metadata`.
    Known {
        authorize: Url,
        token: Url,
        bodies: TokenBodies,
        metadata: Url,
    },
    /// All addresses are in the metadata of this issuer (OpenID Connect Discovery 1.0, RFC 8414).
    Issuer(Url),
}

/// How a request for tokens is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenBodies {
    /// As the standard says (RFC 6749, appendix B).
    Form,
    /// As CloudSync documents.
    Json,
}

impl OauthSpec {
    /// The secrets that renewing reads, the grant excepted.
    pub fn secret_sources(&self) -> Vec<&SecretSource> {
        self.client_secret.iter().collect()
    }
}
