//! Renewal of tokens as the product is measured by it: nobody waits, one exchange for the whole host, nothing is lost, and
//! a dead grant costs next to nothing. Time stands still until a test moves it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod dead;
mod disk;
mod faults;
mod lifetimes;
mod processes;
mod rejections;
mod server;
mod sources;
mod support;
