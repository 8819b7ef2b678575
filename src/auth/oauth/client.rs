//! One application at one authorization server: what every flow begins with.

use std::time::Duration;

use oauth2::basic::BasicClient;
use oauth2::{AuthType, ClientId, ClientSecret, EndpointNotSet, EndpointSet, TokenUrl};
use reqwest::Url;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

use super::discovery::{self, Core, Extras, SecretPlace};
use super::endpoint::{Endpoint, PATIENCE};
use super::{AuthorizationServer, OauthSpec, TokenBodies};
use crate::auth::GivenSecrets;
use crate::model::Result;
use crate::net::{PlainHttp, RetryPolicy, Transport, TransportSettings};

/// The crate's client that can ask for tokens.
pub(super) type TokenClient = BasicClient<EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

/// An application that asks an authorization server.
#[derive(Clone)]
pub struct OauthClient {
    pub(super) spec: OauthSpec,
    transport: Transport,
    plain_http: PlainHttp,
}

impl OauthClient {
    /// Asks nothing yet.
    ///
    /// # Errors
    /// `InvalidInput` for a server that no secret may be sent to, and as the HTTP client says.
    pub fn new(spec: OauthSpec, plain_http: PlainHttp) -> Result<Self> {
        match &spec.server {
            AuthorizationServer::Known { authorize, token, .. } => {
                plain_http.check(authorize)?;
                plain_http.check(token)?;
            }
            AuthorizationServer::Issuer(issuer) => plain_http.check(issuer)?,
        }
        // Requests are sent once each; whether there is another is decided by who asks.
        let settings = TransportSettings {
            stall: PATIENCE,
            retry: RetryPolicy::within(Duration::ZERO),
        };
        Ok(Self {
            spec,
            transport: Transport::new(settings)?,
            plain_http,
        })
    }

    /// The remote that the grant is for.
    pub fn remote(&self) -> &str {
        &self.spec.kept.remote
    }

    pub(super) async fn core(&self) -> Result<Core> {
        discovery::core(&self.spec.server, &self.transport, self.plain_http).await
    }

    pub(super) async fn extras(&self) -> Result<Extras> {
        discovery::extras(&self.spec.server, &self.transport, self.plain_http).await
    }

    pub(super) fn endpoint(&self, url: Url, bodies: TokenBodies, purpose: &'static str) -> Result<Endpoint> {
        Endpoint::new(self.transport.clone(), url, self.plain_http, bodies, purpose)
    }

    /// # Errors
    /// As reading the client's secret fails.
    pub(super) async fn token_client(&self, core: &Core, given: &GivenSecrets) -> Result<TokenClient> {
        let mut client =
            BasicClient::new(ClientId::new(self.spec.client_id.clone())).set_auth_type(match core.client_secret_in {
                SecretPlace::Body => AuthType::RequestBody,
                SecretPlace::Header => AuthType::BasicAuth,
            });
        if let Some(source) = &self.spec.client_secret {
            let secret = source.read(given).await?;
            client = client.set_client_secret(ClientSecret::new(secret.expose_secret().to_owned()));
        }
        Ok(client.set_token_uri(TokenUrl::from_url(core.token.clone())))
    }

    /// A name for the application and its server: a grant belongs to both.
    pub(super) fn fingerprint(&self) -> String {
        let server = match &self.spec.server {
            AuthorizationServer::Known { token, .. } => token,
            AuthorizationServer::Issuer(issuer) => issuer,
        };
        let mut hash = Sha256::new();
        for part in ["oauth", server.as_str(), &self.spec.client_id] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
