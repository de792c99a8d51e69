//! Tokens, with Python's indentation: logical lines end in [`Token::Newline`], blocks lie between [`Token::Indent`] and
//! [`Token::Dedent`]. Brackets join lines.

use crate::diag::{Diagnostic, Span};

/// A token and where it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lexeme {
    pub(super) token: Token,
    pub(super) span: Span,
}

/// What kinds of tokens there are. The text of names, numbers and strings is that of the span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Token {
    Name,
    Int,
    Float,
    Str,
    /// An operator or bracket.
    Op(&'static str),
    Newline,
    Indent,
    Dedent,
    End,
    /// A character that starts no token; a diagnostic says so.
    Bad,
}

/// Longest first, so that the first match is the right one.
const OPERATORS: &[&str] = &[
    "**=", "//=", "<<=", ">>=", "...", "**", "//", "<<", ">>", "<=", ">=", "==", "!=", "->", "+=", "-=",
    "*=", "/=", "%=", "&=", "|=", "^=", "@=", ":=", "+", "-", "*", "/", "%", "@", "&", "|", "^", "~", "<",
    ">", "(", ")", "[", "]", "{", "}", ",", ":", ".", ";", "=",
];

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    /// Depth of open brackets, in which line ends mean nothing.
    depth: usize,
    indents: Vec<usize>,
    out: Vec<Lexeme>,
    errors: Vec<Diagnostic>,
}

