//! Asking a person through the browser: the authorization code grant (RFC 6749, 4.1) with PKCE (RFC 7636).

use std::borrow::Cow;

use oauth2::{AuthUrl, AuthorizationCode, CsrfToken, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::answer::{failure, granted};
use super::client::TokenClient;
use super::discovery::Core;
use super::{AuthorizationServer, OauthClient};
use crate::auth::renewing::Granted;
use crate::auth::{GivenSecrets, Scopes};
use crate::model::{Error, ErrorKind, Result};

const PURPOSE: &str = "exchange the answer for a token";

/// What makes a server give a token that renews (OpenID Connect Core 1.0, 11; CloudSync documentation, "Scopes").
pub const OFFLINE: &str = "offline_access";

/// A question to a person. It can be answered once.
pub struct Consent {
    client: OauthClient,
    tokens: TokenClient,
    core: Core,
    verifier: PkceCodeVerifier,
    redirect: RedirectUrl,
    url: Url,
    expected: Expected,
}

/// What tells the answer to this question from others.
#[derive(Clone)]
pub struct Expected {
    state: [u8; 32],
    issuer: Option<String>,
}

/// What an answer is.
#[derive(Debug)]
pub enum Reply {
    /// The person agreed; what it is exchanged for the token.
    Code(SecretString),
    /// The person or the server refused.
    Refused(Error),
    /// Not an answer to this question: somebody else's, an old one, or one that somebody made up.
    Foreign,
}

impl OauthClient {
    /// Makes a question whose answer comes to `redirect`.
    ///
    /// # Errors
    /// As finding the server and reading the client's secret fail.
    pub async fn consent(&self, redirect: Url, scopes: &Scopes, given: &GivenSecrets) -> Result<Consent> {
        let core = self.core().await?;
        let Some(authorize) = core.authorize.clone() else {
            return Err(Error::unsupported(
                "the authorization server has no page for browsers; try --device",
            ));
        };
        let tokens = self.token_client(&core, given).await?;
        let redirect = RedirectUrl::from_url(redirect);
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let asking = tokens.clone().set_auth_uri(AuthUrl::from_url(authorize));
        let mut request = asking
            .authorize_url(CsrfToken::new_random)
            .add_scopes(scopes.iter().map(|scope| Scope::new(scope.to_owned())))
            .set_pkce_challenge(challenge)
            .set_redirect_uri(Cow::Borrowed(&redirect));
        // OpenID Connect Core 1.0, 11: without it offline_access is ignored.
        if matches!(self.spec.server, AuthorizationServer::Issuer(_)) && scopes.contains(OFFLINE) {
            request = request.add_extra_param("prompt", "consent");
        }
        let (url, state) = request.url();
        let expected = Expected {
            state: digest(state.secret()),
            issuer: core.issuer.clone(),
        };
        Ok(Consent {
            client: self.clone(),
            tokens,
            core,
            verifier,
            redirect,
            url,
            expected,
        })
    }
}

impl Consent {
    /// Where the person decides.
    pub fn url(&self) -> &Url {
        &self.url
    }

    pub fn expected(&self) -> &Expected {
        &self.expected
    }

    /// Exchanges the answer for a token.
    ///
    /// # Errors
    /// `NeedsLogin` when the server refuses the answer, and as asking it fails.
    pub async fn redeem(self, code: &SecretString) -> Result<Granted> {
        let code = AuthorizationCode::new(code.expose_secret().to_owned());
        let http = self
            .client
            .endpoint(self.core.token.clone(), self.core.bodies, PURPOSE)?
            .client();
        let answer = self
            .tokens
            .exchange_code(code)
            .set_pkce_verifier(self.verifier)
            .set_redirect_uri(Cow::Owned(self.redirect))
            .request_async(&http)
            .await;
        match answer.map_err(|error| failure(error, PURPOSE)) {
            Ok(response) => granted(&response, PURPOSE),
            Err(failed) => Err(failed.refusal(PURPOSE)),
        }
    }
}

impl Expected {
    /// Reads the query of an answer (RFC 6749, 4.1.2; RFC 9207). Nothing of it counts before `state` is the one that was
    /// sent: it is the only thing that strangers cannot know.
    pub fn read(&self, query: &str) -> Reply {
        let pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = url::form_urlencoded::parse(query.as_bytes()).collect();
        // RFC 6749, 3.1: no parameter comes twice.
        let single = |wanted: &str| {
            let mut values = pairs.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value);
            match (values.next(), values.next()) {
                (first, None) => Ok(first.filter(|value| !value.is_empty())),
                _ => Err(()),
            }
        };
        let (Ok(state), Ok(code), Ok(error), Ok(issuer)) =
            (single("state"), single("code"), single("error"), single("iss"))
        else {
            return Reply::Foreign;
        };
        if state.is_none_or(|state| digest(state) != self.state) {
            return Reply::Foreign;
        }
        if let Some(own) = &self.issuer
            && issuer.is_none_or(|told| told != own)
        {
            return Reply::Foreign;
        }
        match (code, error) {
            (Some(code), None) => Reply::Code(code.as_ref().into()),
            (None, Some(error)) => Reply::Refused(refused(error)),
            _ => Reply::Foreign,
        }
    }

    /// Reads what a person copied: the whole address that the browser ended at, its query, or only the code.
    ///
    /// A code alone proves nothing about where it comes from; PKCE still makes it useless unless it was given for this
    /// question.
    pub fn read_pasted(&self, text: &str) -> Reply {
        let text = text.trim();
        if let Some((_, query)) = text.split_once('?') {
            let query = query.split_once('#').map_or(query, |(query, _)| query);
            return self.read(query);
        }
        if text.contains("state=") {
            return self.read(text);
        }
        // RFC 6749, appendix A.11: visible ASCII.
        if text.is_empty() || text.contains("://") || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Reply::Foreign;
        }
        Reply::Code(text.into())
    }
}

