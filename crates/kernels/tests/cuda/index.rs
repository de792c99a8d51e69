//! Indexing, random numbers and optimizers on the first GPU against the CPU's kernels; skipped without one.
//!
//! Results lie between guard bytes and are poisoned before; each launch is done twice and must give the same bits.

use crate::common::Rng;
use crate::gpu;
use bullet_kernels::cpu;
use bullet_kernels::cpu::optim::{Adam, Scalars, Sgd};
use bullet_kernels::cpu::random::{Counter, Distribution};
use bullet_kernels::cuda::{Gpu, index, optim, random};
use bullet_kernels::{View, ViewMut};
use bullet_ops::{DType, DropoutSpec, Element, Layout, Op, Shape};
use bullet_runtime::Buffer;
use half::{bf16, f16};

const GUARD: u8 = 0xA5;
/// Guard bytes on either side.
const MARGIN: usize = 64;

fn bytes_of<T: Element>(x: &[T]) -> &[u8] {
    // SAFETY: elements are plain numbers without padding.
    unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), size_of_val(x)) }
}

/// A tensor on the GPU between guard bytes, `shift` elements away from an aligned address.
struct Held {
    buffer: Buffer,
    dtype: DType,
    shape: Shape,
    at: usize,
}

impl Held {
    fn of<T: Element>(gpu: &Gpu, x: &[T], dims: &[usize], shift: usize) -> Held {
        let shape = Shape::new(dims).unwrap();
        assert_eq!(shape.numel(), x.len());
        let at = MARGIN + shift * size_of::<T>();
        let mut bytes = vec![GUARD; at + size_of_val(x) + MARGIN];
        bytes[at..][..size_of_val(x)].copy_from_slice(bytes_of(x));
        let mut buffer = gpu.device().alloc(bytes.len()).unwrap();
        buffer.write(0, &bytes).unwrap();
        Held { buffer, dtype: T::DTYPE, shape, at }
    }

    fn poisoned<T: Element>(gpu: &Gpu, dims: &[usize], shift: usize) -> Held {
        let n = Shape::new(dims).unwrap().numel();
        Held::of(gpu, &vec![T::from_f64(77.0); n], dims, shift)
    }

    fn base(&self) -> *mut u8 {
        std::ptr::without_provenance_mut(self.buffer.ptr().0 as usize + self.at)
    }

    fn view(&self) -> View<'_> {
        // SAFETY: device memory of so many elements; only kernels follow the address.
        unsafe { View::new(self.base(), self.dtype, Layout::contiguous(self.shape)) }
    }

    fn view_mut(&mut self) -> ViewMut<'_> {
        // SAFETY: as in `view`, and borrowed exclusively.
        unsafe { ViewMut::new(self.base(), self.dtype, Layout::contiguous(self.shape)) }
    }

    /// The elements, after a look at the guards.
    #[track_caller]
    fn read<T: Element>(&self) -> Vec<T> {
        assert_eq!(T::DTYPE, self.dtype);
        let mut bytes = vec![0; self.buffer.len()];
        self.buffer.read(0, &mut bytes).unwrap();
        let size = self.shape.numel() * size_of::<T>();
        let outside = bytes[..self.at].iter().chain(&bytes[self.at + size..]);
        assert!(outside.copied().all(|b| b == GUARD), "bytes around the result were written");
        let mut out = vec![T::from_f64(0.0); self.shape.numel()];
        // SAFETY: as many bytes; any bits that kernels write are valid elements.
        unsafe { std::ptr::copy_nonoverlapping(bytes[self.at..].as_ptr(), out.as_mut_ptr().cast(), size) };
        out
    }
}

fn draw<T: Element>(rng: &mut Rng, n: usize, scale: f64) -> Vec<T> {
    (0..n).map(|_| T::from_f64(rng.unit() * scale)).collect()
}

/// Valid indices into `len`, every third negative.
fn picks<I: Element>(rng: &mut Rng, n: usize, len: usize) -> Vec<I> {
    let one = |rng: &mut Rng| {
        let at = rng.below(len.min(200)) as i64;
        if I::DTYPE != DType::U8 && len <= 100 && rng.below(3) == 0 { at - len as i64 } else { at }
    };
    (0..n).map(|_| I::from_i64(one(rng))).collect()
}

