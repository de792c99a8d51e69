//! [`Tensor`]: a strided view of shared storage, with its place on the tape; making, reading and moving tensors.

use std::fmt;
use std::sync::Arc;

use bullet_kernels::cpu::stop;
use bullet_ops::{DType, Element, Layout, Meta, Op, Shape};
use bullet_runtime::hardware::memory_holds;
use bullet_runtime::{Device, DeviceKind, DevicePtr};

use crate::constants;
use crate::dispatch;
use crate::error::{Error, Result};
use crate::rescue;
use crate::storage::{Guards, Storage};
use crate::tape::{Autograd, Backward, Leaf, Node, Step, grad_enabled, no_grad};
use crate::wait::check_faults;

/// An n-dimensional array on a device.
///
/// Cloning is cheap and shares the memory, as views ([`Tensor::permute`], [`Tensor::slice`], ..) do. Ops return new
/// tensors; the few that overwrite one end in an underscore.
#[derive(Clone)]
pub struct Tensor(Arc<Inner>);

struct Inner {
    storage: Arc<Storage>,
    layout: Layout,
    dtype: DType,
    autograd: Option<Autograd>,
}

impl Tensor {
    pub(crate) fn from_parts(
        storage: Arc<Storage>,
        layout: Layout,
        dtype: DType,
        autograd: Option<Autograd>,
    ) -> Tensor {
        Tensor(Arc::new(Inner { storage, layout, dtype, autograd }))
    }

    /// A new row-major tensor with unspecified contents.
    pub(crate) fn empty(meta: Meta, device: &Device) -> Result<Tensor> {
        let storage = Storage::new(device, meta)?;
        Ok(Tensor::from_parts(storage, Layout::contiguous(meta.shape), meta.dtype, None))
    }

    /// A tensor of `data`, in row-major order.
    ///
    /// # Errors
    /// `data` has another number of elements than `shape`; out of memory.
    pub fn from_slice<T: Element>(data: &[T], shape: &[usize], device: &Device) -> Result<Tensor> {
        let shape = Shape::new(shape)?;
        if data.len() != shape.numel() {
            return Err(bullet_ops::Error::shape(format!(
                "cannot reshape array of size {} into shape {shape}",
                data.len()
            ))
            .into());
        }
        Ok(Tensor::from_parts(
            Storage::of(device, bytes_of(data))?,
            Layout::contiguous(shape),
            T::DTYPE,
            None,
        ))
    }

    /// A tensor of raw little-endian elements, in row-major order.
    ///
    /// # Errors
    /// `bytes` has another length than shape and dtype need; a byte of a bool is neither 0 nor 1.
    pub fn from_bytes(bytes: &[u8], dtype: DType, shape: &[usize], device: &Device) -> Result<Tensor> {
        let meta = Meta::new(Shape::new(shape)?, dtype);
        let need = meta.shape.numel() * dtype.size();
        if bytes.len() != need {
            return Err(bullet_ops::Error::shape(format!(
                "a {dtype} tensor of shape {} takes {need} bytes, got {}",
                meta.shape,
                bytes.len()
            ))
            .into());
        }
        if let Some((i, byte)) = dtype.invalid_byte(bytes) {
            return Err(bullet_ops::Error::argument(format!(
                "byte {i} of a bool tensor is {byte}: a bool is 0 or 1; give such bytes as u8 and compare them with 0"
            ))
            .into());
        }
        let storage = Storage::of(device, bytes)?;
        Ok(Tensor::from_parts(storage, Layout::contiguous(meta.shape), dtype, None))
    }

    /// A scalar tensor (no axes).
    pub fn scalar<T: Element>(value: T, device: &Device) -> Result<Tensor> {
        Tensor::from_slice(&[value], &[], device)
    }

    /// A scalar tensor of `value` as `dtype`, as f64 holds it, to compute with; a GPU is not waited for, as
    /// [`Tensor::scalar`] does, and the same value mostly takes no launch the next time. It may be shared with others: do not
    /// overwrite it.
    pub fn constant(value: f64, dtype: DType, device: &Device) -> Result<Tensor> {
        if device.kind() != DeviceKind::Cpu {
            return constants::of(value, dtype, device);
        }
        match dtype {
            DType::Bool => Tensor::scalar(value != 0.0, device),
            DType::U8 => Tensor::scalar(u8::from_f64(value), device),
            DType::U16 => Tensor::scalar(u16::from_f64(value), device),
            DType::U32 => Tensor::scalar(u32::from_f64(value), device),
            DType::U64 => Tensor::scalar(u64::from_f64(value), device),
            DType::I8 => Tensor::scalar(i8::from_f64(value), device),
            DType::I16 => Tensor::scalar(i16::from_f64(value), device),
            DType::I32 => Tensor::scalar(i32::from_f64(value), device),
            DType::I64 => Tensor::scalar(i64::from_f64(value), device),
            DType::F16 | DType::BF16 => Tensor::full(value, &[], dtype, device),
            DType::F32 => Tensor::scalar(value as f32, device),
            DType::F64 => Tensor::scalar(value, device),
        }
    }

