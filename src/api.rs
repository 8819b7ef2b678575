//! The only way a provider is called: transport, credential and one replay joined.

use std::sync::Arc;

use reqwest::Url;

use crate::auth::{AfterRejection, Authenticator};
use crate::model::{Error, ErrorKind, Result};
use crate::net::{Credential, Dialect, Request, Response, Transport};

/// One provider's HTTP API, called by one identity.
pub struct Api {
    base: Url,
    transport: Transport,
    authenticator: Arc<dyn Authenticator>,
    dialect: Arc<dyn Dialect>,
}

/// Whether a remote's owner accepts that a credential travels in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainHttp {
    /// Only to this machine.
    LoopbackOnly,
    Anywhere,
}

impl Api {
    /// # Errors
    /// `InvalidInput` when the base isn't http or https, or is plain http to another machine without permission.
    pub fn new(
        base: Url,
        plain_http: PlainHttp,
        transport: Transport,
        authenticator: Arc<dyn Authenticator>,
        dialect: Arc<dyn Dialect>,
    ) -> Result<Self> {
        let invalid = |why: String| Err(Error::new(ErrorKind::InvalidInput, why));
        match base.scheme() {
            "https" => {}
            "http" if plain_http == PlainHttp::Anywhere || is_loopback(&base) => {}
            "http" => {
                return invalid(format!(
                    "{} is not encrypted and not this machine; use https or set insecure = true",
                    base.origin().ascii_serialization()
                ));
            }
            other => return invalid(format!("an endpoint is http or https, not {other}")),
        }
        if base.cannot_be_a_base() {
            return invalid("the endpoint has no host".to_owned());
        }
        Ok(Self {
            base,
            transport,
            authenticator,
            dialect,
        })
    }

    pub fn base(&self) -> &Url {
        &self.base
    }

    /// The base with more path segments, each percent-encoded as needed.
    pub fn url<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// Sends with the current credential; after a 401 once more with the next one, if there is one.
    ///
    /// # Errors
    /// By the answer's status and the provider's words.
    pub async fn call(&self, request: &Request) -> Result<Response> {
        match self.call_once(request).await {
            Err((error, AfterRejection::TryAgain)) if error.kind() == ErrorKind::NeedsLogin => {
                self.call_once(request).await.map_err(|(error, _)| error)
            }
            outcome => outcome.map_err(|(error, _)| error),
        }
    }

    /// Sends without any credential, for addresses that carry their own.
    ///
    /// # Errors
    /// By the answer's status and the provider's words.
    pub async fn call_bare(&self, request: &Request) -> Result<Response> {
        self.transport.send(request, &Credential::None, &*self.dialect).await
    }

    async fn call_once(&self, request: &Request) -> Result<Response, (Error, AfterRejection)> {
        let presented = self
            .authenticator
            .present()
            .await
            .map_err(|error| (error, AfterRejection::GiveUp))?;
        let same_origin = request.url.origin() == self.base.origin();
        let credential = if same_origin {
            &presented.credential
        } else {
            &Credential::None
        };
        match self.transport.send(request, credential, &*self.dialect).await {
            Ok(response) => {
                self.authenticator.accepted(presented.generation);
                Ok(response)
            }
            Err(error) if error.kind() == ErrorKind::NeedsLogin && same_origin => {
                let after = self.authenticator.rejected(presented.generation).await;
                Err((error, after))
            }
            Err(error) => Err((error, AfterRejection::GiveUp)),
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
