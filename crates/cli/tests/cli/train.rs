//! `bullet train`: where settings come from, and what a run leaves behind.

use crate::run::{Place, TINY};

#[test]
fn the_command_line_comes_before_the_file_and_the_file_before_defaults() {
    let place = Place::new("precedence");
    let config = "[model]\ndim = 16\nlayers = 2\nheads = 2\nff = 32\nseq = 12\n\
                  [tokenizer]\nkind = \"char\"\n[data]\npath = \"text.txt\"\n\
                  [train]\nsteps = 500\nbatch_size = 3\nname = \"filed\"\neval_batches = 2\n";
    std::fs::write(place.path("run.toml"), config).unwrap();
    let report =
        place.json("train run.toml --steps 6 --set train.batch_size=2 --set optim.lr=0.01 --lr 0.02 -q");
    assert_eq!((&report["steps"], &report["ending"]), (&6.into(), &"completed".into()));
    assert_eq!(report["folder"], "runs/filed");
    let saved = place.json("info runs/filed/last.bullet");
    let config = &saved["training"]["config"];
    assert_eq!(config["train"]["steps"], 6, "an option");
    assert_eq!(config["train"]["batch_size"], 2, "--set");
    assert_eq!(config["optim"]["lr"], 0.02, "an option is nearer than --set");
    assert_eq!(config["model"]["dim"], 16, "the file");
    assert_eq!(config["optim"]["kind"], "adamw", "the default");
    for file in ["config.toml", "last.bullet", "best.bullet", "log.jsonl", "loss.svg"] {
        assert!(place.path("runs/filed").join(file).exists(), "{file}");
    }
    let shown = place.ok("train run.toml --steps 6 --print-config");
    assert!(shown.contains("steps = 6\n") && shown.contains("batch_size = 3\n"), "{shown}");
    let dotted = "--train.batch_size 1_000 --model.dim=64 --optim.kind sgd --train.batch_size 7";
    let shown = place.ok(&format!("train run.toml {dotted} --print-config"));
    for line in ["batch_size = 7\n", "dim = 64\n", "kind = \"sgd\"\n", "kind = \"char\"\n"] {
        assert!(shown.contains(line), "no {line:?} in {shown}");
    }
}

#[test]
fn a_folder_of_texts_trains() {
    let place = Place::new("folder");
    std::fs::create_dir(place.path("texts")).unwrap();
    std::fs::rename(place.path("text.txt"), place.path("texts/a.txt")).unwrap();
    std::fs::write(place.path("texts/b.md"), "A second text with Zebras.\n".repeat(20)).unwrap();
    place.ok(&format!("train --data texts --out run {TINY} --steps 3 -q"));
    let alphabet = place.json("eval run --data texts");
    assert_eq!(alphabet["unknown_characters"], 0);
}

#[test]
fn a_run_resumed_for_more_steps_ends_as_one_that_went_through() {
    let place = Place::new("resume");
    let dropout = format!("{TINY} --dropout 0.1");
    place.ok(&format!("train --data text.txt --out whole {dropout} --steps 30 -q"));
    place.ok(&format!("train --data text.txt --out part {dropout} --steps 17 -q"));
    let said = place.run("train --resume part --steps 30");
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.err.contains("steps 17 to 30"), "{}", said.err);
    let (whole, part) = (place.tensors("whole/last.bullet"), place.tensors("part/last.bullet"));
    assert!(whole.len() > 40);
    assert_eq!(whole, part);
}

#[test]
fn an_older_run_is_not_replaced_unasked() {
    let place = Place::new("overwrite");
    place.trained("a", 3);
    let again = format!("train --data text.txt --out runs/a {TINY} --steps 4 -q");
    let said = place.run(&again);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("holds a run already") && said.err.contains("--overwrite"), "{}", said.err);
    assert_eq!(place.step("runs/a/last.bullet"), 3);
    place.ok(&format!("{again} --overwrite"));
    assert_eq!(place.step("runs/a/last.bullet"), 4);
}

#[test]
fn a_file_of_settings_is_not_replaced_unasked() {
    let place = Place::new("own-settings");
    std::fs::create_dir(place.path("project")).unwrap();
    let own = "# Found by much trying.\n[train]\nsteps = 3\n";
    std::fs::write(place.path("project/config.toml"), own).unwrap();
    let command = format!("train project/config.toml --data text.txt --out project {TINY} -q");
    let said = place.run(&command);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("project/config.toml was not written by a run"), "{}", said.err);
    assert_eq!(std::fs::read_to_string(place.path("project/config.toml")).unwrap(), own);
    // What a run left that was stopped before its first step is in nobody's way.
    std::fs::write(place.path("project/config.toml"), place.ok("train --print-config")).unwrap();
    place.ok(&format!("{command} --steps 2"));
}