    /// A tensor whose elements are all `value`, converted to `dtype`.
    pub fn full(value: f64, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        let tensor = Tensor::empty(Meta::new(Shape::new(shape)?, dtype), device)?;
        dispatch::fill(&tensor, value)?;
        Ok(tensor)
    }

    /// A tensor of zeros.
    pub fn zeros(shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        Tensor::full(0.0, shape, dtype, device)
    }

    /// A tensor of ones.
    pub fn ones(shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        Tensor::full(1.0, shape, dtype, device)
    }

    /// Zeros of this tensor's shape, dtype and device.
    pub fn zeros_like(&self) -> Result<Tensor> {
        Tensor::zeros(self.shape(), self.dtype(), self.device())
    }

    /// `start, start + 1, ..`: `len` integers (i64), which wrap.
    ///
    /// # Errors
    /// Out of memory.
    pub fn arange(start: i64, len: usize, device: &Device) -> Result<Tensor> {
        /// Numbers at a time, so that many need no memory of the host besides.
        const CHUNK: usize = 1 << 16;
        let whole = Tensor::empty(Meta::new(Shape::new(&[len])?, DType::I64), device)?;
        let mut chunk = Vec::with_capacity(len.min(CHUNK));
        for at in (0..len).step_by(CHUNK) {
            stop::check();
            let count = CHUNK.min(len - at);
            chunk.clear();
            chunk.extend((at..at + count).map(|i| start.wrapping_add(i as i64)));
            whole.narrow(0, at, count)?.send_(&chunk)?;
        }
        Ok(whole)
    }

    /// Axis lengths.
    pub fn shape(&self) -> &Shape {
        &self.0.layout.shape
    }

