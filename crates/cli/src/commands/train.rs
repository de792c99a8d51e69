//! `bullet train`.

use std::path::Path;

use bullet_nn::config::Config;
use bullet_nn::train::{Ending, Report, RunFolder, Trainer, TrainerBuilder, first_device};
use bullet_nn::{LanguageModel, Module};
use serde_json::{Value, json};

use super::{checkpoint_path, devices};
use crate::args::TrainArgs;
use crate::failure::Failure;
use crate::output::{self, clock, count, note, number, shell, shown};
use crate::progress::Screen;
use crate::signals::Stop;

pub(crate) fn run(args: &TrainArgs) -> Result<(), Failure> {
    let stop = stop(args);
    let mut builder = match &args.resume {
        Some(path) => TrainerBuilder::resume(checkpoint_path(path)?)?,
        None => Trainer::builder(base_config(args)?),
    };
    override_settings(args, builder.config_mut())?;
    if args.print_config {
        builder.config_mut().validate()?;
        return Ok(output::put(builder.config_mut().to_toml())?);
    }
    if args.resume.is_none() && !args.overwrite {
        refuse_to_overwrite(builder.config_mut())?;
    }
    let named = builder.config_mut().train.device.clone();
    // Before the text is read, which may take a while; a device that cannot be used is the builder's to report.
    if let Ok(device) = first_device(&named) {
        devices::announce(&named, &device, args.quiet);
    }
    let mut trainer =
        builder.callback(Screen::new(args.quiet)).callback(stop.watch()).stop_flag(stop.flag()).build()?;
    if !args.quiet {
        introduce(&trainer);
    }
    let folder = trainer.folder().clone();
    let report = trainer.run().map_err(|e| after_failure(e.into(), &folder))?;
    if args.json {
        output::json(&as_json("train", &report))?;
    } else if report.ending != Ending::Stopped {
        print(&report)?;
    }
    if report.ending == Ending::Stopped {
        return Err(interrupted(&report));
    }
    Ok(())
}

/// Listens to Ctrl-C.
fn stop(args: &TrainArgs) -> Stop {
    let (json, resume) = (args.json, args.resume.clone());
    Stop::listen(move || untrained("train", resume.as_deref(), json))
}

/// Says that a run was stopped before its first step.
pub(crate) fn untrained(command: &str, resume: Option<&Path>, json: bool) {
    let kept = resume.map_or(String::new(), |path| format!("; {} is as it was", shown(path)));
    note(format_args!("\nstopped before the first step: nothing was trained{kept}"));
    if json {
        // The keys of a report; a resumed run was not read far enough to know its steps. The process ends after this,
        // whether or not somebody reads it.
        let again = resume.map(|path| format!("bullet train --resume {}", shell(path)));
        let _ = output::json(&json!({
            "command": command, "ending": "interrupted", "steps": resume.is_none().then_some(0), "loss": null, "validation": null, "best": null,
            "folder": null, "last": null, "best_path": null, "seconds": 0.0, "tokens_per_second": 0.0, "resume": again,
        }));
    }
}

/// The settings below those of the command line.
fn base_config(args: &TrainArgs) -> Result<Config, Failure> {
    let Some(path) = args.config.as_ref().or(args.config_option.as_ref()) else {
        return Ok(Config::default());
    };
    Config::load(path).map_err(|e| {
        let failure = Failure::from(e);
        let looks_like_text = path.extension().is_some_and(|e| e == "txt" || e == "md") || path.is_dir();
        let is_checkpoint = path.extension().is_some_and(|e| e == "bullet");
        match (looks_like_text, is_checkpoint) {
            (true, _) => {
                failure.or_hint(format!("to train on this text: bullet train --data {}", shell(path)))
            }
            (_, true) => {
                failure.or_hint(format!("to go on from this model: bullet train --resume {}", shell(path)))
            }
            (false, false) => failure,
        }
    })
}

/// Settings of the command line; an option of its own comes before `--set`.
fn override_settings(args: &TrainArgs, config: &mut Config) -> Result<(), Failure> {
    for pair in &args.set {
        config.set_pair(pair)?;
    }
    args.settings.apply(config)?;
    let Some(out) = &args.out else { return Ok(()) };
    let Some(path) = out.to_str() else {
        return Err(Failure::usage(format!("`--out` = {}: not UTF-8, which settings are", out.display()))
            .or_hint("give a name such as runs/book"));
    };
    let Some(name) = out.file_name().and_then(|name| name.to_str()) else {
        return Err(Failure::usage(format!("`--out` = {}: not the name of a folder", out.display()))
            .or_hint("give a name such as runs/book"));
    };
    let parent = Path::new(path).parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    config.train.name = name.to_string();
    config.train.runs = parent.display().to_string();
    Ok(())
}

