//! Diagnostics: what is wrong with a user's source, where, and what to do about it.
//!
//! A pass that finds a mistake records it and goes on, so that one compile reports several. [`Diagnostics`] owns the
//! source text, so that it can be printed far from the compiler.

use std::fmt;

/// A range of bytes of the source text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The range from `start` to `end`.
    pub fn new(start: u32, end: u32) -> Span {
        Span { start, end }
    }

    /// The smallest range that holds both.
    pub fn to(self, other: Span) -> Span {
        Span { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// One mistake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// Where it is.
    pub span: Span,
    /// What is wrong and what was expected; one line without a full stop.
    pub message: String,
    /// What to do, if there is something better to say than the message.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// A mistake at a place.
    pub fn new(span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic { span, message: message.into(), hint: None }
    }

    /// With what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Diagnostic {
        self.hint = Some(hint.into());
        self
    }
}

/// Where a part of a source text came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Origin {
    /// Of the part.
    pub(crate) start: u32,
    pub(crate) file: String,
    /// Of the part's first line, counted from 1.
    pub(crate) line: usize,
    /// How many columns each of its lines was moved to the left.
    pub(crate) indent: usize,
}

/// The mistakes of one compile, in the order of the source, with the source they are in. Never empty when returned as an
/// error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostics {
    /// By their starts; the first starts at 0.
    origins: Vec<Origin>,
    text: String,
    items: Vec<Diagnostic>,
}

impl Diagnostics {
    /// The mistakes found in `text`, sorted by place, each once.
    pub fn new(file: &str, text: &str, items: Vec<Diagnostic>) -> Diagnostics {
        Diagnostics::of_parts(
            vec![Origin { start: 0, file: file.into(), line: 1, indent: 0 }],
            text.into(),
            items,
        )
    }

    /// The mistakes found in a text that was put together of parts.
    pub(crate) fn of_parts(origins: Vec<Origin>, text: String, mut items: Vec<Diagnostic>) -> Diagnostics {
        items.sort_by_key(|item| (item.span.start, item.span.end));
        items.dedup();
        Diagnostics { origins, text, items }
    }

    /// The mistakes.
    pub fn items(&self) -> &[Diagnostic] {
        &self.items
    }

    /// File, line and column of a byte, both counted from 1; columns count characters.
    pub fn position(&self, byte: u32) -> (&str, usize, usize) {
        let origin = self.origins.iter().rfind(|origin| origin.start <= byte).unwrap_or(&self.origins[0]);
        let (line, column) = self.place(byte);
        let first = self.place(origin.start).0;
        (&origin.file, line - first + origin.line, column + origin.indent)
    }

    /// Line and column in the text as it was compiled.
    fn place(&self, byte: u32) -> (usize, usize) {
        let before = self.text.get(..byte as usize).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |i| i + 1);
        (line, before[start..].chars().count() + 1)
    }

    fn render(&self, item: &Diagnostic, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, column) = self.place(item.span.start);
        let text = self.text.lines().nth(at - 1).unwrap_or("");
        let (file, line, shown) = self.position(item.span.start);
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        writeln!(f, "error: {}", item.message)?;
        writeln!(f, "{margin}--> {file}:{line}:{shown}")?;
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {text}")?;
        let covered = self.text.get(item.span.start as usize..item.span.end as usize).unwrap_or("");
        let width = covered.lines().next().unwrap_or("").chars().count().max(1);
        let indent: String =
            text.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        writeln!(f, "{margin} | {indent}{}", "^".repeat(width))?;
        match &item.hint {
            Some(hint) => writeln!(f, "{margin} = hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, item) in self.items.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            self.render(item, f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}
