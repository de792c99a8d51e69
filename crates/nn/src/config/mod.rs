//! The settings of a run: one tree of structs, read from TOML, changed by `key=value`, checked as a whole.
//!
//! [`fields`] lists every setting with its documentation and default; files, command-line options and the reference in
//! docs/training.md all come from that list.

mod nearest;
mod schema;
mod validate;
mod value;

use std::fmt::Write as _;
use std::path::Path;

pub use schema::{
    Config, DataConfig, FeedForward, Field, ModelConfig, Norm, OptimConfig, OptimizerKind, Positions,
    Precision, ScheduleKind, TextEncoding, TokenizerConfig, TokenizerKind, TrainConfig, fields, sections,
};

use crate::error::{Error, Result};

impl Config {
    /// The settings in a TOML file; those it leaves out have their defaults. Not yet [validated](Config::validate).
    ///
    /// # Errors
    /// The file cannot be read, or as [`Config::from_toml`].
    pub fn load(path: impl AsRef<Path>) -> Result<Config> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
        let text = String::from_utf8(bytes).map_err(|_| {
            Error::argument(format!(
                "{} is no file of settings: those are TOML, which is UTF-8 text",
                path.display()
            ))
        })?;
        Config::from_toml(&text).map_err(|e| e.context(path.display()))
    }

    /// The settings in TOML text; those it leaves out have their defaults. Not yet [validated](Config::validate).
    ///
    /// # Errors
    /// The text is not TOML; a section or key is unknown; a value has the wrong type. The message names line, key and
    /// value, all of them if there are several, and what would do.
    pub fn from_toml(text: &str) -> Result<Config> {
        let table: toml::Table = text.parse().map_err(|e| not_toml(text, &e))?;
        let mut config = Config::default();
        let mut wrong = Vec::new();
        for (section, value) in &table {
            match value {
                toml::Value::Table(entries) if sections().iter().any(|(name, _)| name == section) => {
                    for (name, value) in entries {
                        config
                            .set_entry(section, name, value)
                            .unwrap_or_else(|e| wrong.push((section, name, e)));
                    }
                }
                toml::Value::Table(_) => wrong.push((section, section, unknown_section(section))),
                _ => wrong.push((section, section, unknown_key(section))),
            }
        }
        if wrong.is_empty() {
            return Ok(config);
        }
        let mut lines: Vec<(usize, String)> =
            wrong.into_iter().map(|(section, name, e)| (line_of(text, section, name), e)).collect();
        lines.sort();
        let lines: Vec<String> = lines
            .into_iter()
            .map(|(line, e)| if line == 0 { e } else { format!("line {line}: {e}") })
            .collect();
        Err(Error::argument(lines.join("\n")))
    }

    fn set_entry(&mut self, section: &str, name: &str, value: &toml::Value) -> Result<(), String> {
        let key = format!("{section}.{name}");
        let field = fields().iter().find(|f| f.key == key).ok_or_else(|| unknown_key(&key))?;
        if field.set_value(self, value) {
            return Ok(());
        }
        Err(wrong_value(field, &shown(value)))
    }

    /// Sets one setting from text: `set("train.batch_size", "32")`. The key is read as by [`find`].
    ///
    /// # Errors
    /// No such key, or a name that several sections have; text that is no value of its type.
    pub fn set(&mut self, key: &str, text: &str) -> Result<()> {
        let field = find(key)?;
        if field.set_text(self, text.trim()) {
            return Ok(());
        }
        Err(Error::argument(wrong_value(field, text)))
    }

    /// Sets one setting from `key=value`.
    ///
    /// # Errors
    /// There is no `=`, or as [`Config::set`].
    pub fn set_pair(&mut self, pair: &str) -> Result<()> {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(Error::argument(format!(
                "{pair:?} is no setting: write key=value, such as train.batch_size=32"
            )));
        };
        self.set(key.trim(), value)
    }

    /// The value of a setting, as text that [`Config::set`] reads.
    ///
    /// # Errors
    /// As [`find`].
    pub fn get(&self, key: &str) -> Result<String> {
        Ok(find(key)?.get(self))
    }

    /// All settings as a TOML file, each after its documentation.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        for (section, about) in sections() {
            let _ = write!(out, "{}# {about}\n[{section}]\n", if out.is_empty() { "" } else { "\n" });
            for field in fields().iter().filter(|f| f.section() == *section) {
                let _ = write!(out, "# {}\n{} = {}\n", field.doc, field.name(), field.get_toml(self));
            }
        }
        out
    }
}

