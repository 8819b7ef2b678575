//! What becomes of what was closed: on its way to services that lie, and how many requests it takes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/counting.rs"]
mod counting;
#[allow(dead_code)]
#[path = "../support/dstor.rs"]
mod dstor;
#[path = "../support/kernel.rs"]
mod kernel;
mod lies;
#[path = "../support/lying.rs"]
mod lying;
mod mounted;
#[path = "../support/program.rs"]
mod program;
#[path = "../support/proxy.rs"]
mod proxy;
mod requests;
#[path = "../support/s3.rs"]
mod s3;
#[path = "../support/webdav.rs"]
mod webdav;
