//! The code of one IR kernel for the devices it ran on, and which of it a launch takes.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bullet_jit::{Fault, Lanes, Options};
use bullet_lang::adjoint::{Adjoint, Tape, Use};
use bullet_lang::diag::Diagnostic;
use bullet_lang::emit::cuda::{Checks, CudaOptions, Layout, Sharing, sites};
use bullet_lang::ir::{self, Effect};
use bullet_lang::link::Linked;
use bullet_lang::order::{Order, order, summed};
use bullet_lang::sums;
use bullet_tensor::{Device, DeviceKind, Tensor, access};
use smallvec::SmallVec;

use crate::error::{Error, Result};
use crate::faults::shown;
use crate::kernel::{Arg, LaunchOptions, types};
use crate::reach::{overlap, repeats};
use crate::records::Recorder;
use crate::{cpu, cuda};

/// Made of an IR kernel at the first launch on each device.
#[derive(Debug)]
pub(crate) struct Code {
    ir: ir::Kernel,
    effects: Vec<Effect>,
    /// Arguments that must be copies that nobody else has, as it overwrites them.
    scratch: Vec<usize>,
    /// The source, to show where something went wrong.
    linked: Arc<Linked>,
    pub(crate) tape: Tape,
    /// As far as the order of updates can be seen: where arrays do not share memory, and where they may.
    orders: OnceLock<[Seen; 2]>,
    /// Whether a thread on a GPU may report a fault, without and with checks of indices.
    may_fail: [OnceLock<bool>; 2],
    /// By the number of the [way](Way).
    cpu: [OnceLock<Result<cpu::Program>>; 4],
    /// Whether a CPU may make sums of updates, where arrays share no memory.
    sums: OnceLock<bool>,
    cuda: Mutex<Vec<Arc<cuda::Function>>>,
    recorders: Mutex<Vec<Arc<Recorder>>>,
}

/// What can be seen of the order of updates.
#[derive(Debug)]
struct Seen {
    order: Order,
    /// Whether a GPU records sums.
    sums: bool,
}

/// How threads of a launch update memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// In any order.
    Free,
    /// In any order, and several as one.
    Sums,
    /// By records that are applied in order.
    Records,
    /// One after the other.
    Serial,
}

impl Code {
    pub(crate) fn new(ir: ir::Kernel, linked: Arc<Linked>) -> Code {
        Code {
            scratch: vec![],
            tape: Tape::of(&ir),
            effects: ir.effects(),
            ir,
            linked,
            orders: OnceLock::new(),
            may_fail: Default::default(),
            cpu: Default::default(),
            sums: OnceLock::new(),
            cuda: Mutex::default(),
            recorders: Mutex::default(),
        }
    }

    /// Of an adjoint.
    pub(crate) fn of(adjoint: &Adjoint, linked: Arc<Linked>) -> Code {
        let scratch = (0..adjoint.uses.len()).filter(|&i| adjoint.uses[i] == Use::Scratch).collect();
        Code { scratch, ..Code::new(adjoint.kernel.clone(), linked) }
    }

    /// What it does to each argument.
    pub(crate) fn effects(&self) -> &[Effect] {
        &self.effects
    }

    /// Runs it; the caller has checked the arguments.
    pub(crate) fn launch(
        &self,
        device: &Device,
        grid: &[i32],
        args: &[Arg],
        options: LaunchOptions,
    ) -> Result<()> {
        let [reads, writes] = self.held(args);
        access(&reads, &writes, || self.run(device, grid, args, options))?
    }

