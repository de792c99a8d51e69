//! `bullet info`.

use std::path::Path;

use bullet_nn::format::{Header, ModelFile, TensorRef};
use serde_json::{Value, json};

use super::model_path;
use crate::args::InfoArgs;
use crate::failure::Failure;
use crate::output::{self, count};

pub(crate) fn run(args: &InfoArgs) -> Result<(), Failure> {
    let path = model_path(&args.file)?;
    let file = ModelFile::open(&path)?;
    if args.verify {
        file.verify().map_err(|e| e.context(path.display()))?;
    }
    let size = std::fs::metadata(&path).map_or(0, |m| m.len());
    if args.json {
        output::json(&as_json(&path, &file, size, args.verify))?;
        return Ok(());
    }
    print(&path, &file, size, args.verify)
}

/// What `--verify` found, in words; damage ended the command before.
fn checked(file: &ModelFile, verified: bool) -> &'static str {
    match file {
        ModelFile::Safetensors(_) => "without checksums",
        ModelFile::Bullet(_) if verified => "every byte verified",
        ModelFile::Bullet(_) => "header verified (--verify checks the tensors)",
    }
}

fn format_name(file: &ModelFile) -> &'static str {
    match file {
        ModelFile::Bullet(_) => "bullet",
        ModelFile::Safetensors(_) => "safetensors",
    }
}

fn checksum(file: &ModelFile, t: &TensorRef<'_>) -> Option<String> {
    match file {
        ModelFile::Bullet(f) => f.checksum(t.name).map(|crc| format!("{crc:08x}")),
        ModelFile::Safetensors(_) => None,
    }
}

/// Numbers in tensors of the model; the optimizer's don't count.
fn parameters(tensors: &[TensorRef<'_>]) -> usize {
    let of_model = tensors.iter().filter(|t| t.name.starts_with("model."));
    of_model.map(|t| t.shape.iter().product::<usize>()).sum()
}

fn as_json(path: &Path, file: &ModelFile, size: u64, verified: bool) -> Value {
    let (header, tensors) = (file.header(), file.tensors());
    let rows: Vec<Value> = tensors
        .iter()
        .map(|t| {
            json!({
                "name": t.name, "dtype": t.dtype.name(), "shape": t.shape, "bytes": t.bytes.len(),
                "crc32c": checksum(file, t),
            })
        })
        .collect();
    let tokenizer = header.tokenizer.as_ref();
    json!({
        "path": path.display().to_string(), "format": format_name(file), "bytes": size,
        "verified": verified && matches!(file, ModelFile::Bullet(_)),
        "model": header.model, "parameters": parameters(&tensors),
        "tokenizer": tokenizer.map(|t| json!({ "kind": t.kind(), "vocab_size": t.vocab_size() })),
        "training": header.training, "metadata": header.metadata, "tensors": rows,
    })
}

fn print(path: &Path, file: &ModelFile, size: u64, verified: bool) -> Result<(), Failure> {
    let tensors = file.tensors();
    let what = format!("{} file, {}, {}", format_name(file), output::bytes(size), checked(file, verified));
    output::line(format_args!("{}: {what}", path.display()))?;
    print_header(file.header())?;
    let total = count(parameters(&tensors) as f64);
    output::line(format_args!("\n{} tensors, {total} parameters", tensors.len()))?;
    // Names come from the file, which may hold control characters.
    let rows: Vec<[String; 5]> = tensors
        .iter()
        .map(|t| {
            [
                t.name.escape_debug().to_string(),
                t.dtype.name().to_string(),
                format!("{:?}", t.shape),
                output::bytes(t.bytes.len() as u64),
                checksum(file, t).unwrap_or_default(),
            ]
        })
        .collect();
    let width = |i: usize| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0);
    let (a, b, c, d) = (width(0), width(1), width(2), width(3));
    for [name, dtype, shape, bytes, crc] in &rows {
        let row = format!("  {name:a$}  {dtype:b$}  {shape:c$}  {bytes:>d$}  {crc}");
        output::line(row.trim_end())?;
    }
    Ok(())
}

fn print_header(header: &Header) -> Result<(), Failure> {
    if !header.model.is_null() {
        output::line("\nmodel")?;
        print_fields(&header.model)?;
    }
    if let Some(t) = &header.tokenizer {
        output::line(format_args!("\ntokenizer\n  {}, {} tokens", t.kind(), t.vocab_size()))?;
    }
    if let Some(training) = &header.training {
        output::line("\ntraining")?;
        print_fields(training)?;
    }
    if !header.metadata.is_empty() {
        output::line("\nmetadata")?;
        for (key, value) in &header.metadata {
            output::line(format_args!("  {} = {}", key.escape_debug(), value.escape_debug()))?;
        }
    }
    Ok(())
}

/// `key = value`, a line each; nested ones as `section.key`.
fn print_fields(value: &Value) -> Result<(), Failure> {
    fn visit(prefix: &str, value: &Value, out: &mut Vec<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| {
                let key = key.escape_debug();
                visit(
                    &if prefix.is_empty() { key.to_string() } else { format!("{prefix}.{key}") },
                    value,
                    out,
                );
            }),
            other => out.push(format!("  {prefix} = {other}")),
        }
    }
    let mut lines = Vec::new();
    visit("", value, &mut lines);
    Ok(output::line(lines.join("\n"))?)
}
