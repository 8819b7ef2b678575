//! Registered applications.
//!
//! Responsible for how a client proves itself, what it may ask for, and where answers may go.

use std::collections::BTreeSet;
use std::fmt;

use url::{Host, Url};

use super::error::OauthError;
use crate::emulator::cloudsync::access::Scope;

/// An application that may ask people for access.
#[derive(Clone, PartialEq, Eq)]
pub struct OauthClient {
    id: String,
    name: String,
    proof: Proof,
    scopes: BTreeSet<Scope>,
    redirects: Vec<String>,
}

#[derive(Clone, PartialEq, Eq)]
enum Proof {
    Secret(String),
    /// A program on people's own machines can't keep a secret (RFC 6749, 2.1).
    None,
}

impl OauthClient {
    /// A client with a secret, for every scope of OAuth.
    pub fn confidential(id: &str, secret: &str) -> Self {
        Self::new(id, Proof::Secret(secret.to_owned()))
    }

    /// A client without a secret, for every scope of OAuth.
    pub fn public(id: &str) -> Self {
        Self::new(id, Proof::None)
    }

    fn new(id: &str, proof: Proof) -> Self {
        Self {
            id: id.to_owned(),
            name: id.to_owned(),
            proof,
            scopes: Scope::of_oauth().into_iter().collect(),
            redirects: Vec::new(),
        }
    }

    /// The same, called so on the page where a person decides.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// The same for these scopes only; those that OAuth doesn't have are left out.
    #[must_use]
    pub fn with_scopes(mut self, scopes: &[Scope]) -> Self {
        self.scopes = scopes.iter().copied().filter(|scope| scope.is_for_oauth()).collect();
        self
    }

    /// The same with one more address that answers may go to, besides those on loopback.
    #[must_use]
    pub fn with_redirect(mut self, address: &str) -> Self {
        self.redirects.push(address.to_owned());
        self
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn check_secret(&self, secret: Option<&str>) -> Result<(), OauthError> {
        let proven = match (&self.proof, secret) {
            (Proof::Secret(right), Some(sent)) => right == sent,
            (Proof::None, None) => true,
            _ => false,
        };
        if proven {
            Ok(())
        } else {
            Err(OauthError::invalid_client())
        }
    }

    /// The scopes in a list with spaces between them, if this client may ask for all of them.
    pub(super) fn scopes(&self, list: &str) -> Result<BTreeSet<Scope>, OauthError> {
        let asked: Result<BTreeSet<Scope>, _> = list.split(' ').map(str::parse).collect();
        match asked {
            Ok(asked) if asked.is_subset(&self.scopes) => Ok(asked),
            _ => Err(OauthError::invalid_scope("The client cannot ask for these scopes")),
        }
    }

    /// RFC 8252, 7.3: a loopback address by number, with any port; else one that was registered.
    pub(super) fn may_redirect_to(&self, address: &str) -> bool {
        if self.redirects.iter().any(|registered| registered == address) {
            return true;
        }
        let Ok(url) = Url::parse(address) else {
            return false;
        };
        let is_loopback = match url.host() {
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            Some(Host::Domain(_)) | None => false,
        };
        is_loopback
            && url.scheme() == "http"
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
    }
}

impl fmt::Debug for OauthClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OauthClient")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
