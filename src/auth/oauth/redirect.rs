//! The address on this machine that the browser brings the answer to (RFC 8252, 7.3).
//!
//! It takes one answer. What isn't an answer to the question is refused with a page and changes nothing: whoever can
//! make a browser ask for an address could otherwise end a login. The answer itself is protected by `state`, which
//! strangers cannot know, and by PKCE.
//!
//! Other users of this machine see in `ps` what a browser is told to open, and could answer with an account of theirs.
//! So a browser here is told to open this address, which sends it on to the question, and other users are refused.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use reqwest::Url;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::consent::{Expected, Reply};
use super::page::Page;
use super::visitor;
use crate::model::{Error, ErrorKind, Result};

/// The only path that is answered. To be registered with the application, without a port: RFC 8252, 7.3, has servers
/// allow every one.
pub const REDIRECT_PATH: &str = "/callback";

/// The path that sends a browser on to the question.
const QUESTION_PATH: &str = "/";

/// How long the browser has to fetch the last page.
const FAREWELL: Duration = Duration::from_secs(2);

/// A free port of this machine, before the question is asked.
pub struct Redirect {
    listener: TcpListener,
    address: SocketAddr,
}

/// A browser that brought the answer and waits for a page.
pub struct Arrived {
    /// The code, or why there is none.
    pub answer: Result<SecretString>,
    page: oneshot::Sender<Page>,
}

/// The port while it waits. Dropped, it is closed.
pub struct Waiting {
    address: SocketAddr,
    arrived: oneshot::Receiver<Arrived>,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

/// What all requests share.
struct Desk {
    /// Where the person decides.
    question: HeaderValue,
    expected: Expected,
    /// The browser must call it by its number: another name for it is an attempt at rebinding.
    address: SocketAddr,
    /// Empty once the answer came.
    arrival: Mutex<Option<oneshot::Sender<Arrived>>>,
}

impl Redirect {
    /// # Errors
    /// As the system says.
    pub async fn bind() -> Result<Self> {
        let unable = |error| Error::from(error).context("the browser's answer cannot be waited for");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(unable)?;
        let address = listener.local_addr().map_err(unable)?;
        Ok(Self { listener, address })
    }

    /// # Errors
    /// `Internal`; a socket's address is one.
    pub fn url(&self) -> Result<Url> {
        local(self.address, REDIRECT_PATH)
    }

    /// Opens the desk for the answer to the question at this address.
    ///
    /// # Errors
    /// `Internal`; an address can be put into a header.
    pub fn wait_for(self, question: &Url, expected: &Expected) -> Result<Waiting> {
        let (sender, arrived) = oneshot::channel();
        let address = self.address;
        let desk = Desk {
            question: HeaderValue::try_from(question.as_str()).map_err(|_| Error::internal("a malformed address"))?,
            expected: expected.clone(),
            address,
            arrival: Mutex::new(Some(sender)),
        };
        let stop = CancellationToken::new();
        let router = Router::new().fallback(attend).with_state(Arc::new(desk));
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let serving = axum::serve(self.listener, service).with_graceful_shutdown(stop.clone().cancelled_owned());
        let server = tokio::spawn(async move {
            // It ends when it is told to, and reports nothing.
            let _ = serving.await;
        });
        Ok(Waiting {
            address,
            arrived,
            stop,
            server,
        })
    }
}

fn local(address: SocketAddr, path: &str) -> Result<Url> {
    Url::parse(&format!("http://{address}{path}")).map_err(|_| Error::internal("a malformed address"))
}

impl Waiting {
    /// What sends a browser of this user to the question, and tells nothing to others.
    ///
    /// # Errors
    /// `Internal`; a socket's address is one.
    pub fn door(&self) -> Result<Url> {
        local(self.address, QUESTION_PATH)
    }

    /// Waits for the answer for as long as it takes.
    ///
    /// # Errors
    /// `Internal` when the server ended.
    pub async fn arrived(&mut self) -> Result<Arrived> {
        (&mut self.arrived)
            .await
            .map_err(|_| Error::internal("the browser's answer is no longer waited for"))
    }

    /// Shows the browser how it ended, and closes the port.
    pub async fn finish(mut self, arrived: Option<Arrived>, page: Page) {
        if let Some(arrived) = arrived {
            // The browser may have gone.
            let _ = arrived.page.send(page);
        }
        self.stop.cancel();
        let _ = tokio::time::timeout(FAREWELL, &mut self.server).await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn attend(
    State(desk): State<Arc<Desk>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if host != Some(&desk.address.to_string()) {
        return shown(StatusCode::MISDIRECTED_REQUEST, &Page::foreign());
    }
    if !visitor::is_own(peer, desk.address).await {
        return shown(StatusCode::FORBIDDEN, &Page::stranger());
    }
    let path = request.uri().path();
    if path != REDIRECT_PATH && path != QUESTION_PATH {
        return shown(StatusCode::NOT_FOUND, &Page::foreign());
    }
    if request.method() != Method::GET {
        let mut response = shown(StatusCode::METHOD_NOT_ALLOWED, &Page::foreign());
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    if path == QUESTION_PATH {
        let mut response = shown(StatusCode::SEE_OTHER, &Page::asking());
        response.headers_mut().insert(header::LOCATION, desk.question.clone());
        return response;
    }
    let answer = match desk.expected.read(request.uri().query().unwrap_or_default()) {
        Reply::Foreign => return shown(StatusCode::BAD_REQUEST, &Page::foreign()),
        Reply::Code(code) => Ok(code),
        Reply::Refused(error) => Err(error),
    };
    let Some(arrival) = desk.arrival.lock().take() else {
        return shown(StatusCode::CONFLICT, &Page::answered());
    };
    let (page, shown_page) = oneshot::channel();
    if arrival.send(Arrived { answer, page }).is_err() {
        return shown(StatusCode::GONE, &Page::gone());
    }
    match shown_page.await {
        Ok(page) => shown(StatusCode::OK, &page),
        Err(_) => shown(StatusCode::GONE, &Page::gone()),
    }
}

/// The address of an answered page holds a code: nobody is told where its visitor came from, and nothing is kept.
fn shown(status: StatusCode, page: &Page) -> Response {
    const HEADERS: [(HeaderName, &str); 7] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CONNECTION, "close"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ];
    (status, HEADERS, page.html()).into_response()
}

/// The sentence after which nobody waits any more.
pub fn too_late(patience: Duration) -> Error {
    Error::new(
        ErrorKind::NeedsLogin,
        format!("nobody answered in the browser for {} s", patience.as_secs()),
    )
}

#[cfg(test)]
#[path = "redirect_tests.rs"]
mod tests;
