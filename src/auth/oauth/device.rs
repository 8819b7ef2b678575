//! Asking a person who sits at another screen: the device authorization grant (RFC 8628).

use std::time::{Duration, SystemTime};

use oauth2::{DeviceAuthorizationUrl, Scope, StandardDeviceAuthorizationResponse};
use parking_lot::Mutex;

use super::OauthClient;
use super::answer::{Failure, failure, granted};
use super::client::TokenClient;
use super::discovery::Core;
use crate::auth::renewing::Granted;
use crate::auth::{GivenSecrets, Scopes};
use crate::model::{Error, ErrorKind, Result};

const BEGIN: &str = "ask for a device code";
const POLL: &str = "ask whether access was granted";

/// A question that waits for a person at an address of the server's.
pub struct DeviceConsent {
    client: OauthClient,
    tokens: TokenClient,
    core: Core,
    details: StandardDeviceAuthorizationResponse,
}

impl OauthClient {
    /// # Errors
    /// `Unsupported` when the server has no such grant, and as asking it fails.
    pub async fn device_consent(&self, scopes: &Scopes, given: &GivenSecrets) -> Result<DeviceConsent> {
        let core = self.core().await?;
        let Some(device) = self.extras().await?.device else {
            return Err(Error::unsupported(format!(
                "the authorization server does not offer login with a code on another device; run: keymount login {} \
                 --no-browser",
                self.remote()
            )));
        };
        let tokens = self.token_client(&core, given).await?;
        let http = self.endpoint(device.clone(), core.bodies, BEGIN)?.client();
        let asking = tokens
            .clone()
            .set_device_authorization_url(DeviceAuthorizationUrl::from_url(device));
        let answer = asking
            .exchange_device_code()
            .add_scopes(scopes.iter().map(|scope| Scope::new(scope.to_owned())))
            .request_async(&http)
            .await;
        let details = answer.map_err(|error| failure(error, BEGIN).refusal(BEGIN))?;
        Ok(DeviceConsent {
            client: self.clone(),
            tokens,
            core,
            details,
        })
    }
}

impl DeviceConsent {
    /// What the person types at `address`.
    pub fn user_code(&self) -> &str {
        self.details.user_code().secret()
    }

    pub fn address(&self) -> &str {
        self.details.verification_uri().as_str()
    }

    /// The address with the code in it, where the server makes one.
    pub fn whole_address(&self) -> Option<&str> {
        self.details
            .verification_uri_complete()
            .map(|address| address.secret().as_str())
    }

    /// How long the code is good.
    pub fn life(&self) -> Duration {
        self.details.expires_in()
    }

    /// Asks until the person decided, as often as the server allows; also says when the answer was asked for.
    ///
    /// # Errors
    /// `NeedsLogin` when the person refused or the code ended, and as the server says.
    pub async fn granted(self) -> Result<(Granted, SystemTime)> {
        let http = self
            .client
            .endpoint(self.core.token.clone(), self.core.bodies, POLL)?
            .client();
        let asked = Mutex::new(SystemTime::now());
        let http = |request| {
            *asked.lock() = SystemTime::now();
            http(request)
        };
        let life = self.life();
        let asking =
            self.tokens
                .exchange_device_access_token(&self.details)
                .request_async(&http, tokio::time::sleep, None);
        // The crate looks at the wall clock, which may be set while this waits.
        let answer = match tokio::time::timeout(life.saturating_add(Duration::from_secs(30)), asking).await {
            Ok(answer) => answer.map_err(|error| failure(error, POLL)),
            Err(_) => return Err(ended()),
        };
        match answer {
            Ok(response) => Ok((granted(&response, POLL)?, *asked.lock())),
            Err(Failure::Refused { code, .. }) if code == "access_denied" => Err(Error::new(
                ErrorKind::NeedsLogin,
                "access was refused on the provider's page (access_denied)",
            )),
            Err(Failure::Refused { code, .. }) if code == "expired_token" => Err(ended()),
            Err(other) => Err(other.refusal(POLL)),
        }
    }
}

fn ended() -> Error {
    Error::new(
        ErrorKind::NeedsLogin,
        "the code ended before anybody agreed (expired_token)",
    )
}
