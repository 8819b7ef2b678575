//! One suite of cases that every provider passes.
//!
//! To add a provider: write a module with a `Fixture` and a test that calls `suite::run` (see `memory.rs`). What a
//! provider cannot do is known from its capabilities; further cases that cannot apply are named in `Fixture::skips`
//! with the reason. `cargo test --test conformance -- --nocapture` prints the table of provider, case and result.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cludz;
// Other tests use the rest of it.
#[allow(dead_code)]
#[path = "../support/cludz.rs"]
mod cludz_support;
mod memory;
mod suite;
