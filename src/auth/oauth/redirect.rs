//! The address on this machine that the browser brings the answer to (RFC 8252, 7.3).
//!
//! It takes one answer. What isn't an answer to the question is refused with a page and changes nothing: whoever can
//! make a browser ask for an address, or is another user of this machine, could otherwise end a login. The answer itself
//! is protected by `state`, which strangers cannot know, and by PKCE.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, Method, StatusCode, header};
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
use crate::model::{Error, ErrorKind, Result};

/// The only path that is answered. To be registered with the application, without a port: RFC 8252, 7.3, has servers
/// allow every one.
pub const REDIRECT_PATH: &str = "/callback";

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
    arrived: oneshot::Receiver<Arrived>,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

/// What all requests share.
struct Desk {
    expected: Expected,
    /// As the browser must call it: another name for this address is an attempt at rebinding.
    host: String,
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
        Url::parse(&format!("http://{}{REDIRECT_PATH}", self.address))
            .map_err(|_| Error::internal("a malformed address"))
    }

    /// Opens the desk for the answer to this question.
    pub fn wait_for(self, expected: &Expected) -> Waiting {
        let (sender, arrived) = oneshot::channel();
        let desk = Desk {
            expected: expected.clone(),
            host: self.address.to_string(),
            arrival: Mutex::new(Some(sender)),
        };
        let stop = CancellationToken::new();
        let router = Router::new().fallback(attend).with_state(Arc::new(desk));
        let serving = axum::serve(self.listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
        let server = tokio::spawn(async move {
            // It ends when it is told to, and reports nothing.
            let _ = serving.await;
        });
        Waiting { arrived, stop, server }
    }
}

impl Waiting {
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

async fn attend(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if host != Some(&desk.host) {
        return shown(StatusCode::MISDIRECTED_REQUEST, &Page::foreign());
    }
    if request.uri().path() != REDIRECT_PATH {
        return shown(StatusCode::NOT_FOUND, &Page::foreign());
    }
    if request.method() != Method::GET {
        let mut response = shown(StatusCode::METHOD_NOT_ALLOWED, &Page::foreign());
        response
            .headers_mut()
            .insert(header::ALLOW, header::HeaderValue::from_static("GET"));
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
