//! `bullet compile`: kernels of a Python file as text and machine code, without a GPU and without running Python.

mod columns;
mod gpu;

use std::path::Path;
use std::time::{Duration, Instant};

use bullet_lang::adjoint::{Adjoint, AdjointOptions, adjoint};
use bullet_lang::emit::cuda::{Checks, CudaOptions, source, standalone};
use bullet_lang::emit::ptx;
use bullet_lang::ir::Kernel;
use bullet_lang::{Diagnostics, Options};
use clap::ValueEnum;

use crate::args::CompileArgs;
use crate::failure::Failure;
use crate::output::{self, note, shown};

pub(crate) use gpu::{Arch, arch};
use gpu::{Gpu, Image};

/// What a kernel is turned into.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Emit {
    /// The typed IR, as text
    Ir,
    /// CUDA C++ for NVRTC
    Cuda,
    /// A program for nvcc that runs the kernel and checks its results
    Cu,
    /// PTX for --arch
    Ptx,
    /// Machine code of --arch
    Cubin,
    /// Cranelift's IR of the CPU code
    Clif,
    /// Instructions of this machine's CPU, also called cpu
    #[value(alias = "cpu")]
    Asm,
}

/// Who makes PTX of a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum PtxBy {
    /// NVIDIA's run-time compiler
    Nvrtc,
    /// The kernel language itself
    Bullet,
}

impl Emit {
    /// Of its files, behind the kernel's name and a dot.
    fn extension(self) -> &'static str {
        match self {
            Emit::Ir => "ir",
            Emit::Cuda => "cuda.cu",
            Emit::Cu => "cu",
            Emit::Ptx => "ptx",
            Emit::Cubin => "cubin",
            Emit::Clif => "clif",
            Emit::Asm => "s",
        }
    }

    /// What a kernel and its adjoint are one text of, and cannot be shown beside each other in parts.
    fn is_whole(self) -> bool {
        self == Emit::Cu
    }

    /// What begins a comment.
    fn comment(self) -> &'static str {
        if matches!(self, Emit::Clif | Emit::Asm) { ";" } else { "//" }
    }

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string())
    }
}

/// A kernel, and what was asked for with it.
struct Unit {
    kernel: Kernel,
    adjoint: Option<Adjoint>,
}

impl Unit {
    fn functions(&self) -> Vec<&Kernel> {
        let adjoint = self.adjoint.as_ref().map(|adjoint| &adjoint.kernel);
        [Some(&self.kernel), adjoint].into_iter().flatten().collect()
    }
}

/// What each part took, of all kernels together.
#[derive(Default)]
struct Times {
    front: Duration,
    passes: Duration,
    adjoint: Duration,
    emit: Duration,
    /// Finding and loading NVRTC.
    load: Duration,
    nvrtc: Duration,
}

pub(crate) fn run(args: &CompileArgs) -> Result<(), Failure> {
    check(args)?;
    let text = std::fs::read_to_string(&args.file)
        .map_err(|e| Failure::failed(format!("could not read {}: {e}", args.file.display())))?;
    let mut times = Times::default();
    let units = units(args, &text, &mut times)?;
    let mut maker = Maker { args, gpu: None, times };
    match &args.diff[..] {
        &[left, right] => maker.diff(&units, left, right)?,
        _ => maker.emit(&units)?,
    }
    if args.time {
        note(maker.times.line());
    }
    Ok(())
}

/// What the parser of arguments cannot know.
fn check(args: &CompileArgs) -> Result<(), Failure> {
    if !matches!(args.diff.len(), 0 | 2) {
        return Err(Failure::usage("`--diff` shows two side by side: write it as --diff ir,cuda"));
    }
    if args.diff.contains(&Emit::Cubin) {
        return Err(
            Failure::usage("`--diff` of a cubin: machine code is no text").or_hint("ptx is the nearest text")
        );
    }
    if args.diff.is_empty() && args.emit.contains(&Emit::Cubin) && args.out.is_none() {
        return Err(Failure::usage("`--emit` = cubin: machine code is no text")
            .or_hint("--out FOLDER writes it to a file"));
    }
    Ok(())
}

