//! One suite of cases that every provider passes.
//!
//! To add a provider: write a module with a `Fixture` and a test that calls `suite::run` (see `memory.rs`). What a
//! provider cannot do is known from its capabilities; further cases that cannot apply are named in `Fixture::skips`
//! with the reason.
//!
//! The tables of provider, capability, case and result are written to `target/tmp/conformance.txt` (below `CARGO_TARGET_DIR` if that
//! is set); `scripts/test` names it. What is skipped or not applicable is a fact about a provider, declared here and
//! shown there, and no test that this machine couldn't run: it isn't reported to `KEYMOUNT_TEST_SKIPS`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cloudsync;
#[allow(dead_code)]
#[path = "../support/cloudsync.rs"]
mod cloudsync_support;
mod cludz;
// Other tests use the rest of it.
#[allow(dead_code)]
#[path = "../support/cludz.rs"]
mod cludz_support;
mod dstor;
#[allow(dead_code)]
#[path = "../support/dstor.rs"]
mod dstor_support;
mod export_names;
#[path = "../support/garage.rs"]
mod garage_support;
mod memory;
#[path = "../support/program.rs"]
mod program;
mod reductstore;
#[path = "../support/reductstore.rs"]
mod reductstore_support;
mod s3;
#[path = "../support/s3.rs"]
mod s3_support;
mod storra;
#[allow(dead_code)]
#[path = "../support/storra.rs"]
mod storra_support;
mod suite;
mod webdav;
#[path = "../support/webdav.rs"]
mod webdav_support;