/// The tokens of a text, ending in [`Token::End`], and what is wrong with it.
pub(super) fn tokens(text: &str) -> (Vec<Lexeme>, Vec<Diagnostic>) {
    let mut lexer = Lexer {
        text,
        at: 0,
        depth: 0,
        indents: vec![0],
        out: Vec::with_capacity(text.len() / 3),
        errors: vec![],
    };
    lexer.run();
    (lexer.out, lexer.errors)
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.text.as_bytes().get(self.at + ahead).copied().unwrap_or(0)
    }

    fn push(&mut self, token: Token, start: usize) {
        let span = Span::new(start as u32, self.at as u32);
        self.out.push(Lexeme { token, span });
    }

    fn error(&mut self, start: usize, message: &str) {
        self.errors.push(Diagnostic::new(Span::new(start as u32, self.at as u32), message));
    }

    fn run(&mut self) {
        let mut line_start = true;
        // The mark that some editors put in front of UTF-8.
        if self.text.starts_with('\u{feff}') {
            self.at = '\u{feff}'.len_utf8();
        }
        while self.at < self.text.len() {
            if line_start && self.depth == 0 {
                line_start = false;
                if self.indentation() {
                    line_start = true;
                    continue;
                }
            }
            line_start |= self.token();
        }
        if self.out.last().is_some_and(|last| last.token != Token::Newline) {
            self.push(Token::Newline, self.at);
        }
        while self.indents.len() > 1 {
            self.indents.pop();
            self.push(Token::Dedent, self.at);
        }
        self.push(Token::End, self.at);
    }

    /// Reads the white space that opens a line; true if the line is blank and was skipped.
    fn indentation(&mut self) -> bool {
        let start = self.at;
        let mut width = 0;
        loop {
            match self.peek(0) {
                b' ' => width += 1,
                b'\t' => width = (width / 8 + 1) * 8,
                b'\x0c' => width = 0,
                _ => break,
            }
            self.at += 1;
        }
        if matches!(self.peek(0), b'#' | b'\n' | b'\r') || self.at >= self.text.len() {
            self.skip_line();
            return true;
        }
        if width > *self.indents.last().unwrap_or(&0) {
            self.indents.push(width);
            self.push(Token::Indent, start);
        }
        while width < *self.indents.last().unwrap_or(&0) {
            self.indents.pop();
            self.push(Token::Dedent, start);
        }
        if width != *self.indents.last().unwrap_or(&0) {
            self.error(start, "this line is indented like no block around it");
        }
        false
    }

    /// To behind the line's end.
    fn skip_line(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().position(|&b| b == b'\n').map_or(rest.len(), |i| i + 1);
    }

    /// Reads one token, or what stands between tokens; true at the end of a logical line.
    fn token(&mut self) -> bool {
        let start = self.at;
        match self.peek(0) {
            b' ' | b'\t' | b'\r' | b'\x0c' => self.at += 1,
            b'#' => {
                while self.at < self.text.len() && self.peek(0) != b'\n' {
                    self.at += 1;
                }
            }
            b'\\' if self.peek(1) == b'\n' || (self.peek(1) == b'\r' && self.peek(2) == b'\n') => {
                self.skip_line();
            }
            b'\n' => {
                self.at += 1;
                if self.depth == 0 {
                    if self.out.last().is_some_and(|last| last.token != Token::Newline) {
                        self.push(Token::Newline, start);
                    }
                    return true;
                }
            }
            b'0'..=b'9' => self.number(),
            b'.' if self.peek(1).is_ascii_digit() => self.number(),
            b'"' | b'\'' => self.string(start),
            byte if is_name(byte) => self.name(),
            _ => self.operator(),
        }
        false
    }

    fn name(&mut self) {
        let start = self.at;
        while is_name(self.peek(0)) {
            self.at += 1;
        }
        let is_prefix = self.at - start <= 2
            && self.text[start..self.at].bytes().all(|b| b"rRbBuUfF".contains(&b))
            && matches!(self.peek(0), b'"' | b'\'');
        if is_prefix { self.string(start) } else { self.push(Token::Name, start) }
    }

    fn number(&mut self) {
        let start = self.at;
        let mut is_float = false;
        if self.peek(0) == b'0' && matches!(self.peek(1), b'x' | b'X' | b'b' | b'B' | b'o' | b'O') {
            self.at += 2;
            while self.peek(0).is_ascii_hexdigit() || self.peek(0) == b'_' {
                self.at += 1;
            }
        } else {
            loop {
                match self.peek(0) {
                    b'0'..=b'9' | b'_' => {}
                    b'.' if !is_float => is_float = true,
                    b'e' | b'E'
                        if self.peek(1).is_ascii_digit()
                            || (matches!(self.peek(1), b'+' | b'-') && self.peek(2).is_ascii_digit()) =>
                    {
                        is_float = true;
                        self.at += 1;
                        while matches!(self.peek(1), b'0'..=b'9' | b'_') {
                            self.at += 1;
                        }
                        self.at += 1;
                        break;
                    }
                    _ => break,
                }
                self.at += 1;
            }
        }
        self.push(if is_float { Token::Float } else { Token::Int }, start);
    }

    /// A string whose quotes begin here; its prefix began at `start`.
    fn string(&mut self, start: usize) {
        let quote = self.peek(0);
        let length = if self.peek(1) == quote && self.peek(2) == quote { 3 } else { 1 };
        self.at += length;
        loop {
            let byte = self.peek(0);
            if self.at >= self.text.len() || (length == 1 && byte == b'\n') {
                self.error(start, "this string has no end");
                break;
            }
            self.at += 1;
            if byte == b'\\' {
                self.at = (self.at + 1).min(self.text.len());
            } else if byte == quote && (length == 1 || (self.peek(0) == quote && self.peek(1) == quote)) {
                self.at += length - 1;
                break;
            }
        }
        // A backslash may have skipped the first byte of a longer character.
        while !self.text.is_char_boundary(self.at) {
            self.at += 1;
        }
        self.push(Token::Str, start);
    }

    fn operator(&mut self) {
        let start = self.at;
        let rest = &self.text[start..];
        let Some(op) = OPERATORS.iter().find(|op| rest.starts_with(**op)) else {
            let length = rest.chars().next().map_or(1, char::len_utf8);
            self.at += length;
            self.error(start, "this character means nothing in Python");
            self.push(Token::Bad, start);
            return;
        };
        self.at += op.len();
        match *op {
            "(" | "[" | "{" => self.depth += 1,
            ")" | "]" | "}" => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.push(Token::Op(op), start);
    }
}
