//! Reading the text form. What it accepts is well formed but not verified: call [`Kernel::verify`].

use std::collections::HashMap;
use std::fmt;

use bullet_ops::DType;
use smallvec::SmallVec;

use super::print::mnemonic;
use super::{
    ArrayType, Atomic, Binary, Block, Compare, Const, Kernel, Op, Shuffle, Space, Type, Unary, Value, Values,
};
use crate::diag::Span;

/// Why a text is no kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParseError {
    /// Counted from 1.
    pub line: usize,
    /// What was expected.
    pub message: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for ParseError {}

type Result<T> = std::result::Result<T, ParseError>;

struct Reader<'a> {
    tokens: Vec<(&'a str, usize)>,
    at: usize,
    kernel: Kernel,
    values: HashMap<&'a str, Value>,
    depth: usize,
}

/// How deep blocks may nest.
const MAX_DEPTH: usize = 200;

impl Kernel {
    /// The kernel of a text form.
    ///
    /// # Errors
    /// The line, and what was expected there.
    pub fn parse(text: &str) -> Result<Kernel> {
        let tokens = words(text);
        let mut reader =
            Reader { tokens, at: 0, kernel: Kernel::new("", 1), values: HashMap::new(), depth: 0 };
        reader.kernel()?;
        if reader.at < reader.tokens.len() {
            return Err(reader.error("expected the end of the text"));
        }
        Ok(reader.kernel)
    }
}

/// Words, strings and punctuation with their lines.
fn words(text: &str) -> Vec<(&str, usize)> {
    let is_word = |c: char| c.is_alphanumeric() || "%@._-+?".contains(c);
    let mut out = vec![];
    for (number, line) in text.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = match first {
                '"' => string_end(rest),
                c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
                c => c.len_utf8(),
            };
            out.push((&rest[..length], number + 1));
            rest = rest[length..].trim_start();
        }
    }
    out
}

/// The length of a string literal with its quotes.
fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return i + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

