//! Expressions, by precedence.

use super::ast::{BinaryOp, CompareOp, Expr, ExprKind, Symbol, UnaryOp};
use super::lexer::Token;
use super::parser::{MAX_CHAIN, MAX_DEPTH, Parser};
use crate::diag::{Diagnostic, Span};

/// Words that cannot be names.
const KEYWORDS: &[&str] = &[
    "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del", "elif", "else",
    "except", "finally", "for", "from", "global", "if", "import", "in", "is", "lambda", "nonlocal", "not",
    "or", "pass", "raise", "return", "try", "while", "with", "yield",
];

fn node(span: Span, kind: ExprKind) -> Option<Expr> {
    Some(Expr { span, kind })
}

impl Parser<'_> {
    /// A ternary, or anything that binds closer.
    pub(super) fn expression(&mut self) -> Option<Expr> {
        if self.depth >= MAX_DEPTH {
            self.error(self.span(), format!("expressions nest deeper than {MAX_DEPTH} levels"));
            return None;
        }
        self.depth += 1;
        let result = self.ternary();
        self.depth -= 1;
        if result.is_some() && self.peek() == Token::Op(":=") {
            let message = "kernels cannot assign inside of an expression";
            let hint = "assign on a line of its own, before this one";
            self.errors.push(Diagnostic::new(self.span(), message).hint(hint));
            return None;
        }
        result
    }

    fn ternary(&mut self) -> Option<Expr> {
        let body = self.logic(false)?;
        if !self.eat_word("if") {
            return Some(body);
        }
        let test = self.logic(false)?;
        if !self.eat_word("else") {
            let found = self.describe();
            self.error(self.span(), format!("expected `else`, found {found}"));
            return None;
        }
        let orelse = self.expression()?;
        let span = body.span.to(orelse.span);
        let (test, body, orelse) = (Box::new(test), Box::new(body), Box::new(orelse));
        node(span, ExprKind::Ternary { test, body, orelse })
    }

    /// `or` of `and`s of `not`s.
    fn logic(&mut self, is_and: bool) -> Option<Expr> {
        let word = if is_and { "and" } else { "or" };
        let first = if is_and { self.not()? } else { self.logic(true)? };
        if !self.at_word(word) {
            return Some(first);
        }
        let mut items = vec![first];
        while self.eat_word(word) {
            items.push(if is_and { self.not()? } else { self.logic(true)? });
        }
        node(items[0].span.to(self.last_span()), ExprKind::Logic(is_and, items))
    }

    fn not(&mut self) -> Option<Expr> {
        if !self.at_word("not") {
            return self.comparison();
        }
        let mut spans = vec![];
        while self.at_word("not") {
            spans.push(self.bump());
        }
        if spans.len() > MAX_DEPTH {
            self.error(spans[0], format!("expressions nest deeper than {MAX_DEPTH} levels"));
            return None;
        }
        let mut operand = self.comparison()?;
        while let Some(start) = spans.pop() {
            let span = start.to(operand.span);
            operand = Expr { span, kind: ExprKind::Unary(UnaryOp::Not, Box::new(operand)) };
        }
        Some(operand)
    }

    fn comparison(&mut self) -> Option<Expr> {
        let first = self.binary(0)?;
        let mut rest = vec![];
        loop {
            let op = match self.peek() {
                Token::Op("==") => CompareOp::Eq,
                Token::Op("!=") => CompareOp::Ne,
                Token::Op("<") => CompareOp::Lt,
                Token::Op("<=") => CompareOp::Le,
                Token::Op(">") => CompareOp::Gt,
                Token::Op(">=") => CompareOp::Ge,
                Token::Name if self.at_word("is") => {
                    let message = "kernels cannot compare with `is`";
                    self.errors
                        .push(Diagnostic::new(self.span(), message).hint("compare values with `==` or `!=`"));
                    return None;
                }
                _ => break,
            };
            self.bump();
            rest.push((op, self.binary(0)?));
        }
        if rest.is_empty() {
            return Some(first);
        }
        node(first.span.to(self.last_span()), ExprKind::Compare(Box::new(first), rest))
    }

    /// The operators of a level: `|`, `^`, `&`, shifts, sums, products.
    fn level(&self, level: u8) -> Option<BinaryOp> {
        let Token::Op(op) = self.peek() else { return None };
        Some(match (level, op) {
            (0, "|") => BinaryOp::Or,
            (1, "^") => BinaryOp::Xor,
            (2, "&") => BinaryOp::And,
            (3, "<<") => BinaryOp::Shl,
            (3, ">>") => BinaryOp::Shr,
            (4, "+") => BinaryOp::Add,
            (4, "-") => BinaryOp::Sub,
            (5, "*") => BinaryOp::Mul,
            (5, "/") => BinaryOp::Div,
            (5, "//") => BinaryOp::FloorDiv,
            (5, "%") => BinaryOp::Mod,
            (5, "@") => BinaryOp::MatMul,
            _ => return None,
        })
    }

    fn binary(&mut self, level: u8) -> Option<Expr> {
        if level > 5 {
            return self.unary();
        }
        let mut left = self.binary(level + 1)?;
        let mut count = 0;
        while let Some(op) = self.level(level) {
            count += 1;
            if count > MAX_CHAIN {
                self.error(self.span(), format!("more than {MAX_CHAIN} operators in a row"));
                return None;
            }
            self.bump();
            let right = self.binary(level + 1)?;
            let span = left.span.to(right.span);
            left = Expr { span, kind: ExprKind::Binary(op, Box::new(left), Box::new(right)) };
        }
        Some(left)
    }

    fn unary(&mut self) -> Option<Expr> {
        let mut prefixes = vec![];
        loop {
            let op = match self.peek() {
                Token::Op("-") => UnaryOp::Neg,
                Token::Op("+") => UnaryOp::Pos,
                Token::Op("~") => UnaryOp::Invert,
                _ => break,
            };
            prefixes.push((op, self.bump()));
        }
        if prefixes.len() > MAX_DEPTH {
            self.error(prefixes[0].1, format!("expressions nest deeper than {MAX_DEPTH} levels"));
            return None;
        }
        let mut operand = self.power()?;
        while let Some((op, start)) = prefixes.pop() {
            let span = start.to(operand.span);
            operand = Expr { span, kind: ExprKind::Unary(op, Box::new(operand)) };
        }
        Some(operand)
    }

    /// `a ** b`, which binds closer than a sign on its left and less close than one on its right.
    fn power(&mut self) -> Option<Expr> {
        let base = self.postfix()?;
        if !self.eat("**") {
            return Some(base);
        }
        self.depth += 1;
        let exponent = if self.depth > MAX_DEPTH {
            self.error(self.span(), format!("expressions nest deeper than {MAX_DEPTH} levels"));
            None
        } else {
            self.unary()
        };
        self.depth -= 1;
        let exponent = exponent?;
        let span = base.span.to(exponent.span);
        node(span, ExprKind::Binary(BinaryOp::Pow, Box::new(base), Box::new(exponent)))
    }

    fn postfix(&mut self) -> Option<Expr> {
        let mut base = self.atom()?;
        let mut count = 0;
        loop {
            count += 1;
            if count > MAX_CHAIN {
                self.error(
                    self.span(),
                    format!("more than {MAX_CHAIN} attributes, indices and calls in a row"),
                );
                return None;
            }
            let start = base.span;
            let kind = match self.peek() {
                Token::Op(".") => {
                    self.bump();
                    ExprKind::Attribute(Box::new(base), self.name()?.0)
                }
                Token::Op("(") => {
                    self.bump();
                    let (args, keywords) = self.arguments()?;
                    ExprKind::Call { func: Box::new(base), args, keywords }
                }
                Token::Op("[") => {
                    self.bump();
                    let items = self.indices(start)?;
                    ExprKind::Subscript(Box::new(base), items)
                }
                _ => return Some(base),
            };
            base = Expr { span: start.to(self.last_span()), kind };
        }
    }

    #[allow(clippy::type_complexity)]
    fn arguments(&mut self) -> Option<(Vec<Expr>, Vec<(Symbol, Expr)>)> {
        let (mut args, mut keywords) = (vec![], vec![]);
        while self.peek() != Token::Op(")") {
            if matches!(self.peek(), Token::Op("*" | "**")) {
                self.error(self.span(), "arguments cannot be unpacked here");
                return None;
            }
            if self.peek() == Token::Name && self.peek_at(1) == Token::Op("=") {
                let (name, _) = self.name()?;
                self.bump();
                keywords.push((name, self.expression()?));
            } else {
                let arg = self.expression()?;
                if !keywords.is_empty() {
                    self.error(arg.span, "an argument by position stands behind one by name");
                    return None;
                }
                args.push(arg);
            }
            if !self.eat(",") {
                break;
            }
        }
        self.expect(")")?;
        Some((args, keywords))
    }

    fn indices(&mut self, base: Span) -> Option<Vec<Expr>> {
        let mut items = vec![];
        while self.peek() != Token::Op("]") {
            items.push(self.index_or_slice()?);
            if !self.eat(",") {
                break;
            }
        }
        let end = self.expect("]")?;
        if items.is_empty() {
            self.error(base.to(end), "an index is missing");
            return None;
        }
        // `a[(i, j)]` is `a[i, j]`.
        if let [Expr { kind: ExprKind::Tuple(inner), .. }] = &items[..] {
            items = inner.clone();
        }
        Some(items)
    }

    /// `i`, or `a:b:c`, of which each part may be missing.
    fn index_or_slice(&mut self) -> Option<Expr> {
        let start = self.span();
        let mut bounds = [None, None, None];
        for (number, bound) in bounds.iter_mut().enumerate() {
            if !matches!(self.peek(), Token::Op(":" | "," | "]")) {
                *bound = Some(self.expression()?);
            }
            if number == 2 || !self.eat(":") {
                if number == 0 {
                    return match bound.take() {
                        Some(index) => Some(index),
                        None => self.expression(),
                    };
                }
                break;
            }
        }
        node(start.to(self.last_span()), ExprKind::Slice(Box::new(bounds)))
    }

    fn atom(&mut self) -> Option<Expr> {
        let span = self.span();
        match self.peek() {
            Token::Name => self.word(span),
            Token::Int => {
                self.bump();
                let value = integer(self.slice(span));
                if value.is_none() {
                    self.error(span, "this integer is malformed or above 2^64 - 1");
                }
                node(span, ExprKind::Int(value?))
            }
            Token::Float => {
                self.bump();
                let value = self.slice(span).replace('_', "").parse::<f64>().ok();
                if value.is_none() {
                    self.error(span, "this number is malformed");
                }
                node(span, ExprKind::Float(value?))
            }
            Token::Str => self.strings(),
            Token::Op("{") if self.in_decorator => self.braces(),
            Token::Op("(") => self.sequence(")"),
            Token::Op("[") => self.sequence("]"),
            Token::Bad => None,
            _ => {
                let found = self.describe();
                self.error(span, format!("expected an expression, found {found}"));
                None
            }
        }
    }

    fn word(&mut self, span: Span) -> Option<Expr> {
        let text = self.slice(span);
        let kind = match text {
            "True" => ExprKind::Bool(true),
            "False" => ExprKind::Bool(false),
            "None" => ExprKind::None,
            _ if KEYWORDS.contains(&text) => {
                let message = match text {
                    "lambda" | "await" | "yield" => format!("kernels cannot have `{text}` expressions"),
                    _ => format!("expected an expression, found `{text}`"),
                };
                self.error(span, message);
                return None;
            }
            _ => ExprKind::Name(self.names.intern(text)),
        };
        self.bump();
        node(span, kind)
    }

    /// Adjacent strings are one.
    fn strings(&mut self) -> Option<Expr> {
        let start = self.span();
        let mut value = String::new();
        while self.peek() == Token::Str {
            let span = self.bump();
            let text = self.slice(span);
            match unquote(text) {
                Ok(part) => value += &part,
                Err(message) => {
                    self.error(span, message);
                    return None;
                }
            }
        }
        node(start.to(self.last_span()), ExprKind::Str(value))
    }

    /// A dictionary, unread.
    fn braces(&mut self) -> Option<Expr> {
        let (start, mut depth) = (self.span(), 0);
        loop {
            match self.peek() {
                Token::Op("{") => depth += 1,
                Token::Op("}") => depth -= 1,
                Token::End => return self.expect("}").and(None),
                _ => {}
            }
            let span = self.bump();
            if depth == 0 {
                return Some(Expr { span: start.to(span), kind: ExprKind::None });
            }
        }
    }

    /// A parenthesis, tuple or list.
    fn sequence(&mut self, close: &'static str) -> Option<Expr> {
        let start = self.bump();
        let mut items = vec![];
        let mut has_comma = false;
        while self.peek() != Token::Op(close) {
            items.push(self.expression()?);
            if self.at_word("for") {
                self.error(self.span(), "kernels cannot have comprehensions");
                return None;
            }
            if !self.eat(",") {
                break;
            }
            has_comma = true;
        }
        let span = start.to(self.expect(close)?);
        match items.pop() {
            Some(item) if close == ")" && !has_comma => Some(Expr { span, ..item }),
            last => {
                items.extend(last);
                node(span, ExprKind::Tuple(items))
            }
        }
    }
}

