//! Runs from settings to report: learning, callbacks, early stopping, what they leave on disk, what breaks them.

mod common;

use std::path::Path;
use std::process::Command;

use bullet_nn::config::{Config, fields, sections};
use bullet_nn::format::BulletFile;
use bullet_nn::log::JsonlLog;
use bullet_nn::tokenizer::Tokenizer;
use bullet_nn::train::{CheckpointKind, Ending, Flow, Trainer, TrainerBuilder, load_model};
use bullet_nn::{ErrorKind, LanguageModel, Module, Pass};
use bullet_tensor::{Device, Tensor};
use common::{AtStep, Event, Scratch, Seen, builder, config, config_with, text};

#[test]
fn a_tiny_text_is_learnt_by_heart() {
    let scratch = Scratch::new("overfit");
    // One window of 13 characters, all different: after each comes one certain other.
    let alphabet = "abcdefghijklm";
    let pairs =
        "train.steps=150 optim.lr=0.01 optim.weight_decay=0 data.val_fraction=0.07 train.eval_interval=0";
    let report = Trainer::builder(config_with(scratch.path(), pairs))
        .text(format!("{alphabet}n"))
        .build()
        .unwrap()
        .run()
        .unwrap();
    assert!(report.loss.unwrap() < 0.01, "loss {:?}", report.loss);
    let loaded = load_model(&report.last, &Device::cpu()).unwrap();
    let ids: Vec<i64> = loaded.tokenizer.encode("abcdefghijkl").unwrap().into_iter().map(i64::from).collect();
    let input = Tensor::from_slice(&ids, &[1, 12], &Device::cpu()).unwrap();
    let next = loaded.model.forward(&input, &Pass::eval()).unwrap().argmax(Some(-1), false).unwrap();
    let next: Vec<u32> = next.to_vec::<i64>().unwrap().into_iter().map(|i| i as u32).collect();
    assert_eq!(loaded.tokenizer.decode(&next).unwrap(), "bcdefghijklm");
}

#[test]
fn every_kind_of_run_learns() {
    let scratch = Scratch::new("kinds");
    for (i, pairs) in [
        "optim.kind=adamw",
        "optim.kind=adam optim.schedule=linear optim.warmup=5",
        "optim.kind=sgd optim.lr=0.3 optim.grad_clip=1",
        "model.positions=rope model.norm=rms model.feed_forward=swiglu model.bias=false model.kv_heads=1",
        "model.tied=true model.feed_forward=gelu model.dropout=0.05",
        "tokenizer.kind=bpe tokenizer.vocab_size=280 train.recompute=true",
        "train.precision=bf16",
        "train.precision=f16",
    ]
    .iter()
    .enumerate()
    {
        let mut config = config_with(scratch.path(), "optim.lr=0.01 train.steps=60 train.eval_interval=0");
        pairs.split(' ').for_each(|pair| config.set_pair(pair).unwrap());
        config.train.name = format!("kind{i}");
        let seen = Seen::default();
        let report = builder(config).callback(seen.clone()).build().unwrap().run().unwrap();
        let (first, last) = (seen.logs()[0].loss, report.loss.unwrap());
        assert!(last < 0.8 * first, "{pairs}: loss {first} to {last}");
    }
}

#[test]
fn every_parameter_gets_a_gradient() {
    let scratch = Scratch::new("gradients");
    for (i, pairs) in
        ["model.bias=true", "model.norm=rms model.feed_forward=swiglu model.kv_heads=1 train.precision=f16"]
            .iter()
            .enumerate()
    {
        let mut config = config_with(scratch.path(), pairs);
        config.train.name = format!("g{i}");
        config.train.steps = 2;
        let mut trainer = builder(config).build().unwrap();
        trainer.run().unwrap();
        for (name, tensor) in trainer.model().named_parameters() {
            let grad = tensor.grad().unwrap_or_else(|| panic!("{name} has no gradient"));
            assert!(grad.to_f64_vec().unwrap().iter().any(|&g| g != 0.0), "the gradient of {name} is zero");
        }
    }
}

