//! [`TrainerBuilder`]: puts a run together, new or resumed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bullet_tensor::Device;

use crate::config::Config;
use crate::data::TokenDataset;
use crate::error::{Error, Result};
use crate::format::BulletFile;
use crate::module::Module;
use crate::place::Placement;
use crate::tokenizer::Tokenizer;
use crate::transformer::{Transformer, TransformerConfig};

use super::build;
use super::checkpoint::{self, TrainingState, check_vocabulary};
use super::events::Callback;
use super::record::{Record, RunFolder};
use super::step::TrainStep;
use super::text::{self, RunText};
use super::trainer::{Clock, Trainer};

/// What a run is made of, beside its settings.
pub struct TrainerBuilder {
    config: Config,
    text: Option<String>,
    tokenizer: Option<Tokenizer>,
    device: Option<Device>,
    placement: Option<Placement>,
    callbacks: Vec<Box<dyn Callback>>,
    stop: Arc<AtomicBool>,
    resume: Option<Resume>,
}

/// A checkpoint to go on from.
struct Resume {
    path: PathBuf,
    file: BulletFile,
    state: TrainingState,
}

impl TrainerBuilder {
    pub(super) fn new(config: Config) -> TrainerBuilder {
        TrainerBuilder {
            config,
            text: None,
            tokenizer: None,
            device: None,
            placement: None,
            callbacks: Vec::new(),
            stop: Arc::default(),
            resume: None,
        }
    }

    /// A run that goes on from a checkpoint, with the settings it was saved with. Where nothing is changed, the run
    /// ends with the bits it would have had without the stop.
    ///
    /// # Errors
    /// The file is no checkpoint or is damaged; it was saved for inference only.
    pub fn resume(path: impl AsRef<Path>) -> Result<TrainerBuilder> {
        let path = path.as_ref();
        let file = BulletFile::open_verified(path)?;
        let training = file.header().training.clone().ok_or_else(|| {
            Error::data(format!(
                "{} was saved for inference: it lacks the optimizer's state; resume from a last.bullet or best.bullet of \
                 a run folder",
                path.display()
            ))
        })?;
        let state: TrainingState = serde_json::from_value(training).map_err(|e| {
            Error::unsupported(format!("{}: the training state is not of this version: {e}", path.display()))
        })?;
        let mut builder = TrainerBuilder::new(state.config.clone());
        builder.resume = Some(Resume { path: path.to_path_buf(), file, state });
        Ok(builder)
    }

    /// The settings, to change some of them. A resumed run must keep those of model and tokenizer.
    pub fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// Learns from this text, not from the one that `data.path` names.
    pub fn text(mut self, text: impl Into<String>) -> TrainerBuilder {
        self.text = Some(text.into());
        self
    }

    /// Uses this tokenizer, not the one that `tokenizer.*` describes.
    pub fn tokenizer(mut self, tokenizer: Tokenizer) -> TrainerBuilder {
        self.tokenizer = Some(tokenizer);
        self
    }

    /// Trains on this device, not on the one that `train.device` names.
    pub fn device(mut self, device: Device) -> TrainerBuilder {
        self.device = Some(device);
        self
    }

    /// Trains with the parts of the model on these devices, whatever `train.device` says.
    pub fn placement(mut self, placement: Placement) -> TrainerBuilder {
        self.placement = Some(placement);
        self
    }

    /// Adds hooks.
    pub fn callback(mut self, callback: impl Callback + 'static) -> TrainerBuilder {
        self.callbacks.push(Box::new(callback));
        self
    }

    /// A flag that ends the run after the step in progress, with a checkpoint: for Ctrl-C.
    pub fn stop_flag(mut self, stop: Arc<AtomicBool>) -> TrainerBuilder {
        self.stop = stop;
        self
    }

    /// Reads the text, makes or loads tokenizer and model, and opens the run folder.
    ///
    /// # Errors
    /// Settings that don't fit each other; text that cannot be read or is too short; a tokenizer and a model of
    /// different vocabularies; another text than the checkpoint was trained on; a folder that cannot be written.
    pub fn build(mut self) -> Result<Trainer> {
        self.config.validate()?;
        self.check_resume()?;
        let (tokenizer, text) = self.load_text()?;
        let settings = TransformerConfig::from_settings(&self.config.model, tokenizer.vocab_size());
        check_vocabulary(settings.vocab, &tokenizer)?;
        self.check_length(&text.data)?;
        let (placement, plan) = match (self.placement.take(), &self.device) {
            (Some(placement), _) => (placement, None),
            (None, Some(device)) => (settings.on(device, build::weights(&self.config))?, None),
            (None, None) => build::place(&self.config, &settings)?,
        };
        let step = self.build_step(settings, &placement)?;
        let folder = self.folder()?;
        let resumed = self.resume.as_ref().map(|r| r.state.step);
        folder.prepare(&self.config)?;
        if resumed.is_none() {
            folder.clear()?;
        }
        let record = Record::open(&folder, &self.config, resumed)?;
        let (best, stale) = self.resume.as_ref().map_or((None, 0), |r| (r.state.best, r.state.stale));
        let mut callbacks = self.callbacks;
        for warning in warnings(&text.data) {
            callbacks.iter_mut().for_each(|c| c.on_warning(&warning));
        }
        let skipped = step.read()?.skipped;
        Ok(Trainer {
            step,
            tokenizer,
            data: text.data,
            data_checksum: text.checksum,
            text: text.place,
            device: placement.head,
            plan,
            folder,
            record,
            callbacks,
            stop: self.stop,
            best,
            stale,
            last_loss: None,
            skipped,
            record_failed: false,
            clock: Clock::start(),
            config: self.config,
        })
    }

