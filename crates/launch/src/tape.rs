//! The tape: launches in the order they were made, and backwards through their adjoints.
//!
//! **Which arrays have gradients.** Those that asked for one (a [`Gradient`]), and every array of floats that a launch
//! writes while one of its arrays has one. So what lies between inputs and loss needs no word of the user's.
//!
//! **What the way back reads** must be what the launch saw. An array that the launch itself overwrites is copied before; one
//! that a later launch of the tape overwrites is copied then, just before. What is changed behind the tape's back is
//! noticed by its version, and is an error, also where only a gradient flows on: what was written in between has another.
//! Memory of others, whose changes no version counts, is copied where it is read, and not written while gradients flow.
//!
//! **Gradients while going back** lie as their arrays do, in bytes for the whole memory that views of an array share, so that
//! a slice and the array it is of have one gradient, and so have the fields of an array of structs. What a launch
//! overwrote has lost its gradient behind it: what it held before does not reach the loss. An array's own [`Gradient`] is
//! taken where the last launch that wrote it is reached: it is that of what the array holds in the end.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use bullet_lang::adjoint::Use;
use bullet_tensor::{DType, Device, Tensor, no_grad, synchronize};
use smallvec::SmallVec;

use crate::error::{Error, Result};
use crate::kernel::{Arg, Backward, Kernel, LaunchOptions};
use crate::reach::{overlap, repeats};

/// The gradient of an array that asked for one. Clones are the same gradient: views of the array have it, too.
#[derive(Clone, Debug, Default)]
pub struct Gradient(Arc<Mutex<Option<Tensor>>>);

impl Gradient {
    /// Of this array, which it is of or a view of that; `None` before there is one.
    pub fn of(&self, array: &Tensor) -> Option<Tensor> {
        self.flat().map(|flat| array.place_in(&flat))
    }

    /// Makes it all zeros, or nothing again if there is none yet.
    ///
    /// # Errors
    /// Its device refuses.
    pub fn zero(&self) -> Result<()> {
        match self.flat() {
            Some(flat) => Ok(no_grad(|| flat.fill_(0.0))?),
            None => Ok(()),
        }
    }

    fn flat(&self) -> Option<Tensor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, flat: Tensor) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(flat);
    }
}

/// What the way back finds of an argument.
#[derive(Clone, Debug)]
enum Kept {
    /// It needs no more than the shape.
    Shape,
    /// The array itself, as long as it has this version.
    Version(u64),
    /// What it held.
    Copy(Tensor),
}

#[derive(Debug)]
struct Record {
    kernel: Arc<Kernel>,
    device: Device,
    extents: SmallVec<[i32; 4]>,
    args: Vec<Arg>,
    options: LaunchOptions,
    kept: Vec<Kept>,
    /// The parameters that have gradients.
    active: Vec<usize>,
    backward: Arc<Backward>,
}

/// Launches, for the way back.
#[derive(Debug, Default)]
pub struct Tape {
    records: Vec<Record>,
    /// By memory: whether gradients flow there, and the one that was asked for.
    active: HashMap<usize, Option<Gradient>>,
    written: HashSet<usize>,
    /// By memory that gradients flow in: its version after the last launch.
    versions: HashMap<usize, u64>,
    /// By memory: records and arguments that the way back reads there.
    needed: HashMap<usize, Vec<(usize, usize)>>,
}

impl Tape {
    /// How many launches it holds.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Forgets its launches. Gradients stay.
    pub fn clear(&mut self) {
        *self = Tape::default();
    }

    /// Makes all gradients that were asked for zero.
    ///
    /// # Errors
    /// A device refuses.
    pub fn zero(&self) -> Result<()> {
        self.active.values().flatten().try_for_each(Gradient::zero)
    }