#[test]
fn callbacks_see_the_run_in_order_and_the_folder_holds_its_files() {
    let scratch = Scratch::new("callbacks");
    let seen = Seen::default();
    let report = builder(config(scratch.path())).callback(seen.clone()).build().unwrap().run().unwrap();
    let events = seen.events();
    let steps: Vec<u64> =
        events.iter().filter_map(|e| if let Event::Step(s) = e { Some(*s) } else { None }).collect();
    assert_eq!(steps, (1..=20).collect::<Vec<u64>>());
    assert_eq!(seen.logs().iter().map(|p| p.step).collect::<Vec<_>>(), [1, 5, 10, 15, 20]);
    assert_eq!(
        seen.evals().iter().map(|e| (e.step, e.exact)).collect::<Vec<_>>(),
        [(10, false), (20, false)]
    );
    assert!(matches!(events.last(), Some(Event::End(r)) if *r == report));
    let saved = |kind| events.iter().filter(|e| matches!(e, Event::Checkpoint(k, _) if *k == kind)).count();
    assert_eq!((saved(CheckpointKind::Last), saved(CheckpointKind::Best)), (2, 2));
    let last = &seen.logs()[4];
    assert!(last.tokens_per_second > 0.0 && last.eta.is_zero() && last.grad_norm > 0.0 && last.skipped == 0);
    assert_eq!((last.steps, last.lr, last.loss_scale), (20, 1e-3, None));
    // The report's evaluation is over the whole text; per byte it is in bits, and a character here is a byte.
    let evaluation = report.evaluation.unwrap();
    assert!(evaluation.exact && (evaluation.perplexity.ln() - evaluation.loss).abs() < 1e-12);
    assert!((evaluation.bits_per_byte - evaluation.loss / std::f64::consts::LN_2).abs() < 1e-9);
    assert_eq!(report.folder, scratch.path().join("default"));
    assert_eq!(Config::load(report.folder.join("config.toml")).unwrap(), config(scratch.path()));
    assert!(std::fs::read_to_string(report.folder.join("loss.svg")).unwrap().starts_with("<svg"));
    let names: Vec<String> = std::fs::read_dir(&report.folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.iter().any(|n| n.starts_with("events.out.tfevents.")), "{names:?}");
    assert_eq!(names.len(), 6, "{names:?}");
    let lines = JsonlLog::read(report.folder.join("log.jsonl")).unwrap();
    assert_eq!(lines.iter().filter(|l| l["kind"] == "train").count(), 5);
    assert_eq!(lines.iter().filter(|l| l["kind"] == "eval").count(), 3);
}

#[test]
fn the_exact_loss_is_the_mean_over_every_validation_token() {
    let scratch = Scratch::new("exact");
    let mut trainer = builder(config_with(scratch.path(), "train.steps=3")).build().unwrap();
    trainer.run().unwrap();
    let got = trainer.evaluate(0).unwrap().unwrap().loss;
    // One window at a time, one token at a time, in f64.
    let tokens: Vec<u32> = trainer.data().validation.iter(0..trainer.data().validation.len()).collect();
    let (mut sum, mut count) = (0.0, 0);
    for window in (0..tokens.len() - 1).step_by(12) {
        let end = (window + 12).min(tokens.len() - 1);
        let ids: Vec<i64> = tokens[window..end].iter().map(|&t| i64::from(t)).collect();
        let input = Tensor::from_slice(&ids, &[1, ids.len()], &Device::cpu()).unwrap();
        let logits = trainer.model().forward(&input, &Pass::eval()).unwrap();
        let vocab = logits.dim(2);
        for (row, &target) in logits.to_f64_vec().unwrap().chunks(vocab).zip(&tokens[window + 1..=end]) {
            let log_sum = row.iter().map(|x| x.exp()).sum::<f64>().ln();
            sum += log_sum - row[target as usize];
            count += 1;
        }
    }
    assert_eq!(count, tokens.len() - 1);
    assert!((got - sum / count as f64).abs() < 1e-5, "{got} and {}", sum / count as f64);
}

