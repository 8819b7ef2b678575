//! keymount mounts a cloud provider's storage as a local directory and keeps the keys working.
//!
//! The rooms and the direction of their arrows are in `CONTRIBUTING.md`; `tests/architecture.rs` holds them.

#![forbid(unsafe_code)]

// Before those who use its macro.
#[macro_use]
pub mod model;

pub mod api;
pub mod auth;
pub mod cache;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod emulator;
pub mod fetch;
pub mod fs;
pub mod fuse;
pub mod net;
pub mod outbox;
pub mod paths;
pub mod provider;
pub mod state;
