//! Runs that are stopped: by Ctrl-C, and by `kill -9` at any moment.

#![cfg(unix)]

use std::io::Read;
use std::process::Child;
use std::time::Duration;

use bullet_nn::rng::Rng;

use crate::run::{Place, Said, TINY, wait_for};

fn signal(child: &std::process::Child, signal: i32) {
    // SAFETY: kill has no memory effects here; the child is ours and not yet waited for, so that its id is its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

#[test]
fn ctrl_c_saves_and_the_printed_command_goes_on_bit_for_bit() {
    let place = Place::new("ctrl-c");
    // Long enough that the signal arrives before the end.
    let long = format!("train --data text.txt {TINY} --dropout 0.1 --eval-interval 0 --save-interval 1");
    let child = place.start(&format!("{long} --out part --steps 1000000"));
    wait_for(&place.path("part/last.bullet"));
    signal(&child, libc::SIGINT);
    let said = Said::from(child.wait_with_output().unwrap());
    assert_eq!(said.code, Some(130), "{}", said.err);
    let command = said.err.lines().find_map(|l| l.strip_prefix("to go on: bullet ")).unwrap().to_string();
    let step = place.step("part/last.bullet");
    assert!(step > 0 && said.err.contains(&format!("stopped at step {step}")), "{}", said.err);
    place.ok(&format!("{command} --steps {} -q", step + 7));
    place.ok(&format!("{long} --out whole --steps {} -q", step + 7));
    assert_eq!(place.tensors("part/last.bullet"), place.tensors("whole/last.bullet"));
}

#[test]
fn a_stopped_run_reports_to_scripts_too() {
    let place = Place::new("ctrl-c-json");
    let long = format!("train --data text.txt --out run {TINY} --save-interval 1 --steps 1000000 --json");
    let child = place.start(&long);
    wait_for(&place.path("run/last.bullet"));
    signal(&child, libc::SIGTERM);
    let said = Said::from(child.wait_with_output().unwrap());
    assert_eq!(said.code, Some(130), "{}", said.err);
    let report: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(
        (&report["ending"], &report["resume"]),
        (&"interrupted".into(), &"bullet train --resume run".into())
    );
}

/// Starts a command that prepares for long, and returns it once it does.
fn preparing(place: &Place, command: &str) -> Child {
    let mut rng = Rng::new(5, 0, 0);
    let letter = |i| if i % 9 == 0 { ' ' } else { (b'a' + rng.below(26) as u8) as char };
    std::fs::write(place.path("long.txt"), (0..6_000_000).map(letter).collect::<String>()).unwrap();
    let mut child = place.start(&format!("{command} --tokenizer-kind bpe --vocab-size 8000"));
    let mut line = String::new();
    // The first line of a run, byte by byte: what follows is for whoever waits for the child.
    while !line.ends_with('\n') {
        let mut byte = [0];
        child.stderr.as_mut().unwrap().read_exact(&mut byte).unwrap();
        line.push(char::from(byte[0]));
    }
    child
}

#[test]
fn before_the_first_step_a_signal_ends_the_run_at_once() {
    let place = Place::new("prepare");
    for (number, options) in [(libc::SIGINT, ""), (libc::SIGTERM, "--json")] {
        let child = preparing(&place, &format!("train --data long.txt --out run {TINY} --steps 1 {options}"));
        signal(&child, number);
        let said = Said::from(child.wait_with_output().unwrap());
        assert_eq!(said.code, Some(130), "{}", said.err);
        assert!(said.err.contains("stopped before the first step: nothing was trained"), "{}", said.err);
        assert!(!place.path("run").exists(), "the vocabulary was waited for");
        if options == "--json" {
            let report: serde_json::Value = serde_json::from_str(&said.out).unwrap();
            assert_eq!((&report["ending"], &report["steps"]), (&"interrupted".into(), &0.into()));
        } else {
            assert_eq!(said.out, "");
        }
    }
}

#[test]
fn after_the_last_save_a_signal_does_not_wait_for_the_evaluation() {
    let place = Place::new("evaluating");
    std::fs::write(place.path("long.txt"), "all work and no play ".repeat(1_000_000)).unwrap();
    // A minute and more of evaluation after one step.
    let child = place.start(&format!("train --data long.txt --out run {TINY} --steps 1 --val-fraction 0.99"));
    wait_for(&place.path("run/last.bullet"));
    std::thread::sleep(Duration::from_millis(300));
    signal(&child, libc::SIGINT);
    let said = Said::from(child.wait_with_output().unwrap());
    assert_eq!((said.code, said.out.as_str()), (Some(130), ""), "{}", said.err);
    assert!(said.err.contains("stopped: training is done, and saved"), "{}", said.err);
    assert_eq!(place.step("run/last.bullet"), 1);
}

#[test]
fn a_checkpoint_survives_kill_9_at_any_moment() {
    let place = Place::new("kill");
    let every = format!("{TINY} --eval-interval 0 --save-interval 1 -q");
    place.ok(&format!("train --data text.txt --out run {every} --steps 1"));
    let (mut rng, mut step) = (Rng::new(1, 2, 3), 1);
    let mut moved = 0;
    for round in 0..50 {
        let mut child = place.start("train --resume run --steps 1000000 -q");
        // Some kills hit the start, most the loop of steps and saves.
        std::thread::sleep(Duration::from_micros(rng.below(120_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let now = place.step("run/last.bullet");
        assert!(now >= step, "round {round}: step {step} became {now}");
        moved += usize::from(now > step);
        step = now;
    }
    assert!(moved > 5, "the kills came too early to mean anything: {moved} runs made a step");
    let left = std::fs::read_dir(place.path("run"))
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().ends_with(".tmp"));
    assert!(left.count() <= 1, "the next save removes what a kill leaves");
}