#[track_caller]
fn same<T: Element>(got: &[T], want: &[T], what: &str) {
    assert_eq!(got.len(), want.len());
    let odd = got.iter().zip(want).position(|(g, w)| bytes_of(&[*g]) != bytes_of(&[*w]));
    if let Some(i) = odd {
        panic!("{what} in {}: element {i} is {:?}, the CPU's {:?}", T::DTYPE, got[i], want[i]);
    }
}

/// An op on both devices, twice on the GPU, with operands one element off alignment and then aligned.
fn both<T: Element, I: Element>(gpu: &Gpu, op: &Op, operands: &Operands<'_, T, I>, out: &[usize]) {
    let Operands { x, i, s } = *operands;
    let layout = |dims: &[usize]| Layout::contiguous(Shape::new(dims).unwrap());
    let mut views = Vec::new();
    views.extend(x.map(|(data, dims)| View::of(data, layout(dims))));
    views.push(View::of(i.0, layout(i.1)));
    views.extend(s.map(|(data, dims)| View::of(data, layout(dims))));
    let mut want = vec![T::from_f64(99.0); Shape::new(out).unwrap().numel()];
    cpu::execute(op, &views, &mut [ViewMut::of(&mut want, layout(out))]).unwrap();
    for shift in [1, 0, 0] {
        let held_x = x.map(|(data, dims)| Held::of(gpu, data, dims, shift));
        let held_i = Held::of(gpu, i.0, i.1, shift);
        let held_s = s.map(|(data, dims)| Held::of(gpu, data, dims, shift));
        let mut y = Held::poisoned::<T>(gpu, out, shift);
        let mut views: Vec<View<'_>> = held_x.iter().map(Held::view).collect();
        views.push(held_i.view());
        views.extend(held_s.iter().map(Held::view));
        on_gpu(gpu, op, &views, y.view_mut());
        same(&y.read::<T>(), &want, &format!("{op:?} by {} of {out:?}", I::DTYPE));
    }
}

type Part<'a, T> = (&'a [T], &'a [usize]);

#[derive(Clone, Copy)]
struct Operands<'a, T, I> {
    x: Option<Part<'a, T>>,
    i: Part<'a, I>,
    s: Option<Part<'a, T>>,
}

