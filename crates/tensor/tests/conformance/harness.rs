//! Devices, random numbers, and tensors in every memory layout.

use std::sync::{Arc, OnceLock};

use bullet_ops::reference::{self, Array};
use bullet_ops::table::Row;
use bullet_ops::{DType, Element, Kind, Meta, Shape};
use bullet_runtime::{Device, DeviceOptions, HostDriver};
use bullet_tensor::{Result, Slice, Tensor};

/// The devices under test: those that `BULLET_TEST_DEVICES` names (`cpu,cuda:0`), else the CPU. Their memory is poisoned,
/// so that a result no one wrote is a NaN or a -1; that of GPUs under `BULLET_POISON=1`.
pub(crate) fn devices() -> &'static [Device] {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    DEVICES.get_or_init(|| {
        let names = std::env::var("BULLET_TEST_DEVICES").unwrap_or_else(|_| "cpu".into());
        names.split(',').map(device).collect()
    })
}

fn device(name: &str) -> Device {
    if name == "cpu" {
        let options = DeviceOptions { poison: true, ..DeviceOptions::default() };
        return Device::with_options(Arc::new(HostDriver::new()), options);
    }
    Device::parse(name).unwrap_or_else(|e| panic!("BULLET_TEST_DEVICES: {name}: {e}"))
}

/// Whether a row is under test: all are, unless `BULLET_TEST_OPS` names some (`layer_norm,sum`).
pub(crate) fn is_wanted(row: &Row) -> bool {
    match std::env::var("BULLET_TEST_OPS") {
        Ok(names) => names.split(',').any(|name| name == row.name),
        Err(_) => true,
    }
}

