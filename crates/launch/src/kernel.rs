//! A kernel, its parameters, and a launch of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bullet_lang::adjoint::{Adjoint, AdjointOptions, Tape, adjoint};
use bullet_lang::ir::{self, Effect, Type};
use bullet_lang::link::Linked;
use bullet_lang::{Element, ParamType, Signature, Slot, dtype_name};
use bullet_tensor::{Device, Tensor};
use smallvec::SmallVec;

use crate::code::Code;
use crate::cuda::threads;
use crate::error::{Result, argument};

/// An argument for one parameter of the IR.
#[derive(Clone, Debug)]
pub enum Arg {
    /// A number: its bits in the parameter's dtype, in the lowest bytes.
    Scalar(u64),
    /// An array.
    Array(Tensor),
}

/// How to launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaunchOptions {
    /// Threads of a block on a GPU, 1 to 1024. The CPU has no blocks.
    pub block: u32,
    /// Whether a tape may differentiate it; else it refuses where gradients flow.
    pub differentiable: bool,
    /// Whether it leaves the same bits at every run, and its way back on a tape does: see [`order`](bullet_lang::order).
    pub deterministic: bool,
    /// Whether a GPU checks indices of arrays, as a CPU always does, and its way back on a tape does.
    pub debug: bool,
}

impl Default for LaunchOptions {
    fn default() -> LaunchOptions {
        // A multiple of the warp on every GPU, with room for eight blocks on a multiprocessor of any of them.
        LaunchOptions { block: 256, differentiable: true, deterministic: false, debug: false }
    }
}

/// A parameter of the IR as the source has it.
#[derive(Clone, Debug)]
pub struct Param {
    /// Where the source says it: `x`, `state.velocity`, `center[2]`.
    pub path: String,
    /// What it is, or what its elements are.
    pub element: Element,
    /// How many dimensions the array has; `None` of a number.
    pub ndim: Option<u8>,
}

/// A compiled kernel.
pub struct Kernel {
    linked: Arc<Linked>,
    index: usize,
    params: Vec<Param>,
    code: Code,
    adjoints: Mutex<HashMap<Wanted, Arc<Backward>>>,
}

/// Which adjoint: of which parameters, whether their gradients may overlap, and whether long loops are cut by checkpoints.
type Wanted = (Vec<usize>, bool, bool);

/// The most bytes of tape for a thread of a grid that a CPU keeps without checkpoints: what lies in its cache.
const CPU_TAPE: u64 = 4 << 20;

/// An adjoint with its code.
#[derive(Debug)]
pub(crate) struct Backward {
    pub(crate) adjoint: Adjoint,
    pub(crate) code: Code,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kernel({})", self.name())
    }
}

impl Kernel {
    /// The kernels of a compilation.
    pub fn all(linked: Linked) -> Vec<Arc<Kernel>> {
        let linked = Arc::new(linked);
        let kernel = |index| {
            let (ir, signature): &(ir::Kernel, Signature) = &linked.kernels[index];
            let mut params = vec![];
            signature.iter().for_each(|(name, ty)| flatten(name, ty, &mut params));
            let code = Code::new(ir.clone(), linked.clone());
            Arc::new(Kernel { linked: linked.clone(), index, params, code, adjoints: Mutex::default() })
        };
        (0..linked.kernels.len()).map(kernel).collect()
    }

    /// As in the source.
    pub fn name(&self) -> &str {
        &self.ir().name
    }

    /// The IR.
    pub fn ir(&self) -> &ir::Kernel {
        &self.linked.kernels[self.index].0
    }

    /// The parameters as the source has them.
    pub fn signature(&self) -> &Signature {
        &self.linked.kernels[self.index].1
    }

    /// The parameters of the IR, in order.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// Whether a thread of such a launch may report a fault on a GPU.
    pub(crate) fn may_fail(&self, options: LaunchOptions) -> bool {
        self.code.may_fail(options)
    }

    /// What it does to each parameter of the IR.
    pub fn effects(&self) -> &[Effect] {
        self.code.effects()
    }

