//! OAuth 2.0 (RFC 6749): getting a grant from a person, renewing tokens with it, and giving it back.
//!
//! It knows the protocol and no provider: addresses come from the caller or from the server's own metadata. When a token
//! is renewed and where a grant is kept is `renewing`'s affair.

mod answer;
mod client;
mod consent;
mod device;
mod discovery;
mod endpoint;
mod exchange;
mod page;
mod redirect;
mod revocation;
mod spec;
mod visitor;

pub use client::OauthClient;
pub use consent::{Consent, Expected, OFFLINE, Reply};
pub use device::DeviceConsent;
pub use page::{Line, LineStanding, Page};
pub use redirect::{Arrived, REDIRECT_PATH, Redirect, Waiting, too_late};
pub use revocation::Revoked;
pub use spec::{AuthorizationServer, OauthSpec, TokenBodies};
