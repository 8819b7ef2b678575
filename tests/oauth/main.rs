//! Login, renewal and logout with OAuth, by the real program: against a certified server with a real browser, and
//! against CloudSync's stand-in with its JSON bodies.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that fails ends the test"
)]

mod certified;
mod cloudsync;
mod node;
mod person;
#[path = "../support/script.rs"]
mod script;