    /// The adjoint that gives the gradients of these parameters. Where its tape would be large, of a size that is known, it
    /// computes more anew instead.
    pub(crate) fn backward(
        &self,
        active: Vec<usize>,
        overlapping: bool,
        device: &Device,
        extents: &[i32],
    ) -> Result<Arc<Backward>> {
        let whole = self.adjoint((active.clone(), overlapping, false))?;
        let Tape::Words(words @ 1..) = whole.adjoint.tape else { return Ok(whole) };
        let bytes = words.saturating_mul(4);
        let too_large = match device.gpu() {
            None => bytes > CPU_TAPE,
            Some(_) => bytes.saturating_mul(threads(extents)) > device.driver().memory()?.total as u64 / 4,
        };
        if too_large { self.adjoint((active, overlapping, true)) } else { Ok(whole) }
    }

    fn adjoint(&self, wanted: Wanted) -> Result<Arc<Backward>> {
        let mut known = self.adjoints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(backward) = known.get(&wanted) {
            return Ok(backward.clone());
        }
        let options =
            AdjointOptions { active: Some(&wanted.0), overlapping: wanted.1, checkpoints: wanted.2 };
        let adjoint = adjoint(self.ir(), options).map_err(|items| self.linked.diagnostics(items))?;
        let backward = Arc::new(Backward { code: Code::of(&adjoint, self.linked.clone()), adjoint });
        known.insert(wanted, backward.clone());
        Ok(backward)
    }

    /// Runs it for every place of a grid of 1 to 4 dimensions: on the device of its arrays, or on `device` if it has none.
    /// On a GPU it returns before the work is done.
    ///
    /// # Errors
    /// Arguments that do not fit; what the kernel did wrong, of a CPU (of a GPU whoever waits for it is told); a device that cannot
    /// run it.
    pub fn launch(&self, device: &Device, grid: &[i32], args: &[Arg], options: LaunchOptions) -> Result<()> {
        let extents = self.extents(grid)?;
        self.check(device, args)?;
        self.run(device, &extents, args, options)
    }

    /// Runs it over [extents](Kernel::extents), with arguments that were [checked](Kernel::check).
    pub(crate) fn run(
        &self,
        device: &Device,
        extents: &[i32],
        args: &[Arg],
        options: LaunchOptions,
    ) -> Result<()> {
        if !(1..=1024).contains(&options.block) {
            return argument(format!("a block has 1 to 1024 threads, not {}", options.block));
        }
        self.code.launch(device, extents, args, options)
    }

    /// The lengths of the grid's dimensions that the kernel asks for: those behind the last are one with it, as in Warp.
    pub(crate) fn extents(&self, grid: &[i32]) -> Result<SmallVec<[i32; 4]>> {
        let wanted = usize::from(self.ir().grid);
        if grid.is_empty() || grid.len() > 4 {
            return argument(format!("a grid has 1 to 4 dimensions, not {}", grid.len()));
        }
        if let Some(length) = grid.iter().find(|&&length| length < 0) {
            return argument(format!(
                "dim {grid:?} of the launch of `{}` has a negative length, {length}",
                self.name()
            ));
        }
        if grid.len() < wanted {
            return argument(format!(
                "`{}` asks wp.tid() for {wanted} dimensions, but is launched over {grid:?}; launch it with dim=(..) of \
                 {wanted} lengths",
                self.name()
            ));
        }
        // Whatever the others are, a length of 0 is no thread at all.
        let empty = grid.contains(&0);
        let rest = grid[wanted - 1..].iter().try_fold(1i32, |all, &length| all.checked_mul(length));
        let Some(rest) = rest.or(empty.then_some(0)) else {
            return argument(format!(
                "dim {grid:?} has more places than `{}` can count with an int32",
                self.name()
            ));
        };
        let mut extents = SmallVec::from_slice(&grid[..wanted - 1]);
        extents.push(rest);
        Ok(extents)
    }

    /// Whether the arguments are what the parameters say.
    pub(crate) fn check(&self, device: &Device, args: &[Arg]) -> Result<()> {
        if args.len() != self.params.len() {
            return argument(format!(
                "`{}` takes {} arguments, got {}",
                self.name(),
                self.params.len(),
                args.len()
            ));
        }
        for (param, arg) in self.params.iter().zip(args) {
            match (param.ndim, arg) {
                (Some(ndim), Arg::Array(tensor)) => self.check_array(device, param, ndim, tensor)?,
                (None, Arg::Scalar(_)) => {}
                (Some(_), Arg::Scalar(_)) => {
                    return argument(format!(
                        "`{}` of `{}` is an array, got a number",
                        param.path,
                        self.name()
                    ));
                }
                (None, Arg::Array(_)) => {
                    let (path, name) = (&param.path, self.name());
                    return argument(format!(
                        "`{path}` of `{name}` is a {}, got an array",
                        param.element.name
                    ));
                }
            }
        }
        Ok(())
    }

