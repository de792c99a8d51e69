//! A run that is stopped and resumed ends with the bits it would have had without the stop.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bullet_nn::log::JsonlLog;
use bullet_nn::train::{Ending, Flow, Report, TrainerBuilder, load_model};
use bullet_tensor::Device;
use common::{AtStep, Scratch, builder, config_with, tensors, text};

/// The log without what depends on the machine.
fn log(folder: &std::path::Path) -> Vec<serde_json::Value> {
    let mut lines = JsonlLog::read(folder.join("log.jsonl")).unwrap();
    lines.iter_mut().filter_map(|l| l.as_object_mut()).for_each(|l| {
        l.remove("tokens_per_second");
    });
    lines
}

fn assert_same(a: &Report, b: &Report, what: &str) {
    let (x, y) = (tensors(&a.last), tensors(&b.last));
    assert!(x.len() > 20, "a checkpoint has model and optimizer");
    for ((name, left), (other, right)) in x.iter().zip(&y) {
        assert_eq!(name, other, "{what}");
        assert_eq!(left, right, "{what}: {name} differs");
    }
    assert_eq!(x.len(), y.len());
    assert_eq!(log(&a.folder), log(&b.folder), "{what}");
    assert_eq!(a.best, b.best, "{what}");
    assert_eq!(a.evaluation, b.evaluation, "{what}");
}

const VARIANTS: &[&str] = &[
    "model.dropout=0.0",
    "model.dropout=0.2 train.accumulation=3",
    "train.precision=f16 model.dropout=0.1 train.accumulation=2 train.scale_interval=7 optim.grad_clip=1",
    "train.precision=bf16 train.recompute=true model.dropout=0.1",
    "optim.kind=sgd optim.nesterov=true optim.lr=0.05 optim.schedule=cosine optim.warmup=10 optim.min_lr=0.001",
    "optim.kind=adam optim.decay_min_rank=2 model.positions=rope model.norm=rms model.feed_forward=swiglu",
];

#[test]
fn a_stop_between_leaves_no_trace() {
    let scratch = Scratch::new("resume");
    for (i, variant) in VARIANTS.iter().enumerate() {
        // The fourteenth step is between saves, logs and evaluations.
        let run = |name: &str, stop: Option<u64>| {
            let mut config = config_with(scratch.path(), variant);
            config.train.steps = 40;
            config.train.name = format!("{name}{i}");
            let mut b = builder(config);
            if let Some(step) = stop {
                b = b.callback(AtStep(step, || Flow::Stop));
            }
            b.build().unwrap().run().unwrap()
        };
        let whole = run("whole", None);
        let part = run("part", Some(14));
        assert_eq!((part.ending, part.steps), (Ending::Stopped, 14));
        assert!(part.evaluation.is_none());
        let mut resumed = TrainerBuilder::resume(&part.last).unwrap().text(text()).build().unwrap();
        let rest = resumed.run().unwrap();
        assert_eq!((rest.ending, rest.steps), (Ending::Completed, 40));
        assert_same(&whole, &rest, variant);
    }
}

#[test]
fn seeded_runs_are_identical_and_other_seeds_are_not() {
    let scratch = Scratch::new("seeds");
    let run = |name: &str, pairs: &str| {
        let mut config = config_with(scratch.path(), pairs);
        config.train.name = name.into();
        builder(config).build().unwrap().run().unwrap()
    };
    let (a, b) = (run("a", "model.dropout=0.1"), run("b", "model.dropout=0.1"));
    assert_same(&a, &b, "same seed");
    let c = run("c", "model.dropout=0.1 train.seed=7");
    assert_ne!(tensors(&a.last), tensors(&c.last));
}

#[test]
fn the_stop_flag_ends_the_run_with_a_checkpoint_that_resumes() {
    let scratch = Scratch::new("flag");
    let flag = Arc::new(AtomicBool::new(false));
    let raise = flag.clone();
    let ctrl_c = AtStep(7, move || {
        raise.store(true, Ordering::Relaxed);
        Flow::Continue
    });
    let b = builder(config_with(scratch.path(), "")).stop_flag(flag).callback(ctrl_c);
    let report = b.build().unwrap().run().unwrap();
    assert_eq!((report.ending, report.steps), (Ending::Stopped, 7));
    let state = load_model(&report.last, &Device::cpu()).unwrap().training.unwrap();
    assert_eq!((state.step, state.optimizer.as_str(), state.seed), (7, "adamw", 1337));
    assert!(report.folder.join("loss.svg").exists());
    let mut resumed = TrainerBuilder::resume(&report.last).unwrap().text(text()).build().unwrap();
    assert_eq!(resumed.run().unwrap().steps, 20);
}

#[test]
fn a_finished_run_goes_on_for_more_steps_only() {
    let scratch = Scratch::new("more");
    let report = builder(config_with(scratch.path(), "")).build().unwrap().run().unwrap();
    let message = TrainerBuilder::resume(&report.last).unwrap().text(text()).build().err().unwrap().message;
    assert!(
        message.contains("`train.steps` = 20") && message.contains("has done 20 steps already"),
        "{message}"
    );
    let mut more = TrainerBuilder::resume(&report.last).unwrap().text(text());
    more.config_mut().train.steps = 25;
    assert_eq!(more.build().unwrap().run().unwrap().steps, 25);
}

#[test]
fn what_cannot_be_resumed_is_refused() {
    let scratch = Scratch::new("refused");
    let report = builder(config_with(scratch.path(), "")).build().unwrap().run().unwrap();
    let resume = |change: &dyn Fn(&mut TrainerBuilder), text: String| {
        let mut b = TrainerBuilder::resume(&report.last).unwrap();
        b.config_mut().train.steps = 30;
        change(&mut b);
        b.text(text).build().err().expect("must be refused").message
    };
    let other_text = resume(&|_| {}, text().replace("cat", "cow").replace("dog", "cat"));
    assert!(other_text.contains("the training text is not the one"), "{other_text}");
    let other_model = resume(&|b| b.config_mut().set("model.layers", "3").unwrap(), text());
    assert!(other_model.contains("[model] or [tokenizer] differ"), "{other_model}");
    let other_rule = resume(&|b| b.config_mut().set("optim.kind", "sgd").unwrap(), text());
    assert!(other_rule.contains("optim.velocity.") && other_rule.contains("missing"), "{other_rule}");
    let scaled = resume(&|b| b.config_mut().set("train.precision", "f16").unwrap(), text());
    assert!(scaled.contains("optim.loss_scale: missing"), "{scaled}");
    let mut bytes = std::fs::read(&report.last).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = scratch.path().join("damaged.bullet");
    std::fs::write(&damaged, bytes).unwrap();
    assert!(TrainerBuilder::resume(&damaged).err().unwrap().message.contains("damaged"));
}