fn on_gpu(gpu: &Gpu, op: &Op, x: &[View<'_>], y: ViewMut<'_>) {
    let out = &mut [y];
    match op {
        Op::Embedding => index::embedding(gpu, x, out),
        Op::EmbeddingGrad { rows } => index::embedding_grad(gpu, *rows, x, out),
        Op::Gather { axis } => index::gather(gpu, *axis, x, out),
        Op::ScatterAdd { axis } => index::scatter_add(gpu, *axis, x, out),
        Op::IndexSelect { axis } => index::index_select(gpu, *axis, x, out),
        Op::IndexAdd { axis } => index::index_add(gpu, *axis, x, out),
        other => panic!("{} is not an indexing op", other.name()),
    }
    .unwrap();
}

/// Rows, columns, indices.
const TABLES: [(usize, usize, usize); 10] = [
    (1, 1, 1),
    (3, 5, 0),
    (7, 1, 40),
    (65, 128, 1024),
    (3, 33, 5000),
    (65, 130, 9000),
    (300, 64, 77),
    (5000, 96, 333),
    (10, 7, 4097),
    (40000, 3, 12),
];

fn tables<T: Element, I: Element>(gpu: &Gpu) {
    let rng = &mut Rng(11);
    for (rows, n, m) in TABLES {
        let (table, i) = (draw::<T>(rng, rows * n, 100.0), picks::<I>(rng, m, rows));
        let x = Some((&table[..], &[rows, n][..]));
        both(gpu, &Op::Embedding, &Operands { x, i: (&i, &[m]), s: None }, &[m, n]);
        let s = draw::<T>(rng, m * n, 100.0);
        if T::DTYPE.is_float() {
            let s = Some((&s[..], &[m, n][..]));
            both(gpu, &Op::EmbeddingGrad { rows }, &Operands { x: None, i: (&i, &[m]), s }, &[rows, n]);
        }
        let s = Some((&s[..], &[m, n][..]));
        both(gpu, &Op::IndexAdd { axis: 0 }, &Operands { x, i: (&i, &[m]), s }, &[rows, n]);
    }
}

/// Shape of x, of the index, axis.
const BLOCKS: [(&[usize], &[usize], usize); 9] = [
    (&[5], &[9], 0),
    (&[4, 6], &[4, 6], 1),
    (&[4, 6], &[3, 5], 0),
    (&[100, 70], &[1, 70], 0),
    (&[100, 3000], &[100, 1], 1),
    (&[3, 50, 4], &[3, 700, 4], 1),
    (&[2, 3, 4, 5], &[2, 3, 0, 5], 2),
    (&[2, 3, 40, 5], &[1, 3, 9, 4], 2),
    (&[33, 2, 17], &[33, 2, 40], 2),
];

fn blocks<T: Element, I: Element>(gpu: &Gpu) {
    let rng = &mut Rng(12);
    for (shape, index, axis) in BLOCKS {
        let numel = |dims: &[usize]| dims.iter().product::<usize>();
        let (x, i) = (draw::<T>(rng, numel(shape), 100.0), picks::<I>(rng, numel(index), shape[axis]));
        let (x, i) = (Some((&x[..], shape)), (&i[..], index));
        both(gpu, &Op::Gather { axis }, &Operands { x, i, s: None }, index);
        let s = draw::<T>(rng, numel(index), 100.0);
        both(gpu, &Op::ScatterAdd { axis }, &Operands { x, i, s: Some((&s, index)) }, shape);
        let m = [0, 1, 6, 5000][rng.below(4)];
        let i = picks::<I>(rng, m, shape[axis]);
        let i = (&i[..], &[m][..]);
        let picked = Shape::new(shape).unwrap().with(axis, m);
        both(gpu, &Op::IndexSelect { axis }, &Operands { x, i, s: None }, &picked);
        let s = draw::<T>(rng, picked.numel(), 100.0);
        both(gpu, &Op::IndexAdd { axis }, &Operands { x, i, s: Some((&s, &picked)) }, shape);
    }
}

#[test]
fn indexing_equals_the_cpu() {
    let Some(gpu) = gpu() else { return };
    macro_rules! all {
        ($($ty:ty),*) => {$( tables::<$ty, i64>(&gpu); blocks::<$ty, i64>(&gpu); )*};
    }
    all!(f32, f64, f16, bf16, u8, i8, i16, i32, i64, bool);
    macro_rules! every_index {
        ($($ty:ty),*) => {$( blocks::<f32, $ty>(&gpu); )*};
    }
    every_index!(i32, i16);
    let rng = &mut Rng(13);
    let (table, grad) = (draw::<f32>(rng, 90 * 20, 1.0), draw::<f32>(rng, 50 * 20, 1.0));
    let (small, tiny) = (picks::<u8>(rng, 50, 90), picks::<i8>(rng, 50, 90));
    let x = Some((&table[..], &[90, 20][..]));
    both(&gpu, &Op::Embedding, &Operands { x, i: (&small, &[50]), s: None }, &[50, 20]);
    both(&gpu, &Op::Embedding, &Operands { x, i: (&tiny, &[50]), s: None }, &[50, 20]);
    let s = Some((&grad[..], &[50, 20][..]));
    let op = Op::EmbeddingGrad { rows: 90 };
    both(&gpu, &op, &Operands { x: None, i: (&small, &[50]), s }, &[90, 20]);
    both(&gpu, &op, &Operands { x: None, i: (&tiny, &[50]), s }, &[90, 20]);
}

#[test]
fn bad_indices_touch_nothing() {
    let Some(gpu) = gpu() else { return };
    let table: Vec<f32> = (0..12).map(|v| v as f32 + 1.0).collect();
    let x = Held::of(&gpu, &table, &[4, 3], 0);
    let i = Held::of(&gpu, &[1i64, 4, -5, -1, i64::MIN, i64::MAX], &[6], 0);
    let s = Held::of(&gpu, &[1f32; 18], &[6, 3], 0);
    let mut y = Held::poisoned::<f32>(&gpu, &[6, 3], 0);
    on_gpu(&gpu, &Op::Embedding, &[x.view(), i.view()], y.view_mut());
    let mut want = vec![0.0; 18];
    want[..3].copy_from_slice(&table[3..6]);
    want[9..12].copy_from_slice(&table[9..]);
    same(&y.read::<f32>(), &want, "embedding");
    let wide = Held::of(&gpu, &[1i64, 4, -5, -1, i64::MIN, i64::MAX], &[6, 1], 0);
    let mut y = Held::poisoned::<f32>(&gpu, &[6, 1], 0);
    on_gpu(&gpu, &Op::Gather { axis: 0 }, &[x.view(), wide.view()], y.view_mut());
    same(&y.read::<f32>(), &[4.0, 0.0, 0.0, 10.0, 0.0, 0.0], "gather");
    let mut y = Held::poisoned::<f32>(&gpu, &[4, 3], 0);
    on_gpu(&gpu, &Op::EmbeddingGrad { rows: 4 }, &[i.view(), s.view()], y.view_mut());
    same(&y.read::<f32>(), &[0., 0., 0., 1., 1., 1., 0., 0., 0., 1., 1., 1.], "embedding_grad");
    let want: Vec<f32> = table.iter().enumerate().map(|(k, v)| v + [0., 1.][k / 3 % 2]).collect();
    let mut y = Held::poisoned::<f32>(&gpu, &[4, 3], 0);
    on_gpu(&gpu, &Op::IndexAdd { axis: 0 }, &[x.view(), i.view(), s.view()], y.view_mut());
    same(&y.read::<f32>(), &want, "index_add");
}

#[test]
fn random_numbers_are_the_cpus() {
    fn check<T: cpu::convert::Storage>(gpu: &Gpu) {
        let rng = &mut Rng(14);
        for (n, shift) in [(0, 0), (1, 0), (5, 1), (1000, 0), (4099, 0), (70_001, 3)] {
            let x = draw::<T>(rng, n, 10.0);
            let (seed, step, stream) = (rng.next(), rng.next(), rng.next());
            let counter = Counter { seed, stream, step };
            let state = Held::of(gpu, &[seed as i64, step as i64], &[2], 0);
            for p in [0.0, 0.1, 0.5, 0.999] {
                let mut want = vec![T::default(); n];
                cpu::random::dropout(&x, p, counter, &mut want);
                let held = Held::of(gpu, &x, &[n], shift);
                let mut y = Held::poisoned::<T>(gpu, &[n], shift);
                let operands = [held.view(), state.view()];
                random::dropout(gpu, DropoutSpec { p, stream }, &operands, &mut [y.view_mut()]).unwrap();
                same(&y.read::<T>(), &want, "dropout");
            }
            let mut want = vec![T::default(); n];
            let uniform = Distribution::Uniform { low: -1.5, high: 2.25 };
            cpu::random::fill(uniform, counter, &mut want);
            let mut y = Held::poisoned::<T>(gpu, &[n], shift);
            random::fill(gpu, uniform, counter, &mut y.view_mut()).unwrap();
            same(&y.read::<T>(), &want, "uniform");
            let normal = Distribution::Normal { mean: 0.5, std: 2.0 };
            cpu::random::fill(normal, counter, &mut want);
            random::fill(gpu, normal, counter, &mut y.view_mut()).unwrap();
            close(&y.read::<T>(), &want, 1.0, "normal");
        }
    }
    let Some(gpu) = gpu() else { return };
    check::<f32>(&gpu);
    check::<f64>(&gpu);
    check::<f16>(&gpu);
    check::<bf16>(&gpu);
}

/// Within `places` of the last place of numbers around 1 or larger.
#[track_caller]
fn close<T: Element>(got: &[T], want: &[T], places: f64, what: &str) {
    let last = match T::DTYPE {
        DType::F16 => 2f64.powi(-10),
        DType::BF16 => 2f64.powi(-7),
        // The CPU's logarithm and cosine are good to a few places.
        DType::F64 => 2f64.powi(-47),
        _ => 2f64.powi(-22),
    };
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let (g, w) = (g.to_f64(), w.to_f64());
        let off = (g - w).abs() / w.abs().max(1.0);
        assert!(g == w || off <= places * last, "{what} in {} at {i}: {g}, the CPU's {w}", T::DTYPE);
    }
}