/// The kernels that were asked for, with their adjoints.
fn units(args: &CompileArgs, text: &str, times: &mut Times) -> Result<Vec<Unit>, Failure> {
    let file = args.file.to_string_lossy();
    let kernels = timed(&mut times.front, || bullet_lang::compile(&file, text, Options { optimize: false }));
    let kernels = chosen(args, kernels.map_err(|found| mistakes(&found))?)?;
    let (mut units, mut found) = (vec![], vec![]);
    for mut kernel in kernels {
        timed(&mut times.passes, || bullet_lang::optimize(&mut kernel));
        let make = || args.adjoint.then(|| adjoint(&kernel, AdjointOptions::default())).transpose();
        match timed(&mut times.adjoint, make) {
            Ok(adjoint) => units.push(Unit { kernel, adjoint }),
            Err(mut items) => found.append(&mut items),
        }
    }
    if found.is_empty() { Ok(units) } else { Err(mistakes(&Diagnostics::new(&file, text, found))) }
}

/// Those of `--kernel`, or all.
fn chosen(args: &CompileArgs, kernels: Vec<Kernel>) -> Result<Vec<Kernel>, Failure> {
    if kernels.is_empty() {
        return Err(Failure::failed(format!("{} has no kernel", args.file.display()))
            .or_hint("kernels are functions with the decorator `@wp.kernel` at the top level of the file"));
    }
    let names: Vec<&str> = kernels.iter().map(|kernel| kernel.name.as_str()).collect();
    if let Some(unknown) = args.kernels.iter().find(|name| !names.contains(&name.as_str())) {
        let there = names.join(", ");
        return Err(Failure::usage(format!(
            "`--kernel` = {unknown}: {} has no such kernel",
            args.file.display()
        ))
        .or_hint(format_args!("it has {there}")));
    }
    let is_chosen = |kernel: &Kernel| args.kernels.is_empty() || args.kernels.contains(&kernel.name);
    Ok(kernels.into_iter().filter(is_chosen).collect())
}

/// Tells what is wrong with the source.
fn mistakes(found: &Diagnostics) -> Failure {
    note(found.to_string().trim_end());
    Failure::Told
}

fn timed<T>(sum: &mut Duration, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let made = work();
    *sum += start.elapsed();
    made
}

impl Times {
    fn line(&self) -> String {
        let ms = |time: Duration| 1e3 * time.as_secs_f64();
        let mut line = format!(
            "time: front {:.3} ms, passes {:.3} ms, adjoint {:.3} ms, emit {:.3} ms",
            ms(self.front),
            ms(self.passes),
            ms(self.adjoint),
            ms(self.emit)
        );
        if self.load > Duration::ZERO {
            line += &format!(", nvrtc {:.1} ms and {:.1} ms to load it", ms(self.nvrtc), ms(self.load));
        }
        line
    }
}

/// Makes what was asked for, all of it before anything is written.
struct Maker<'a> {
    args: &'a CompileArgs,
    gpu: Option<Gpu>,
    times: Times,
}