    /// Launches a kernel, and remembers it. `gradients` are those that the arguments asked for; `foreign` says which arguments
    /// are memory of others that this call alone knows as a tensor. The way back of a deterministic launch is one, too.
    ///
    /// # Errors
    /// As of [`Kernel::launch`]; a kernel without an exact adjoint; an array that is written and overlaps another or is foreign;
    /// one that was changed since the last launch, and not by one; no memory for a copy. But for the first, nothing was launched.
    pub fn launch(
        &mut self,
        kernel: &Arc<Kernel>,
        device: &Device,
        grid: &[i32],
        args: Vec<Arg>,
        gradients: &[Option<Gradient>],
        foreign: &[bool],
        options: LaunchOptions,
    ) -> Result<()> {
        let extents = kernel.extents(grid)?;
        kernel.check(device, &args)?;
        self.check_versions(kernel, &args)?;
        let active = self.activate(kernel, &args, gradients);
        if active.is_empty() {
            self.preserve(kernel, &args)?;
            kernel.run(device, &extents, &args, options)?;
            self.renew(kernel, &args);
            return Ok(());
        }
        if !options.differentiable {
            return Err(Error::Gradient(format!(
                "`{}` has enable_backward=False, but gradients flow through the arrays of this launch; launch it with \
                 record_tape=False if what it writes is to be a constant",
                kernel.name()
            )));
        }
        check_overlap(kernel, &args)?;
        check_foreign(kernel, foreign)?;
        let backward =
            kernel.backward(active.clone(), gradients_overlap(&args, &active), device, &extents)?;
        self.preserve(kernel, &args)?;
        let mut kept = vec![];
        for (index, (arg, usage)) in args.iter().zip(&backward.adjoint.uses).enumerate() {
            let effect = kernel.effects()[index];
            let changes_unseen = foreign.get(index).is_some_and(|&foreign| foreign);
            kept.push(match arg {
                Arg::Array(tensor) if *usage != Use::Shape && changes_unseen => Kept::Copy(copy(tensor)?),
                // What the kernel leaves is what it must still be.
                Arg::Array(_) if *usage == Use::Left => Kept::Version(0),
                Arg::Array(tensor) if *usage != Use::Shape && effect.writes => Kept::Copy(copy(tensor)?),
                Arg::Array(_) if *usage != Use::Shape => Kept::Version(0),
                _ => Kept::Shape,
            });
        }
        kernel.run(device, &extents, &args, options)?;
        self.renew(kernel, &args);
        for (index, arg) in args.iter().enumerate() {
            let Arg::Array(tensor) = arg else { continue };
            if let Kept::Version(version) = &mut kept[index] {
                *version = tensor.version();
                self.needed.entry(tensor.memory_id()).or_default().push((self.records.len(), index));
            }
            if kernel.effects()[index].writes {
                self.written.insert(tensor.memory_id());
            }
            if active.contains(&index) {
                self.versions.insert(tensor.memory_id(), tensor.version());
            }
        }
        let (kernel, device) = (kernel.clone(), device.clone());
        self.records.push(Record { kernel, device, extents, args, options, kept, active, backward });
        Ok(())
    }

    /// Refuses arrays whose gradient was cut, or changed, behind the tape's back.
    fn check_versions(&self, kernel: &Kernel, args: &[Arg]) -> Result<()> {
        for (arg, param) in args.iter().zip(kernel.params()) {
            let Arg::Array(tensor) = arg else { continue };
            if self.versions.get(&tensor.memory_id()).is_some_and(|&known| known != tensor.version()) {
                return Err(Error::Gradient(format!(
                    "`{}` of `{}` was changed since the last launch on the tape, and not by a launch on it: its gradient would be \
                     wrong; change it by a kernel, before the tape begins, or use a new array",
                    param.path,
                    kernel.name()
                )));
            }
        }
        Ok(())
    }

    /// The parameters that gradients flow to or from. From here on they do in arrays that the kernel writes.
    fn activate(&mut self, kernel: &Kernel, args: &[Arg], gradients: &[Option<Gradient>]) -> Vec<usize> {
        let floats: Vec<(usize, &Tensor)> = args
            .iter()
            .enumerate()
            .filter_map(|(index, arg)| match arg {
                Arg::Array(tensor) if tensor.dtype().is_float() => Some((index, tensor)),
                _ => None,
            })
            .collect();
        let mut active = vec![];
        for &(index, tensor) in &floats {
            if let Some(gradient) = gradients.get(index).and_then(Option::as_ref) {
                self.active.insert(tensor.memory_id(), Some(gradient.clone()));
            }
            if self.active.contains_key(&tensor.memory_id()) {
                active.push(index);
            }
        }
        if active.is_empty() {
            return active;
        }
        for (index, tensor) in floats {
            if kernel.effects()[index].writes && !active.contains(&index) {
                self.active.insert(tensor.memory_id(), None);
                active.push(index);
            }
        }
        active.sort_unstable();
        active
    }

