//! `bullet generate`.

use std::io::{Read, Write};
use std::process::Stdio;

use crate::run::{Place, Said};

#[test]
fn a_seed_decides_the_text() {
    let place = Place::new("seed");
    place.trained("a", 5);
    let text = |seed: &str| place.ok(&format!("generate runs/a -n 80 --prompt the --seed {seed} -q"));
    assert_eq!(text("1"), text("1"));
    assert_ne!(text("1"), text("2"));
    assert!(text("1").starts_with("the"));
    let greedy = |seed: &str| place.ok(&format!("generate runs/a -n 30 --temperature 0 --seed {seed} -q"));
    assert_eq!(greedy("1"), greedy("2"));
    let json = place.json("generate runs/a -n 80 --prompt the --seed 1");
    assert_eq!(format!("the{}\n", json["text"].as_str().unwrap().trim_end_matches('\n')), text("1"));
    assert_eq!((&json["seed"], &json["tokens"]), (&1.into(), &80.into()));
}

#[test]
fn another_call_writes_another_text_and_tells_its_seed() {
    let place = Place::new("any-seed");
    place.trained("a", 3);
    let said = place.run("generate runs/a -n 60");
    let seed = said.err.split("--seed ").nth(1).unwrap().trim_end_matches(['\n', ']']);
    assert_eq!(place.ok(&format!("generate runs/a -n 60 --seed {seed}")), said.out);
}

#[test]
fn text_streams_and_a_reader_that_leaves_is_no_error() {
    let place = Place::new("pipe");
    place.trained("a", 3);
    let mut child = place.start("generate runs/a -n 100000000 --prompt cat");
    let mut first = [0; 200];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert!(first.starts_with(b"cat"), "text comes before the end, which is hours away");
    drop(child.stdout.take());
    let said = Said::from(child.wait_with_output().unwrap());
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
}

#[test]
fn unknown_characters_are_left_out_and_named() {
    let place = Place::new("unknown");
    place.trained("a", 3);
    let said = place.run("generate runs/a -n 5 --prompt caßt€ --seed 1");
    assert_eq!(said.code, Some(0));
    assert!(said.out.starts_with("cat"), "{}", said.out);
    assert!(
        said.err.contains("warning: ") && said.err.contains("'ß' (U+00DF) at position 2"),
        "{}",
        said.err
    );
    let said = place.run("generate runs/a -n 5 --prompt ßß");
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("no character of the prompt"), "{}", said.err);
}

#[test]
fn prompts_come_from_standard_input_or_may_be_missing() {
    let place = Place::new("stdin");
    place.trained("a", 3);
    let pipe = |bytes: &[u8]| {
        let mut command = place.command("generate runs/a -n 3 --prompt - --seed 1 -q");
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        Said::from(child.wait_with_output().unwrap())
    };
    assert!(pipe(b"the dog").out.starts_with("the dog"));
    let said = pipe(b"the \xff");
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("not UTF-8: byte 4"), "{}", said.err);
    assert!(place.ok("generate runs/a -n 3 --seed 1").starts_with('\n'), "no prompt: a line begins");
    assert_eq!(place.ok("generate runs/a -n 0 --prompt cat -q"), "cat\n");
}

#[test]
fn prompts_longer_than_the_context_work() {
    let place = Place::new("long");
    place.trained("a", 3);
    let prompt = "catsat".repeat(20);
    assert!(place.ok(&format!("generate runs/a -n 30 --prompt {prompt} --seed 1")).len() > 140);
}
