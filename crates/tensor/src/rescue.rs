//! What is done about an op that has its results, but no room for what it needs besides: workspace, or contiguous copies
//! of its operands.
//!
//! When an allocation fails the pool has been trimmed already. Then, in this order: the op is done in parts, along the
//! first axis of its results, half as large until they fit ([`Op::split`]); it is done on the CPU, with its operands copied
//! there and its results back; it fails, with the error of the allocation. The first time that a process gets away with it
//! there is a warning. Results without room are beyond help.
//!
//! `BULLET_RESCUE=parts` and `BULLET_RESCUE=cpu` do so with every op that can, so that tests need no full device.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bullet_ops::{Layout, Meta, Op, Split};
use bullet_runtime::{Bytes, Device, ErrorKind};

use crate::dispatch;
use crate::error::{Error, Result};
use crate::storage::{Guards, Storage};
use crate::tape::no_grad;
use crate::tensor::Tensor;

/// A way to do an op with less memory of its device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Parts,
    Cpu,
}

static IN_PARTS: AtomicU64 = AtomicU64::new(0);
static ON_CPU: AtomicU64 = AtomicU64::new(0);

/// How many ops this process has done in parts, and how many on the CPU, because their device was full.
pub fn rescued() -> (u64, u64) {
    (IN_PARTS.load(Relaxed), ON_CPU.load(Relaxed))
}

/// The way that `BULLET_RESCUE` says every op shall go.
///
/// # Errors
/// It says something else.
pub(crate) fn forced() -> Result<Option<Way>> {
    static FORCED: OnceLock<Result<Option<Way>>> = OnceLock::new();
    let read = || match std::env::var("BULLET_RESCUE").as_deref().map(str::trim) {
        Err(_) | Ok("" | "0") => Ok(None),
        Ok("parts") => Ok(Some(Way::Parts)),
        Ok("cpu") => Ok(Some(Way::Cpu)),
        Ok(other) => Err(Error::Runtime(bullet_runtime::Error::invalid(format!(
            "the environment variable BULLET_RESCUE is wrong: '{other}'; expected parts or cpu"
        )))),
    };
    match FORCED.get_or_init(read) {
        Ok(way) => Ok(*way),
        Err(e) => Err(e.clone()),
    }
}

