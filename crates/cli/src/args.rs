//! The command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands::compile::{Arch, Emit, PtxBy, arch};
use crate::numbers;
use crate::settings::Settings;

/// Trains small language models on the machine at hand, and writes text with them.
#[derive(Parser, Debug)]
#[command(name = "bullet", version, arg_required_else_help = true, after_help = AFTER)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Threads to compute on; the default is BULLET_THREADS, else the cores this process may use
    #[arg(long, value_name = "N", global = true, value_parser = numbers::threads, allow_negative_numbers = true)]
    pub(crate) threads: Option<usize>,
}

const AFTER: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong arguments or settings, 130 interrupted (training saves first).
Start with `bullet demo`.";

/// One job each.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Train a small transformer on Shakespeare, save it, and write with it: about a minute and a half
    Demo(DemoArgs),
    /// Train a model on your own text
    Train(Box<TrainArgs>),
    /// Write text with a trained model
    Generate(GenerateArgs),
    /// Measure a model on a text: loss, perplexity, bits per byte
    Eval(EvalArgs),
    /// Show what a model file holds: settings, tensors, checksums
    Info(InfoArgs),
    /// Show what this machine computes with
    Devices(DevicesArgs),
    /// Convert between .bullet and .safetensors
    Convert(ConvertArgs),
    /// Compile kernels of a Python file: IR, CUDA C++, PTX, machine code, CPU code; needs no GPU
    Compile(CompileArgs),
}

/// Arguments of `bullet demo`.
#[derive(Args, Debug)]
#[command(
    after_help = "The demo measures how fast this machine is and trains for as many steps as fit into --seconds. Runs of \
                        equal --steps and --seed give equal models on the same machine and number of threads."
)]
pub(crate) struct DemoArgs {
    /// Time to train for; the number of steps is chosen by it
    #[arg(long, value_name = "S", default_value_t = 80.0, conflicts_with_all = ["steps", "quick"])]
    #[arg(value_parser = numbers::real, allow_negative_numbers = true)]
    pub(crate) seconds: f64,

    /// Train for exactly this many steps
    #[arg(long, value_name = "N", value_parser = numbers::positive, allow_negative_numbers = true)]
    pub(crate) steps: Option<NonZeroUsize>,

    /// Where to train: cpu, cuda, cuda:N, auto for the first GPU that can be used, else the CPU, or hybrid for both
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: String,

    /// A few steps only: to see that everything works, not to see English
    #[arg(long, conflicts_with = "steps")]
    pub(crate) quick: bool,

    /// Where to save the model
    #[arg(long, value_name = "FILE", default_value = "demo.bullet")]
    pub(crate) out: PathBuf,

    /// What the sample begins with
    #[arg(long, value_name = "TEXT", default_value = "ROMEO:\n")]
    pub(crate) prompt: String,

    /// Where all randomness starts
    #[arg(long, value_name = "N", default_value_t = 1337)]
    #[arg(value_parser = numbers::seed, allow_negative_numbers = true)]
    pub(crate) seed: u64,

    /// Print one JSON object at the end, and nothing else to standard output
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `bullet train`.
#[derive(Args, Debug)]
#[command(after_help = "\
Settings come from the command line, else from CONFIG, else from the defaults. `bullet train --help` lists them all.

  bullet train --data book.txt --out runs/book
  bullet train configs/shakespeare-char.toml --steps 500
  bullet train --resume runs/book --steps 2000

Ctrl-C saves and says how to go on; a second Ctrl-C quits at once.")]
pub(crate) struct TrainArgs {
    /// A TOML file of settings
    #[arg(value_name = "CONFIG", conflicts_with = "resume")]
    pub(crate) config: Option<PathBuf>,

    /// The same as CONFIG
    #[arg(long = "config", value_name = "CONFIG", conflicts_with_all = ["config", "resume"])]
    pub(crate) config_option: Option<PathBuf>,

    /// Folder for checkpoints, log and loss curve: short for --runs and --name
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["resume", "train.runs", "train.name"])]
    pub(crate) out: Option<PathBuf>,

    /// Go on from a run folder or a checkpoint, with its settings
    #[arg(long, value_name = "PATH")]
    pub(crate) resume: Option<PathBuf>,

    /// Replace an older run in the same folder
    #[arg(long, conflicts_with = "resume")]
    pub(crate) overwrite: bool,

    /// Print the settings as a TOML file, and do nothing
    #[arg(long)]
    pub(crate) print_config: bool,

    /// Print one JSON object at the end, and nothing else to standard output
    #[arg(long)]
    pub(crate) json: bool,

    /// No progress
    #[arg(long, short)]
    pub(crate) quiet: bool,

    /// Any setting by its name in the file, such as train.batch_size=32; may be given again
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,

    /// Settings with options of their own.
    #[command(flatten)]
    pub(crate) settings: Settings,
}

/// Arguments of `bullet generate`.
#[derive(Args, Debug)]
#[command(after_help = "\
  bullet generate runs/book/best.bullet --prompt \"It was\" --max-tokens 200
  echo \"It was\" | bullet generate demo.bullet --prompt - --seed 7")]
pub(crate) struct GenerateArgs {
    /// A .bullet file, or a run folder
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,

    /// What the text begins with; `-` reads it from standard input
    #[arg(long, short, value_name = "TEXT", default_value = "", allow_hyphen_values = true)]
    pub(crate) prompt: String,

    /// Where to compute: cpu, cuda, cuda:N, or auto for the first GPU that can be used, else the CPU
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: String,

