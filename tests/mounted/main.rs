//! Real mounts through the kernel, by the program as people run it, with ordinary tools on top.
//!
//! Each test runs as root and as an ordinary user where both can be had.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod all;
mod attributes;
mod cloudsync;
mod cludz;
mod demo;
mod drive;
mod dstor;
mod exercisers;
mod failures;
#[path = "../support/garage.rs"]
mod garage;
mod kernel;
mod keyring;
mod keys;
mod lifecycle;
mod login;
mod model;
mod oauth;
mod object_stores;
mod outbox;
mod posix;
#[path = "../support/program.rs"]
mod program;
mod programs;
mod reductstore;
mod remotes;
#[path = "../support/s3.rs"]
mod s3_server;
mod sandbox;
#[path = "../support/script.rs"]
mod script;
mod secrets;
#[path = "../support/reductstore.rs"]
mod server;
mod storra;
mod thousand;
mod traces;
mod two_hosts;
#[path = "../support/webdav.rs"]
mod webdav_server;