    fn check_resume(&self) -> Result<()> {
        let Some(Resume { path, state, .. }) = &self.resume else { return Ok(()) };
        if self.config.train.steps as u64 <= state.step {
            return Err(Error::argument(format!(
                "`train.steps` = {}: {} has done {} steps already; set train.steps higher to go on",
                self.config.train.steps,
                path.display(),
                state.step
            )));
        }
        if self.config.model != state.config.model || self.config.tokenizer != state.config.tokenizer {
            return Err(Error::argument(format!(
                "settings of [model] or [tokenizer] differ from those in {}: a resumed run keeps them; start a new run to \
                 change them",
                path.display()
            )));
        }
        let (asked, kept) = (self.config.data.val_fraction, state.config.data.val_fraction);
        if asked != kept {
            return Err(Error::argument(format!(
                "`data.val_fraction` = {asked}: {} was trained with {kept}, and what it learnt from must not be validated on; \
                 leave data.val_fraction as it was, or start a new run",
                path.display()
            )));
        }
        Ok(())
    }

    /// The tokenizer and what it makes of the text. A resumed run looks for its text where it was, unless told where.
    fn load_text(&mut self) -> Result<(Tokenizer, RunText)> {
        let saved = self.resume.as_ref().and_then(|r| r.file.header().tokenizer.clone());
        let given = self.text.take();
        if let (Some(r), Some(tokenizer), None) = (&self.resume, &saved, &given)
            && self.config.data.path == r.state.config.data.path
        {
            let found = text::find(&r.state, &self.config, &r.path, tokenizer).map_err(with_advice)?;
            return Ok((tokenizer.clone(), found));
        }
        let (text, place) = match given {
            Some(text) => (text, None),
            None => (text::text(&self.config)?, text::place(&self.config)),
        };
        let tokenizer = match saved.or(self.tokenizer.take()) {
            Some(tokenizer) => tokenizer,
            None => build::tokenizer(&self.config, &text)?,
        };
        let found = RunText::new(&text, &self.config, &tokenizer, place)?;
        match &self.resume {
            Some(r) if r.state.data != found.checksum => {
                Err(with_advice(text::another(&r.path, &r.state, &found.checksum)))
            }
            Some(_) | None => Ok((tokenizer, found)),
        }
    }

    fn check_length(&self, data: &TokenDataset) -> Result<()> {
        let (seq, tokens) = (self.config.model.seq, data.train.len());
        if tokens > seq {
            return Ok(());
        }
        let count = format!("{tokens} token{}", if tokens == 1 { "" } else { "s" });
        Err(Error::data(match tokens {
            0 | 1 => format!(
                "the training text is too short: it has {count}, and training needs at least 2, one to predict from and one \
                 to predict, beside the share of `data.val_fraction` = {}; give more text, or a smaller data.val_fraction",
                self.config.data.val_fraction
            ),
            _ => format!(
                "`model.seq` = {seq}: the training text has {count}, and a window takes one more than model.seq; give more \
                 text, or set model.seq to {} or less",
                tokens - 1
            ),
        }))
    }

    /// Model, optimizer and their state.
    fn build_step(
        &self,
        settings: TransformerConfig,
        placement: &Placement,
    ) -> Result<TrainStep<Transformer>> {
        let config = &self.config;
        let model = build::model(config, settings, placement)?;
        let optimizer = build::optimizer(config, &model)?;
        let mut step = TrainStep::new(model, optimizer, build::step_options(config), &placement.head)?;
        let Some(resume) = &self.resume else { return Ok(step) };
        // All of a model that lies on two devices may be too much for either one.
        let host = Device::cpu();
        let device = if placement.devices().len() > 1 { &host } else { &placement.head };
        let load = || -> Result<()> {
            step.model().load_state_dict(&checkpoint::tensors(&resume.file, "model.", true, device)?)?;
            let state = checkpoint::tensors(&resume.file, "optim.", false, device)?;
            step.optimizer().load(&state)?;
            step.scaler().map_or(Ok(()), |s| s.load(&state))
        };
        load().map_err(|e| e.context(resume.path.display()))?;
        step.resume_at(resume.state.step);
        Ok(step)
    }

    /// The folder of the checkpoint, if that looks like a run's; a moved run goes on where it is.
    fn folder(&self) -> Result<RunFolder> {
        let beside = self.resume.as_ref().and_then(|r| r.path.parent()).map(RunFolder::at);
        match beside {
            Some(folder) if folder.config().exists() => Ok(folder),
            Some(_) => self.unused_folder(),
            None => Ok(RunFolder::of(&self.config)),
        }
    }

    /// A checkpoint that was copied out of its folder must not replace those of the run, which may have gone on.
    fn unused_folder(&self) -> Result<RunFolder> {
        let folder = RunFolder::of(&self.config);
        if !folder.last().exists() && !folder.best().exists() {
            return Ok(folder);
        }
        Err(Error::argument(format!(
            "`train.name` = {}: {} holds another run already, whose checkpoints would be replaced; set train.name to a new \
             name, or resume from that folder",
            self.config.train.name,
            folder.path().display()
        )))
    }
}

fn with_advice(mut e: Error) -> Error {
    e.message.push_str(
        "; name the same text with `data.path` (`--data PATH` on the command line), or start a new run",
    );
    e
}

fn warnings(data: &TokenDataset) -> Vec<String> {
    let mut warnings = Vec::new();
    if !data.unknown.is_empty() {
        warnings.push(format!(
            "{} characters of the text are not in the vocabulary and are left out: {}",
            data.unknown.total(),
            data.unknown
        ));
    }
    if data.validation.len() < 2 {
        warnings.push(format!(
            "the validation text has {} tokens, too few to evaluate on; give more text or a larger data.val_fraction",
            data.validation.len()
        ));
    }
    warnings
}