impl<'a> Reader<'a> {
    fn error(&self, message: impl Into<String>) -> ParseError {
        let line = self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |token| token.1);
        let found = self.tokens.get(self.at).map_or("the end", |token| token.0);
        ParseError { line, message: format!("{}, found `{found}`", message.into()) }
    }

    fn peek(&self) -> &'a str {
        self.tokens.get(self.at).map_or("", |token| token.0)
    }

    fn next(&mut self) -> &'a str {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn eat(&mut self, word: &str) -> bool {
        let found = self.peek() == word;
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, word: &str) -> Result<()> {
        if self.eat(word) { Ok(()) } else { Err(self.error(format!("expected `{word}`"))) }
    }

    fn number<T: std::str::FromStr>(&mut self) -> Result<T> {
        let value = self.peek().parse().map_err(|_| self.error("expected a number"))?;
        self.at += 1;
        Ok(value)
    }

    fn kernel(&mut self) -> Result<()> {
        self.expect("kernel")?;
        let name = self.peek().strip_prefix('@').ok_or_else(|| self.error("expected `@name`"))?;
        self.at += 1;
        self.kernel.name = name.into();
        self.expect("(")?;
        while !self.eat(")") {
            let (name, ty) = self.typed()?;
            let value = self.kernel.param(base_name(name), ty);
            if base_name(name).is_empty() {
                self.kernel.values[value.index()].name = None;
            }
            self.values.insert(name, value);
            self.eat(",");
        }
        self.expect("grid")?;
        self.kernel.grid = self.number()?;
        self.kernel.noalias = self.eat("noalias");
        self.block(self.kernel.body)
    }

    /// `%name: type`.
    fn typed(&mut self) -> Result<(&'a str, Type)> {
        if !self.peek().starts_with('%') {
            return Err(self.error("expected `%value`"));
        }
        let name = self.next();
        self.expect(":")?;
        Ok((name, self.ty()?))
    }

    fn ty(&mut self) -> Result<Type> {
        let space = match self.peek() {
            "array" => Space::Global,
            "shared" => Space::Shared,
            "local" => Space::Local,
            name => {
                let dtype = DType::parse(name).map_err(|_| self.error("expected a type"))?;
                self.at += 1;
                return Ok(Type::Scalar(dtype));
            }
        };
        self.at += 1;
        self.expect("<")?;
        let element = self.peek();
        let (dtype, lanes) = element.split_once('x').unwrap_or((element, "1"));
        let dtype = DType::parse(dtype).map_err(|_| self.error("expected a dtype"))?;
        let (lanes, pitch) = lanes.split_once("of").unwrap_or((lanes, lanes));
        let count = |text: &str| text.parse().map_err(|_| self.error("expected a number of lanes"));
        let (lanes, pitch) = (count(lanes)?, count(pitch)?);
        self.at += 1;
        self.expect(",")?;
        let ndim = self.number()?;
        self.expect(">")?;
        Ok(Type::Array(ArrayType { dtype, lanes, pitch, ndim, space }))
    }

    fn usage(&mut self) -> Result<Value> {
        let word = self.peek();
        let value = if word.starts_with('%') {
            self.values.get(word).copied().ok_or_else(|| self.error("expected a value that is known here"))?
        } else {
            let constant = literal(word).ok_or_else(|| self.error("expected a value or constant"))?;
            self.kernel.constant(constant)
        };
        self.at += 1;
        Ok(value)
    }

    fn is_usage(&self) -> bool {
        self.peek().starts_with('%') || literal(self.peek()).is_some()
    }

    fn usages(&mut self) -> Result<Values> {
        let mut out = Values::new();
        while self.is_usage() {
            // What begins a line with `%` and a type is the next instruction.
            if self.tokens.get(self.at + 1).is_some_and(|token| token.0 == ":") {
                break;
            }
            out.push(self.usage()?);
            if !self.eat(",") {
                break;
            }
        }
        Ok(out)
    }

    fn bind(&mut self, name: &'a str, value: Value) {
        let base = base_name(name);
        if !base.is_empty() {
            self.kernel.set_name(value, base);
        }
        self.values.insert(name, value);
    }

    fn block(&mut self, block: Block) -> Result<()> {
        self.expect("{")?;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("blocks nest too deep"));
        }
        while !self.eat("}") {
            if self.eat("yield") {
                self.kernel.blocks[block.index()].yields = self.usages()?.into_vec();
            } else {
                self.inst(block)?;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn inst(&mut self, block: Block) -> Result<()> {
        let mut results: SmallVec<[(&str, Type); 2]> = SmallVec::new();
        if self.peek().starts_with('%') {
            loop {
                results.push(self.typed()?);
                if !self.eat(",") {
                    break;
                }
            }
            self.expect("=")?;
        }
        let op = self.op()?;
        let types: Vec<_> = results.iter().map(|result| result.1).collect();
        let inst = self.kernel.new_inst(op, Values::new(), &types, Span::default());
        self.kernel.blocks[block.index()].insts.push(inst);
        let (args, blocks) = match op {
            Op::If => self.branches()?,
            Op::For | Op::While => self.repeat(op == Op::For)?,
            Op::Custom(_) => self.custom()?,
            _ => (self.usages()?, SmallVec::new()),
        };
        self.kernel.insts[inst.index()].args = args;
        self.kernel.insts[inst.index()].blocks = blocks;
        for (i, (name, _)) in results.into_iter().enumerate() {
            let value = self.kernel.insts[inst.index()].results[i];
            self.bind(name, value);
        }
        Ok(())
    }

    fn branches(&mut self) -> Result<(Values, SmallVec<[Block; 2]>)> {
        let test = self.usage()?;
        let (then, orelse) = (self.kernel.new_block(), self.kernel.new_block());
        self.block(then)?;
        if self.eat("else") {
            self.block(orelse)?;
        }
        Ok((Values::from_slice(&[test]), SmallVec::from_slice(&[then, orelse])))
    }

    fn repeat(&mut self, counted: bool) -> Result<(Values, SmallVec<[Block; 2]>)> {
        let body = self.kernel.new_block();
        if counted {
            let (name, ty) = self.typed()?;
            let value = self.kernel.block_arg(body, ty);
            self.bind(name, value);
            self.expect("in")?;
        }
        let mut args = self.usages()?;
        if self.eat("carry") {
            self.expect("(")?;
            while !self.eat(")") {
                let (name, ty) = self.typed()?;
                self.expect("=")?;
                args.push(self.usage()?);
                let value = self.kernel.block_arg(body, ty);
                self.bind(name, value);
                self.eat(",");
            }
        }
        self.block(body)?;
        Ok((args, SmallVec::from_slice(&[body])))
    }

    fn custom(&mut self) -> Result<(Values, SmallVec<[Block; 2]>)> {
        let args = self.usages()?;
        let mut blocks = SmallVec::new();
        loop {
            let block = self.kernel.new_block();
            blocks.push(block);
            if blocks.len() > 1 {
                self.expect("(")?;
                while !self.eat(")") {
                    let (name, ty) = self.typed()?;
                    let value = self.kernel.block_arg(block, ty);
                    self.bind(name, value);
                    self.eat(",");
                }
            }
            self.block(block)?;
            if !self.eat("also") {
                return Ok((args, blocks));
            }
        }
    }

    fn op(&mut self) -> Result<Op> {
        let word = self.peek();
        let found = match word {
            "tid" | "dim" | "alloc" | "push" | "pop" | "custom" => {
                self.at += 1;
                let number: u32 = self.number()?;
                return Ok(match word {
                    "tid" => Op::Tid(number as u8),
                    "dim" => Op::Dim(number as u8),
                    "alloc" => Op::Alloc(number),
                    "push" => Op::Push(number),
                    "custom" => Op::Custom(number as u8),
                    _ => Op::Pop(number),
                });
            }
            "print" | "assert" | "within" => {
                self.at += 1;
                let text = unescape(self.peek()).ok_or_else(|| self.error("expected a string"))?;
                self.at += 1;
                let index = self.kernel.add_text(&text);
                return Ok(match word {
                    "print" => Op::Print(index),
                    "assert" => Op::Assert(index),
                    _ => Op::Within(index),
                });
            }
            _ => plain_op(word),
        };
        let op = found.ok_or_else(|| self.error("expected an operation"))?;
        self.at += 1;
        Ok(op)
    }
}

/// The op of a word that no number follows.
fn plain_op(word: &str) -> Option<Op> {
    let fixed = [
        Op::Select,
        Op::Cast,
        Op::Bitcast,
        Op::Load,
        Op::Store,
        Op::CompareExchange,
        Op::If,
        Op::For,
        Op::While,
        Op::Turn,
        Op::Barrier,
    ];
    let unary = Unary::ALL.iter().map(|&op| Op::Unary(op));
    let binary = Binary::ALL.iter().map(|&op| Op::Binary(op));
    let compare = Compare::ALL.iter().map(|&op| Op::Compare(op));
    let atomic = Atomic::ALL.iter().map(|&op| Op::Atomic(op));
    let shuffle = Shuffle::ALL.iter().map(|&op| Op::Shuffle(op));
    let mut all = fixed.into_iter().chain(unary).chain(binary).chain(compare).chain(atomic).chain(shuffle);
    all.find(|&op| mnemonic(op) == word)
}

/// The source's name in `%name.3`.
fn base_name(name: &str) -> &str {
    name.trim_start_matches('%').rsplit_once('.').map_or("", |(base, _)| base)
}

/// A constant as it is printed.
fn literal(word: &str) -> Option<Const> {
    match word {
        "true" => return Some(Const::bool(true)),
        "false" => return Some(Const::bool(false)),
        _ => {}
    }
    let numbers = DType::ALL.into_iter().filter(|&dtype| dtype != DType::Bool);
    let (dtype, digits) = numbers
        .filter_map(|dtype| Some((dtype, word.strip_suffix(dtype.name())?)))
        .min_by_key(|found| found.1.len())?;
    match dtype {
        _ if dtype.is_float() => Some(Const::float(dtype, digits.parse().ok()?)),
        DType::U64 => Some(Const::int(dtype, digits.parse::<u64>().ok()? as i64)),
        _ => Some(Const::int(dtype, digits.parse().ok()?)),
    }
}

/// What Rust's debug form of a string says.
fn unescape(literal: &str) -> Option<String> {
    let inner = literal.strip_prefix('"')?.strip_suffix('"')?;
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        out.push(match chars.next()? {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            '0' => '\0',
            'u' => {
                let code: String = chars.by_ref().skip(1).take_while(|&c| c != '}').collect();
                char::from_u32(u32::from_str_radix(&code, 16).ok()?)?
            }
            c => c,
        });
    }
    Some(out)
}
