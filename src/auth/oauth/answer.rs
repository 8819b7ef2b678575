//! What the crate read in an answer, as keymount's own types and sentences. No secret gets into a sentence.

use oauth2::basic::{BasicErrorResponse, BasicErrorResponseType, BasicTokenResponse, BasicTokenType};
use oauth2::{ErrorResponse, RequestTokenError, TokenResponse};

use super::endpoint::NoAnswer;
use crate::auth::Scopes;
use crate::auth::renewing::Granted;
use crate::model::{Error, ErrorKind, Result};

/// Why a request brought nothing.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The server's own word (RFC 6749, 5.2), and its explanation.
    Refused {
        code: String,
        words: Option<String>,
    },
    NoAnswer(NoAnswer),
}

impl Failure {
    /// For a request that a person waits for.
    pub fn refusal(self, purpose: &str) -> Error {
        let reason = self.reason();
        match self {
            Self::NoAnswer(none) => none.error,
            Self::Refused { .. } => Error::new(
                ErrorKind::NeedsLogin,
                format!("{purpose}: the authorization server refused ({reason})"),
            ),
        }
    }

    pub fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { code, .. } if code == wanted)
    }

    /// `invalid_grant: the token was revoked`
    pub fn reason(&self) -> String {
        match self {
            Self::Refused {
                code,
                words: Some(words),
            } => format!("{code}: {words}"),
            Self::Refused { code, words: None } => code.clone(),
            Self::NoAnswer(none) => none.error.message().to_owned(),
        }
    }
}

/// An error of the protocol, whichever of the crate's forms it has.
pub(super) trait Said {
    fn said(&self) -> (String, Option<String>);
}

impl Said for BasicErrorResponse {
    fn said(&self) -> (String, Option<String>) {
        (self.error().to_string(), self.error_description().cloned())
    }
}

impl Said for oauth2::DeviceCodeErrorResponse {
    fn said(&self) -> (String, Option<String>) {
        (self.error().to_string(), self.error_description().cloned())
    }
}

impl Said for oauth2::basic::BasicRevocationErrorResponse {
    fn said(&self) -> (String, Option<String>) {
        (self.error().to_string(), self.error_description().cloned())
    }
}

/// `purpose` is what a person would call the request.
pub(super) fn failure<T: ErrorResponse + Said + 'static>(
    error: RequestTokenError<NoAnswer, T>,
    purpose: &'static str,
) -> Failure {
    match error {
        RequestTokenError::ServerResponse(response) => {
            let (code, words) = response.said();
            Failure::Refused { code, words }
        }
        RequestTokenError::Request(none) => Failure::NoAnswer(none),
        // What was to be parsed may be a token.
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => Failure::NoAnswer(
            Error::bad_data(format!("{purpose}: the authorization server's answer makes no sense")).into(),
        ),
    }
}

/// The codes after which asking again is useless.
pub(super) fn is_final(code: &str) -> bool {
    let finals = [
        BasicErrorResponseType::InvalidGrant,
        BasicErrorResponseType::InvalidClient,
        BasicErrorResponseType::UnauthorizedClient,
    ];
    finals.iter().any(|known| known.as_ref() == code)
}

/// # Errors
/// `BadData` for a token that cannot be used as keymount uses it.
pub(super) fn granted(response: &BasicTokenResponse, purpose: &'static str) -> Result<Granted> {
    let bad = |why: &str| Err(Error::bad_data(format!("{purpose}: the authorization server {why}")));
    if *response.token_type() != BasicTokenType::Bearer {
        return bad("gave a token of another type than Bearer");
    }
    let access = response.access_token().secret();
    if access.is_empty() || !access.bytes().all(|byte| byte.is_ascii_graphic()) {
        return bad("gave a token that no header can hold");
    }
    let scopes = match response.scopes() {
        None => None,
        Some(scopes) => {
            let words: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
            match words.join(" ").parse::<Scopes>() {
                Ok(scopes) => Some(scopes),
                Err(_) => return bad("names scopes that cannot be"),
            }
        }
    };
    let refresh = response.refresh_token().map(|token| token.secret().as_str());
    Ok(Granted {
        access: access.as_str().into(),
        life: response.expires_in(),
        refresh: refresh.filter(|token| !token.is_empty()).map(Into::into),
        scopes,
    })
}
