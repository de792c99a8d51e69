//! Statements and definitions, by recursive descent. Expressions are in [`super::expr`].

use super::ast::{BinaryOp, Class, Expr, ExprKind, Function, Import, Module, Names, Param, Stmt, StmtKind};
use super::lexer::{Lexeme, Token, tokens};
use crate::diag::{Diagnostic, Span};

/// A place in the tokens, and what was found so far. A method that returns `None` has recorded a diagnostic.
pub(super) struct Parser<'a> {
    pub(super) text: &'a str,
    tokens: Vec<Lexeme>,
    at: usize,
    pub(super) names: Names,
    pub(super) errors: Vec<Diagnostic>,
    /// Whether this is a decorator, whose options may be a dictionary that nothing here asks for.
    pub(super) in_decorator: bool,
    /// How deep expressions and blocks nest, so that hostile input ends in a diagnostic and not in a crash.
    pub(super) depth: usize,
}

/// How deep expressions and blocks may nest.
pub(super) const MAX_DEPTH: usize = 100;

/// How many operators, attributes or `elif`s may stand in a row, which nest in the tree.
pub(super) const MAX_CHAIN: usize = 300;

/// The definitions of a module's text, and what is wrong with it. The names in `hidden` are interned, too.
pub(crate) fn parse(text: &str, hidden: &[&str]) -> (Module, Vec<Diagnostic>) {
    let mut names = Names::default();
    for name in hidden {
        names.intern(name);
    }
    parse_with(text, names)
}

/// The same with names that are known.
pub(crate) fn parse_with(text: &str, names: Names) -> (Module, Vec<Diagnostic>) {
    let mut parser = Parser::new(text, names);
    let mut module = Module::default();
    while parser.peek() != Token::End {
        parser.item(&mut module);
    }
    module.names = parser.names;
    (module, parser.errors)
}

/// The functions and classes of a text that holds nothing else, and no decorators.
pub(crate) fn parse_definitions(text: &str, names: Names) -> (Module, Vec<Diagnostic>) {
    let mut parser = Parser::new(text, names);
    let mut module = Module::default();
    while parser.peek() != Token::End {
        if parser.at_word("def") {
            module.functions.extend(parser.function(vec![]));
        } else if parser.at_word("class") {
            module.classes.extend(parser.class(vec![]));
        } else {
            parser.bump();
        }
    }
    module.names = parser.names;
    (module, parser.errors)
}