    /// The arrays that are read, and those that are written, while nobody else may touch them otherwise. Not scratch: nobody else
    /// has that, and who holds it cannot copy it for a launch that measures.
    pub(crate) fn held<'a>(&self, args: &'a [Arg]) -> [SmallVec<[&'a Tensor; 8]>; 2] {
        let mut held = [SmallVec::new(), SmallVec::new()];
        for (i, arg) in args.iter().enumerate().filter(|(i, _)| !self.scratch.contains(i)) {
            if let Arg::Array(tensor) = arg {
                held[usize::from(self.effects[i].writes)].push(tensor);
            }
        }
        held
    }

    /// Runs it with the memory of its arguments held.
    fn run(&self, device: &Device, grid: &[i32], args: &[Arg], options: LaunchOptions) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        match device.kind() {
            DeviceKind::Cpu => {
                if device.is_capturing() {
                    return Err(Error::Unsupported(
                        "kernels cannot be captured into a graph of the CPU; launch them outside of it"
                            .into(),
                    ));
                }
                let way = if options.deterministic { self.way(args) } else { self.free(args) };
                match self.program(way) {
                    Ok(program) => program
                        .launch(grid, args, matches!(way, Way::Records | Way::Serial))
                        .map_err(|fault| self.explain(fault)),
                    Err(e) => Err(e.clone()),
                }
            }
            DeviceKind::Cuda(_) => {
                let work = self.work(grid, args);
                let strided = work.threads() > i32::MAX as u64
                    || types(&self.ir).zip(args).any(|(ty, arg)| !cuda::is_plain(ty, arg));
                let layout = if strided { Layout::Strided } else { Layout::Contiguous };
                let records = if options.deterministic { self.sharing(args) } else { None };
                let code = CudaOptions { layout, records, checks: checks(options) };
                match records {
                    Some(_) => self.recorder(device, code)?.launch(work, options.block),
                    None => self.function(device, code)?.launch(work, options.block),
                }
            }
        }
    }

    /// Whether a thread of such a launch may report a fault on a GPU.
    pub(crate) fn may_fail(&self, options: LaunchOptions) -> bool {
        *self.may_fail[usize::from(options.debug)].get_or_init(|| {
            let options = CudaOptions { checks: checks(options), ..CudaOptions::default() };
            !sites(&self.ir, options).is_empty()
        })
    }

    /// What a GPU is told of a launch.
    pub(crate) fn work<'a>(&'a self, grid: &'a [i32], args: &'a [Arg]) -> cuda::Work<'a> {
        cuda::Work { kernel: &self.ir, tape: self.tape, scratch: &self.scratch, grid, args }
    }

    /// How much of the order of updates can be seen, with arrays that do not share memory and with such as may.
    fn orders(&self) -> &[Seen; 2] {
        self.orders.get_or_init(|| {
            let seen = |distinct| Seen {
                order: order(&self.ir, distinct),
                sums: !summed(&self.ir, distinct).is_empty(),
            };
            [true, false].map(seen)
        })
    }

    /// What of the order can be seen with these arguments, and what is known of their memory.
    fn seen(&self, args: &[Arg]) -> (&Seen, Sharing) {
        let [distinct, any] = self.orders();
        // Where it makes no difference nobody needs to look.
        if any.order == Order::Free || !self.are_distinct(args) {
            (any, Sharing::Any)
        } else {
            (distinct, Sharing::Distinct)
        }
    }

    /// How any other launch runs threads on a CPU.
    fn free(&self, args: &[Arg]) -> Way {
        let sums = *self.sums.get_or_init(|| !sums::postponable(&self.ir.plain()).is_empty());
        if sums && (self.ir.noalias || self.are_distinct(args)) { Way::Sums } else { Way::Free }
    }

    /// How a deterministic launch runs threads on a CPU.
    fn way(&self, args: &[Arg]) -> Way {
        match self.seen(args) {
            (Seen { order: Order::Free, .. }, _) => Way::Free,
            (Seen { order: Order::Records, .. }, Sharing::Distinct) => Way::Records,
            _ => Way::Serial,
        }
    }

    /// What is known of the arrays, if a deterministic launch on a GPU takes more than any other.
    fn sharing(&self, args: &[Arg]) -> Option<Sharing> {
        let (seen, sharing) = self.seen(args);
        match seen.order {
            Order::Serial(_) => Some(sharing),
            Order::Records => seen.sums.then_some(sharing),
            Order::Free => None,
        }
    }

    /// Whether what the kernel writes shares no memory with anything else it uses.
    fn are_distinct(&self, args: &[Arg]) -> bool {
        let used = |i: usize| self.effects[i].reads || self.effects[i].writes;
        let array = |i: usize| match &args[i] {
            Arg::Array(tensor) if used(i) => Some(tensor),
            _ => None,
        };
        (0..args.len()).filter(|&i| self.effects[i].writes).filter_map(|i| Some((i, array(i)?))).all(
            |(i, target)| {
                let shared = |j| j != i && array(j).is_some_and(|other| overlap(target, other));
                !repeats(target) && !(0..args.len()).any(shared)
            },
        )
    }

    /// Its code for a CPU.
    fn program(&self, way: Way) -> &Result<cpu::Program> {
        let options = match way {
            Way::Free => Options::default(),
            Way::Sums => Options { sums: true, ..Options::default() },
            Way::Records => Options { records: true, ..Options::default() },
            Way::Serial => Options { lanes: Lanes::Off, ..Options::default() },
        };
        self.cpu[way as usize].get_or_init(|| cpu::Program::new(&self.ir, options))
    }

    /// A fault with the line of the source that it came from.
    fn explain(&self, fault: Fault) -> Error {
        let message = match fault.span {
            Some(span) => shown(&self.linked, span, fault.message, None),
            None => fault.message,
        };
        Error::Fault(fault.kind, message)
    }

    /// Its function on a GPU, for arrays with or without gaps.
    fn function(&self, device: &Device, options: CudaOptions) -> Result<Arc<cuda::Function>> {
        // Compiling is slow and done once; other threads that want this kernel wait for it.
        let mut known = self.cuda.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = known.iter().find(|function| function.is_for(device, options)) {
            return Ok(function.clone());
        }
        let function = Arc::new(cuda::Function::new(device, &self.ir, options, &self.ir.name, &self.linked)?);
        known.push(function.clone());
        Ok(function)
    }

    /// The same for deterministic launches.
    fn recorder(&self, device: &Device, options: CudaOptions) -> Result<Arc<Recorder>> {
        let distinct = options.records == Some(Sharing::Distinct);
        if let Order::Serial(diagnostic) = &self.orders()[usize::from(!distinct)].order {
            return Err(self.not_on_a_gpu(diagnostic.clone()));
        }
        let mut known = self.recorders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(recorder) = known.iter().find(|recorder| recorder.is_for(device, options)) {
            return Ok(recorder.clone());
        }
        let recorder = Recorder::new(device, &self.ir, options, &self.linked)?;
        let recorder = Arc::new(recorder.map_err(|diagnostic| self.not_on_a_gpu(diagnostic))?);
        known.push(recorder.clone());
        Ok(recorder)
    }

    /// Why a deterministic launch runs on the CPU only.
    fn not_on_a_gpu(&self, diagnostic: Diagnostic) -> Error {
        let shown = self.linked.diagnostics(vec![diagnostic]).to_string();
        Error::Unsupported(format!(
            "a deterministic launch of `{}` cannot run on a GPU:\n{}",
            self.ir.name,
            shown.trim_end()
        ))
    }
}

/// Which indices a launch checks on a GPU.
fn checks(options: LaunchOptions) -> Checks {
    if options.debug { Checks::All } else { Checks::Off }
}