#[test]
fn patience_ends_a_run_that_no_longer_improves() {
    let scratch = Scratch::new("patience");
    let pairs = "train.steps=200 train.eval_interval=5 train.patience=3 train.min_delta=100";
    let seen = Seen::default();
    let report =
        builder(config_with(scratch.path(), pairs)).callback(seen.clone()).build().unwrap().run().unwrap();
    // The first evaluation is the best; by less than 100 nats none is better, and the third after it ends the run.
    assert_eq!((report.ending, report.steps), (Ending::EarlyStopped, 20));
    assert_eq!(seen.evals().iter().map(|e| e.best).collect::<Vec<_>>(), [true, false, false, false]);
    assert_eq!(report.best.unwrap().1, 5);
    let best = load_model(report.best_path.unwrap(), &Device::cpu()).unwrap().training.unwrap();
    assert_eq!((best.step, best.best.unwrap().1), (5, 5));
    assert!(report.evaluation.unwrap().exact);
}

#[test]
fn a_callback_can_end_a_run() {
    let scratch = Scratch::new("stop");
    let b = builder(config(scratch.path())).callback(AtStep(3, || Flow::Stop));
    let report = b.build().unwrap().run().unwrap();
    assert_eq!((report.ending, report.steps), (Ending::Stopped, 3));
    assert_eq!(load_model(&report.last, &Device::cpu()).unwrap().training.unwrap().step, 3);
}

#[test]
fn a_run_that_breaks_down_names_the_tensor_and_what_to_try() {
    let scratch = Scratch::new("nan");
    for (i, (bad, pairs)) in [
        (f64::NAN, "train.precision=f32"),
        (f64::INFINITY, "train.precision=bf16"),
        (f64::NAN, "train.precision=f16"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut config = config_with(scratch.path(), pairs);
        config.train.name = format!("nan{i}");
        let first = builder(config).callback(AtStep(10, || Flow::Stop)).build().unwrap().run().unwrap();
        let good = std::fs::read(&first.last).unwrap();
        let mut resumed = TrainerBuilder::resume(&first.last).unwrap().text(text()).build().unwrap();
        let (_, weight) = resumed
            .model()
            .named_parameters()
            .into_iter()
            .find(|(n, _)| n == "blocks.1.mlp.fc1.weight")
            .unwrap();
        weight.detach().narrow_first().fill_(bad).unwrap();
        let error = resumed.run().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Data);
        for part in [
            "by step 15",
            "the value of blocks.1.mlp.fc1.weight is not finite",
            "optim.grad_clip",
            "optim.lr",
        ] {
            assert!(error.message.contains(part), "{}", error.message);
        }
        assert_eq!(error.message.contains("bf16"), pairs.ends_with("f16") && !pairs.ends_with("bf16"));
        assert_eq!(std::fs::read(&first.last).unwrap(), good, "the good checkpoint stays");
    }
}

/// The first row of a tensor, as a view.
trait NarrowFirst {
    fn narrow_first(&self) -> Tensor;
}

impl NarrowFirst for Tensor {
    fn narrow_first(&self) -> Tensor {
        self.select(0, 0).unwrap()
    }
}

#[test]
fn a_rate_far_too_high_is_reported_as_such() {
    let scratch = Scratch::new("diverge");
    let pairs =
        "optim.kind=sgd optim.momentum=0 optim.lr=1e30 optim.min_lr=0 train.steps=50 train.eval_interval=0";
    let error = builder(config_with(scratch.path(), pairs)).build().unwrap().run().unwrap_err();
    assert!(
        error.message.contains("training broke down by step") && error.message.contains("not finite"),
        "{error}"
    );
    assert!(!scratch.path().join("default/last.bullet").exists(), "broken weights are not saved");
}

