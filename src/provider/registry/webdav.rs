//! WebDAV: one folder of one server.

use serde::{Deserialize, Serialize};

use super::{Answer, COMMON_TOKEN_VARIABLE, Field, Form, Identity, Method, Need, RemotePath, Secret, first_set};
use crate::auth::{SecretSource, TokenKind, TokenPlacement};
use crate::model::{Error, ErrorKind, Result};

const USERNAME_VARIABLE: &str = "WEBDAV_USERNAME";
pub(super) const TOKEN_VARIABLES: &[&str] = &["WEBDAV_PASSWORD"];

pub(super) const FORM: Form = Form {
    kind: "webdav",
    title: "WebDAV",
    about: "a folder of a WebDAV server, such as Nextcloud",
    fields: &[
        Field {
            key: "endpoint",
            question: "The server's address",
            answer: Answer::Text {
                example: "https://cloud.example/remote.php/dav/files/me",
            },
            need: Need::Required,
        },
        Field {
            key: "root",
            question: "Only what is below this folder",
            answer: Answer::Text { example: "Photos" },
            need: Need::Optional("everything there"),
        },
    ],
    methods: &[
        Method {
            word: "basic",
            about: "user and password",
            fields: &[Field {
                key: "username",
                question: "The user's name",
                answer: Answer::Text { example: "me" },
                need: Need::Required,
            }],
            secrets: &[Secret::required("password", "password")],
        },
        Method {
            word: "bearer",
            about: "a token",
            fields: &[],
            secrets: &[Secret::required("token", "token")],
        },
        Method {
            about: "nothing: a server that lets everybody in",
            ..Method::NONE
        },
    ],
};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebdavSpec {
    /// The folder below the endpoint that is the remote's root.
    pub root: RemotePath,
    pub auth: WebdavAuth,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "lowercase")]
pub enum WebdavAuth {
    Basic { username: String, password: SecretSource },
    Bearer { token: SecretSource },
    None,
}

impl WebdavSpec {
    pub(super) fn identity(&self) -> Identity<'_> {
        match &self.auth {
            WebdavAuth::None => Identity::Anonymous,
            WebdavAuth::Basic { username, password } => Identity::Token {
                source: password,
                placement: TokenPlacement::Basic {
                    username: username.clone(),
                },
                kind: TokenKind::PASSWORD,
            },
            WebdavAuth::Bearer { token } => Identity::Token {
                source: token,
                placement: TokenPlacement::Bearer,
                kind: TokenKind::BEARER,
            },
        }
    }

    pub(super) fn secret_source_mut(&mut self) -> Option<&mut SecretSource> {
        match &mut self.auth {
            WebdavAuth::Basic { password: source, .. } | WebdavAuth::Bearer { token: source } => Some(source),
            WebdavAuth::None => None,
        }
    }
}

impl WebdavAuth {
    /// With a user the common variable is a password; without one it is a bearer token.
    ///
    /// # Errors
    /// `NeedsLogin` when there is a user and no password, or a password and no user.
    pub fn from_environment(environment: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let username = environment(USERNAME_VARIABLE).filter(|name| !name.is_empty());
        let missing = |what: &str| {
            Error::new(
                ErrorKind::NeedsLogin,
                format!("the WebDAV server needs both: set {what}"),
            )
        };
        match (username, first_set(TOKEN_VARIABLES, environment)) {
            (Some(username), Some(password)) => {
                check_username(&username)?;
                Ok(Self::Basic { username, password })
            }
            (Some(_), None) => Err(missing("WEBDAV_PASSWORD")),
            (None, Some(SecretSource::Env(variable))) if variable == COMMON_TOKEN_VARIABLE => Ok(Self::Bearer {
                token: SecretSource::Env(variable),
            }),
            (None, Some(_)) => Err(missing(USERNAME_VARIABLE)),
            (None, None) => Ok(Self::None),
        }
    }
}

/// # Errors
/// `InvalidInput` for a colon, which ends a user's name on its way (RFC 7617, 2).
pub fn check_username(username: &str) -> Result<()> {
    if username.contains(':') || username.chars().any(char::is_control) {
        let message = "a user's name has no colon and no control character";
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(pairs: &'static [(&'static str, &'static str)]) -> Result<WebdavAuth> {
        WebdavAuth::from_environment(&|name| {
            let found = pairs.iter().find(|(key, _)| *key == name)?;
            Some(found.1.to_owned())
        })
    }

    #[test]
    fn the_environment_chooses_the_method() {
        assert_eq!(from(&[]).unwrap(), WebdavAuth::None);
        assert!(matches!(
            from(&[("KEYMOUNT_TOKEN", "t")]),
            Ok(WebdavAuth::Bearer { .. })
        ));
        for pairs in [
            &[("WEBDAV_USERNAME", "u"), ("WEBDAV_PASSWORD", "p")][..],
            &[("WEBDAV_USERNAME", "u"), ("KEYMOUNT_TOKEN", "p")],
        ] {
            assert!(matches!(from(pairs), Ok(WebdavAuth::Basic { .. })), "{pairs:?}");
        }
        for (pairs, wanted) in [
            (&[("WEBDAV_USERNAME", "u")][..], "WEBDAV_PASSWORD"),
            (&[("WEBDAV_PASSWORD", "p")], "WEBDAV_USERNAME"),
        ] {
            let error = from(pairs).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NeedsLogin);
            assert!(error.message().contains(wanted), "{error}");
        }
        assert!(from(&[("WEBDAV_USERNAME", "a:b"), ("WEBDAV_PASSWORD", "p")]).is_err());
    }
}