/// Uniform numbers in 0..1, a function of the seed alone (SplitMix64, Steele et al. 2014).
pub(crate) fn uniform(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A seed for a name, so that a failing case can be run alone and draws the same numbers; other numbers for another
/// `BULLET_TEST_SEED`.
pub(crate) fn seed(name: &str) -> u64 {
    let run = std::env::var("BULLET_TEST_SEED").unwrap_or_default();
    // FNV-1a.
    let bytes = name.bytes().chain(run.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// Runs `$body` with `$T` the Rust type of `$dtype`.
macro_rules! with_type {
    ($dtype:expr, $T:ident => $body:expr) => {
        with_type!(@ $dtype, $T => $body; Bool bool, U8 u8, U16 u16, U32 u32, U64 u64, I8 i8, I16 i16, I32 i32, I64 i64, F16 half::f16,
            BF16 half::bf16, F32 f32, F64 f64)
    };
    (@ $dtype:expr, $T:ident => $body:expr; $($variant:ident $ty:ty),*) => {
        match $dtype { $(DType::$variant => { type $T = $ty; $body })* }
    };
}

/// The tensor with these values, without help of the ops under test.
pub(crate) fn upload(x: &Array, device: &Device) -> Result<Tensor> {
    with_type!(x.dtype, T => {
        let data: Vec<T> = x.data.iter().map(|&v| <T as Element>::from_f64(v)).collect();
        Tensor::from_slice(&data, &x.shape, device)
    })
}

/// The values of a contiguous tensor, without help of the ops under test.
pub(crate) fn download(t: &Tensor) -> Result<Array> {
    let data = with_type!(t.dtype(), T => t.to_vec::<T>()?.into_iter().map(Element::to_f64).collect());
    Ok(Array { shape: *t.shape(), dtype: t.dtype(), data })
}

/// How an operand lies in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Variation {
    /// Row-major.
    Contiguous,
    /// Axes stored in reverse order.
    Transposed,
    /// Every second element of a larger last axis.
    Strided,
    /// A window in a larger tensor.
    Offset,
    /// Every axis backwards.
    Negative,
    /// One axis repeats (stride 0); the values are made to.
    Broadcast,
}

impl Variation {
    pub(crate) const ALL: [Variation; 6] = [
        Variation::Contiguous,
        Variation::Transposed,
        Variation::Strided,
        Variation::Offset,
        Variation::Negative,
        Variation::Broadcast,
    ];
}

/// A change of view.
enum Step {
    Permute(Vec<isize>),
    Slice(isize, Slice),
    Broadcast(Vec<usize>),
}

/// An operand as a view of a larger (or smaller) tensor.
pub(crate) struct Laid {
    /// The values that the operand has.
    pub(crate) value: Array,
    /// What is stored: contiguous.
    pub(crate) base: Array,
    steps: Vec<Step>,
}

impl Laid {
    /// `x` laid out as `variation` says; where stride 0 asks for it, with other values.
    pub(crate) fn new(x: &Array, variation: Variation) -> Laid {
        let rank = x.shape.rank();
        let plain = |steps| Laid { value: x.clone(), base: x.clone(), steps };
        match variation {
            Variation::Contiguous => plain(Vec::new()),
            _ if rank == 0 => plain(Vec::new()),
            Variation::Transposed => {
                let dims: Vec<usize> = x.shape.iter().rev().copied().collect();
                let base = remap(x, &dims, |i| Some(i.iter().rev().copied().collect()));
                Laid {
                    base,
                    steps: vec![Step::Permute((0..rank as isize).rev().collect())],
                    value: x.clone(),
                }
            }
            Variation::Strided => {
                let dims = x.shape.with(rank - 1, 2 * x.shape[rank - 1]);
                let base = remap(x, &dims, |i| {
                    let mut i = i.to_vec();
                    let odd = i[rank - 1] % 2 == 1;
                    i[rank - 1] /= 2;
                    (!odd).then_some(i)
                });
                Laid {
                    base,
                    steps: vec![Step::Slice(-1, Slice { start: None, end: None, step: 2 })],
                    value: x.clone(),
                }
            }
            Variation::Offset => {
                let dims: Vec<usize> = x.shape.iter().map(|d| d + 3).collect();
                let inside = |i: &[usize]| {
                    i.iter().zip(&x.shape[..]).map(|(&i, &d)| i.checked_sub(1).filter(|&i| i < d)).collect()
                };
                let steps = (0..rank).map(|a| Step::Slice(a as isize, (1..1 + x.shape[a]).into()));
                Laid { base: remap(x, &dims, inside), steps: steps.collect(), value: x.clone() }
            }
            Variation::Negative => {
                let base = remap(x, &x.shape, |i| {
                    Some(i.iter().zip(&x.shape[..]).map(|(i, d)| d - 1 - i).collect())
                });
                let back = Slice { start: None, end: None, step: -1 };
                let steps = (0..rank).map(|a| Step::Slice(a as isize, back)).collect();
                Laid { base, steps, value: x.clone() }
            }
            Variation::Broadcast => {
                let Some(axis) = (0..rank).find(|&a| x.shape[a] > 1) else { return plain(Vec::new()) };
                let base = remap(x, &x.shape.with(axis, 1), |i| Some(i.to_vec()));
                let value = Array::from_fn(x.meta(), |i| base.at_broadcast(i));
                Laid { value, base, steps: vec![Step::Broadcast(x.shape.to_vec())] }
            }
        }
    }

    /// The operand, as a view of the uploaded `base`.
    pub(crate) fn view(&self, base: &Tensor) -> Result<Tensor> {
        self.steps.iter().try_fold(base.clone(), |t, step| match step {
            Step::Permute(axes) => t.permute(axes),
            Step::Slice(axis, slice) => t.slice(*axis, *slice),
            Step::Broadcast(dims) => t.broadcast_to(dims),
        })
    }
}

/// An array of these axis lengths whose element at an index is `x`'s at the index that `source` names, or noise.
fn remap(x: &Array, dims: &[usize], source: impl Fn(&[usize]) -> Option<Vec<usize>>) -> Array {
    // Integers other than bools stay valid as indices: what a kernel reads by mistake must be wrong, not out of bounds.
    let noise = if x.dtype.kind() == Kind::Float { 1e4 } else { 0.0 };
    let meta = Meta::new(Shape::new(dims).expect("test shapes are small"), x.dtype);
    Array::from_fn(meta, |i| source(i).map_or(reference::round(x.dtype, noise), |i| x.at(&i)))
}

/// Rounding error of one operation in this dtype, relative: the gap after 1. Integers have none.
pub(crate) fn epsilon(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => half::f16::EPSILON.to_f64(),
        DType::BF16 => half::bf16::EPSILON.to_f64(),
        DType::F32 => f64::from(f32::EPSILON),
        DType::F64 => f64::EPSILON,
        DType::Bool | DType::U8 | DType::U16 | DType::U32 | DType::U64 => 0.0,
        DType::I8 | DType::I16 | DType::I32 | DType::I64 => 0.0,
    }
}
