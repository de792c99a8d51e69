//! The syntax tree. Names are interned: a [`Symbol`] is an index into the module's [`Names`].

use rustc_hash::FxHashMap;

use crate::diag::Span;

/// An interned name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Symbol(pub(crate) u32);

/// The names of one module.
#[derive(Debug, Default)]
pub(crate) struct Names {
    texts: Vec<Box<str>>,
    index: FxHashMap<Box<str>, Symbol>,
}

impl Names {
    /// The symbol of a name.
    pub(crate) fn intern(&mut self, text: &str) -> Symbol {
        if let Some(&symbol) = self.index.get(text) {
            return symbol;
        }
        let symbol = Symbol(self.texts.len() as u32);
        self.texts.push(text.into());
        self.index.insert(text.into(), symbol);
        symbol
    }

    /// The name of a symbol.
    pub(crate) fn text(&self, symbol: Symbol) -> &str {
        &self.texts[symbol.0 as usize]
    }

    /// The symbol of a name, if the module has it.
    pub(crate) fn find(&self, text: &str) -> Option<Symbol> {
        self.index.get(text).copied()
    }
}

/// What a source file defines.
#[derive(Debug, Default)]
pub(crate) struct Module {
    pub(crate) names: Names,
    /// `import a.b as c` binds `c` to `a.b`.
    pub(crate) imports: Vec<Import>,
    pub(crate) functions: Vec<Function>,
    pub(crate) classes: Vec<Class>,
    /// `NAME = expression` at module level, in order.
    pub(crate) constants: Vec<(Symbol, Expr)>,
    /// `wp.overload(..)` at module level.
    pub(crate) calls: Vec<Expr>,
}

/// One imported name.
#[derive(Debug)]
pub(crate) struct Import {
    pub(crate) alias: Symbol,
    /// The module's path, and with `from` the name in it.
    pub(crate) path: String,
}

/// A `def`.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: Symbol,
    /// The `def` line's name.
    pub(crate) span: Span,
    /// Which of a program's scopes its names are looked up in.
    pub(crate) scope: u32,
    pub(crate) decorators: Vec<Expr>,
    pub(crate) params: Vec<Param>,
    pub(crate) returns: Option<Expr>,
    pub(crate) body: Vec<Stmt>,
}

/// A parameter of a `def`.
#[derive(Debug)]
pub(crate) struct Param {
    pub(crate) name: Symbol,
    pub(crate) span: Span,
    pub(crate) annotation: Option<Expr>,
    pub(crate) default: Option<Expr>,
    /// Whether it stands behind `*`.
    pub(crate) by_name: bool,
}

/// A `class`, of which only annotated fields are read.
#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) name: Symbol,
    /// The `class` line's name.
    pub(crate) span: Span,
    /// As of a function.
    pub(crate) scope: u32,
    pub(crate) decorators: Vec<Expr>,
    pub(crate) fields: Vec<(Symbol, Expr)>,
}

/// A statement.
#[derive(Debug)]
pub(crate) struct Stmt {
    pub(crate) span: Span,
    pub(crate) kind: StmtKind,
}

/// What a statement does.
#[derive(Debug)]
pub(crate) enum StmtKind {
    /// `target = value`; `a = b = value` is two of these in a row, of which the second reads the first's name.
    Assign {
        target: Expr,
        value: Expr,
    },
    /// `target: annotation = value`.
    Declare {
        target: Expr,
        annotation: Expr,
        value: Expr,
    },
    /// `target op= value`.
    Update {
        target: Expr,
        op: BinaryOp,
        value: Expr,
    },
    /// An `elif` is an `if` alone in `orelse`.
    If {
        test: Expr,
        body: Vec<Stmt>,
        orelse: Vec<Stmt>,
    },
    For {
        target: Expr,
        iter: Expr,
        body: Vec<Stmt>,
    },
    While {
        test: Expr,
        body: Vec<Stmt>,
    },
    Break,
    Continue,
    Return(Option<Expr>),
    Assert {
        test: Expr,
        message: Option<Expr>,
    },
    Expr(Expr),
    Pass,
}

/// An expression.
#[derive(Clone, Debug)]
pub(crate) struct Expr {
    pub(crate) span: Span,
    pub(crate) kind: ExprKind,
}

/// What an expression is.
#[derive(Clone, Debug)]
pub(crate) enum ExprKind {
    Name(Symbol),
    Int(u64),
    Float(f64),
    Bool(bool),
    Str(String),
    None,
    Unary(UnaryOp, Box<Expr>),
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    /// `a < b < c` has two pairs.
    Compare(Box<Expr>, Vec<(CompareOp, Expr)>),
    /// `and` if true, else `or`; at least two operands.
    Logic(bool, Vec<Expr>),
    /// `body if test else orelse`.
    Ternary {
        test: Box<Expr>,
        body: Box<Expr>,
        orelse: Box<Expr>,
    },
    Call {
        func: Box<Expr>,
        args: Vec<Expr>,
        keywords: Vec<(Symbol, Expr)>,
    },
    Attribute(Box<Expr>, Symbol),
    Subscript(Box<Expr>, Vec<Expr>),
    /// `(a, b)` and `[a, b]`.
    Tuple(Vec<Expr>),
    /// `a:b:c`, among indices only.
    Slice(Box<[Option<Expr>; 3]>),
}

impl Expr {
    /// Gives it and all it is made of one place in the source.
    pub(crate) fn place(&mut self, span: Span) {
        self.span = span;
        let all = |exprs: &mut [Expr]| exprs.iter_mut().for_each(|expr| expr.place(span));
        match &mut self.kind {
            ExprKind::Name(_)
            | ExprKind::Int(_)
            | ExprKind::Float(_)
            | ExprKind::Bool(_)
            | ExprKind::Str(_)
            | ExprKind::None => {}
            ExprKind::Unary(_, x) | ExprKind::Attribute(x, _) => x.place(span),
            ExprKind::Binary(_, x, y) => {
                x.place(span);
                y.place(span);
            }
            ExprKind::Compare(x, rest) => {
                x.place(span);
                rest.iter_mut().for_each(|(_, y)| y.place(span));
            }
            ExprKind::Logic(_, items) | ExprKind::Tuple(items) => all(items),
            ExprKind::Slice(bounds) => bounds.iter_mut().flatten().for_each(|bound| bound.place(span)),
            ExprKind::Ternary { test, body, orelse } => {
                [test, body, orelse].into_iter().for_each(|part| part.place(span));
            }
            ExprKind::Call { func, args, keywords } => {
                func.place(span);
                all(args);
                keywords.iter_mut().for_each(|(_, value)| value.place(span));
            }
            ExprKind::Subscript(base, items) => {
                base.place(span);
                all(items);
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum UnaryOp {
    Neg,
    Pos,
    Not,
    Invert,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Mod,
    Pow,
    MatMul,
    And,
    Or,
    Xor,
    Shl,
    Shr,
}

impl BinaryOp {
    /// As it is written.
    pub(crate) fn text(self) -> &'static str {
        match self {
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::FloorDiv => "//",
            BinaryOp::Mod => "%",
            BinaryOp::Pow => "**",
            BinaryOp::MatMul => "@",
            BinaryOp::And => "&",
            BinaryOp::Or => "|",
            BinaryOp::Xor => "^",
            BinaryOp::Shl => "<<",
            BinaryOp::Shr => ">>",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CompareOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}
