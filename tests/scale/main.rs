//! Large trees and ordinary programs on every provider, mounted through the kernel, with the requests counted where they
//! arrive.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/counting.rs"]
mod counting;
#[path = "../support/program.rs"]
mod program;
mod programs;
#[path = "../support/proxy.rs"]
mod proxy;
mod refusals;
#[path = "../support/s3.rs"]
mod s3_server;
#[path = "../mounted/sandbox.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod sandbox;
#[path = "../support/script.rs"]
mod script;
#[path = "../support/reductstore.rs"]
mod server;
mod service;
mod walks;
#[path = "../support/webdav.rs"]
mod webdav_server;
