//! The binary. It hands the arguments over and does nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    keymount::cli::run(std::env::args_os().collect())
}
