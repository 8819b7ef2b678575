//! Access tokens: JSON Web Tokens (RFC 7519) in compact form, signed with HMAC-SHA256 (`HS256`, RFC 7518).
//!
//! Responsible for writing and reading them with the claims of the provider's sample. Not responsible for who gets one
//! nor for how long. What `d`, `o`, `s` and `t` mean is not documented; they are what the sample shows.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use uuid::Uuid;

#[derive(Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Claims {
    d: bool,
    o: bool,
    s: bool,
    t: Option<()>,
    /// Issued at, unix seconds.
    pub(super) iat: i64,
    /// Expires at, unix seconds.
    pub(super) exp: i64,
    pub(super) aud: String,
    pub(super) iss: String,
    /// The account.
    pub(super) sub: Uuid,
}

impl Claims {
    pub(super) fn new(sub: Uuid, issuer: &str, iat: i64, exp: i64) -> Self {
        Self {
            d: false,
            o: false,
            s: false,
            t: None,
            iat,
            exp,
            aud: issuer.to_owned(),
            iss: issuer.to_owned(),
            sub,
        }
    }
}

/// A random secret that signs; a block of SHA-256 long, so that HMAC takes it as it is.
#[derive(Clone)]
pub(super) struct SigningKey([u8; 64]);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(***)")
    }
}

impl SigningKey {
    pub(super) fn random() -> Self {
        let mut key = [0; 64];
        for part in key.chunks_exact_mut(16) {
            part.copy_from_slice(Uuid::new_v4().as_bytes());
        }
        Self(key)
    }

    /// The signature of `text`, encoded as in a JWT.
    pub(super) fn signature(&self, text: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.mac(text).finalize().into_bytes())
    }

    /// Whether `signature` is this key's for `text`; takes as long for one as for another.
    pub(super) fn has_signed(&self, text: &str, signature: &str) -> bool {
        URL_SAFE_NO_PAD
            .decode(signature)
            .is_ok_and(|signature| self.mac(text).verify_slice(&signature).is_ok())
    }

    fn mac(&self, text: &str) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new(&self.0.into());
        mac.update(text.as_bytes());
        mac
    }

    pub(super) fn token(&self, claims: &Claims) -> String {
        let header = Header {
            alg: "HS256".to_owned(),
            typ: "JWT".to_owned(),
        };
        let signed = format!("{}.{}", encode(&header), encode(claims));
        format!("{signed}.{}", self.signature(&signed))
    }
}

/// A token in its parts, signed by nobody knows whom.
pub(super) struct Unverified<'a> {
    signed: &'a str,
    signature: &'a str,
    pub(super) claims: Claims,
}

impl<'a> Unverified<'a> {
    pub(super) fn read(token: &'a str) -> Option<Self> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: Header = decode(header)?;
        let known = header.alg == "HS256" && header.typ == "JWT";
        let claims = decode(claims)?;
        known.then_some(Self {
            signed,
            signature,
            claims,
        })
    }

    pub(super) fn is_signed_with(&self, key: &SigningKey) -> bool {
        key.has_signed(self.signed, self.signature)
    }
}

fn encode(part: &impl Serialize) -> String {
    // Plain structs of text and numbers; there is nothing in them that JSON can't say.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(part).unwrap_or_default())
}

fn decode<T: serde::de::DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7515, appendix A.1, cut to what is ours: its key, its signing input, its signature.
    #[test]
    fn signs_like_the_standard_says() {
        let key = Hmac::<Sha256>::new_from_slice(
            &URL_SAFE_NO_PAD
                .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
                .unwrap(),
        )
        .unwrap();
        let input = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature = key.chain_update(input).finalize().into_bytes();
        assert_eq!(
            URL_SAFE_NO_PAD.encode(signature),
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
        );
    }

    #[test]
    fn a_changed_token_is_not_signed() {
        let key = SigningKey::random();
        let claims = Claims::new(Uuid::nil(), "dstor.cloud", 1, 2);
        let token = key.token(&claims);
        let read = Unverified::read(&token).unwrap();
        assert!(read.claims == claims && read.is_signed_with(&key));
        assert!(!read.is_signed_with(&SigningKey::random()));
        let later = key.token(&Claims::new(Uuid::nil(), "dstor.cloud", 1, 3));
        let (head, _) = later.rsplit_once('.').unwrap();
        let (_, signature) = token.rsplit_once('.').unwrap();
        let forged = format!("{head}.{signature}");
        assert!(!Unverified::read(&forged).unwrap().is_signed_with(&key));
        let none = token.replacen("eyJhbGciOiJIUzI1NiIs", "eyJhbGciOiJub25lIiwi", 1);
        assert!(none != token && Unverified::read(&none).is_none());
        assert!(Unverified::read("a.b").is_none() && Unverified::read("").is_none());
    }
}