/// Parameters of one dtype with gradients of another, on both devices.
struct Model<P, G, M> {
    params: Vec<Vec<P>>,
    grads: Vec<Vec<G>>,
    moments: Vec<Vec<M>>,
}

fn model<P: Element, G: Element, M: Element>(lens: &[usize], each: usize) -> Model<P, G, M> {
    let rng = &mut Rng(15);
    let params = lens.iter().map(|&n| draw(rng, n, 1.0)).collect();
    let grads = lens.iter().map(|&n| draw(rng, n, 0.1)).collect();
    let moments = lens.iter().flat_map(|&n| vec![vec![M::from_f64(0.0); n]; each]).collect();
    Model { params, grads, moments }
}

fn flat(len: usize) -> Layout {
    Layout::contiguous(Shape::new(&[len]).unwrap())
}

fn steps<P: Element, G: Element, M: Element>(gpu: &Gpu, lens: &[usize], rule: Rule) {
    let each = rule.moments();
    let Model { mut params, grads, mut moments } = model::<P, G, M>(lens, each);
    let upload = |x: &Vec<P>, i: usize| Held::of(gpu, x, &[x.len()], i % 2);
    let mut gpu_params: Vec<Held> = params.iter().enumerate().map(|(i, x)| upload(x, i)).collect();
    let gpu_grads: Vec<Held> = grads.iter().map(|x| Held::of(gpu, x, &[x.len()], 0)).collect();
    let mut gpu_moments: Vec<Held> = moments.iter().map(|x| Held::of(gpu, x, &[x.len()], 0)).collect();
    let mut shadows: Vec<Held> = lens.iter().map(|&n| Held::poisoned::<f16>(gpu, &[n], 0)).collect();
    let (lr, scale) = (Held::of(gpu, &[0.01f32], &[], 0), Held::of(gpu, &[0.5f32], &[], 0));
    let mut step = Held::of(gpu, &[0i64], &[], 0);
    for (round, skip) in [false, false, true, false].into_iter().enumerate() {
        let skip_held = Held::of(gpu, &[skip], &[], 0);
        let mut state = optim::State {
            step: step.view_mut(),
            lr: lr.view(),
            grad_scale: scale.view(),
            skip: skip_held.view(),
        };
        let mut tensors = optim::Tensors {
            params: &mut gpu_params.iter_mut().map(Held::view_mut).collect::<Vec<_>>(),
            grads: &gpu_grads.iter().map(Held::view).collect::<Vec<_>>(),
            moments: &mut gpu_moments.iter_mut().map(Held::view_mut).collect::<Vec<_>>(),
            shadows: &mut shadows.iter_mut().map(|s| Some(s.view_mut())).collect::<Vec<_>>(),
        };
        rule.on_gpu(gpu, &mut tensors, &mut state);
        let taken = [1, 2, 2, 3][round];
        assert_eq!(step.read::<i64>(), [taken]);
        if skip {
            continue;
        }
        let mut p: Vec<_> = params.iter_mut().map(|x| (x.len(), x)).collect();
        let mut p: Vec<_> = p.iter_mut().map(|(n, x)| ViewMut::of(&mut x[..], flat(*n))).collect();
        let g: Vec<_> = grads.iter().map(|x| View::of(x, flat(x.len()))).collect();
        let mut m: Vec<_> = moments.iter_mut().map(|x| (x.len(), x)).collect();
        let mut m: Vec<_> = m.iter_mut().map(|(n, x)| ViewMut::of(&mut x[..], flat(*n))).collect();
        let scalars = Scalars { step: taken, lr: f64::from(0.01f32), grad_scale: 0.5 };
        rule.on_cpu(&mut p, &g, &mut m, scalars);
    }
    for (i, want) in params.iter().enumerate() {
        close(&gpu_params[i].read::<P>(), want, 4.0, "parameters");
        let shadow: Vec<f16> = gpu_params[i].read::<P>().iter().map(|x| f16::from_f64(x.to_f64())).collect();
        // Of a parameter in half precision the shadow is rounded from what was computed.
        let places = if P::DTYPE.size() < 4 { 8.0 } else { 1.0 };
        close(&shadows[i].read::<f16>(), &shadow, places, "shadows");
    }
    for (got, want) in gpu_moments.iter().zip(&moments) {
        close(&got.read::<M>(), want, 4.0, "moments");
    }
}

