//! The `bullet` command: arguments and printing, no logic.

fn main() {}