#[cfg(test)]
impl Expected {
    pub(super) fn for_state(state: &str) -> Self {
        Self {
            state: digest(state),
            issuer: None,
        }
    }
}

/// RFC 6749, 4.1.2.1, in words.
fn refused(code: &str) -> Error {
    let (kind, why) = match code {
        "access_denied" => (ErrorKind::NeedsLogin, "access was refused on the provider's page"),
        "invalid_scope" => (
            ErrorKind::InvalidInput,
            "the authorization server does not give these scopes to this client_id; change scopes",
        ),
        "unauthorized_client" => (
            ErrorKind::InvalidInput,
            "the authorization server does not let this client_id ask in a browser",
        ),
        "temporarily_unavailable" | "server_error" => (
            ErrorKind::Unreachable,
            "the authorization server has trouble; try again later",
        ),
        _ => (ErrorKind::BadData, "the authorization server refused"),
    };
    let shown: String = code.chars().filter(|c| c.is_ascii_graphic()).take(64).collect();
    Error::new(kind, format!("{why} ({shown})"))
}

/// Comparing digests takes the same time wherever the difference is.
fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(issuer: Option<&str>) -> Expected {
        Expected {
            state: digest("the-state"),
            issuer: issuer.map(str::to_owned),
        }
    }

    fn word(reply: &Reply) -> String {
        match reply {
            Reply::Code(code) => format!("code {}", code.expose_secret()),
            Reply::Refused(error) => format!("refused {error}"),
            Reply::Foreign => "foreign".to_owned(),
        }
    }

    #[test]
    fn only_the_answer_to_this_question_counts() {
        let plain = expected(None);
        assert_eq!(word(&plain.read("code=abc&state=the-state")), "code abc");
        assert_eq!(
            word(&plain.read("state=the-state&code=a%2Fb&iss=https://a")),
            "code a/b"
        );
        for query in [
            "",
            "code=abc",
            "code=abc&state=",
            "code=abc&state=another",
            "code=abc&state=the-state&state=another",
            "code=abc&code=def&state=the-state",
            "error=access_denied",
            "error=access_denied&state=another",
            "state=the-state",
            "code=&state=the-state",
            "code=abc&error=access_denied&state=the-state",
        ] {
            assert_eq!(word(&plain.read(query)), "foreign", "{query}");
        }
    }

    #[test]
    fn an_answer_of_another_server_does_not_count() {
        let own = expected(Some("https://a.example"));
        assert_eq!(
            word(&own.read("code=abc&state=the-state&iss=https%3A%2F%2Fa.example")),
            "code abc"
        );
        for query in [
            "code=abc&state=the-state",
            "code=abc&state=the-state&iss=https://b.example",
        ] {
            assert_eq!(word(&own.read(query)), "foreign");
        }
    }

    #[test]
    fn a_refusal_is_said_in_words() {
        let refused = expected(None).read("error=access_denied&error_description=canary&state=the-state");
        assert_eq!(
            word(&refused),
            "refused access was refused on the provider's page (access_denied)"
        );
    }

    #[test]
    fn what_a_person_copies_is_read() {
        let plain = expected(None);
        for (text, word_) in [
            ("http://127.0.0.1:1/callback?code=abc&state=the-state\n", "code abc"),
            ("http://127.0.0.1:1/callback?code=abc&state=the-state#x", "code abc"),
            ("code=abc&state=the-state", "code abc"),
            (" abc ", "code abc"),
            ("http://127.0.0.1:1/callback?code=abc&state=old", "foreign"),
            ("http://127.0.0.1:1/callback", "foreign"),
            ("", "foreign"),
            ("two words", "foreign"),
        ] {
            assert_eq!(word(&plain.read_pasted(text)), word_, "{text}");
        }
    }

    #[test]
    fn a_code_does_not_show() {
        let reply = expected(None).read("code=canary&state=the-state");
        assert!(!format!("{reply:?}").contains("canary"));
    }
}