/// An expression that stands for a name used at `span`; `None` if it is none that kernels can have.
pub(crate) fn parse_expression(text: &str, span: Span, names: &mut Names) -> Option<Expr> {
    let mut parser = Parser::new(text, std::mem::take(names));
    let parsed = parser.expression();
    let whole = matches!(parser.peek(), Token::Newline | Token::End) && parser.errors.is_empty();
    *names = parser.names;
    let mut expr = parsed.filter(|_| whole)?;
    expr.place(span);
    Some(expr)
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, names: Names) -> Parser<'a> {
        let (tokens, errors) = tokens(text);
        Parser { text, tokens, at: 0, names, errors, in_decorator: false, depth: 0 }
    }

    pub(super) fn peek(&self) -> Token {
        self.tokens[self.at].token
    }

    pub(super) fn peek_at(&self, ahead: usize) -> Token {
        self.tokens[(self.at + ahead).min(self.tokens.len() - 1)].token
    }

    /// The place of the next token.
    pub(super) fn span(&self) -> Span {
        self.tokens[self.at].span
    }

    /// The place of the last token taken.
    pub(super) fn last_span(&self) -> Span {
        self.tokens[self.at.saturating_sub(1)].span
    }

    pub(super) fn bump(&mut self) -> Span {
        let span = self.span();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        span
    }

    pub(super) fn slice(&self, span: Span) -> &'a str {
        &self.text[span.start as usize..span.end as usize]
    }

    pub(super) fn eat(&mut self, op: &'static str) -> bool {
        let found = self.peek() == Token::Op(op);
        if found {
            self.bump();
        }
        found
    }

    /// Whether the next token is this name.
    pub(super) fn at_word(&self, word: &str) -> bool {
        self.peek() == Token::Name && self.slice(self.span()) == word
    }

    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        let found = self.at_word(word);
        if found {
            self.bump();
        }
        found
    }

    pub(super) fn error(&mut self, span: Span, message: impl Into<String>) -> Option<()> {
        self.errors.push(Diagnostic::new(span, message));
        None
    }

    pub(super) fn expect(&mut self, op: &'static str) -> Option<Span> {
        if self.peek() == Token::Op(op) {
            return Some(self.bump());
        }
        let found = self.describe();
        self.error(self.span(), format!("expected `{op}`, found {found}"));
        None
    }

    pub(super) fn describe(&self) -> String {
        match self.peek() {
            Token::Newline => "the end of the line".into(),
            Token::Indent | Token::Dedent => "a change of indentation".into(),
            Token::End => "the end of the file".into(),
            _ => format!("`{}`", self.slice(self.span())),
        }
    }

    pub(super) fn name(&mut self) -> Option<(super::ast::Symbol, Span)> {
        if self.peek() != Token::Name {
            let found = self.describe();
            self.error(self.span(), format!("expected a name, found {found}"));
            return None;
        }
        let span = self.bump();
        let text = self.slice(span);
        Some((self.names.intern(text), span))
    }

    /// Skips what is left of a logical line, and the block that belongs to it.
    fn skip_statement(&mut self) {
        while !matches!(self.peek(), Token::Newline | Token::End | Token::Dedent) {
            self.bump();
        }
        if self.peek() == Token::Newline {
            self.bump();
        }
        if self.peek() == Token::Indent {
            let mut depth = 0;
            loop {
                match self.peek() {
                    Token::Indent => depth += 1,
                    Token::Dedent => depth -= 1,
                    Token::End => break,
                    _ => {}
                }
                self.bump();
                if depth == 0 {
                    break;
                }
            }
        }
    }

    /// One definition, import or constant; anything else of a module is host code and is skipped unread.
    fn item(&mut self, module: &mut Module) {
        let mut decorators = vec![];
        while self.eat("@") {
            self.in_decorator = true;
            let decorator = self.expression();
            self.in_decorator = false;
            match decorator {
                Some(decorator) => decorators.push(decorator),
                None => return self.skip_statement(),
            }
            if self.peek() == Token::Newline {
                self.bump();
            }
        }
        if self.at_word("def") {
            // Functions without decorators are host code, and may be any Python.
            if decorators.is_empty() {
                return self.skip_statement();
            }
            if let Some(function) = self.function(decorators) {
                module.functions.push(function);
            }
        } else if self.at_word("class") {
            if decorators.is_empty() {
                return self.skip_statement();
            }
            if let Some(class) = self.class(decorators) {
                module.classes.push(class);
            }
        } else if self.at_word("import") || self.at_word("from") {
            self.import(module);
        } else if self.peek() == Token::Name && self.peek_at(1) == Token::Op("=") {
            self.constant(module);
        } else if self.at_overload() {
            let call = self.expression();
            module.calls.extend(call);
            self.skip_statement();
        } else if matches!(self.peek(), Token::Indent | Token::Dedent | Token::Newline) {
            self.bump();
        } else {
            self.skip_statement();
        }
    }

    /// Whether `wp.overload(` or `overload(` stands here.
    fn at_overload(&self) -> bool {
        let is_path = self.peek() == Token::Name && self.peek_at(1) == Token::Op(".");
        let at = (self.at + if is_path { 2 } else { 0 }).min(self.tokens.len() - 1);
        self.tokens[at].token == Token::Name && self.slice(self.tokens[at].span) == "overload"
    }

    /// `NAME = expression`; if kernels cannot have such an expression the name stays unknown to them.
    fn constant(&mut self, module: &mut Module) {
        let known = self.errors.len();
        let Some((name, _)) = self.name() else { return self.skip_statement() };
        self.bump();
        let value = self.expression();
        match value {
            Some(value) if self.peek() == Token::Newline => module.constants.push((name, value)),
            _ => self.errors.truncate(known),
        }
        self.skip_statement();
    }

    fn import(&mut self, module: &mut Module) {
        let is_from = self.eat_word("from");
        let mut prefix = String::new();
        if is_from {
            while !self.at_word("import") && self.peek() != Token::Newline && self.peek() != Token::End {
                prefix += self.slice(self.span());
                self.bump();
            }
            prefix.push('.');
        }
        if !self.eat_word("import") {
            return self.skip_statement();
        }
        self.eat("(");
        if self.peek() == Token::Op("*") && matches!(prefix.as_str(), "warp." | "bullet_core.lang.") {
            let message = "names that `import *` brings are not known here";
            self.errors
                .push(Diagnostic::new(self.span(), message).hint("write `import bullet_core.lang as wp`"));
        }
        while self.peek() == Token::Name {
            let mut path = prefix.clone();
            let first = self.slice(self.span());
            while self.peek() == Token::Name && !self.at_word("as") || self.peek() == Token::Op(".") {
                path += self.slice(self.span());
                self.bump();
            }
            let mut alias = first;
            if self.eat_word("as") {
                alias = self.slice(self.span());
                self.bump();
            }
            let alias = self.names.intern(alias);
            // `import a.b` binds `a`.
            if !is_from && self.names.text(alias) == first {
                path.truncate(first.len());
            }
            module.imports.push(Import { alias, path });
            if !self.eat(",") {
                break;
            }
        }
        self.skip_statement();
    }

    fn class(&mut self, decorators: Vec<Expr>) -> Option<Class> {
        self.bump();
        let header = self.name();
        while !matches!(self.peek(), Token::Newline | Token::End) {
            self.bump();
        }
        self.bump();
        let mut fields = vec![];
        if self.peek() != Token::Indent {
            return None;
        }
        self.bump();
        while !matches!(self.peek(), Token::Dedent | Token::End) {
            if self.peek() == Token::Name && self.peek_at(1) == Token::Op(":") {
                let field = self.name();
                self.bump();
                if let (Some((field, _)), Some(annotation)) = (field, self.expression()) {
                    fields.push((field, annotation));
                }
            }
            self.skip_statement();
        }
        self.bump();
        let (name, span) = header?;
        Some(Class { name, span, scope: 0, decorators, fields })
    }

    fn function(&mut self, decorators: Vec<Expr>) -> Option<Function> {
        self.bump();
        let Some(header) = self.header() else {
            self.skip_statement();
            return None;
        };
        let (name, span, params, returns) = header;
        let body = self.block()?;
        Some(Function { name, span, scope: 0, decorators, params, returns, body })
    }

    #[allow(clippy::type_complexity)]
    fn header(&mut self) -> Option<(super::ast::Symbol, Span, Vec<Param>, Option<Expr>)> {
        let (name, span) = self.name()?;
        self.expect("(")?;
        let mut params = vec![];
        let mut by_name = false;
        while self.peek() != Token::Op(")") {
            if !by_name && self.peek() == Token::Op("*") && self.peek_at(1) == Token::Op(",") {
                by_name = true;
                self.bump();
                self.bump();
                continue;
            }
            if matches!(self.peek(), Token::Op("*" | "**" | "/")) {
                self.error(
                    self.span(),
                    "kernels and functions take a fixed number of parameters, by position or name",
                );
                return None;
            }
            let (name, span) = self.name()?;
            let annotation = if self.eat(":") { Some(self.expression()?) } else { None };
            let default = if self.eat("=") { Some(self.expression()?) } else { None };
            params.push(Param { name, span, annotation, default, by_name });
            if !self.eat(",") {
                break;
            }
        }
        self.expect(")")?;
        let returns = if self.eat("->") { Some(self.expression()?) } else { None };
        Some((name, span, params, returns))
    }

    /// A block behind a header: `: NEWLINE INDENT statements DEDENT`, or statements on the same line.
    fn block(&mut self) -> Option<Vec<Stmt>> {
        if self.expect(":").is_none() {
            self.skip_statement();
            return None;
        }
        let mut body = vec![];
        if self.peek() != Token::Newline {
            self.simple_line(&mut body);
            return Some(body);
        }
        self.bump();
        if self.peek() != Token::Indent {
            self.error(self.span(), "expected an indented block");
            return None;
        }
        self.bump();
        self.depth += 1;
        while !matches!(self.peek(), Token::Dedent | Token::End) {
            if self.depth > MAX_DEPTH {
                self.error(self.span(), format!("blocks nest deeper than {MAX_DEPTH} levels"));
                self.skip_statement();
                continue;
            }
            self.statement(&mut body);
        }
        self.depth -= 1;
        self.bump();
        Some(body)
    }

    fn statement(&mut self, out: &mut Vec<Stmt>) {
        let start = self.span();
        let word = if self.peek() == Token::Name { self.slice(start) } else { "" };
        let kind = match word {
            "if" => self.if_statement(0),
            "for" => self.for_statement(),
            "while" => self.while_statement(),
            "def" | "class" | "with" | "try" | "async" | "lambda" | "match" | "import" | "from"
            | "global" | "nonlocal" | "del" | "raise" | "yield" | "await"
                if word != "match" || self.peek_at(1) == Token::Name =>
            {
                let message = format!("kernels and functions cannot have `{word}` statements");
                self.errors.push(Diagnostic::new(start, message).hint(match word {
                    "def" => "define the function at module level with @wp.func",
                    "raise" => "use `assert`",
                    _ => "use assignments, if, for over range, while, break, continue, return",
                }));
                self.skip_statement();
                return;
            }
            _ => return self.simple_line(out),
        };
        if let Some(kind) = kind {
            out.push(Stmt { span: start, kind });
        }
    }

    /// An `if`, or the `elif` of this number.
    fn if_statement(&mut self, number: usize) -> Option<StmtKind> {
        if number > MAX_CHAIN {
            self.error(self.span(), format!("more than {MAX_CHAIN} `elif`s in a row"));
            self.skip_statement();
            return None;
        }
        self.bump();
        let test = self.expression_or_skip()?;
        let body = self.block()?;
        let start = self.span();
        let orelse = if self.at_word("elif") {
            let kind = self.if_statement(number + 1)?;
            vec![Stmt { span: start, kind }]
        } else if self.eat_word("else") {
            self.block()?
        } else {
            vec![]
        };
        Some(StmtKind::If { test, body, orelse })
    }

    fn for_statement(&mut self) -> Option<StmtKind> {
        self.bump();
        let target = match self.targets() {
            Some(target) => target,
            None => {
                self.skip_statement();
                return None;
            }
        };
        if !self.eat_word("in") {
            let found = self.describe();
            self.error(self.span(), format!("expected `in`, found {found}"));
            self.skip_statement();
            return None;
        }
        let iter = self.expression_or_skip()?;
        let body = self.block()?;
        self.no_else("for");
        Some(StmtKind::For { target, iter, body })
    }

    fn while_statement(&mut self) -> Option<StmtKind> {
        self.bump();
        let test = self.expression_or_skip()?;
        let body = self.block()?;
        self.no_else("while");
        Some(StmtKind::While { test, body })
    }

    fn no_else(&mut self, kind: &str) {
        if self.at_word("else") {
            self.error(self.span(), format!("kernels cannot have `else` behind a `{kind}` loop"));
            self.skip_statement();
        }
    }

    fn expression_or_skip(&mut self) -> Option<Expr> {
        let expr = self.expression();
        if expr.is_none() {
            self.skip_statement();
        }
        expr
    }

    /// Statements up to the line's end, with `;` between them.
    fn simple_line(&mut self, out: &mut Vec<Stmt>) {
        loop {
            if self.simple(out).is_none() {
                return self.skip_statement();
            }
            if !self.eat(";") || self.peek() == Token::Newline {
                break;
            }
        }
        if self.peek() == Token::Newline {
            self.bump();
        } else {
            let found = self.describe();
            self.error(self.span(), format!("expected the end of the line, found {found}"));
            self.skip_statement();
        }
        if self.peek() == Token::Indent {
            self.error(self.span(), "this line is indented, but no block begins here");
            // What follows is read as if it were not.
            self.bump();
            while !matches!(self.peek(), Token::Dedent | Token::End) {
                self.statement(out);
            }
            self.bump();
        }
    }

    fn simple(&mut self, out: &mut Vec<Stmt>) -> Option<()> {
        let start = self.span();
        let word = if self.peek() == Token::Name { self.slice(start) } else { "" };
        let kind = match word {
            "break" => (self.bump(), StmtKind::Break).1,
            "continue" => (self.bump(), StmtKind::Continue).1,
            "pass" => (self.bump(), StmtKind::Pass).1,
            "return" => {
                self.bump();
                let bare = matches!(self.peek(), Token::Newline | Token::End | Token::Op(";"));
                StmtKind::Return(if bare { None } else { Some(self.targets()?) })
            }
            "assert" => {
                self.bump();
                let test = self.expression()?;
                let message = if self.eat(",") { Some(self.expression()?) } else { None };
                StmtKind::Assert { test, message }
            }
            _ if self.peek() == Token::Op("...") => (self.bump(), StmtKind::Pass).1,
            _ => return self.assignment(out),
        };
        out.push(Stmt { span: start.to(self.last_span()), kind });
        Some(())
    }

    fn assignment(&mut self, out: &mut Vec<Stmt>) -> Option<()> {
        let start = self.span();
        let target = self.targets()?;
        let kind = if self.eat(":") {
            let annotation = self.expression()?;
            if self.peek() != Token::Op("=") {
                return self.error(start, "a declaration without a value does nothing");
            }
            self.bump();
            StmtKind::Declare { target, annotation, value: self.targets()? }
        } else if let Some(op) = self.update_op() {
            self.bump();
            StmtKind::Update { target, op, value: self.targets()? }
        } else if self.eat("=") {
            return self.chain(start, target, out);
        } else {
            StmtKind::Expr(target)
        };
        out.push(Stmt { span: start.to(self.last_span()), kind });
        Some(())
    }

    /// `a = b = value`: the value goes to the last target, which must be a name, and from there to the others.
    fn chain(&mut self, start: Span, first: Expr, out: &mut Vec<Stmt>) -> Option<()> {
        let mut targets = vec![first];
        let mut value = self.targets()?;
        while self.eat("=") {
            targets.push(std::mem::replace(&mut value, self.targets()?));
        }
        let span = start.to(self.last_span());
        while let Some(target) = targets.pop() {
            let next = target.clone();
            if !targets.is_empty() && !matches!(next.kind, ExprKind::Name(_)) {
                return self
                    .error(next.span, "in a chain of assignments all targets but the first are names");
            }
            out.push(Stmt { span, kind: StmtKind::Assign { target, value } });
            value = next;
        }
        Some(())
    }

    fn update_op(&self) -> Option<BinaryOp> {
        let Token::Op(op) = self.peek() else { return None };
        Some(match op {
            "+=" => BinaryOp::Add,
            "-=" => BinaryOp::Sub,
            "*=" => BinaryOp::Mul,
            "/=" => BinaryOp::Div,
            "//=" => BinaryOp::FloorDiv,
            "%=" => BinaryOp::Mod,
            "**=" => BinaryOp::Pow,
            "@=" => BinaryOp::MatMul,
            "&=" => BinaryOp::And,
            "|=" => BinaryOp::Or,
            "^=" => BinaryOp::Xor,
            "<<=" => BinaryOp::Shl,
            ">>=" => BinaryOp::Shr,
            _ => return None,
        })
    }

    /// An expression, or several with commas between them.
    fn targets(&mut self) -> Option<Expr> {
        let first = self.expression()?;
        if self.peek() != Token::Op(",") {
            return Some(first);
        }
        let start = first.span;
        let mut items = vec![first];
        while self.eat(",") {
            if matches!(self.peek(), Token::Newline | Token::End | Token::Op("=" | ";")) {
                break;
            }
            items.push(self.expression()?);
        }
        Some(Expr { span: start.to(self.last_span()), kind: ExprKind::Tuple(items) })
    }
}
