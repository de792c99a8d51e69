//! What a user does wrong, and what the machine does: each message names the thing, its value and what would do.

use crate::run::{Place, Said, TINY};

/// Runs `train` with these settings; returns what it said, which must be an error with this exit code.
fn refused(place: &Place, code: i32, arguments: &str) -> String {
    let said = place.run(&format!("train --data text.txt --out runs/x {TINY} --steps 3 {arguments}"));
    assert_eq!((said.code, said.out.as_str()), (Some(code), ""), "{arguments}: {}", said.err);
    assert!(said.err.contains("error: "), "{}", said.err);
    said.err
}

#[test]
fn settings_that_cannot_be_are_explained() {
    let place = Place::new("settings");
    let cases: &[(&str, &[&str])] = &[
        (
            "--heads 3",
            &["`model.heads` = 3", "must divide model.dim = 16", "hint: set model.heads to one of 1, 2, 4"],
        ),
        ("--dim 0", &["`model.dim` = 0", "at least 1"]),
        ("--lr -1", &["`optim.lr` = -1", "above 0", "hint: "]),
        ("--lr=", &["`optim.lr` = nothing: expected a number"]),
        ("--lr fast", &["`optim.lr` = fast", "a number, such as 0.1"]),
        ("--dropout 1", &["`model.dropout` = 1.0"]),
        ("--positions sine", &["`model.positions` = sine", "one of learned, rope"]),
        ("--batch-size 0", &["`train.batch_size` = 0"]),
        (
            "--batch-size 9223372036854775807",
            &["`train.batch_size` = 9223372036854775807", "2^32 tokens", "hint: set"],
        ),
        ("--accumulation 9223372036854775807", &["train.accumulation = 9223372036854775807", "2^32 tokens"]),
        ("--data=", &["`--data` is empty", "hint: leave --data out"]),
        ("--tokenizer-kind bpe --vocab-size 300 --vocab 200", &["`model.vocab` = 200", "= 300", "hint: set"]),
        ("--set train.batch=2", &["unknown setting `train.batch`", "batch_size"]),
        ("--set batch_size", &["\"batch_size\" is no setting", "key=value"]),
        ("--batchsize 2", &["'--batchsize'", "--batch-size"]),
        (
            "--warmup 10",
            &["`optim.warmup` = 10", "train.steps = 3", "set optim.warmup to 3 or less", "train.steps to 10"],
        ),
        ("--dim -4", &["`model.dim` = -4", "a whole number from 0"]),
        ("--seq 18446744073709551615", &["`model.seq` = 18446744073709551615", "2^63 - 1"]),
        ("--threads 0", &["--threads", "from 1 to 256"]),
        ("--threads 60000", &["--threads", "from 1 to 256"]),
        ("--threads -1", &["--threads", "-1", "from 1 to 256"]),
        ("--val-fraction 2", &["`data.val_fraction` = 2.0"]),
    ];
    for (arguments, words) in cases {
        let message = refused(&place, 2, arguments);
        words.iter().for_each(|w| assert!(message.contains(w), "{arguments}: no {w:?} in {message}"));
        assert!(!message.contains("RUST_BACKTRACE") && !message.contains("panicked"), "{message}");
    }
    let both = refused(&place, 2, "--heads 3 --lr -1");
    assert!(both.contains("model.heads") && both.contains("optim.lr"), "all at once: {both}");
    assert!(!place.path("runs").exists(), "nothing was made");
}

#[test]
fn texts_that_cannot_be_trained_on_are_explained() {
    let place = Place::new("texts");
    let write = |name: &str, bytes: &[u8]| std::fs::write(place.path(name), bytes).unwrap();
    write("empty.txt", b"");
    write("latin1.txt", &b"caf\xe9 ".repeat(200));
    write("short.txt", b"too short");
    write("one.txt", b"x");
    std::fs::create_dir(place.path("nothing")).unwrap();
    let cases: &[(&str, &[&str])] = &[
        ("--data missing.txt", &["missing.txt", "No such file"]),
        ("--data text.txt/inside", &["text.txt/inside", "Not a directory"]),
        ("--data empty.txt", &["empty.txt is empty"]),
        ("--data nothing", &["nothing has no text file"]),
        ("--data latin1.txt", &["latin1.txt is not UTF-8", "0xe9 at offset 3", "lossy"]),
        ("--data short.txt", &["`model.seq` = 12", "has 8 tokens", "set model.seq to 7 or less"]),
        ("--data one.txt", &["has 0 tokens", "at least 2", "hint: give more text, or a smaller"]),
        ("--data latin1.txt", &["hint: save it as UTF-8", "`data.encoding` = lossy"]),
        ("--data /dev/zero", &["/dev/zero is a device"]),
        ("--seq 100000", &["`model.seq` = 100000", "hint: "]),
        ("--seq 4000000000 --batch-size 1", &["`model.seq` = 4000000000", "hint: "]),
        ("--tokenizer-path missing.bullet", &["missing.bullet"]),
    ];
    for (arguments, words) in cases {
        let message = refused(&place, 1, arguments);
        words.iter().for_each(|w| assert!(message.contains(w), "{arguments}: no {w:?} in {message}"));
    }
    place.ok(&format!("train --data latin1.txt --encoding lossy --out runs/lossy {TINY} --steps 2 -q"));
}

