//! dStor against the strict stand-in: tokens, reads, uploads, and what goes wrong with them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod sharing;
#[path = "../support/dstor.rs"]
mod support;
mod tokens;
mod transfers;
