//! The built `bullet` command, run as a user runs it, on models that take milliseconds a step.

mod compile;
mod demo;
mod errors;
mod files;
mod generate;
mod interrupt;
mod run;
mod train;