#[test]
fn a_folder_that_goes_away_costs_checkpoints_on_the_way_and_fails_at_the_end() {
    let scratch = Scratch::new("gone");
    let (folder, moved) = (scratch.path().join("default"), scratch.path().join("moved"));
    let (from, to) = (folder.clone(), moved.clone());
    let seen = Seen::default();
    let away = AtStep(15, move || {
        std::fs::rename(&from, &to).unwrap();
        Flow::Continue
    });
    let pairs = "train.steps=40 train.save_interval=10 train.eval_interval=0";
    let b = builder(config_with(scratch.path(), pairs)).callback(seen.clone()).callback(away);
    let error = b.build().unwrap().run().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Io);
    let warnings = seen.warnings();
    assert!(
        warnings[0].contains("no checkpoint at step 20") && warnings[0].contains("training goes on"),
        "{warnings:?}"
    );
    assert!(warnings[1].contains("no checkpoint at step 30"), "{warnings:?}");
    let old = load_model(moved.join("last.bullet"), &Device::cpu()).unwrap().training.unwrap();
    assert_eq!(old.step, 10, "the old checkpoint is whole");
}

/// Runs under a file size limit, in a process of its own: see the next test.
#[test]
#[ignore = "run by the test below"]
fn child_with_a_file_size_limit() {
    let folder = std::env::var("BULLET_TEST_FOLDER").unwrap();
    let seen = Seen::default();
    let pairs = "train.steps=12 train.save_interval=5 train.eval_interval=0";
    let result =
        builder(config_with(Path::new(&folder), pairs)).callback(seen.clone()).build().unwrap().run();
    let error = result.unwrap_err();
    assert!(error.message.contains("File too large") && error.message.contains("ulimit"), "{error}");
    // Steps 5 and 10, and the best model at the end.
    assert_eq!(seen.warnings().len(), 3, "{:?}", seen.warnings());
    assert!(seen.warnings().iter().all(|w| w.contains("training goes on")));
}

#[cfg(unix)]
#[test]
fn a_full_disk_costs_checkpoints_on_the_way_and_fails_at_the_end() {
    let scratch = Scratch::new("full");
    // A checkpoint of this model is about 100 kB; the limit (in blocks of 512 bytes or 1 kB) is below that, and above
    // what logs need. Without the trap the signal would end the process.
    let status = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 40; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child_with_a_file_size_limit", "--ignored"])
        .env("BULLET_TEST_FOLDER", scratch.path())
        .status()
        .unwrap();
    assert!(status.success());
    let left: Vec<_> = std::fs::read_dir(scratch.path().join("default")).unwrap().flatten().collect();
    let is_part = |name: &str| name.ends_with(".bullet") || name.ends_with(".tmp");
    assert!(
        left.iter().all(|e| !is_part(&e.file_name().to_string_lossy())),
        "no part of a file stays: {left:?}"
    );
}

#[test]
fn settings_and_texts_that_do_not_fit_are_refused_before_training() {
    let scratch = Scratch::new("refuse");
    let refused = |pairs: &str, text: &str| {
        let result = Trainer::builder(config_with(scratch.path(), pairs)).text(text).build();
        result.err().unwrap_or_else(|| panic!("{pairs} must be refused")).message
    };
    for (pairs, text, want) in [
        ("train.batch_size=0", "some text that is long enough", "`train.batch_size` = 0: must be at least 1"),
        ("model.heads=3", "some text that is long enough", "`model.heads` = 3: must divide model.dim = 16"),
        ("model.vocab=5", "some text that is long enough", "the tokenizer has"),
        (
            "model.seq=100",
            "some text that is long enough",
            "`model.seq` = 100: the training text has 26 tokens",
        ),
        ("model.seq=4", "", "the text is empty"),
        ("data.path=/no/such/file.txt tokenizer.path=/no/such.json", "text", "could not read /no/such.json"),
    ] {
        let message = refused(pairs, text);
        assert!(message.contains(want), "{pairs}: {message}");
    }
    let message = Trainer::builder(config_with(scratch.path(), "data.path=/no/such/file.txt"))
        .build()
        .err()
        .unwrap()
        .message;
    assert!(message.contains("could not read /no/such/file.txt"), "{message}");
}

