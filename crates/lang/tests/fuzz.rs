//! Mutated sources end in diagnostics or in kernels that verify, never in panics; `BULLET_FUZZ_SECONDS` says for
//! how long, `BULLET_FUZZ_SEED` where it begins.

#[path = "random/generate.rs"]
#[allow(dead_code)]
mod generate;
#[allow(dead_code)]
mod sources;

use std::time::{Duration, Instant};

use bullet_lang::adjoint::{AdjointOptions, adjoint};
use bullet_lang::emit::cuda::{CudaOptions, source};
use bullet_lang::ir::Kernel;
use bullet_lang::{Options, compile};
use generate::Random;

/// Pieces that mutations put in.
const PIECES: &[&str] = &[
    "x",
    "i",
    "n",
    "1",
    "0",
    "0.5",
    "-",
    "not ",
    " and ",
    " or ",
    " if x else ",
    "(",
    ")",
    "[",
    "]",
    ",",
    ":",
    ".x",
    ".shape",
    "[0]",
    "[i]",
    " + ",
    " * ",
    " // ",
    " ** ",
    " @ ",
    "=",
    "==",
    "wp.vec3(1.0, 2.0, 3.0)",
    "wp.tid()",
    "float(",
    "int(",
    "wp.where(",
    "wp.atomic_add(",
    "range(",
    "break",
    "continue",
    "return",
    "\n",
    "\n    ",
    "\n        ",
    "for k in range(3):",
    "while True:",
    "if n > 1:",
    "else:",
    "wp.randf(s)",
    "True",
    "None",
    "\"%d\"",
    "wp.uint8(3)",
    "wp.float64(x)",
    "wp.mat22()",
    "assert ",
    "x.y = 1",
    "a = b = 1.0",
    "é",
    "\t",
    "0x",
    "1e",
    "'",
];

fn sources() -> Vec<String> {
    let mut all: Vec<String> = sources::kinds().into_iter().map(|(_, text)| text).collect();
    all.sort();
    all.extend((1..20).map(generate::module));
    all
}

/// A place between two characters.
fn place(text: &str, random: &mut Random) -> usize {
    let mut at = random.below(text.len() + 1);
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn mutate(text: &mut String, random: &mut Random) {
    let (a, b) = (place(text, random), place(text, random));
    let (low, high) = (a.min(b), a.max(b));
    match random.below(5) {
        0 => text.insert_str(a, PIECES[random.below(PIECES.len())]),
        1 => {
            let end = (low..=high.min(low + 12)).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(low);
            text.replace_range(low..end, "");
        }
        2 => {
            let end = (low..=high.min(low + 12)).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(low);
            text.replace_range(low..end, PIECES[random.below(PIECES.len())]);
        }
        3 => {
            let mut lines: Vec<&str> = text.lines().collect();
            let (from, to) = (random.below(lines.len().max(1)), random.below(lines.len().max(1)));
            if from < lines.len() && to < lines.len() {
                lines.swap(from, to);
            }
            *text = lines.join("\n") + "\n";
        }
        _ => {
            let lines: Vec<&str> = text.lines().collect();
            let at = random.below(lines.len().max(1));
            let doubled: Vec<&str> = lines
                .iter()
                .enumerate()
                .flat_map(|(i, line)| vec![*line; if i == at { 2 } else { 1 }])
                .collect();
            *text = doubled.join("\n") + "\n";
        }
    }
}

#[test]
fn fuzz_mutated_sources() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = number("BULLET_FUZZ_SECONDS").unwrap_or(1);
    let end = Instant::now() + Duration::from_secs(seconds);
    let sources = sources();
    let seed = number("BULLET_FUZZ_SEED").unwrap_or(std::process::id().into());
    let mut random = Random::new(seed);
    let (mut tried, mut compiled, mut differentiated) = (0, 0, 0);
    while Instant::now() < end {
        let mut text = sources[random.below(sources.len())].clone();
        for _ in 0..1 + random.below(4) {
            mutate(&mut text, &mut random);
        }
        let result = std::panic::catch_unwind(|| {
            let Ok(kernels) = compile("fuzz.py", &text, Options::default()) else { return (0, 0) };
            let mut made = 0;
            for kernel in &kernels {
                kernel.verify().unwrap_or_else(|e| panic!("{e}\n{kernel}"));
                let printed = kernel.to_string();
                assert_eq!(Kernel::parse(&printed).unwrap_or_else(|e| panic!("{e}")).to_string(), printed);
                if let Ok(adjoint) = adjoint(kernel, AdjointOptions::default()) {
                    source(&[kernel, &adjoint.kernel], CudaOptions::default());
                    made += 1;
                }
            }
            (kernels.len(), made)
        });
        match result {
            Ok((kernels, made)) => {
                compiled += kernels;
                differentiated += made;
            }
            Err(_) => panic!("this source made the compiler panic (seed {seed}):\n{text}"),
        }
        tried += 1;
    }
    println!("{tried} sources, {compiled} kernels, {differentiated} adjoints");
    assert!(compiled > 0 && differentiated > 0);
}