#[test]
fn vocabularies_that_do_not_match_are_explained() {
    let place = Place::new("vocabulary");
    place.trained("a", 2);
    let message = refused(&place, 2, "--tokenizer-path runs/a/best.bullet --vocab 5");
    assert!(message.contains("`model.vocab` = 5") && message.contains("tokens"), "{message}");
}

#[test]
fn files_of_settings_are_checked_line_by_line() {
    let place = Place::new("toml");
    std::fs::write(place.path("bad.toml"), "[model]\ndims = 16\n\n[train]\nsteps = \"many\"\n").unwrap();
    let said = place.run("train bad.toml");
    assert_eq!(said.code, Some(2));
    for words in ["line 2: unknown setting `model.dims`", "line 5: `train.steps` = \"many\"", "bad.toml"] {
        assert!(said.err.contains(words), "no {words:?} in {}", said.err);
    }
    std::fs::write(place.path("broken.toml"), "[train]\nsteps = 3\nseed 7\n").unwrap();
    let said = place.run("train broken.toml");
    assert!(said.err.contains("error: broken.toml: not TOML: line 3, column 6: "), "{}", said.err);
    assert_eq!(said.err.lines().count(), 1, "{}", said.err);
    std::fs::write(place.path("binary"), b"\xff\xfe").unwrap();
    let said = place.run("train binary");
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("binary is no file of settings"), "{}", said.err);
    let said = place.run("train missing.toml");
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("missing.toml") && said.err.contains("No such file"), "{}", said.err);
    let said = place.run("train text.txt");
    assert!(said.err.contains("hint: to train on this text: bullet train --data text.txt"), "{}", said.err);
}

#[cfg(unix)]
#[test]
fn a_path_that_may_not_be_read_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new("permission");
    let secret = place.path("text.txt");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::read(&secret).is_ok() {
        // The superuser reads everything.
        return;
    }
    assert!(refused(&place, 1, "").contains("text.txt: Permission denied"));
}

#[test]
fn models_that_cannot_be_used_are_explained() {
    let place = Place::new("models");
    place.trained("a", 2);
    std::fs::create_dir(place.path("empty")).unwrap();
    std::fs::write(place.path("empty.txt"), b"").unwrap();
    std::fs::copy(place.path("runs/a/last.bullet"), place.path("copy.bullet")).unwrap();
    for (arguments, code, words) in [
        ("generate text.txt", 1, "this is a text file"),
        ("generate missing.bullet", 1, "hint: `bullet demo` makes demo.bullet"),
        ("generate empty", 2, "neither last.bullet nor best.bullet"),
        ("generate runs/a --temperature -1", 2, "temperature = -1"),
        ("generate runs/a --top-k 0", 2, "top_k = 0"),
        ("generate runs/a --top-p 1.5", 2, "top_p = 1.5"),
        ("eval runs/a --seq 13", 2, "`--seq` = 13: the model has positions for 12"),
        ("eval runs/a --data missing.txt", 1, "missing.txt"),
        ("train --resume runs/a", 2, "has done 2 steps already"),
        ("train --resume runs/a --steps 9 --layers 3", 2, "[model] or [tokenizer] differ"),
        ("train --resume runs/a --steps 9 --val-fraction 0.5", 2, "was trained with 0.1"),
        ("train --resume copy.bullet --steps 9", 2, "runs/a holds another run already"),
        ("demo --out text.txt", 2, "no .bullet file that a demo could replace"),
        ("train --resume text.txt", 1, "this is a text file"),
        ("convert text.txt x.bullet", 1, "this is a text file"),
        ("eval runs/a --data empty.txt", 1, "empty.txt is empty: there is no text in it"),
        ("generate runs/a -n -1", 2, "'-1' for '--max-tokens <N>': expected a whole number of at least 0"),
        ("generate runs/a -n many", 2, "'many' for '--max-tokens <N>': expected a whole number"),
        ("generate runs/a --seed -1", 2, "'-1' for '--seed <N>': expected a whole number from 0"),
        ("generate runs/a --top-k -1", 2, "'-1' for '--top-k <K>': expected a whole number"),
        ("generate runs/a --top-p -1", 2, "top_p = -1"),
        ("generate runs/a --temperature hot", 2, "'hot' for '--temperature <X>': expected a number"),
        ("eval runs/a --seq 0", 2, "'0' for '--seq <N>': expected a whole number of at least 1"),
        (
            "eval runs/a --batch-size -2",
            2,
            "'-2' for '--batch-size <N>': expected a whole number of at least 1",
        ),
        ("demo --seconds -1", 2, "`--seconds` = -1: must be above 0"),
        ("demo --steps 1e3", 2, "'1e3' for '--steps <N>': expected a whole number of at least 1"),
    ] {
        let said = place.run(arguments);
        assert_eq!(said.code, Some(code), "{arguments}: {}", said.err);
        assert!(said.err.contains(words), "{arguments}: no {words:?} in {}", said.err);
    }
}