#[derive(Clone, Copy)]
enum Rule {
    Adam(Adam),
    Sgd(Sgd),
}

impl Rule {
    fn moments(self) -> usize {
        match self {
            Rule::Adam(_) => 2,
            Rule::Sgd(h) => usize::from(h.momentum != 0.0),
        }
    }

    fn on_gpu(self, gpu: &Gpu, tensors: &mut optim::Tensors<'_, '_>, state: &mut optim::State<'_>) {
        match self {
            Rule::Adam(h) => optim::adam(gpu, tensors, &h, state).unwrap(),
            Rule::Sgd(h) => optim::sgd(gpu, tensors, &h, state).unwrap(),
        }
    }

    fn on_cpu(self, p: &mut [ViewMut<'_>], g: &[View<'_>], m: &mut [ViewMut<'_>], s: Scalars) {
        match self {
            Rule::Adam(h) => cpu::optim::adam(p, g, m, &h, s),
            Rule::Sgd(h) => cpu::optim::sgd(p, g, m, &h, s),
        }
    }
}

#[test]
fn optimizers_equal_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let many: Vec<usize> = (0..200).map(|i| 1 + i * 7 % 1500).collect();
    let lens: [&[usize]; 4] = [&[], &[0, 1, 3, 1024, 1025, 5000, 0], &[400_000], &many];
    let sgd = |momentum, nesterov| Rule::Sgd(Sgd { momentum, nesterov, weight_decay: 0.1 });
    let rules = [
        Rule::Adam(Adam::default()),
        Rule::Adam(Adam { decoupled: false, ..Adam::default() }),
        sgd(0.0, false),
        sgd(0.9, false),
        sgd(0.9, true),
    ];
    for (lens, rule) in lens.iter().flat_map(|l| rules.map(|r| (l, r))) {
        steps::<f32, f32, f32>(&gpu, lens, rule);
        steps::<f32, f16, f32>(&gpu, lens, rule);
        steps::<f16, f16, f32>(&gpu, lens, rule);
        steps::<bf16, f32, f32>(&gpu, lens, rule);
        steps::<f64, f64, f64>(&gpu, lens, rule);
        steps::<f64, bf16, f64>(&gpu, lens, rule);
    }
}