/// A new run removes the checkpoints of an older one of its name.
fn refuse_to_overwrite(config: &Config) -> Result<(), Failure> {
    config.validate()?;
    let folder = RunFolder::of(config);
    let path = folder.path();
    if !folder.last().exists() && !folder.best().exists() {
        return refuse_to_replace_settings(&folder.config());
    }
    Err(Failure::usage(format!("{} holds a run already, which a new one would replace", shown(path)))
        .or_hint(format!(
            "bullet train --resume {} goes on with it; --out names another folder; --overwrite replaces it",
            shell(path)
        )))
}

/// A run writes its settings into its folder, where somebody's own file may be.
fn refuse_to_replace_settings(file: &Path) -> Result<(), Failure> {
    let Ok(present) = std::fs::read(file) else { return Ok(()) };
    let of_a_run = Config::default().to_toml();
    if present.starts_with(of_a_run.lines().next().unwrap_or_default().as_bytes()) {
        return Ok(());
    }
    Err(Failure::usage(format!("{} was not written by a run, which would replace it", shown(file)))
        .or_hint("--out names another folder; --overwrite replaces it"))
}

/// What will be trained on what.
fn introduce(trainer: &Trainer) {
    let (model, data, config) = (trainer.model(), trainer.data(), trainer.config());
    let text = if config.data.path.is_empty() { "Tiny Shakespeare" } else { &config.data.path };
    note(format_args!(
        "{} parameters, {} tokens of vocabulary; {text}: {} training and {} validation tokens",
        count(model.num_parameters() as f64),
        model.vocab(),
        count(data.train.len() as f64),
        count(data.validation.len() as f64),
    ));
    if let Some(plan) = trainer.plan() {
        devices::announce_plan(plan);
    }
    let from = trainer.train_step().steps();
    let start = if from > 0 {
        format!("steps {from} to {}", config.train.steps)
    } else {
        format!("{} steps", config.train.steps)
    };
    note(format_args!("{start}, in {}; Ctrl-C saves and stops", shown(trainer.folder().path())));
}

/// Where an older checkpoint survived, says so.
fn after_failure(failure: Failure, folder: &RunFolder) -> Failure {
    if !folder.last().exists() {
        return failure;
    }
    failure.or_hint(format!(
        "the last checkpoint is intact; once that is put right, go on with: bullet train --resume {}",
        shell(folder.path())
    ))
}

/// Says how to go on with a run that was stopped.
pub(crate) fn interrupted(report: &Report) -> Failure {
    note(format_args!("stopped at step {}; saved {}", report.steps, shown(&report.last)));
    note(format_args!("to go on: {}", resume_command(report)));
    Failure::Interrupted
}

fn resume_command(report: &Report) -> String {
    format!("bullet train --resume {}", shell(&report.folder))
}

fn print(report: &Report) -> Result<(), Failure> {
    let early =
        if report.ending == Ending::EarlyStopped { " (stopped early: no more improvement)" } else { "" };
    let speed = count(report.tokens_per_second);
    output::line(format_args!(
        "{} steps in {}{early}, {speed} tokens/s",
        report.steps,
        clock(report.elapsed)
    ))?;
    print_losses(report)?;
    let best = report.best_path.as_ref().unwrap_or(&report.last);
    output::line(format_args!("run folder       {}", shown(&report.folder)))?;
    output::line(format_args!("write with it:   bullet generate {}", shell(best)))?;
    Ok(())
}

/// The losses of a run, a line each.
pub(crate) fn print_losses(report: &Report) -> Result<(), Failure> {
    if let Some(loss) = report.loss {
        output::line(format_args!("training loss    {}", number(loss, 4)))?;
    }
    if let Some(e) = &report.evaluation {
        let (perplexity, bits) = (number(e.perplexity, 1), number(e.bits_per_byte, 3));
        let more = format!("perplexity {perplexity}, {bits} bits per byte");
        output::line(format_args!(
            "validation loss  {}  ({more}; all of the validation text)",
            number(e.loss, 4)
        ))?;
    }
    if let Some((loss, step)) = report.best {
        output::line(format_args!("lowest estimate  {} at step {step}", number(loss, 4)))?;
    }
    Ok(())
}

/// A run's report for scripts.
pub(crate) fn as_json(command: &str, report: &Report) -> Value {
    let ending = match report.ending {
        Ending::Completed => "completed",
        Ending::EarlyStopped => "early_stopped",
        Ending::Stopped => "interrupted",
    };
    let path = |p: &Path| shown(p).to_string();
    json!({
        "command": command, "ending": ending, "steps": report.steps, "loss": report.loss,
        "validation": report.evaluation.as_ref().map(|e| json!({
            "loss": e.loss, "perplexity": e.perplexity, "bits_per_byte": e.bits_per_byte, "exact": e.exact,
        })),
        "best": report.best.map(|(loss, step)| json!({ "loss": loss, "step": step })),
        "folder": path(&report.folder), "last": path(&report.last),
        "best_path": report.best_path.as_deref().map(path),
        "seconds": report.elapsed.as_secs_f64(), "tokens_per_second": report.tokens_per_second,
        "resume": (report.ending == Ending::Stopped).then(|| resume_command(report)),
    })
}
