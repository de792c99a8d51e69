//! `bullet demo`: the reference model on Tiny Shakespeare, from nothing to a file that writes.

mod speed;

use std::path::Path;
use std::time::{Duration, Instant};

use bullet_nn::config::{Config, ScheduleKind};
use bullet_nn::data::TokenDataset;
use bullet_nn::format::{AtomicFile, BulletFile, Header, TensorRef, write as write_file};
use bullet_nn::generate::Sampler;
use bullet_nn::place::Placement;
use bullet_nn::tokenizer::Tokenizer;
use bullet_nn::train::{Ending, Report, TINY_SHAKESPEARE, Trainer, load_model, place, tokenizer};
use bullet_nn::{Module, Transformer, TransformerConfig};

use crate::args::DemoArgs;
use crate::commands::{devices, first_device, generate, train};
use crate::failure::Failure;
use crate::output::{self, clock, count, note, shell, shown};
use crate::progress::Screen;
use crate::signals::Stop;

/// Steps of `--quick`.
const QUICK_STEPS: usize = 6;
/// More steps than this overfit the text, whatever the time left.
const MOST_STEPS: usize = 2500;
/// Fewer make no sense of a schedule.
const LEAST_STEPS: usize = 20;
/// Tokens of a sample.
const SAMPLE_TOKENS: usize = 160;

pub(crate) fn run(args: &DemoArgs) -> Result<(), Failure> {
    if !(args.seconds > 0.0 && args.seconds.is_finite()) {
        return Err(Failure::usage(format!("`--seconds` = {}: must be above 0", args.seconds))
            .or_hint("80 is the default"));
    }
    check_destination(&args.out)?;
    for earlier in [&args.out, Path::new("runs/demo")].into_iter().filter(|path| path.exists()) {
        note(format_args!("{} of an earlier demo will be replaced", shown(earlier)));
    }
    let json = args.json;
    let stop = Stop::listen(move || train::untrained("demo", None, json));
    devices::announce(&args.device, &first_device(&args.device)?, false);
    let mut config = settings(args);
    let (tokenizer, data) = prepare(&config)?;
    config.model.vocab = tokenizer.vocab_size();
    let (placement, plan) =
        place(&config, &TransformerConfig::from_settings(&config.model, data.vocab_size))?;
    if let Some(plan) = plan {
        devices::announce_plan(&plan);
    }
    pick_steps(args, &mut config, &data, &placement)?;
    let builder = Trainer::builder(config).placement(placement.clone());
    let builder = builder.text(TINY_SHAKESPEARE).tokenizer(tokenizer);
    let builder = builder.callback(Screen::new(false)).callback(stop.watch()).stop_flag(stop.flag());
    let mut trainer = builder.build()?;
    note(format_args!("model: {} parameters", count(trainer.model().num_parameters() as f64)));
    if !args.json {
        sample("before training", trainer.model(), trainer.tokenizer(), args)?;
    }
    let report = trainer.run()?;
    if report.ending == Ending::Stopped {
        if args.json {
            output::json(&train::as_json("demo", &report))?;
        }
        return Err(train::interrupted(&report));
    }
    save_for_inference(&report.last, &args.out)?;
    let loaded = load_model(&args.out, &placement.head)?;
    finish(args, &report, &loaded.model, &loaded.tokenizer)
}

/// A place that cannot be written is better known before training than after it.
fn check_destination(out: &Path) -> Result<(), Failure> {
    let folder = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let problem = if !folder.is_dir() {
        "its folder does not exist".to_string()
    } else if out.is_dir() {
        "it is a folder".to_string()
    } else if out.exists() && BulletFile::open(out).is_err() {
        "it exists, and is no .bullet file that a demo could replace".to_string()
    } else {
        // What is begun and never committed leaves nothing behind.
        match AtomicFile::create(out, 0) {
            Ok(_) => return Ok(()),
            Err(e) => e.source.map_or(e.message, |cause| format!("it cannot be written: {cause}")),
        }
    };
    Err(Failure::usage(format!("`--out` = {}: {problem}", out.display()))
        .or_hint("give the name of a file in a folder that exists, such as demo.bullet"))
}

/// The reference model is the default of the settings; the optimizer's are tuned for a run of a minute or two.
fn settings(args: &DemoArgs) -> Config {
    let mut config = Config::default();
    config.optim.lr = 2e-3;
    config.optim.min_lr = 1e-4;
    config.optim.schedule = ScheduleKind::Cosine;
    config.optim.beta2 = 0.99;
    config.optim.weight_decay = 0.1;
    config.optim.decay_min_rank = 2;
    config.optim.grad_clip = 1.0;
    config.train.device = args.device.clone();
    config.train.seed = args.seed;
    config.train.name = "demo".into();
    if args.quick {
        config.data.val_fraction = 0.01;
        config.train.eval_batches = 1;
    }
    config
}