    /// Tokens to write
    #[arg(long, short = 'n', value_name = "N", default_value_t = 200)]
    #[arg(value_parser = numbers::count, allow_negative_numbers = true)]
    pub(crate) max_tokens: usize,

    /// Below 1 the likely gets likelier, above 1 less so; 0 always takes the likeliest token
    #[arg(long, short, value_name = "X", default_value_t = 0.8)]
    #[arg(value_parser = numbers::real, allow_negative_numbers = true)]
    pub(crate) temperature: f64,

    /// Choose among this many likeliest tokens
    #[arg(long, value_name = "K", value_parser = numbers::count, allow_negative_numbers = true)]
    pub(crate) top_k: Option<usize>,

    /// Choose among the likeliest tokens that have this probability together
    #[arg(long, value_name = "P", value_parser = numbers::real, allow_negative_numbers = true)]
    pub(crate) top_p: Option<f64>,

    /// The same seed gives the same text; by default each call has another
    #[arg(long, value_name = "N", value_parser = numbers::seed, allow_negative_numbers = true)]
    pub(crate) seed: Option<u64>,

    /// Don't repeat the prompt before the text
    #[arg(long)]
    pub(crate) no_echo: bool,

    /// Print one JSON object at the end, and nothing else to standard output
    #[arg(long)]
    pub(crate) json: bool,

    /// No summary
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// Arguments of `bullet eval`.
#[derive(Args, Debug)]
pub(crate) struct EvalArgs {
    /// A .bullet file, or a run folder
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,

    /// A text file, or a folder of text files; by default the part of its own text that the model was not trained on
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,

    /// Replace bytes of the text that are not UTF-8
    #[arg(long, requires = "data")]
    pub(crate) lossy: bool,

    /// Where to compute: cpu, cuda, cuda:N, or auto for the first GPU that can be used, else the CPU
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: String,

    /// Tokens of context; by default as many as the model has positions for
    #[arg(long, value_name = "N", value_parser = numbers::positive, allow_negative_numbers = true)]
    pub(crate) seq: Option<NonZeroUsize>,

    /// Sequences computed at a time: changes speed and memory only
    #[arg(long, value_name = "N", default_value = "16")]
    #[arg(value_parser = numbers::positive, allow_negative_numbers = true)]
    pub(crate) batch_size: NonZeroUsize,

    /// Print one JSON object, and nothing else to standard output
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `bullet info`.
#[derive(Args, Debug)]
pub(crate) struct InfoArgs {
    /// A .bullet or .safetensors file, or a run folder
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// Check every byte against the checksums in the file; damage is a failure
    #[arg(long)]
    pub(crate) verify: bool,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `bullet devices`.
#[derive(Args, Debug)]
pub(crate) struct DevicesArgs {
    /// Show the cache of compiled kernels instead
    #[arg(long)]
    pub(crate) cache: bool,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `bullet convert`.
#[derive(Args, Debug)]
#[command(
    after_help = "The extension of DESTINATION says what to convert to. Nothing is lost: model, tokenizer and training \
                        state survive the way there and back."
)]
pub(crate) struct ConvertArgs {
    /// A .bullet or .safetensors file, or a run folder
    #[arg(value_name = "SOURCE")]
    pub(crate) source: PathBuf,

    /// The file to write: NAME.bullet or NAME.safetensors
    #[arg(value_name = "DESTINATION")]
    pub(crate) destination: PathBuf,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `bullet compile`.
#[derive(Args, Debug)]
#[command(after_help = "\
  bullet compile kernels.py --emit cuda --adjoint
  bullet compile kernels.py --kernel step --emit ptx,cubin --arch sm_90 --out build
  bullet compile kernels.py --diff cpu,cuda
  bullet compile kernels.py --emit ptx --ptx-by bullet --arch sm_60

Kernels are functions with `@wp.kernel`; docs/kernel-language.md says what they may hold. The file is read, not run.")]
pub(crate) struct CompileArgs {
    /// A Python file with kernels
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// What to make, several with commas between them
    #[arg(long, value_name = "KINDS", value_delimiter = ',', default_value = "cuda")]
    pub(crate) emit: Vec<Emit>,

    /// The GPU that ptx and cubin are for, from sm_35 to sm_121; PTX is for its virtual architecture
    #[arg(long, value_name = "ARCH", default_value = "sm_80", value_parser = arch)]
    pub(crate) arch: Arch,

    /// Whose PTX: NVRTC's, or Bullet's own, which needs no NVRTC and takes microseconds
    #[arg(long, value_name = "WHO", value_enum, default_value = "nvrtc")]
    pub(crate) ptx_by: PtxBy,

    /// Each kernel with its adjoint
    #[arg(long)]
    pub(crate) adjoint: bool,

    /// Code for a GPU checks indices of arrays
    #[arg(long)]
    pub(crate) debug: bool,

    /// Only the kernel of this name; may be given again
    #[arg(long = "kernel", value_name = "NAME")]
    pub(crate) kernels: Vec<String>,

    /// Write files to this folder, NAME.ir, NAME.cuda.cu, NAME.cu, NAME.ptx, NAME.cubin, NAME.clif, NAME.s, instead of to standard output
    #[arg(long, value_name = "FOLDER", conflicts_with = "diff")]
    pub(crate) out: Option<PathBuf>,

    /// Show two kinds in columns side by side
    #[arg(
        long,
        value_name = "A,B",
        value_delimiter = ',',
        conflicts_with = "emit",
        hide_possible_values = true
    )]
    pub(crate) diff: Vec<Emit>,

    /// Say on standard error what each part took; ptx and cubin are compiled anew
    #[arg(long)]
    pub(crate) time: bool,
}
