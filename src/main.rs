//! The binary. It hands the arguments over and does nothing else.

fn main() {}
