//! Stand-ins for storage services: real HTTP servers on loopback, for `keymount demo` and for the tests.
//!
//! This module is responsible for what every stand-in shares: starting and stopping a server ([`Running`]), the log
//! of requests ([`Recorded`]) and the faults a test injects ([`Faults`]). What a service answers lives in its own
//! folder, written from the provider's documentation and from nothing in the client, so that a stand-in judges the
//! client instead of agreeing with it.
//!
//! It is not responsible for state: a store outlives its server, so a test can end a server and start another on the
//! same port with the same content.

pub mod cloudsync;
pub mod cludz;
pub mod dstor;
mod faults;
mod gate;
mod multipart;
mod range;
mod recorder;
pub mod reductstore;
mod segment;
pub mod storra;
mod wire;

use std::future::IntoFuture;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;

use axum::extract::Request;
use axum::response::Response;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use url::Url;

pub use faults::{Fault, Faults, Rule};
pub use recorder::Recorded;

/// A service that can be put behind the shared server.
trait Service: Clone + Send + Sync + 'static {
    /// Answers one request.
    fn answer(self, request: Request) -> impl Future<Output = Response> + Send;

    /// The service on a throw-away copy of its state: it answers what the real one would and changes nothing.
    fn fork(&self) -> Self;
}

/// Put by a service into the extensions of its answer: the name of the token it recognised.
#[derive(Debug, Clone)]
struct AuthenticatedAs(String);

/// A running stand-in: dropping it stops the server.
///
/// The server has a thread and a runtime of its own, so it neither shares the caller's (possibly paused) clock nor
/// leaves tasks behind: once the runtime is gone, so is every connection.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    log: Arc<recorder::Log>,
    faults: Arc<Faults>,
    stop: CancellationToken,
    stopped: Option<oneshot::Receiver<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// The server's root, `http://127.0.0.1:<port>/`.
    pub fn url(&self) -> Url {
        Url::parse(&format!("http://{}/", self.address))
            .unwrap_or_else(|error| unreachable!("a socket address is a valid authority: {error}"))
    }

    /// The socket address the server listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every request that has arrived so far, in order of arrival, answered or not.
    pub fn requests(&self) -> Vec<Recorded> {
        self.log.snapshot()
    }

    /// Empties the log of requests.
    pub fn forget_requests(&self) {
        self.log.clear();
    }

    /// Waits until the log satisfies `enough`; for tests that must know that a request has arrived or was answered.
    pub async fn wait_until(&self, enough: impl Fn(&[Recorded]) -> bool) {
        self.log.wait_until(enough).await;
    }

    /// The faults this server injects.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Closes the listener and every connection, and returns once that is done.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(stopped) = self.stopped.take() {
            // The sender never sends: it is dropped when the thread has torn its runtime down.
            let _ = stopped.await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic of the server thread has been reported by the panic hook already.
            let _ = thread.join();
        }
    }
}

/// Any free port on loopback.
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Starts `service` on `address`.
async fn launch(service: impl Service, address: SocketAddr) -> std::io::Result<Running> {
    let log = Arc::new(recorder::Log::default());
    let faults = Arc::new(Faults::default());
    let stop = CancellationToken::new();
    let (bound_tx, bound_rx) = oneshot::channel();
    let (stopped_tx, stopped_rx) = oneshot::channel();

    let gate = gate::Gate::new(service, Arc::clone(&log), Arc::clone(&faults));
    let cancelled = stop.clone();
    let thread = std::thread::Builder::new().name("emulator".into()).spawn(move || {
        let _stopped = stopped_tx;
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                // Nobody listens any more if the caller gave up waiting.
                let _ = bound_tx.send(Err(error));
                return;
            }
        };
        runtime.block_on(async move {
            let listener = match wire::Listener::bind(address).await {
                Ok(listener) => listener,
                Err(error) => {
                    let _ = bound_tx.send(Err(error));
                    return;
                }
            };
            let _ = bound_tx.send(listener.address());
            let server = axum::serve(
                listener,
                gate.into_router().into_make_service_with_connect_info::<wire::Line>(),
            );
            tokio::select! {
                () = cancelled.cancelled() => {}
                _ = server.into_future() => {}
            }
        });
    })?;

    let address = match bound_rx.await {
        Ok(bound) => bound?,
        Err(_) => return Err(std::io::Error::other("the server's thread ended before it listened")),
    };
    Ok(Running {
        address,
        log,
        faults,
        stop,
        stopped: Some(stopped_rx),
        thread: Some(thread),
    })
}

#[cfg(test)]
mod tests;