#[test]
fn gradient_scales_equal_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let many: Vec<usize> = (0..500).map(|i| i * 13 % 9000).collect();
    let lens: [&[usize]; 4] = [&[], &[0, 1, 5], &[1_300_000, 7], &many];
    for (lens, bad) in lens.iter().flat_map(|l| [None, Some(f32::INFINITY), Some(f32::NAN)].map(|b| (l, b))) {
        let mut grads = model::<f32, f32, f32>(lens, 0).grads;
        if let (Some(bad), Some(last)) = (bad, grads.last_mut().and_then(|g| g.last_mut())) {
            *last = bad;
        }
        let views: Vec<_> = grads.iter().map(|x| View::of(x, flat(x.len()))).collect();
        let (sum, finite) = cpu::optim::sum_of_squares(&views);
        let held: Vec<Held> = grads.iter().map(|x| Held::of(&gpu, x, &[x.len()], x.len() % 2)).collect();
        let views: Vec<_> = held.iter().map(Held::view).collect();
        let loss_scale = Held::of(&gpu, &[8f32], &[], 0);
        for (scale, max) in [(1.0, None), (8.0, Some(0.5)), (8.0, Some(1e9))] {
            let norm = sum.sqrt() / scale;
            let clip = max.map_or(1.0, |max: f64| (max / (norm + 1e-6)).min(1.0));
            for _ in 0..2 {
                let mut norm_held = Held::poisoned::<f32>(&gpu, &[], 0);
                let mut factor = Held::poisoned::<f32>(&gpu, &[], 0);
                let mut non_finite = Held::poisoned::<bool>(&gpu, &[], 0);
                let scale_view = (scale != 1.0).then(|| loss_scale.view());
                let mut out = optim::GradientScale {
                    norm: norm_held.view_mut(),
                    factor: factor.view_mut(),
                    non_finite: non_finite.view_mut(),
                };
                optim::gradient_scale(&gpu, &views, scale_view.as_ref(), max, &mut out).unwrap();
                assert_eq!(non_finite.read::<bool>(), [!finite]);
                if norm.is_nan() {
                    assert!(norm_held.read::<f32>()[0].is_nan());
                } else {
                    close(&norm_held.read::<f32>(), &[norm as f32], 2.0, "norm");
                }
                close(&factor.read::<f32>(), &[(clip / scale) as f32], 2.0, "factor");
            }
        }
    }
}

#[test]
fn loss_scales_move() {
    let Some(gpu) = gpu() else { return };
    let (mut scale, mut clean) = (Held::of(&gpu, &[4f32], &[], 0), Held::of(&gpu, &[0i64], &[], 0));
    for (bad, want_scale, want_clean) in
        [(false, 4.0, 1), (false, 8.0, 0), (true, 4.0, 0), (true, 2.0, 0), (true, 1.0, 0), (true, 1.0, 0)]
    {
        let bad = Held::of(&gpu, &[bad], &[], 0);
        let rule = (2.0, 0.5, 2);
        optim::update_loss_scale(&gpu, &mut scale.view_mut(), &mut clean.view_mut(), &bad.view(), rule)
            .unwrap();
        assert_eq!((scale.read::<f32>()[0], clean.read::<i64>()[0]), (want_scale, want_clean));
    }
}