/// The setting called `key`: `train.batch_size`, `train.batch-size`, or `batch_size` alone if no other section has one.
///
/// # Errors
/// There is none (the message says which is near), or several sections have one.
pub fn find(key: &str) -> Result<&'static Field> {
    let key = key.replace('-', "_");
    if let Some(field) = fields().iter().find(|f| f.key == key) {
        return Ok(field);
    }
    let named: Vec<&Field> = fields().iter().filter(|f| f.name() == key).collect();
    match named[..] {
        [field] => Ok(field),
        [] => Err(Error::argument(unknown_key(&key))),
        _ => {
            let keys: Vec<&str> = named.iter().map(|f| f.key).collect();
            Err(Error::argument(format!("`{key}` could be {}: write the section, too", keys.join(" or "))))
        }
    }
}

fn unknown_key(key: &str) -> String {
    if let Some(near) = nearest::nearest(key, fields().iter().map(|f| f.key)) {
        return format!("unknown setting `{key}`; did you mean `{near}`?");
    }
    let section = key.split('.').next().unwrap_or_default();
    let names: Vec<&str> = fields().iter().filter(|f| f.section() == section).map(Field::name).collect();
    match names[..] {
        [] => unknown_section(section),
        _ => format!("unknown setting `{key}`; section [{section}] has {}", names.join(", ")),
    }
}

fn unknown_section(section: &str) -> String {
    let names: Vec<&str> = sections().iter().map(|(name, _)| *name).collect();
    match nearest::nearest(section, names.iter().copied()) {
        Some(near) => format!("unknown section [{section}]; did you mean [{near}]?"),
        None => format!("unknown section [{section}]; there are {}", names.join(", ")),
    }
}

fn wrong_value(field: &Field, value: &str) -> String {
    let value = if value.trim().is_empty() { "nothing" } else { value };
    format!(
        "`{}` = {value}: expected {} (its default is {})",
        field.key,
        field.expected,
        if field.default.is_empty() { "empty" } else { &field.default }
    )
}

fn not_toml(text: &str, e: &toml::de::Error) -> Error {
    let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count());
    let line = before.matches('\n').count() + 1;
    Error::argument(format!(
        "not TOML: line {line}, column {}: {}",
        column + 1,
        e.message().replace('\n', ", ")
    ))
}

/// A value of a file for a message.
fn shown(value: &toml::Value) -> String {
    match value {
        toml::Value::String(s) => format!("{s:?}"),
        toml::Value::Integer(n) => n.to_string(),
        toml::Value::Float(x) => format!("{x:?}"),
        toml::Value::Boolean(b) => b.to_string(),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => {
            format!("a TOML {}", value.type_str())
        }
    }
}

/// The line, from 1, at which `name` stands in `section`; 0 if it is written in a way that this does not find.
fn line_of(text: &str, section: &str, name: &str) -> usize {
    let mut current = String::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            current = header.split(']').next().unwrap_or_default().trim().to_string();
            if section == name && current == section {
                return i + 1;
            }
            continue;
        }
        let Some((key, _)) = line.split_once('=') else { continue };
        let key = key.trim().trim_matches('"');
        let dotted = key
            .split_once('.')
            .is_some_and(|(s, k)| current.is_empty() && s.trim() == section && k.trim() == name);
        if dotted || key == name && (current == section || current.is_empty() && section == name) {
            return i + 1;
        }
    }
    0
}

#[cfg(test)]
mod tests;