    /// Length of one axis.
    ///
    /// # Panics
    /// If there is no such axis.
    pub fn dim(&self, axis: usize) -> usize {
        self.shape()[axis]
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.shape().rank()
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape().numel()
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// Where the memory is.
    pub fn device(&self) -> &Device {
        self.0.storage.device()
    }

    /// Shape, strides and offset in the storage.
    pub fn layout(&self) -> &Layout {
        &self.0.layout
    }

    /// Whether the elements lie row-major without gaps.
    pub fn is_contiguous(&self) -> bool {
        self.0.layout.is_contiguous()
    }

    pub(crate) fn meta(&self) -> Meta {
        Meta::new(*self.shape(), self.0.dtype)
    }

    pub(crate) fn storage(&self) -> &Arc<Storage> {
        &self.0.storage
    }

    pub(crate) fn autograd(&self) -> Option<&Autograd> {
        self.0.autograd.as_ref()
    }

    /// Whether nothing but this handle can reach the memory, so that it may be overwritten unseen.
    pub(crate) fn is_unique(&self) -> bool {
        Arc::strong_count(&self.0) == 1 && Arc::strong_count(&self.0.storage) == 1
    }

    /// Whether both view the same storage.
    pub fn shares_memory(&self, other: &Tensor) -> bool {
        Arc::ptr_eq(&self.0.storage, &other.0.storage)
    }

    /// How often the memory was overwritten in place.
    pub fn version(&self) -> u64 {
        self.0.storage.version()
    }

    /// The same memory, cut off the tape.
    pub fn detach(&self) -> Tensor {
        self.view_as(self.0.layout, None)
    }

    /// Another view of the same memory.
    pub(crate) fn view_as(&self, layout: Layout, autograd: Option<Autograd>) -> Tensor {
        Tensor::from_parts(self.0.storage.clone(), layout, self.0.dtype, autograd)
    }

    /// The address of the element whose indices are all 0, if the host can read the memory. Work on it is over; who writes
    /// there writes behind the tape's back.
    pub fn host_address(&self) -> Option<u64> {
        let base = self.storage().buffer().host_ptr()?;
        self.device().synchronize().ok()?;
        Some((base.expose_provenance() + self.layout().offset * self.dtype().size()) as u64)
    }

    /// Where the first element lies in the device's memory. Work that was enqueued before may still write there.
    pub fn address(&self) -> u64 {
        self.storage().buffer().ptr().offset(self.layout().offset * self.dtype().size()).0
    }

    /// Bytes of the memory that this is a view of.
    pub fn storage_bytes(&self) -> usize {
        self.storage().buffer().len()
    }

    /// Whether the memory belongs to someone who allows no writes.
    pub fn is_read_only(&self) -> bool {
        self.storage().is_read_only()
    }

    /// A view of memory that belongs to someone else, and that `owner` keeps; `strides` are in elements.
    ///
    /// # Errors
    /// Too many axes or elements.
    ///
    /// # Safety
    /// Until `owner` is dropped, `at` is the address of the element whose indices are all 0, and every element that the
    /// strides reach from there is an initialised, aligned and valid `dtype` in memory that `device` can use. No one writes
    /// it while a kernel works on it.
    pub unsafe fn adopt(
        at: u64,
        (shape, strides): (&[usize], &[isize]),
        dtype: DType,
        device: &Device,
        owner: Box<dyn Send + Sync>,
        read_only: bool,
    ) -> Result<Tensor> {
        let shape = Shape::new(shape)?;
        // Strides may be negative: the memory begins at the lowest address.
        let below: isize = shape.iter().zip(strides).map(|(&d, &s)| (d as isize - 1).max(0) * s.min(0)).sum();
        let layout = Layout::strided(shape, strides, below.unsigned_abs());
        let len = layout.bounds().map_or(0, |(_, highest)| highest + 1) * dtype.size();
        let start = DevicePtr(at - (below.unsigned_abs() * dtype.size()) as u64);
        // SAFETY: by the caller's promise, these are the bytes from the lowest element to the highest.
        let buffer = unsafe { device.adopt(start, len, owner) };
        Ok(Tensor::from_parts(Storage::around(buffer, read_only), layout, dtype, None))
    }

    /// The same memory as a leaf of the tape: [`Tensor::backward`] fills its [`Tensor::grad`].
    ///
    /// # Errors
    /// The dtype is not floating-point.
    pub fn requires_grad(&self) -> Result<Tensor> {
        if !self.dtype().is_float() {
            return Err(Error::Autograd(format!(
                "only floating-point tensors can require gradients, not {}",
                self.dtype()
            )));
        }
        Ok(self.view_as(self.0.layout, Some(Autograd::Leaf(Arc::new(Leaf::new(self.dtype()))))))
    }

    /// Whether this is a leaf of the tape: see [`Tensor::requires_grad`].
    pub fn is_leaf(&self) -> bool {
        self.leaf().is_some()
    }

    /// What tells this leaf of the tape from all others that exist: tensors of one leaf share a gradient.
    pub fn leaf_id(&self) -> Option<usize> {
        self.leaf().map(|leaf| Arc::as_ptr(leaf).addr())
    }

    /// Whether a gradient flows to or through this tensor.
    pub fn is_tracked(&self) -> bool {
        self.0.autograd.is_some()
    }

    /// The gradient that backward passes have accumulated in this leaf, in its dtype.
    ///
    /// It shares memory with what the leaf holds, but for a gradient that came in another dtype (see
    /// [`Tensor::shadow`]): of that it is a copy, to be put back by [`Tensor::set_grad`] if it is changed.
    pub fn grad(&self) -> Option<Tensor> {
        let grad = self.computed_grad()?;
        // Without memory for a copy the gradient is still right in the dtype that it has.
        Some(no_grad(|| grad.cast(self.dtype())).unwrap_or(grad))
    }

    /// As [`Tensor::grad`], but in the dtype that backward computed it in and always the leaf's own memory: what an
    /// optimizer reads.
    pub fn computed_grad(&self) -> Option<Tensor> {
        self.leaf()?.grad()
    }

    /// What belongs to this tensor as a leaf of the tape, if it is one.
    pub(crate) fn leaf(&self) -> Option<&Arc<Leaf>> {
        match &self.0.autograd {
            Some(Autograd::Leaf(leaf)) => Some(leaf),
            Some(Autograd::Node(..)) | None => None,
        }
    }

    /// Sets or clears the gradient of this leaf; nothing happens to other tensors.
    pub fn set_grad(&self, grad: Option<Tensor>) {
        if let Some(Autograd::Leaf(leaf)) = &self.0.autograd {
            leaf.set(grad);
        }
    }

    /// This tensor if it is row-major without gaps, else a copy that is.
    pub fn contiguous(&self) -> Result<Tensor> {
        if self.is_contiguous() { Ok(self.clone()) } else { self.copy() }
    }

    /// A row-major copy.
    pub fn copy(&self) -> Result<Tensor> {
        dispatch::run_one(Op::Copy, &[self])
    }

    /// The elements, in row-major order.
    ///
    /// # Errors
    /// `T` is not the dtype.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        if T::DTYPE != self.dtype() {
            return Err(Error::WrongType { holds: self.dtype(), asked: T::DTYPE });
        }
        let mut out: Vec<T> = room(self.numel())?;
        // SAFETY: the vector's memory as bytes; bool storage holds only 0 and 1.
        let bytes =
            unsafe { std::slice::from_raw_parts_mut(out.as_mut_ptr().cast::<u8>(), size_of_val(&out[..])) };
        self.read_bytes(bytes)?;
        Ok(out)
    }

    /// The elements as raw bytes, in row-major order.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut out = room(self.numel() * self.dtype().size())?;
        self.read_bytes(&mut out)?;
        Ok(out)
    }

    fn read_bytes(&self, out: &mut [u8]) -> Result<()> {
        let dense = match no_grad(|| self.contiguous()) {
            Err(e) if rescue::may_move_to_cpu("a contiguous copy", &[self], self.device(), &e) => {
                let _guards = Guards::take(&[self.storage()], &[]);
                rescue::fetch(self)?.contiguous()?
            }
            done => done?,
        };
        let storage = dense.storage();
        let _guards = Guards::take(&[storage], &[]);
        storage.buffer().read(dense.layout().offset * self.dtype().size(), out)?;
        check_faults(self.device())
    }

    /// The elements as f64, in row-major order, whatever the dtype.
    pub fn to_f64_vec(&self) -> Result<Vec<f64>> {
        no_grad(|| self.cast(DType::F64))?.to_vec()
    }

    /// The only element, as f64.
    ///
    /// # Errors
    /// There is not exactly one element.
    pub fn item(&self) -> Result<f64> {
        if self.numel() != 1 {
            return Err(bullet_ops::Error::shape(format!(
                "can only convert an array of size 1 to a scalar, got shape {}",
                self.shape()
            ))
            .into());
        }
        Ok(self.to_f64_vec()?[0])
    }

    /// Overwrites the elements with those of `source`, which broadcasts and is converted.
    ///
    /// # Errors
    /// This tensor is tracked by the tape and gradients are on; shapes don't broadcast.
    pub fn copy_(&self, source: &Tensor) -> Result<()> {
        dispatch::copy_into(self, source)
    }

    /// Overwrites the elements with host data in row-major order, without waiting for the device: `data` may be changed
    /// at once.
    ///
    /// # Errors
    /// As [`Tensor::copy_`]; `T` is not the dtype, the number of elements differs, or this tensor is not contiguous.
    pub fn send_<T: Element>(&self, data: &[T]) -> Result<()> {
        dispatch::check_in_place(self)?;
        if T::DTYPE != self.dtype() {
            return Err(Error::WrongType { holds: self.dtype(), asked: T::DTYPE });
        }
        if data.len() != self.numel() || !self.is_contiguous() {
            return Err(bullet_ops::Error::shape(format!(
                "cannot send {} elements to a tensor of shape {}, which takes {} and must be contiguous",
                data.len(),
                self.shape(),
                self.numel()
            ))
            .into());
        }
        let storage = self.storage();
        let _guards = Guards::take(&[], &[storage]);
        Ok(storage.buffer().send(self.layout().offset * self.dtype().size(), bytes_of(data))?)
    }

    /// As [`Tensor::send_`], of a tensor of this shape and dtype on any device; from another device the host waits for it.
    ///
    /// # Errors
    /// As [`Tensor::send_`].
    pub fn send_from_(&self, source: &Tensor) -> Result<()> {
        if source.device() == self.device() {
            return no_grad(|| self.copy_(source));
        }
        dispatch::check_in_place(self)?;
        if source.meta() != self.meta() || !self.is_contiguous() {
            return Err(bullet_ops::Error::shape(format!(
                "cannot send a {} tensor of shape {} to a {} tensor of shape {}, which must be contiguous",
                source.dtype(),
                source.shape(),
                self.dtype(),
                self.shape()
            ))
            .into());
        }
        let data = source.to_bytes()?;
        let _guards = Guards::take(&[], &[self.storage()]);
        Ok(self.storage().buffer().send(self.layout().offset * self.dtype().size(), &data)?)
    }

    /// Overwrites every element.
    ///
    /// # Errors
    /// This tensor is tracked by the tape and gradients are on.
    pub fn fill_(&self, value: f64) -> Result<()> {
        dispatch::check_in_place(self)?;
        dispatch::fill(self, value)
    }

    /// A copy on `device`, or this tensor if it is there. Its gradient moves the other way.
    ///
    /// # Errors
    /// Out of memory.
    pub fn to_device(&self, device: &Device) -> Result<Tensor> {
        if self.device() == device {
            return Ok(self.clone());
        }
        let moved = self.copy_to(device)?;
        if !(grad_enabled() && self.is_tracked() && self.dtype().is_float()) {
            return Ok(moved);
        }
        let step = Step::Custom(Box::new(MoveBack(self.device().clone())));
        let node = Node::record(step, &[self], vec![moved.meta()], Vec::new());
        Ok(moved.view_as(*moved.layout(), Some(Autograd::Node(node, 0))))
    }

    /// A row-major copy in the memory of another device. Where the host reaches the memory of one of them, nothing lies
    /// in between.
    fn copy_to(&self, device: &Device) -> Result<Tensor> {
        let moved = Tensor::empty(self.meta(), device)?;
        let (target, bytes) = (moved.storage().buffer(), self.numel() * self.dtype().size());
        if let Some(to) = target.host_ptr() {
            // Work that was queued before may still use this memory.
            device.synchronize()?;
            // SAFETY: memory of this length, initialised as all of the pool's, that no one else can name yet.
            self.read_bytes(unsafe { std::slice::from_raw_parts_mut(to, bytes) })?;
            return Ok(moved);
        }
        if self.storage().buffer().host_ptr().is_none() {
            target.put(0, &self.to_bytes()?)?;
            return Ok(moved);
        }
        let dense = no_grad(|| self.contiguous())?;
        let _guards = Guards::take(&[dense.storage()], &[]);
        dense.device().synchronize()?;
        let from = dense.storage().base().wrapping_add(dense.layout().offset * self.dtype().size());
        // SAFETY: a contiguous tensor has its elements there, and the guard keeps writers out.
        let data = unsafe { std::slice::from_raw_parts(from, bytes) };
        target.put(0, data)?;
        Ok(moved)
    }
}

