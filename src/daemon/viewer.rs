//! Who may see what a former mount kept of directories: the same remote with the same key.

use std::sync::Arc;

use crate::auth::{Authenticator, CredentialState};
use crate::fs::Viewer;

/// The remote, the kind of its credential, and as much of a hash of it as tells that it is another one than before. Of a
/// credential that renews itself nobody here can tell whether it is still the same person's: nothing is kept then.
pub fn viewer(authenticator: Arc<dyn Authenticator>, remote: String) -> Viewer {
    Box::new(move || {
        let method = authenticator.method();
        match authenticator.mark(remote.as_bytes()) {
            Some(mark) => Some(format!("{remote} {method} {mark:04x}")),
            None if authenticator.state() == CredentialState::Anonymous => Some(format!("{remote} {method}")),
            None => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Anonymous, GivenSecrets, SecretSource, StaticToken, TokenKind, TokenPlacement};

    async fn token(value: &str) -> Arc<dyn Authenticator> {
        let mut given = GivenSecrets::default();
        given.insert("T", value.into());
        let source = SecretSource::Env("T".into());
        let token = StaticToken::open(source, TokenPlacement::Bearer, TokenKind::TOKEN, given);
        Arc::new(token.await.unwrap())
    }

    #[tokio::test]
    async fn another_key_or_remote_is_another_viewer_and_no_secret_is_told() {
        let of =
            |credential: &Arc<dyn Authenticator>, remote: &str| viewer(Arc::clone(credential), remote.to_owned())();
        let (mine, again, other) = (
            token("canary-1").await,
            token("canary-1").await,
            token("canary-2").await,
        );
        let told = of(&mine, "drive").unwrap();
        assert_eq!(of(&again, "drive").as_ref(), Some(&told));
        assert_ne!(of(&other, "drive").as_ref(), Some(&told));
        assert_ne!(of(&mine, "drive:folder").as_ref(), Some(&told));
        assert!(!told.contains("canary"), "{told}");
        let nobody: Arc<dyn Authenticator> = Arc::new(Anonymous);
        assert_eq!(of(&nobody, "drive").as_deref(), Some("drive none"));
    }
}
