//! HTTP without identity: sending, redirects, retries, and what a status means.
//!
//! It knows neither credentials nor providers. It is the only room that knows an HTTP client: opendal sends through it too.

mod gate;
mod local;
mod plain_http;
mod rate;
mod reach;
mod redirect;
mod request;
mod retry;
mod status;
mod throttle;
mod transport;

pub use local::{LocalAnswer, LocalClient};
pub use plain_http::PlainHttp;
pub use rate::RateBucket;
pub use reach::{Reached, reach};
pub use request::{Body, Credential, FilePart, Metering, Replay, Request};
pub use retry::{Backoff, RetryPolicy};
pub use status::{Dialect, PlainDialect, Refusal, error_for, retry_after};
pub use transport::{Answer, Response, Transport, TransportSettings};