/// The adjoint of a move, which is the move to where the operand was.
struct MoveBack(Device);

impl Backward for MoveBack {
    fn backward(&self, grads: Vec<Option<Tensor>>, _: Vec<Tensor>) -> Result<Vec<Option<Tensor>>> {
        grads.into_iter().map(|grad| grad.map(|g| g.to_device(&self.0)).transpose()).collect()
    }
}

/// Memory of the host to read into.
fn room<T: Copy + Default>(len: usize) -> Result<Vec<T>> {
    let (mut out, bytes) = (Vec::new(), len.saturating_mul(size_of::<T>()));
    if !memory_holds(bytes) || out.try_reserve_exact(len).is_err() {
        return Err(bullet_runtime::Error::driver_out_of_memory(bytes).into());
    }
    out.resize(len, T::default());
    Ok(out)
}

/// Elements as they lie in memory.
fn bytes_of<T: Element>(data: &[T]) -> &[u8] {
    // SAFETY: any `Element` is plain bytes without padding.
    unsafe { std::slice::from_raw_parts(data.as_ptr().cast::<u8>(), size_of_val(data)) }
}

/// The values, if they could be read.
fn show<T: fmt::Debug>(f: &mut fmt::Formatter<'_>, values: Result<Vec<T>>) -> fmt::Result {
    values.map_or(Ok(()), |values| write!(f, ", {values:?}"))
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        write!(f, "Tensor({}, {}, {}", self.dtype(), self.shape(), self.device())?;
        if self.numel() <= SHOWN {
            // Integers of 64 bits have more digits than f64.
            match self.dtype() {
                DType::I64 => show(f, self.to_vec::<i64>())?,
                DType::U64 => show(f, self.to_vec::<u64>())?,
                _ => show(f, self.to_f64_vec())?,
            }
        }
        f.write_str(if self.is_tracked() { ", tracked)" } else { ")" })
    }
}
