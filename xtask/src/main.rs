//! Development tasks: `cargo xtask test`, `cargo xtask tidy`.

fn main() {}
