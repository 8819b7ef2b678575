//! A fault at one step of a change of several requests.

use std::sync::atomic::{AtomicUsize, Ordering};

use keymount::emulator::{Fault, Rule};
use reqwest::Method;

/// The fault for the request of this number, or for all from there on: the service dies.
pub fn at_step(step: usize, dies: bool, fault: Fault) -> Rule {
    let seen = AtomicUsize::new(0);
    let hit = move |_: &Method, _: &str| {
        let number = seen.fetch_add(1, Ordering::Relaxed);
        number == step || (dies && number > step)
    };
    Rule::when(usize::MAX, hit, fault)
}