/// Does an op the way that `BULLET_RESCUE` says; false if it can't be done so.
pub(crate) fn by_force(way: Way, op: &Op, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<bool> {
    let device = outputs[0].device();
    match way {
        Way::Parts => match op.split(&metas(inputs)) {
            Some(split) => parts(op, inputs, outputs, &split, 1).map(|_| true),
            None => Ok(false),
        },
        Way::Cpu if device.is_capturing() || *device == Device::cpu() => Ok(false),
        Way::Cpu => on_cpu(op, inputs, outputs).map(|()| true),
    }
}

/// Does an op into `outputs` that failed because of `full`.
///
/// # Errors
/// There is no way; then it is `full`.
pub(crate) fn execute(op: &Op, inputs: &[&Tensor], outputs: &[Tensor], full: Error) -> Result<()> {
    if let Some(split) = op.split(&metas(inputs)) {
        match parts(op, inputs, outputs, &split, split.rows.div_ceil(2)) {
            Ok(count) => {
                IN_PARTS.fetch_add(1, Relaxed);
                warn(op.name(), inputs, &format!("was done in {count} parts"), &full);
                return Ok(());
            }
            Err(e) if e.is_out_of_memory() => {}
            Err(e) => return Err(e),
        }
    }
    let device = outputs[0].device();
    if device.is_capturing() || *device == Device::cpu() || on_cpu(op, inputs, outputs).is_err() {
        return Err(full);
    }
    ON_CPU.fetch_add(1, Relaxed);
    warn(op.name(), inputs, "was done on the CPU", &full);
    Ok(())
}

fn metas(inputs: &[&Tensor]) -> Vec<Meta> {
    inputs.iter().map(|t| t.meta()).collect()
}

/// Does an op in parts of so many rows, or of less if that does not fit; returns how many parts it took.
fn parts(op: &Op, inputs: &[&Tensor], outputs: &[Tensor], split: &Split, rows: usize) -> Result<usize> {
    let least = outputs.iter().map(aligned_rows).max().unwrap_or(1);
    let mut rows = rows.next_multiple_of(least);
    let (mut done, mut count) = (0, 0);
    while done < split.rows {
        let len = rows.min(split.rows - done);
        match part(op, inputs, outputs, split, (done, len)) {
            Ok(()) => (done, count) = (done + len, count + 1),
            Err(e) if e.is_out_of_memory() && rows > least => {
                rows = (rows / 2).next_multiple_of(least).min(rows - least)
            }
            Err(e) => return Err(e),
        }
    }
    Ok(count)
}

/// The least rows that keep a part of a result as aligned as kernels expect results to be, which are fresh otherwise.
fn aligned_rows(result: &Tensor) -> usize {
    const ALIGN: usize = 256;
    let row = result.numel() / result.shape()[0].max(1) * result.dtype().size();
    (1..ALIGN).find(|rows| (rows * row).is_multiple_of(ALIGN)).unwrap_or(ALIGN)
}

/// Does `len` rows from `start` on.
fn part(
    op: &Op,
    inputs: &[&Tensor],
    outputs: &[Tensor],
    split: &Split,
    (start, len): (usize, usize),
) -> Result<()> {
    no_grad(|| {
        let cut = |(t, &cut): (&&Tensor, &bool)| if cut { t.narrow(0, start, len) } else { Ok((*t).clone()) };
        let operands: Vec<Tensor> = inputs.iter().zip(&split.operands).map(cut).collect::<Result<_>>()?;
        let results: Vec<Tensor> = outputs.iter().map(|t| t.narrow(0, start, len)).collect::<Result<_>>()?;
        dispatch::compute(op, &operands.iter().collect::<Vec<_>>(), &results)
    })
}

/// Does an op on the CPU.
fn on_cpu(op: &Op, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let operands: Vec<Tensor> = {
        let reads: Vec<&Storage> = dispatch::storages(inputs.iter().copied());
        let _guards = Guards::take(&reads, &[]);
        inputs.iter().map(|t| fetch(t)).collect::<Result<_>>()?
    };
    let results = dispatch::execute(op, &operands.iter().collect::<Vec<_>>())?;
    results.iter().zip(outputs).try_for_each(|(result, output)| put(output, result))
}

/// A copy of a tensor in the CPU's memory, laid out as it is, which takes no memory of its device. The caller holds a
/// guard.
pub(crate) fn fetch(t: &Tensor) -> Result<Tensor> {
    let (layout, size) = (t.layout(), t.dtype().size());
    let Some((first, last)) = layout.bounds() else {
        return Tensor::empty(t.meta(), &Device::cpu());
    };
    let mut bytes = vec![0; (last - first + 1) * size];
    t.storage().buffer().read(first * size, &mut bytes)?;
    let layout = Layout::strided(layout.shape, layout.strides(), layout.offset - first);
    Ok(Tensor::from_parts(Storage::of(&Device::cpu(), &bytes)?, layout, t.dtype(), None))
}

/// Overwrites what `target` reaches, and what lies between, with the memory of `source`, which came from there by
/// [`fetch`] or is contiguous as it is. The target is fresh, or the caller holds an exclusive guard.
pub(crate) fn put(target: &Tensor, source: &Tensor) -> Result<()> {
    let size = target.dtype().size();
    let (Some((to, _)), Some((from, last))) = (target.layout().bounds(), source.layout().bounds()) else {
        return Ok(());
    };
    let mut bytes = vec![0; (last - from + 1) * size];
    source.storage().buffer().read(from * size, &mut bytes)?;
    Ok(target.storage().buffer().put(to * size, &bytes)?)
}

/// Whether work that `full` stopped can go on the CPU, which then is what the user is told.
pub(crate) fn may_move_to_cpu(name: &str, inputs: &[&Tensor], device: &Device, full: &Error) -> bool {
    let may = full.is_out_of_memory() && !device.is_capturing() && *device != Device::cpu();
    if may {
        ON_CPU.fetch_add(1, Relaxed);
        warn(name, inputs, "was done on the CPU", full);
    }
    may
}

/// Tells the user, once.
fn warn(name: &str, inputs: &[&Tensor], what: &str, full: &Error) {
    static WARNED: OnceLock<()> = OnceLock::new();
    let mut first = false;
    WARNED.get_or_init(|| first = true);
    if first {
        eprintln!("warning: {}", sentence(name, inputs, what, full));
    }
}

fn sentence(name: &str, inputs: &[&Tensor], what: &str, full: &Error) -> String {
    const SHOWN: usize = 4;
    let mut operands: Vec<String> =
        inputs.iter().take(SHOWN).map(|t| format!("{} {}", t.dtype(), t.shape())).collect();
    if inputs.len() > SHOWN {
        let bytes: usize = inputs.iter().map(|t| t.numel() * t.dtype().size()).sum();
        operands.push(format!(".. ({} operands of {} together)", inputs.len(), Bytes(bytes)));
    }
    let why = match full {
        Error::Runtime(e) if matches!(e.kind, ErrorKind::OutOfMemory(_)) => e.message.trim_end_matches('.'),
        _ => "out of memory",
    };
    format!(
        "{name} of {} had not enough memory and {what}: {why}. The result is right, but that is slower; what else does \
         not fit is not reported.",
        operands.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bullet_ops::{DType, Shape};
    use bullet_runtime::{DeviceOptions, HostDriver};

    use super::*;

    fn limited(bytes: usize) -> Device {
        let options = DeviceOptions { memory_limit: Some(bytes), poison: true };
        Device::with_options(Arc::new(HostDriver::new()), options)
    }

    fn random(shape: &[usize], seed: u64, device: &Device) -> Tensor {
        Tensor::randn(shape, DType::F32, &Device::cpu(), seed).unwrap().to_device(device).unwrap()
    }

    #[test]
    fn an_op_whose_copies_do_not_fit_is_done_in_parts() {
        // Operand and result take 256 KiB each, and so would a contiguous copy of the operand.
        for (spare, least) in [(200 << 10, 2), (70 << 10, 4), (20 << 10, 16), (300 << 10, 0)] {
            let device = limited((512 << 10) + spare);
            let x = random(&[512, 128], 1, &device).transpose(0, 1).unwrap();
            let before = rescued();
            let y = x.softmax(-1).unwrap();
            // Reading it takes a contiguous copy, too.
            let want = x.to_device(&Device::cpu()).unwrap().softmax(-1).unwrap().to_vec::<f32>().unwrap();
            assert_eq!(y.to_vec::<f32>().unwrap(), want, "{spare} to spare");
            let split = Op::Softmax.split(&[x.meta()]).unwrap();
            let count = parts(&Op::Softmax, &[&x], &[y], &split, split.rows.div_ceil(2)).unwrap();
            assert!(count >= least.max(2), "{spare} to spare: {count} parts");
            assert!(least == 0 || rescued().0 > before.0, "{spare} to spare");
        }
    }

    #[test]
    fn what_cannot_be_cut_is_done_on_the_cpu() {
        let device = limited(820 << 10);
        let op = Op::LayerNormGrad;
        let x = random(&[256, 128], 1, &device);
        let grad = random(&[128, 256], 2, &device).transpose(0, 1).unwrap();
        let [mean, rstd] = [3, 4].map(|seed| random(&[256], seed, &device));
        let weight = random(&[128], 5, &device);
        let full = random(&[370 << 8], 6, &device);
        let inputs = [&x, &mean, &rstd, &grad, &weight];
        let before = rescued();
        let got = dispatch::execute(&op, &inputs).unwrap();
        assert!(rescued().1 > before.1);
        drop(full);
        let free = dispatch::execute(&op, &inputs).unwrap();
        for (got, want) in got.iter().zip(&free) {
            assert_eq!(got.to_vec::<f32>().unwrap(), want.to_vec::<f32>().unwrap());
        }
    }

    #[test]
    fn results_without_room_are_an_error() {
        let device = limited(300 << 10);
        let x = random(&[256, 256], 1, &device);
        let e = x.exp().unwrap_err();
        assert!(e.is_out_of_memory() && e.to_string().contains("BULLET_MEMORY_LIMIT"), "{e}");
        let small = x.narrow(0, 0, 8).unwrap().exp().unwrap();
        assert_eq!(small.shape()[..], [8, 256]);
    }

    #[test]
    fn updates_in_place_take_no_more_memory_than_there_is() {
        let device = limited(300 << 10);
        let x = random(&[256, 256], 1, &device);
        let want = fetch(&x).unwrap();
        // An operand that overlaps the target is copied first, for which there is no room.
        let turned = x.transpose(0, 1).unwrap();
        x.add_(&turned).unwrap();
        let want = want.add(&want.transpose(0, 1).unwrap()).unwrap();
        assert_eq!(fetch(&x).unwrap().to_vec::<f32>().unwrap(), want.to_vec::<f32>().unwrap());
        // Elements between those of a strided target stay.
        let column = x.narrow(1, 3, 1).unwrap();
        let row = x.narrow(0, 3, 1).unwrap().transpose(0, 1).unwrap();
        column.mul_(&row).unwrap();
        let expected =
            want.narrow(1, 3, 1).unwrap().mul(&want.narrow(0, 3, 1).unwrap().transpose(0, 1).unwrap());
        want.narrow(1, 3, 1).unwrap().copy_(&expected.unwrap()).unwrap();
        assert_eq!(fetch(&x).unwrap().to_vec::<f32>().unwrap(), want.to_vec::<f32>().unwrap());
    }

    #[test]
    fn the_warning_says_what_happened() {
        let device = limited(64 << 10);
        let x = Tensor::empty(Meta::new(Shape::new(&[4, 8]).unwrap(), DType::F16), &device).unwrap();
        let full = Error::Runtime(device.alloc(1 << 20).unwrap_err());
        let text = sentence("softmax", &[&x], "was done in 4 parts", &full);
        for part in ["softmax of f16 (4, 8)", "4 parts", "1.0 MiB requested", "BULLET_MEMORY_LIMIT", "right"]
        {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
    }
}