#[test]
fn characters_outside_a_given_vocabulary_are_a_warning() {
    let scratch = Scratch::new("unknown");
    let tokenizer = Tokenizer::train_char(&text()).unwrap();
    let seen = Seen::default();
    let b = Trainer::builder(config(scratch.path()))
        .text(text() + "xyz")
        .tokenizer(tokenizer)
        .callback(seen.clone());
    b.build().unwrap();
    assert!(
        seen.warnings()[0].contains("3 characters of the text are not in the vocabulary"),
        "{:?}",
        seen.warnings()
    );
}

#[test]
fn models_load_for_inference_and_mismatches_are_errors() {
    let scratch = Scratch::new("load");
    let mut trainer = builder(config_with(scratch.path(), "train.steps=2 model.tied=true")).build().unwrap();
    let report = trainer.run().unwrap();
    let loaded = load_model(&report.last, &Device::cpu()).unwrap();
    for ((name, a), (_, b)) in
        loaded.model.named_parameters().into_iter().zip(trainer.model().named_parameters())
    {
        assert_eq!(a.to_bytes().unwrap(), b.to_bytes().unwrap(), "{name}");
    }
    assert_eq!(&loaded.tokenizer, trainer.tokenizer());
    // Another tokenizer, with more tokens than the model has rows.
    let file = BulletFile::open(&report.last).unwrap();
    let mut header = file.header().clone();
    header.tokenizer =
        Some(Tokenizer::train_char("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ").unwrap());
    let tensors: Vec<_> = file.tensors().collect();
    let other = scratch.path().join("other.bullet");
    let message = |header| {
        bullet_nn::format::write(&other, &header, &tensors).unwrap();
        load_model(&other, &Device::cpu()).err().unwrap().message
    };
    let vocabulary = message(header.clone());
    assert!(vocabulary.contains("the tokenizer has 52 tokens and the model has room for"), "{vocabulary}");
    header.tokenizer = None;
    assert!(message(header.clone()).contains("the file has no tokenizer"));
    header.model = serde_json::Value::Null;
    assert!(message(header).contains("does not say what model"));
    let inference = bullet_nn::format::Header { training: None, ..file.header().clone() };
    bullet_nn::format::write(&other, &inference, &tensors).unwrap();
    assert!(load_model(&other, &Device::cpu()).unwrap().training.is_none());
    assert!(TrainerBuilder::resume(&other).err().unwrap().message.contains("was saved for inference"));
}

#[test]
fn the_reference_in_the_guide_lists_every_setting() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/training.md");
    let guide = std::fs::read_to_string(path).unwrap();
    let mut table = String::new();
    for (section, about) in sections() {
        table += &format!("### `[{section}]`\n\n{about}\n\n| setting | default | meaning |\n|---|---|---|\n");
        for field in fields().iter().filter(|f| f.section() == *section) {
            let default = if field.default.is_empty() { "empty" } else { &field.default };
            let choices = match field.expected.strip_prefix("one of ") {
                Some(names) => format!(" One of {names}."),
                None => String::new(),
            };
            table += &format!("| `{}` | {default} | {}{choices} |\n", field.key, field.doc);
        }
        table.push('\n');
    }
    let (begin, end) = ("<!-- settings: begin -->\n\n", "<!-- settings: end -->");
    let (before, rest) = guide.split_once(begin).expect("the guide has the marks of its table");
    let (old, after) = rest.split_once(end).expect("the guide has the marks of its table");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, format!("{before}{begin}{table}{end}{after}")).unwrap();
        return;
    }
    assert_eq!(old, table, "docs/training.md is out of date: run this test with BLESS=1");
}
