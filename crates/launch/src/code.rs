//! The code of one IR kernel for the devices it ran on.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bullet_jit::Fault;
use bullet_lang::adjoint::Tape;
use bullet_lang::diag::Diagnostic;
use bullet_lang::ir::{self, Effect};
use bullet_lang::link::Linked;
use bullet_tensor::{Device, DeviceKind, Tensor, access};
use smallvec::SmallVec;

use crate::error::{Error, Result};
use crate::kernel::{Arg, LaunchOptions, types};
use crate::{cpu, cuda};

/// Made of an IR kernel at the first launch on each device.
#[derive(Debug)]
pub(crate) struct Code {
    ir: ir::Kernel,
    effects: Vec<Effect>,
    /// The source, to show where something went wrong.
    linked: Arc<Linked>,
    pub(crate) tape: Tape,
    cpu: OnceLock<Result<cpu::Program>>,
    cuda: Mutex<Vec<Arc<cuda::Function>>>,
}

impl Code {
    pub(crate) fn new(ir: ir::Kernel, linked: Arc<Linked>) -> Code {
        Code {
            tape: Tape::of(&ir),
            effects: ir.effects(),
            ir,
            linked,
            cpu: OnceLock::new(),
            cuda: Mutex::default(),
        }
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
        let (mut reads, mut writes) = (SmallVec::<[&Tensor; 8]>::new(), SmallVec::<[&Tensor; 8]>::new());
        for (arg, effect) in args.iter().zip(&self.effects) {
            if let Arg::Array(tensor) = arg {
                if effect.writes { writes.push(tensor) } else { reads.push(tensor) }
            }
        }
        access(&reads, &writes, || self.run(device, grid, args, options))?
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
                match self.cpu.get_or_init(|| cpu::Program::new(&self.ir)) {
                    Ok(program) => program.launch(grid, args).map_err(|fault| self.explain(fault)),
                    Err(e) => Err(e.clone()),
                }
            }
            DeviceKind::Cuda(_) => {
                let threads = grid.iter().fold(1u64, |all, &length| all.saturating_mul(length as u64));
                let strided = threads > i32::MAX as u64
                    || types(&self.ir).zip(args).any(|(ty, arg)| !cuda::is_plain(ty, arg));
                self.function(device, strided)?.launch(&self.ir, self.tape, grid, args, options.block)
            }
        }
    }

    /// A fault with the line of the source that it came from.
    fn explain(&self, fault: Fault) -> Error {
        let message = match fault.span {
            Some(span) => {
                let shown = self.linked.diagnostics(vec![Diagnostic::new(span, fault.message)]).to_string();
                shown.trim_start_matches("error: ").trim_end().to_string()
            }
            None => fault.message,
        };
        Error::Fault(fault.kind, message)
    }

    /// Its function on a GPU, for arrays with or without gaps.
    fn function(&self, device: &Device, strided: bool) -> Result<Arc<cuda::Function>> {
        // Compiling is slow and done once; other threads that want this kernel wait for it.
        let mut known = self.cuda.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = known.iter().find(|function| function.is_for(device, strided)) {
            return Ok(function.clone());
        }
        let function = Arc::new(cuda::Function::new(device, &self.ir, strided)?);
        known.push(function.clone());
        Ok(function)
    }
}