/// The shell limits the size of files, as a full disk or a quota would.
#[cfg(unix)]
#[test]
fn a_save_that_does_not_fit_leaves_the_older_checkpoint() {
    let place = Place::new("full");
    place.trained("a", 10);
    let mut shell = std::process::Command::new("sh");
    let script = "ulimit -f 32; exec \"$0\" train --resume runs/a --steps 30 --save-interval 5";
    shell.args(["-c", script, env!("CARGO_BIN_EXE_bullet")]).current_dir(place.path(""));
    let said = Said::from(shell.env("BULLET_THREADS", "1").output().unwrap());
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.err.contains("warning: no checkpoint at step 15"), "{}", said.err);
    assert!(said.err.contains("error: could not write") && said.err.contains("ulimit -f"), "{}", said.err);
    assert!(said.err.contains("bullet train --resume runs/a"), "{}", said.err);
    assert_eq!(place.step("runs/a/last.bullet"), 10);
    let left: Vec<_> =
        std::fs::read_dir(place.path("runs/a")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "{left:?}");
    place.ok("train --resume runs/a --steps 30 -q");
    assert_eq!(place.step("runs/a/last.bullet"), 30);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_standard_output_is_an_error() {
    let place = Place::new("dev-full");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let said = Said::from(place.command("devices").stdout(full).output().unwrap());
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("standard output") && said.err.contains("No space left"), "{}", said.err);
}

#[test]
fn sizes_beyond_memory_are_refused_before_anything_is_allocated() {
    let place = Place::new("sizes");
    let message = refused(&place, 2, "--layers 1000000000000");
    assert!(message.contains("layers = 1000000000000") && message.contains("GiB"), "{message}");
    place.trained("a", 2);
    // Windows beyond the text are not made, so a mistyped batch size costs nothing.
    let evaluate = |batch: &str| place.json(&format!("eval runs/a --data text.txt --batch-size {batch}"));
    assert_eq!(evaluate("288230376151711744")["loss"], evaluate("100000000000")["loss"]);
}

#[test]
fn hybrid_is_for_training() {
    let place = Place::new("hybrid");
    place.trained("a", 2);
    for command in ["generate runs/a -n 3", "eval runs/a"] {
        let said = place.run(&format!("{command} --device hybrid"));
        assert_eq!(said.code, Some(2), "{}", said.err);
        for words in ["`--device` = hybrid", "for training", "hint: give auto, cpu"] {
            assert!(said.err.contains(words), "{command}: {}", said.err);
        }
    }
    let message = refused(&place, 2, "--device hybird");
    assert!(message.contains("`train.device` = hybird") && message.contains("or to hybrid"), "{message}");
    let report =
        place.json(&format!("train --data text.txt --out runs/b {TINY} --steps 3 --device hybrid -q"));
    assert_eq!(report["ending"], "completed");
    // A run remembers it.
    let saved = place.json("info runs/b/last.bullet");
    assert_eq!(saved["training"]["config"]["train"]["device"], "hybrid");
    place.ok("train --resume runs/b --steps 5 -q");
    let huge = refused(&place, 2, "--layers 1000000000000 --device hybrid");
    assert!(huge.contains("layers = 1000000000000") && huge.contains("GiB"), "{huge}");
}

#[test]
fn environment_variables_that_mean_nothing_are_refused() {
    let place = Place::new("environment");
    for (name, value, words) in [
        ("BULLET_THREADS", "abc", "from 1 to 256"),
        ("BULLET_THREADS", "0", "from 1 to 256"),
        ("BULLET_THREADS", "99999", "from 1 to 256"),
        ("BULLET_ISA", "AVX9", "portable"),
        ("BULLET_MEMORY_LIMIT", "nonsense", "nonsense"),
        ("BULLET_MEMORY_LIMIT", "gpu=2GiB", "cpu or cuda"),
        ("BULLET_MEMORY_LIMIT", "cuda=lots", "'lots' is not a size"),
        ("BULLET_TIER", "sm_99", "sm_35, sm_70"),
        ("BULLET_CACHE", "maybe", "1 or 0"),
        ("BULLET_CACHE_LIMIT", "much", "'much'"),
    ] {
        let said = Said::from(place.command("devices").env(name, value).output().unwrap());
        assert_eq!(said.code, Some(2), "{name}={value}: {}", said.err);
        assert!(said.err.contains(name) && said.err.contains(words), "{name}={value}: {}", said.err);
    }
}
