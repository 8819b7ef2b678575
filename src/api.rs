//! The only way a provider is called: transport, credential and one replay joined.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;

use crate::auth::{AfterRejection, Authenticator, CredentialState, Generation, Scopes};
use crate::model::{Error, ErrorKind, Result};
pub use crate::net::PlainHttp;
use crate::net::{Credential, Dialect, RateBucket, Request, Response, Transport};

/// What a path segment cannot hold as it is: all but the unreserved characters (RFC 3986, 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One provider's HTTP API, called by one identity.
pub struct Api {
    base: Url,
    transport: Transport,
    authenticator: Arc<dyn Authenticator>,
    dialect: Arc<dyn Dialect>,
    /// One more than the newest generation that was accepted; 0 before the first.
    accepted: AtomicU64,
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
        plain_http.check(&base)?;
        Ok(Self {
            base,
            transport,
            authenticator,
            dialect,
            accepted: AtomicU64::new(0),
        })
    }

    pub fn base(&self) -> &Url {
        &self.base
    }

    /// The base with more path segments, each percent-encoded; an empty last one gives a slash at the end.
    ///
    /// A segment may hold any character (`Url`'s own setters drop tabs and line ends). It must be neither `.` nor `..`.
    pub fn url<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        let mut path = self.base.path().trim_end_matches('/').to_owned();
        for segment in segments {
            path.push('/');
            path.extend(utf8_percent_encode(segment, ENCODED));
        }
        let mut url = self.base.clone();
        url.set_path(&path);
        url
    }

    /// Where the credential is in its life.
    pub fn credential_state(&self) -> CredentialState {
        self.authenticator.state()
    }

    /// What the credential may do, where the service that issued it said so.
    pub fn credential_scopes(&self) -> Option<Scopes> {
        self.authenticator.scopes()
    }

    /// The environment that the credential is for, where it says so itself.
    pub fn credential_environment(&self) -> Option<&'static str> {
        self.authenticator.environment()
    }

    /// The credential's first characters, where its service shows them in lists to tell credentials apart.
    pub fn credential_prefix(&self) -> Option<String> {
        self.authenticator.public_prefix()
    }

    /// The newest credential that the provider accepted: what it told about another one is out of date.
    pub fn accepted_generation(&self) -> Option<Generation> {
        self.accepted.load(Ordering::Relaxed).checked_sub(1).map(Generation)
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

    /// Counts several requests before the first of them is sent: see `Transport::reserve`.
    ///
    /// # Errors
    /// `RateLimited`.
    pub async fn reserve(&self, bucket: &RateBucket, requests: u32, purpose: &'static str) -> Result<()> {
        self.transport.reserve(bucket, requests, purpose).await
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
                if same_origin {
                    let next = presented.generation.0.saturating_add(1);
                    self.accepted.fetch_max(next, Ordering::Relaxed);
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Anonymous;
    use crate::net::{PlainDialect, TransportSettings};
    use std::time::Duration;

    #[test]
    fn every_character_of_a_segment_gets_into_the_address() {
        let api = Api::new(
            "https://a.example/v1/".parse().unwrap(),
            PlainHttp::LoopbackOnly,
            Transport::new(TransportSettings::within(Duration::from_secs(1))).unwrap(),
            Arc::new(Anonymous),
            Arc::new(PlainDialect),
        )
        .unwrap();
        let path = |segments: &[&str]| api.url(segments.iter().copied()).to_string();
        assert_eq!(path(&["a b", "c/d"]), "https://a.example/v1/a%20b/c%2Fd");
        assert_eq!(path(&["%2e", "x?y#z", ""]), "https://a.example/v1/%252e/x%3Fy%23z/");
        assert_eq!(path(&["a\tb\n", "\\"]), "https://a.example/v1/a%09b%0A/%5C");
        assert_eq!(path(&["\u{e9}"]), "https://a.example/v1/%C3%A9");
    }
}
