//! `demo`: stand-ins of the providers with something in them, mounted, until Ctrl-C.

use super::arguments::DemoArguments;
use super::exit::{Exit, Failure};
use crate::paths::Paths;

pub fn run(_arguments: &DemoArguments, _paths: &Paths, _verbose: u8) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Other, "not yet"))
}