    fn check_array(&self, device: &Device, param: &Param, ndim: u8, tensor: &Tensor) -> Result<()> {
        let refuse = |what: String| argument(format!("`{}` of `{}` {what}", param.path, self.name()));
        let element = &param.element;
        if tensor.device() != device {
            return refuse(format!(
                "is on {}, but the launch is on {device}; move it there, or launch with device=\"{}\"",
                tensor.device(),
                tensor.device()
            ));
        }
        if tensor.dtype() != element.dtype {
            return refuse(format!(
                "is an array of {}, got one of {}; convert it first, with .astype(..)",
                element.name,
                dtype_name(tensor.dtype())
            ));
        }
        let (outer, inner) = (usize::from(ndim), element.dims.len());
        let fits = tensor.rank() == outer + inner
            && tensor.shape()[outer..]
                .iter()
                .zip(&element.dims)
                .all(|(&have, &want)| have == usize::from(want));
        if !fits {
            let dims: Vec<String> = element.dims.iter().map(|dim| format!(", {dim}")).collect();
            let places = vec!["n"; outer].join(", ");
            return refuse(format!(
                "has {ndim} dimension{} of {}, so its tensor has shape ({places}{}), got {}",
                if ndim == 1 { "" } else { "s" },
                element.name,
                dims.concat(),
                tensor.shape()
            ));
        }
        if let Some(&length) = tensor.shape().iter().find(|&&length| length > i32::MAX as usize) {
            return refuse(format!("has a dimension of {length}, more than kernels can index, {}", i32::MAX));
        }
        let mut expected = 1;
        for axis in (outer..tensor.rank()).rev() {
            if tensor.layout().strides()[axis] != expected {
                return refuse(
                    "has elements whose scalars do not lie side by side; copy it first, with .contiguous()"
                        .into(),
                );
            }
            expected *= tensor.dim(axis) as isize;
        }
        Ok(())
    }
}

/// The parameters of the IR that a parameter of the source becomes.
fn flatten(path: &str, ty: &ParamType, params: &mut Vec<Param>) {
    match ty {
        ParamType::Array(element, ndim) => {
            params.push(Param { path: path.into(), element: element.clone(), ndim: Some(*ndim) });
        }
        ParamType::Value(element) if element.dims.is_empty() => {
            params.push(Param { path: path.into(), element: element.clone(), ndim: None });
        }
        ParamType::Value(element) => {
            let scalar = Element {
                dims: SmallVec::new(),
                name: dtype_name(element.dtype).into(),
                dtype: element.dtype,
            };
            params.extend((0..element.lanes()).map(|lane| Param {
                path: format!("{path}[{lane}]"),
                element: scalar.clone(),
                ndim: None,
            }));
        }
        ParamType::StructArray(record, _) => {
            for (slot, name) in ty.slots().into_iter().zip(fields(record, path)) {
                let Slot::Array { dtype, lanes, ndim, .. } = slot else { continue };
                let dims = if lanes == 1 { SmallVec::new() } else { SmallVec::from_slice(&[lanes as u16]) };
                let element = Element { dtype, dims, name: dtype_name(dtype).into() };
                params.push(Param { path: name, element, ndim: Some(ndim) });
            }
        }
        ParamType::Struct(_, fields) => {
            fields.iter().for_each(|(name, ty)| flatten(&format!("{path}.{name}"), ty, params));
        }
    }
}

/// The paths of the numbers of a record.
fn fields(record: &ParamType, path: &str) -> Vec<String> {
    match record {
        ParamType::Struct(_, fields) => {
            fields.iter().flat_map(|(name, ty)| self::fields(ty, &format!("{path}.{name}"))).collect()
        }
        ParamType::Value(_) => vec![path.into()],
        ParamType::Array(..) | ParamType::StructArray(..) => vec![],
    }
}

/// The type of each parameter of the IR, for who packs arguments.
pub(crate) fn types(kernel: &ir::Kernel) -> impl Iterator<Item = Type> + '_ {
    kernel.params.iter().map(|&param| kernel.ty(param))
}