impl Maker<'_> {
    fn emit(&mut self, units: &[Unit]) -> Result<(), Failure> {
        let mut made = vec![];
        for unit in units {
            for (number, &emit) in self.args.emit.iter().enumerate() {
                if !self.args.emit[..number].contains(&emit) {
                    made.push((&unit.kernel.name, emit, self.make(emit, unit, &unit.functions())?));
                }
            }
        }
        for (name, emit, bytes) in made {
            match &self.args.out {
                Some(folder) => write(folder, &format!("{name}.{}", emit.extension()), &bytes)?,
                None => {
                    let text = String::from_utf8_lossy(&bytes);
                    output::put(format_args!(
                        "{} {name}: {}\n{}\n",
                        emit.comment(),
                        emit.name(),
                        text.trim_end()
                    ))?;
                }
            }
        }
        Ok(())
    }

    /// Two of each kernel side by side: the kernel, then its adjoint, where both have them apart.
    fn diff(&mut self, units: &[Unit], left: Emit, right: Emit) -> Result<(), Failure> {
        let mut out = String::new();
        for unit in units {
            let functions = unit.functions();
            let whole = left.is_whole() || right.is_whole();
            let parts = if whole { vec![&functions[..]] } else { functions.chunks(1).collect() };
            for part in parts {
                let mut text = |emit: Emit| {
                    let bytes = self.make(emit, unit, part)?;
                    let title = format!("{}: {}", part[0].name, emit.name());
                    Ok::<String, Failure>(format!(
                        "{title}\n{}\n{}",
                        "-".repeat(title.len()),
                        String::from_utf8_lossy(&bytes)
                    ))
                };
                out += &columns::side_by_side(&text(left)?, &text(right)?, columns::width());
                out.push('\n');
            }
        }
        Ok(output::put(out)?)
    }

    fn make(&mut self, emit: Emit, unit: &Unit, functions: &[&Kernel]) -> Result<Vec<u8>, Failure> {
        let text = |times: &mut Times, work: &dyn Fn() -> String| timed(&mut times.emit, work).into_bytes();
        let checks = if self.args.debug { Checks::All } else { Checks::Off };
        let options = CudaOptions { checks, ..CudaOptions::default() };
        let cuda = || source(functions, options);
        Ok(match emit {
            Emit::Ir => {
                let ir = || functions.iter().map(|kernel| kernel.to_string()).collect::<Vec<_>>().join("\n");
                text(&mut self.times, &ir)
            }
            Emit::Cuda => text(&mut self.times, &cuda),
            Emit::Cu => text(&mut self.times, &|| standalone(&unit.kernel, unit.adjoint.as_ref(), options)),
            Emit::Ptx if self.args.ptx_by == PtxBy::Bullet => self.own_ptx(functions, options)?,
            Emit::Ptx => self.image(Image::Ptx, &unit.kernel.name, &cuda)?,
            Emit::Cubin => self.image(Image::Cubin, &unit.kernel.name, &cuda)?,
            Emit::Clif => timed(&mut self.times.emit, || cpu(functions, bullet_jit::clif))?,
            Emit::Asm => timed(&mut self.times.emit, || cpu(functions, bullet_jit::asm))?,
        })
    }

    /// PTX of our own.
    fn own_ptx(&mut self, functions: &[&Kernel], options: CudaOptions) -> Result<Vec<u8>, Failure> {
        let target = self.args.arch.target();
        let made = timed(&mut self.times.emit, || ptx::module(functions, options, target));
        let failed = |e: ptx::Unsupported| Failure::failed(e.to_string()).or_hint("--ptx-by nvrtc");
        made.map(String::into_bytes).map_err(failed)
    }

    /// By NVRTC, which is looked for when it is first needed.
    fn image(&mut self, image: Image, name: &str, cuda: &dyn Fn() -> String) -> Result<Vec<u8>, Failure> {
        let gpu = match &mut self.gpu {
            Some(gpu) => gpu,
            none => {
                // Who asks for times wants those of compiling, not of reading what was compiled before.
                let found = timed(&mut self.times.load, || Gpu::find(self.args.arch, !self.args.time))?;
                none.insert(found)
            }
        };
        let source = timed(&mut self.times.emit, cuda);
        timed(&mut self.times.nvrtc, || gpu.compile(image, name, &source))
    }
}

/// Each function as the CPU has it.
fn cpu(
    functions: &[&Kernel],
    text: impl Fn(&Kernel, bullet_jit::Options) -> Result<String, bullet_jit::Error>,
) -> Result<Vec<u8>, Failure> {
    let texts = functions.iter().map(|kernel| {
        let failed = |e| Failure::failed(format!("`{}` on the CPU: {e}", kernel.name));
        text(kernel, bullet_jit::Options::default()).map_err(failed)
    });
    Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n").into_bytes())
}

/// Writes a file and says so.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    let path = folder.join(name);
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, bytes));
    written.map_err(|e| Failure::failed(format!("could not write {}: {e}", path.display())))?;
    Ok(output::line(format_args!("wrote {}, {}", shown(&path), output::bytes(bytes.len() as u64)))?)
}