#[test]
fn a_copied_checkpoint_goes_on_in_a_folder_of_its_own() {
    let place = Place::new("branch");
    place.trained("a", 3);
    std::fs::copy(place.path("runs/a/last.bullet"), place.path("copy.bullet")).unwrap();
    place.ok("train --resume runs/a --steps 9 -q");
    place.ok("train --resume copy.bullet --name branch --steps 5 -q");
    assert_eq!((place.step("runs/a/last.bullet"), place.step("runs/branch/last.bullet")), (9, 5));
}

#[test]
fn progress_goes_to_standard_error_and_results_to_standard_output() {
    let place = Place::new("streams");
    let said = place.run(&format!("train --data text.txt --out run {TINY} --steps 12"));
    for words in ["tokens/s", "ETA", "validation loss", "step 12/12"] {
        assert!(said.err.contains(words), "no {words:?} in {}", said.err);
    }
    assert!(
        said.out.contains("bullet generate run/best.bullet") && !said.out.contains("ETA"),
        "{}",
        said.out
    );
    let quiet = place.run(&format!("train --data text.txt --out quiet {TINY} --steps 12 -q"));
    assert_eq!(quiet.err, "");
}

#[test]
fn a_run_goes_on_from_any_working_folder() {
    let place = Place::new("elsewhere");
    place.trained("a", 5);
    std::fs::create_dir(place.path("other")).unwrap();
    // Of the same name, and not the text: the checksum tells.
    std::fs::write(place.path("other/text.txt"), "another text\n".repeat(100)).unwrap();
    let said = place.run_in("other", "train --resume ../runs/a --steps 9");
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(place.step("runs/a/last.bullet"), 9);
    let here = place.json("eval runs/a")["loss"].as_f64().unwrap();
    let said = place.run_in("other", "eval ../runs/a --json");
    let there: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(there["loss"].as_f64(), Some(here), "{}", said.err);
}

#[test]
fn a_moved_project_and_a_moved_text_are_found() {
    let place = Place::new("moved");
    for folder in ["old", "else"] {
        std::fs::create_dir(place.path(folder)).unwrap();
    }
    std::fs::rename(place.path("text.txt"), place.path("old/text.txt")).unwrap();
    let said = place.run_in("old", &format!("train --data text.txt --out runs/a {TINY} --steps 5 -q"));
    assert_eq!(said.code, Some(0), "{}", said.err);
    std::fs::rename(place.path("old"), place.path("new")).unwrap();
    let said = place.run_in("else", "train --resume ../new/runs/a --steps 7 -q");
    assert_eq!(said.code, Some(0), "the run folder and the text moved together: {}", said.err);
    std::fs::rename(place.path("new/text.txt"), place.path("else/renamed.txt")).unwrap();
    let said = place.run_in("new", "train --resume runs/a --steps 9 -q");
    assert_eq!(said.code, Some(1), "{}", said.err);
    for words in [
        "`data.path` = text.txt",
        "new/text.txt: No such file",
        "hint: name the same text with",
        "--data PATH",
    ] {
        assert!(said.err.contains(words), "no {words:?} in {}", said.err);
    }
    let said = place.run_in("new", "eval runs/a");
    assert!(
        said.err.contains("new/text.txt: No such file") && said.err.contains("hint: --data"),
        "{}",
        said.err
    );
    let said = place.run_in("new", "train --resume runs/a --steps 9 -q --data ../else/renamed.txt");
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(place.step("new/runs/a/last.bullet"), 9);
    let said = place.run("eval new/runs/a");
    assert_eq!(said.code, Some(0), "the new place is remembered: {}", said.err);
}

#[test]
fn a_run_goes_on_with_its_own_text_only() {
    let place = Place::new("same-text");
    place.trained("a", 5);
    let text = std::fs::read_to_string(place.path("text.txt")).unwrap();
    // In the last tenth, which is the validation text: as long as it was.
    std::fs::write(place.path("text.txt"), format!("{}tac.\n", &text[..text.len() - 5])).unwrap();
    for command in [
        "train --resume runs/a --steps 9",
        "eval runs/a",
        "train --resume runs/a --steps 9 --data ./text.txt",
    ] {
        let said = place.run(command);
        assert_eq!(said.code, Some(1), "{command}: {}", said.err);
        assert!(said.err.contains("the training text is not the one"), "{command}: {}", said.err);
    }
    assert_eq!(place.step("runs/a/last.bullet"), 5);
}
