//! Python's syntax, as far as kernels use it: text to tokens to a tree with a place for each node.
//!
//! The parser is our own because the one that is kept well elsewhere brings 60 crates and a C compiler, where this needs
//! a few hundred lines: kernels use a small part of Python, and everything at module level that is neither a definition
//! nor a constant is skipped unread. A construct it knows but kernels cannot have is one diagnostic; parsing goes on with
//! the next statement.

pub(crate) mod ast;
mod expr;
mod lexer;
mod parser;

pub(crate) use parser::{parse, parse_definitions, parse_expression, parse_with};
