//! A Cludz client for a stand-in, as a mount would build it.

use std::sync::Arc;
use std::time::Duration;

use keymount::api::{Api, PlainHttp};
use keymount::auth::{Anonymous, Authenticator, GivenSecrets, SecretSource, StaticToken, TokenKind, TokenPlacement};
use keymount::model::{Name, Rights};
use keymount::net::{RetryPolicy, Transport, TransportSettings};
use keymount::provider::cludz::{Cludz, Settings};
use reqwest::Url;
use uuid::Uuid;

/// How a client proves who it is.
#[derive(Clone, Debug)]
pub enum Token {
    None,
    Header(String),
    Query(String),
}

/// A client of a whole drive that finds its rights out itself.
pub async fn client(endpoint: Url, storage: Uuid, token: Token) -> Cludz {
    client_with(endpoint, storage, token, "", None).await
}

pub async fn client_with(
    endpoint: Url,
    storage: Uuid,
    token: Token,
    path: &str,
    rights_override: Option<Rights>,
) -> Cludz {
    let settings = Settings {
        storage,
        path: path
            .split('/')
            .filter(|part| !part.is_empty())
            .map(|part| Name::new(part).unwrap())
            .collect(),
        rights_override,
    };
    Cludz::new(Arc::new(api(endpoint, token, impatient()).await), settings)
}

/// Patient enough to retry, without making a test wait: pauses are as good as none.
pub fn impatient() -> TransportSettings {
    TransportSettings {
        stall: Duration::from_secs(30),
        retry: RetryPolicy {
            budget: Duration::from_millis(20),
            first_pause: Duration::from_millis(1),
            max_pause: Duration::from_millis(4),
        },
    }
}

pub async fn api(endpoint: Url, token: Token, transport: TransportSettings) -> Api {
    let authenticator: Arc<dyn Authenticator> = match token {
        Token::None => Arc::new(Anonymous),
        Token::Header(text) => {
            let name = reqwest::header::HeaderName::from_static(Cludz::TOKEN_HEADER);
            static_token(text, TokenPlacement::Header(name)).await
        }
        Token::Query(text) => static_token(text, TokenPlacement::Query(Cludz::TOKEN_QUERY)).await,
    };
    Api::new(
        endpoint,
        PlainHttp::LoopbackOnly,
        Transport::new(transport).unwrap(),
        authenticator,
        Cludz::dialect(),
    )
    .unwrap()
}

async fn static_token(text: String, placement: TokenPlacement) -> Arc<dyn Authenticator> {
    let mut given = GivenSecrets::default();
    given.insert("TOKEN", text.into());
    let source = SecretSource::Env("TOKEN".into());
    Arc::new(
        StaticToken::open(source, placement, TokenKind::TOKEN, given)
            .await
            .unwrap(),
    )
}