    /// Copies what earlier launches need of the memory that this one is about to overwrite.
    fn preserve(&mut self, kernel: &Kernel, args: &[Arg]) -> Result<()> {
        for target in written(kernel, args) {
            let Some(uses) = self.needed.get_mut(&target.memory_id()) else { continue };
            let records = &mut self.records;
            let mut rest = vec![];
            for (record, index) in std::mem::take(uses) {
                let Arg::Array(tensor) = &records[record].args[index] else { continue };
                let unchanged =
                    matches!(records[record].kept[index], Kept::Version(v) if v == tensor.version());
                if unchanged && overlap(tensor, target) {
                    records[record].kept[index] = Kept::Copy(copy(tensor)?);
                } else {
                    rest.push((record, index));
                }
            }
            *uses = rest;
        }
        Ok(())
    }

    /// After a launch that wrote elsewhere in the memory that earlier ones need: its new version is theirs.
    fn renew(&mut self, kernel: &Kernel, args: &[Arg]) {
        for target in written(kernel, args) {
            for &(record, index) in self.needed.get(&target.memory_id()).into_iter().flatten() {
                if let Kept::Version(version) = &mut self.records[record].kept[index]
                    && *version + 1 == target.version()
                {
                    *version = target.version();
                }
            }
        }
    }

    /// Waits for launches that may have reported faults, and tells them: adjoints trust that what they compute anew went well.
    fn check_faults(&self) -> Result<()> {
        let mut checked: Vec<&Device> = vec![];
        for Record { kernel, device, options, .. } in &self.records {
            let can_wait = device.gpu().is_some() && !device.is_capturing();
            if can_wait && !checked.contains(&device) && kernel.may_fail(*options) {
                synchronize(device)?;
                checked.push(device);
            }
        }
        Ok(())
    }

    /// Whether gradients flow in an array's memory: one that asked for its own and was launched on, or what such were written to.
    pub fn follows(&self, array: &Tensor) -> bool {
        self.active.contains_key(&array.memory_id())
    }

    /// Goes back from these arrays, whose gradients are given, and adds to every [`Gradient`] that was asked for.
    ///
    /// # Errors
    /// What threads of its launches reported on a GPU; an array that was changed outside of the tape; what a device refuses.
    pub fn backward(&mut self, seeds: &[(Tensor, Tensor)]) -> Result<()> {
        self.check_faults()?;
        no_grad(|| {
            let mut pass = Pass { tape: self, flat: HashMap::new(), taken: HashSet::new() };
            for (array, gradient) in seeds {
                let place = array.place_in(&pass.flat(array)?);
                place.add_(gradient)?;
            }
            (0..pass.tape.records.len()).rev().try_for_each(|index| pass.step(index))
        })
    }
}

/// One way back.
struct Pass<'a> {
    tape: &'a Tape,
    /// By memory.
    flat: HashMap<usize, Tensor>,
    /// Memory whose final gradient was taken.
    taken: HashSet<usize>,
}

impl Pass<'_> {
    /// The gradient of all the memory that an array is a view of: of one that no launch wrote, its own.
    fn flat(&mut self, array: &Tensor) -> Result<Tensor> {
        let memory = array.memory_id();
        if let Some(flat) = self.flat.get(&memory) {
            return Ok(flat.clone());
        }
        let zeros = || Tensor::zeros(&[array.storage_bytes()], DType::U8, array.device());
        let asked = self.tape.active.get(&memory).and_then(Option::as_ref);
        let flat = match asked.filter(|_| !self.tape.written.contains(&memory)) {
            Some(gradient) => match gradient.flat() {
                Some(flat) => flat,
                None => {
                    let flat = zeros()?;
                    gradient.set(flat.clone());
                    flat
                }
            },
            None => zeros()?,
        };
        self.flat.insert(memory, flat.clone());
        Ok(flat)
    }

    /// The adjoint of a launch.
    fn step(&mut self, index: usize) -> Result<()> {
        let tape = self.tape;
        let record = &tape.records[index];
        let targets: Vec<&Tensor> = written(&record.kernel, &record.args).collect();
        if !targets.iter().any(|target| self.flat.contains_key(&target.memory_id())) {
            return Ok(());
        }
        for target in targets {
            self.take(target)?;
        }
        let backward = &record.backward;
        let mut args = vec![];
        for (index, &usage) in backward.adjoint.uses.iter().enumerate() {
            args.push(record.found(index, usage)?);
        }
        for &index in &record.active {
            let Arg::Array(array) = &record.args[index] else { continue };
            args.push(Arg::Array(array.place_in(&self.flat(array)?)));
        }
        backward.code.launch(&record.device, &record.extents, &args, record.options)
    }

    /// Takes the final gradient of an array, at the last launch that wrote it.
    fn take(&mut self, target: &Tensor) -> Result<()> {
        let memory = target.memory_id();
        if self.taken.insert(memory)
            && let Some(Some(gradient)) = self.tape.active.get(&memory)
            && let Some(flat) = self.flat.get(&memory)
        {
            gradient.set(copy(flat)?);
        }
        Ok(())
    }
}

