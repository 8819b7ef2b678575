//! OAuth 2.0 (RFC 6749): getting a grant from a person, renewing tokens with it, and giving it back.
//!
//! It knows the protocol and no provider: addresses come from the caller or from the server's own metadata. When a token
//! is renewed and where a grant is kept is `renewing`'s affair.

mod spec;

pub use spec::{AuthorizationServer, OauthSpec, TokenBodies};