/// The value of an integer literal.
fn integer(text: &str) -> Option<u64> {
    let digits = text.replace('_', "").to_ascii_lowercase();
    let (digits, radix) = match digits.get(..2) {
        Some("0x") => (&digits[2..], 16),
        Some("0o") => (&digits[2..], 8),
        Some("0b") => (&digits[2..], 2),
        _ => (&digits[..], 10),
    };
    u64::from_str_radix(digits, radix).ok()
}

/// The text between a literal's quotes, with escapes resolved.
fn unquote(literal: &str) -> Result<String, &'static str> {
    let quotes = literal.find(['"', '\'']).ok_or("this string is malformed")?;
    let (prefix, body) = literal.split_at(quotes);
    if prefix.contains(['f', 'F']) {
        return Err("kernels cannot have f-strings: write print(\"x =\", x), or wp.printf");
    }
    if prefix.contains(['b', 'B']) {
        return Err("kernels cannot have bytes");
    }
    let length =
        if body.len() >= 6 && (body.starts_with("\"\"\"") || body.starts_with("'''")) { 3 } else { 1 };
    let inner = body.get(length..body.len().saturating_sub(length)).ok_or("this string is malformed")?;
    if prefix.contains(['r', 'R']) {
        return Ok(inner.into());
    }
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('0') => out.push('\0'),
            Some(c @ ('\\' | '\'' | '"')) => out.push(c),
            Some('\n') => {}
            _ => return Err("this escape is not supported; use \\n, \\t, \\r, \\\\ or a quote"),
        }
    }
    Ok(out)
}