impl Record {
    /// What an argument was when the kernel was launched.
    fn found(&self, index: usize, usage: Use) -> Result<Arg> {
        let arg = &self.args[index];
        let Arg::Array(tensor) = arg else { return Ok(arg.clone()) };
        let held = match &self.kept[index] {
            Kept::Shape => return Ok(arg.clone()),
            Kept::Copy(copy) => copy,
            Kept::Version(version) if *version == tensor.version() => tensor,
            Kept::Version(_) => {
                return Err(Error::Gradient(format!(
                    "`{}` of `{}` was changed after the launch, and not by a launch on the tape: its gradients cannot be \
                     computed any more; change a copy, or change it before the launch",
                    self.kernel.params()[index].path,
                    self.kernel.name()
                )));
            }
        };
        Ok(Arg::Array(if usage == Use::Scratch { copy(held)? } else { held.clone() }))
    }
}

pub(crate) fn copy(tensor: &Tensor) -> Result<Tensor> {
    Ok(no_grad(|| tensor.copy())?)
}

/// The arrays that a kernel writes.
fn written<'a>(kernel: &'a Kernel, args: &'a [Arg]) -> impl Iterator<Item = &'a Tensor> {
    args.iter().zip(kernel.effects()).filter_map(|(arg, effect)| match arg {
        Arg::Array(tensor) if effect.writes => Some(tensor),
        _ => None,
    })
}

/// Refuses what no adjoint is right for: an array that is written and reached by another name, too.
fn check_overlap(kernel: &Kernel, args: &[Arg]) -> Result<()> {
    for (i, arg) in args.iter().enumerate() {
        let Arg::Array(target) = arg else { continue };
        if !kernel.effects()[i].writes {
            continue;
        }
        let other = args
            .iter()
            .enumerate()
            .find(|(j, arg)| *j != i && matches!(arg, Arg::Array(tensor) if overlap(tensor, target)));
        if let Some((j, _)) = other {
            return Err(Error::Gradient(format!(
                "`{}` writes `{}`, which shares memory with `{}`: a launch on a tape needs arrays that do not overlap; pass a \
                 copy of one",
                kernel.name(),
                kernel.params()[i].path,
                kernel.params()[j].path
            )));
        }
    }
    Ok(())
}

/// Refuses to write what is known by another name elsewhere, so that its gradient would be lost.
fn check_foreign(kernel: &Kernel, foreign: &[bool]) -> Result<()> {
    let written =
        kernel.effects().iter().zip(foreign).position(|(effect, &foreign)| effect.writes && foreign);
    match written {
        Some(index) => Err(Error::Gradient(format!(
            "`{}` writes `{}`, the memory of another library's array, through which a tape cannot follow gradients; pass an array \
             of wp.from_numpy(..), which shares the memory, or a Tensor",
            kernel.name(),
            kernel.params()[index].path
        ))),
        None => Ok(()),
    }
}

/// Whether gradients of these arguments would share elements, with each other or within one.
fn gradients_overlap(args: &[Arg], active: &[usize]) -> bool {
    let arrays: Vec<&Tensor> = active
        .iter()
        .filter_map(|&index| if let Arg::Array(tensor) = &args[index] { Some(tensor) } else { None })
        .collect();
    arrays.iter().any(|array| repeats(array))
        || arrays.iter().enumerate().any(|(i, a)| arrays[i + 1..].iter().any(|b| overlap(a, b)))
}