fn prepare(config: &Config) -> Result<(Tokenizer, TokenDataset), Failure> {
    let start = Instant::now();
    let tokenizer = tokenizer(config, TINY_SHAKESPEARE)?;
    let data = TokenDataset::new(TINY_SHAKESPEARE, &tokenizer, 1.0 - config.data.val_fraction)?;
    note(format_args!(
        "Tiny Shakespeare, {}: a vocabulary of {} byte pairs, {} training and {} validation tokens, in {:.1} s",
        output::bytes(TINY_SHAKESPEARE.len() as u64),
        tokenizer.vocab_size(),
        count(data.train.len() as f64),
        count(data.validation.len() as f64),
        start.elapsed().as_secs_f64(),
    ));
    Ok((tokenizer, data))
}

/// Chooses the number of steps, and what hangs on it.
fn pick_steps(
    args: &DemoArgs,
    config: &mut Config,
    data: &TokenDataset,
    placement: &Placement,
) -> Result<(), Failure> {
    let steps = match args.steps {
        Some(steps) => steps.into(),
        None if args.quick => QUICK_STEPS,
        None => {
            let step = speed::measure(config, data, placement)?;
            let steps = ((args.seconds / step.as_secs_f64()) as usize).clamp(LEAST_STEPS, MOST_STEPS);
            let time = clock(Duration::from_secs_f64(step.as_secs_f64() * steps as f64));
            note(format_args!(
                "a step takes {:.1} ms: {steps} steps, about {time} (--seconds or --steps changes it)",
                step.as_secs_f64() * 1e3
            ));
            steps
        }
    };
    config.train.steps = steps;
    config.optim.warmup = (steps / 20).min(100);
    config.train.eval_interval = steps.div_ceil(4);
    config.train.save_interval = config.train.eval_interval;
    Ok(())
}

fn sample(title: &str, model: &Transformer, tokenizer: &Tokenizer, args: &DemoArgs) -> Result<(), Failure> {
    output::line(format_args!("\n--- {title} ---"))?;
    let prompt = generate::known(tokenizer, &args.prompt)?;
    output::stream(&prompt)?;
    generate::write(model, tokenizer, &prompt, SAMPLE_TOKENS, sampler(args), |piece| {
        Ok(output::stream(piece)?)
    })?;
    Ok(output::line("\n---\n")?)
}

fn sampler(args: &DemoArgs) -> Sampler {
    Sampler { temperature: 0.8, seed: args.seed, ..Sampler::default() }
}

/// Copies a checkpoint without the optimizer's state: a third of the size, and all that writing needs.
fn save_for_inference(checkpoint: &Path, out: &Path) -> Result<(), Failure> {
    let file = BulletFile::open_verified(checkpoint)?;
    let header = Header { training: None, ..file.header().clone() };
    let tensors: Vec<TensorRef<'_>> = file.tensors().filter(|t| t.name.starts_with("model.")).collect();
    Ok(write_file(out, &header, &tensors)?)
}

fn finish(
    args: &DemoArgs,
    report: &Report,
    model: &Transformer,
    tokenizer: &Tokenizer,
) -> Result<(), Failure> {
    let out = shell(&args.out);
    if args.json {
        let prompt = generate::known(tokenizer, &args.prompt)?;
        let mut text = String::new();
        generate::write(model, tokenizer, &prompt, SAMPLE_TOKENS, sampler(args), |piece| {
            text.push_str(piece);
            Ok(())
        })?;
        let mut value = train::as_json("demo", report);
        value["model"] = args.out.display().to_string().into();
        value["sample"] = format!("{prompt}{text}").into();
        return Ok(output::json(&value)?);
    }
    sample(&format!("after {} steps, loaded from {out}", report.steps), model, tokenizer, args)?;
    output::line(format_args!(
        "{} steps in {}, {} tokens/s",
        report.steps,
        clock(report.elapsed),
        count(report.tokens_per_second)
    ))?;
    train::print_losses(report)?;
    output::line(format_args!("saved            {out} (log and loss curve: {})", shown(&report.folder)))?;
    output::line(format_args!("write more:      bullet generate {out} --prompt \"JULIET:\""))?;
    let (folder, more) = (shell(&report.folder), report.steps * 2);
    output::line(format_args!("train longer:    bullet train --resume {folder} --steps {more}"))?;
    Ok(())
}
