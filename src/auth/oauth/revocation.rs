//! Giving a grant back (RFC 7009).

use oauth2::{AccessToken, RefreshToken, RevocationUrl, StandardRevocableToken};
use secrecy::{ExposeSecret, SecretString};

use super::OauthClient;
use super::answer::failure;
use crate::auth::GivenSecrets;
use crate::model::{Error, Result};

const PURPOSE: &str = "revoke the token";

/// Whether the server was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revoked {
    Told,
    /// It has no way to tell it.
    NotOffered,
}

impl OauthClient {
    /// Revokes both tokens, the one that renews first: with it the grant is over, whatever becomes of the other.
    ///
    /// # Errors
    /// As asking the server fails for one of them; the other is asked for all the same.
    pub async fn revoke(
        &self,
        refresh: Option<&SecretString>,
        access: &SecretString,
        given: &GivenSecrets,
    ) -> Result<Revoked> {
        let core = self.core().await?;
        let Some(url) = self.extras().await?.revocation else {
            return Ok(Revoked::NotOffered);
        };
        let tokens = self.token_client(&core, given).await?;
        let http = self.endpoint(url.clone(), core.bodies, PURPOSE)?.client();
        // The crate insists on https even to this machine; the endpoint sends to `url` whatever the crate is told, and
        // has checked it.
        let mut told = url;
        let _ = told.set_scheme("https");
        let asking = tokens.set_revocation_url(RevocationUrl::from_url(told));
        let refresh = refresh.map(|token| RefreshToken::new(token.expose_secret().to_owned()).into());
        let access = AccessToken::new(access.expose_secret().to_owned()).into();
        let mut first_failure = None;
        for token in refresh.into_iter().chain([access]) {
            let token: StandardRevocableToken = token;
            let is_access = matches!(token, StandardRevocableToken::AccessToken(_));
            let request = asking
                .revoke_token(token)
                .map_err(|_| Error::internal("the revocation address is not accepted"))?;
            if let Err(error) = request.request_async(&http).await {
                let error = failure(error, PURPOSE);
                // RFC 7009, 2.2.1: a server may only know how to revoke refresh tokens; access tokens end by themselves.
                if !(is_access && error.is("unsupported_token_type")) {
                    first_failure.get_or_insert(error.refusal(PURPOSE));
                }
            }
        }
        first_failure.map_or(Ok(Revoked::Told), Err)
    }
}
