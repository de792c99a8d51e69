//! Training: one step, the run around it, its checkpoints and what it reports.
//!
//! [`Trainer::builder`] makes a run of a [`Config`](crate::config::Config), [`Trainer::run`] trains it;
//! [`TrainerBuilder::resume`] goes on from a checkpoint, and [`load_model`] reads one for inference. [`TrainStep`] trains
//! any [`Objective`], for loops of one's own.

mod build;
mod builder;
mod checkpoint;
mod diagnose;
mod evaluate;
mod events;
mod probe;
mod record;
mod step;
mod text;
mod trainer;

pub use build::{HYBRID, first_device, model, optimizer, place, schedule, step_options, tokenizer};
pub use builder::TrainerBuilder;
pub use checkpoint::{LoadedModel, TrainingState, load_model};
pub use evaluate::{estimate, evaluate};
pub use events::{Callback, CheckpointKind, Ending, Evaluation, Flow, Progress, Report};
pub use probe::measure;
pub use record::RunFolder;
pub use step::{BatchTensor, Objective, Reading, StepOptions, TrainStep, tokens_of};
pub use text::{TINY_SHAKESPEARE, saved_data};
pub use trainer::Trainer;
