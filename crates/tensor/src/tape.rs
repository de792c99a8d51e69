//! The tape: which op made a tensor of which, and the walk back over it.
//!
//! There is no list. Every tracked tensor holds the `Node` of the op that made it, a node holds edges to the nodes of
//! the operands that need a gradient, and nodes are numbered in the order they ran. `backward` visits the nodes that
//! the root reaches, last one first; a tensor that is dropped takes its part of the tape along.
//!
//! **What is kept.** A node saves only what its adjoint reads, with the storage's version; a version that changed since
//! is an error, not a wrong gradient. Backward takes the saved tensors out of a node as it passes, so that memory falls
//! while it runs, and adds gradients in place where no one else holds them.

use std::cell::Cell;
use std::collections::{BinaryHeap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bullet_kernels::cpu::stop;
use bullet_ops::{DType, Meta, Op};
use bullet_runtime::DeviceKind;

use crate::adjoint::{self, Context, Deferred};
use crate::dispatch::{Few, execute};
use crate::error::{Error, Result};
use crate::shadow::Shadow;
use crate::tensor::Tensor;
use crate::views::ViewOp;

thread_local! {
    static GRAD_ENABLED: Cell<bool> = const { Cell::new(true) };
}

/// Whether ops on this thread are recorded.
pub fn grad_enabled() -> bool {
    GRAD_ENABLED.get()
}

/// Says whether ops on this thread are recorded from now on; returns what was before.
pub fn set_grad_enabled(enabled: bool) -> bool {
    GRAD_ENABLED.replace(enabled)
}

/// Runs `f` without recording: its results are cut off the tape.
pub fn no_grad<R>(f: impl FnOnce() -> R) -> R {
    with_grad(false, f)
}

/// Runs `f` with recording on or off, and restores what was, panics included.
pub fn with_grad<R>(enabled: bool, f: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            GRAD_ENABLED.set(self.0);
        }
    }
    let _restore = Restore(GRAD_ENABLED.replace(enabled));
    f()
}

/// A tensor's place on the tape.
#[derive(Clone)]
pub(crate) enum Autograd {
    /// Where gradients end up.
    Leaf(Arc<Leaf>),
    /// The `n`-th result of a node.
    Node(Arc<Node>, usize),
}

/// The gradient of a leaf, and what else belongs to it.
pub(crate) struct Leaf {
    /// Of the leaf's values; a gradient that came through a shadow is of the shadow's.
    dtype: DType,
    grad: Mutex<Option<Tensor>>,
    /// Its values in another dtype.
    pub(crate) shadow: Mutex<Option<Shadow>>,
}

impl Leaf {
    pub(crate) fn new(dtype: DType) -> Leaf {
        Leaf { dtype, grad: Mutex::default(), shadow: Mutex::default() }
    }

    pub(crate) fn grad(&self) -> Option<Tensor> {
        self.grad.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, grad: Option<Tensor>) {
        *self.grad.lock().unwrap_or_else(PoisonError::into_inner) = grad;
    }

    /// Adds to the gradient. The first one is kept as it is if no one else holds its memory: it may be overwritten
    /// in place later (clipping, accumulation). Sums are in the dtype of the leaf.
    fn accumulate(&self, grad: Tensor) -> Result<()> {
        let mut slot = self.grad.lock().unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            Some(sum) if sum.dtype() == self.dtype => sum.add_(&grad),
            Some(narrow) => {
                let sum = narrow.cast(self.dtype)?;
                sum.add_(&grad)?;
                *slot = Some(sum);
                Ok(())
            }
            None => {
                *slot = Some(if grad.is_unique() && grad.is_contiguous() { grad } else { grad.copy()? });
                Ok(())
            }
        }
    }
}

/// What a node computes the adjoint of.
pub(crate) enum Step {
    /// An op.
    Op(Op),
    /// A change of shape that moved no data.
    View(ViewOp),
    /// A function with a backward of its own.
    Custom(Box<dyn Backward>),
}

/// The backward half of a function that is not in the op table.
pub trait Backward: Send + Sync {
    /// The gradient of each input, from that of each output; `None` is zero. `saved` is what was saved with the function, if
    /// anything was (see [`custom`](crate::custom)).
    fn backward(&self, grads: Vec<Option<Tensor>>, saved: Vec<Tensor>) -> Result<Vec<Option<Tensor>>>;
}

/// A tensor kept for backward, and the version of its memory then.
pub(crate) struct Saved {
    tensor: Tensor,
    version: u64,
}

impl Saved {
    pub(crate) fn new(tensor: &Tensor) -> Saved {
        Saved { tensor: tensor.detach(), version: tensor.version() }
    }
}

/// One op that ran.
pub(crate) struct Node {
    seq: u64,
    step: Step,
    inputs: Vec<Meta>,
    outputs: Vec<Meta>,
    edges: Vec<Option<Autograd>>,
    saved: Mutex<Option<Vec<Option<Saved>>>>,
}

impl Node {
    /// Records `step`; `saved` lists operands, then results, `None` where the adjoint does not read one.
    pub(crate) fn record(
        step: Step,
        inputs: &[&Tensor],
        outputs: Vec<Meta>,
        saved: Vec<Option<Saved>>,
    ) -> Arc<Node> {
        static SEQ: AtomicU64 = AtomicU64::new(0);
        Arc::new(Node {
            seq: SEQ.fetch_add(1, Ordering::Relaxed),
            step,
            inputs: inputs.iter().map(|t| t.meta()).collect(),
            outputs,
            edges: inputs.iter().map(|t| t.autograd().cloned()).collect(),
            saved: Mutex::new(Some(saved)),
        })
    }

    fn name(&self) -> &'static str {
        match &self.step {
            Step::Op(op) => op.name(),
            Step::View(view) => view.name(),
            Step::Custom(_) => "custom function",
        }
    }

    /// Takes the saved tensors out, and checks that none was overwritten.
    fn take_saved(&self) -> Result<Vec<Option<Tensor>>> {
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or_else(|| {
            Error::Autograd(format!(
                "trying to run backward through {} a second time: the tensors it saved were freed by the first; run \
                 the forward pass again",
                self.name()
            ))
        })?;
        let check = |saved: Option<Saved>| match saved {
            Some(s) if s.version != s.tensor.version() => Err(Error::Autograd(format!(
                "a tensor of shape {} that {} needs for its gradient was overwritten by an in-place operation \
                 (version {}, expected {}); clone it before, or use the op without underscore",
                s.tensor.shape(),
                self.name(),
                s.tensor.version(),
                s.version
            ))),
            Some(s) => Ok(Some(s.tensor)),
            None => Ok(None),
        };
        saved.into_iter().map(check).collect()
    }

    /// The gradient of each input that needs one; some may be left to be computed.
    fn adjoint(&self, grads: Vec<Option<Tensor>>) -> Result<(Vec<Option<Tensor>>, Few<Deferred>)> {
        let saved = self.take_saved()?;
        let needs: Vec<bool> = self.edges.iter().map(Option::is_some).collect();
        match &self.step {
            Step::Op(op) => {
                let cx = Context::new(&self.inputs, &self.outputs, &needs, saved);
                let grads = adjoint::adjoint(op, &cx, grads)?;
                Ok((grads, cx.take_later()))
            }
            Step::View(view) => Ok((view.adjoint(&self.inputs, &self.outputs, grads)?, Few::new())),
            Step::Custom(function) => {
                let saved = saved.into_iter().flatten().collect();
                let grads = function.backward(grads, saved)?;
                self.check_gradients(&grads)?;
                Ok((grads, Few::new()))
            }
        }
    }

    /// Checks what a function that is not ours gave as gradients of its inputs.
    fn check_gradients(&self, grads: &[Option<Tensor>]) -> Result<()> {
        if grads.len() != self.inputs.len() {
            return Err(Error::Autograd(format!(
                "the backward of a custom function gave {} gradients, expected one for each of its {} inputs",
                grads.len(),
                self.inputs.len()
            )));
        }
        for (i, (grad, input)) in grads.iter().zip(&self.inputs).enumerate() {
            if let (Some(grad), Some(_)) = (grad, &self.edges[i])
                && grad.meta() != *input
            {
                return Err(Error::Autograd(format!(
                    "the backward of a custom function gave a {} gradient of shape {} for input {i}, which is {} of shape {}",
                    grad.dtype(),
                    grad.shape(),
                    input.dtype,
                    input.shape
                )));
            }
        }
        Ok(())
    }
}

impl Drop for Node {
    /// Long tapes are freed in a loop: the recursion of ordinary drops would overflow the stack.
    fn drop(&mut self) {
        let mut pending: Vec<Option<Autograd>> = std::mem::take(&mut self.edges);
        while let Some(edge) = pending.pop() {
            if let Some(Autograd::Node(node, _)) = edge
                && let Some(mut node) = Arc::into_inner(node)
            {
                pending.append(&mut node.edges);
            }
        }
    }
}

/// A node that waits for its turn; the heap gives the latest first.
struct Pending(Arc<Node>);

impl PartialEq for Pending {
    fn eq(&self, other: &Pending) -> bool {
        self.0.seq == other.0.seq
    }
}
impl Eq for Pending {}
impl PartialOrd for Pending {
    fn partial_cmp(&self, other: &Pending) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Pending {
    fn cmp(&self, other: &Pending) -> std::cmp::Ordering {
        self.0.seq.cmp(&other.0.seq)
    }
}

/// Gradients on their way: by node, one an output.
#[derive(Default)]
struct Walk {
    heap: BinaryHeap<Pending>,
    grads: HashMap<u64, Vec<Option<Tensor>>>,
    later: Vec<Waiting>,
}

/// Gradients of leaves that wait for company, as one launch computes many of them.
struct Waiting {
    op: Op,
    leaves: Vec<Autograd>,
    /// Of all of them, one behind the other; `bytes` in sum.
    operands: Vec<Tensor>,
    bytes: usize,
}

impl Waiting {
    /// What waits is kept in memory, and is to be in a GPU's second-level cache still.
    const BYTES: usize = 32 << 20;

    /// The bytes of one of them above which it fills a GPU alone, and how many a launch takes.
    fn limits(op: &Op) -> (usize, usize) {
        if *op == Op::LinearWeightGrad { (Waiting::BYTES / 4, 32) } else { (Waiting::BYTES, 64) }
    }

    fn is_full(&self) -> bool {
        self.bytes >= Waiting::BYTES || self.leaves.len() >= Waiting::limits(&self.op).1
    }
}

impl Walk {
    /// Computes a gradient: at once where nothing is gained by waiting, or someone waits for it.
    fn compute_later(&mut self, to: &Autograd, Deferred { op, of, .. }: Deferred) -> Result<()> {
        let bytes: usize = of.iter().map(|t| t.numel() * t.dtype().size()).sum();
        let (dtype, device) = (of[0].dtype(), of[0].device().clone());
        let waits = matches!((to, device.kind()), (Autograd::Leaf(_), DeviceKind::Cuda(_)));
        if !waits || bytes > Waiting::limits(&op).0 {
            let operands: Few<&Tensor> = of.iter().collect();
            let grad = execute(&op, &operands)?.swap_remove(0);
            return self.deliver(to, grad);
        }
        let at = match self.later.iter().position(|waiting| waiting.op == op) {
            Some(at) => at,
            None => {
                self.later.push(Waiting { op, leaves: Vec::new(), operands: Vec::new(), bytes: 0 });
                self.later.len() - 1
            }
        };
        let alike = |other: &Tensor| other.dtype() == dtype && *other.device() == device;
        if !self.later[at].operands.iter().all(alike) {
            self.flush(at)?;
        }
        let waiting = &mut self.later[at];
        waiting.bytes += bytes;
        waiting.leaves.push(to.clone());
        waiting.operands.extend(of);
        if waiting.is_full() { self.flush(at) } else { Ok(()) }
    }

    /// Computes what waits at `at`.
    fn flush(&mut self, at: usize) -> Result<()> {
        let waiting = &mut self.later[at];
        waiting.bytes = 0;
        let (leaves, operands) = (std::mem::take(&mut waiting.leaves), std::mem::take(&mut waiting.operands));
        if leaves.is_empty() {
            return Ok(());
        }
        let all: Vec<&Tensor> = operands.iter().collect();
        let grads = execute(&waiting.op, &all)?;
        leaves.iter().zip(grads).try_for_each(|(to, grad)| self.deliver(to, grad))
    }

    fn deliver(&mut self, to: &Autograd, grad: Tensor) -> Result<()> {
        match to {
            Autograd::Leaf(leaf) => leaf.accumulate(grad),
            Autograd::Node(node, output) => {
                let slots = self.grads.entry(node.seq).or_insert_with(|| {
                    self.heap.push(Pending(node.clone()));
                    vec![None; node.outputs.len()]
                });
                let sum = match slots[*output].take() {
                    None => grad,
                    Some(sum) => add_grads(sum, grad)?,
                };
                slots[*output] = Some(sum);
                Ok(())
            }
        }
    }
}

/// The sum, in the memory of one of them if no one else holds that.
fn add_grads(a: Tensor, b: Tensor) -> Result<Tensor> {
    for (sum, other) in [(&a, &b), (&b, &a)] {
        if sum.is_unique() && sum.is_contiguous() {
            sum.add_(other)?;
            return Ok(sum.clone());
        }
    }
    a.add(&b)
}

/// Propagates `grad`, the gradient of some scalar in `root`, to every leaf that `root` was computed from.
pub(crate) fn backward(root: &Tensor, grad: Tensor) -> Result<()> {
    let Some(start) = root.autograd() else {
        return Err(Error::Autograd(
            "this tensor does not require gradients: no leaf with requires_grad went into it, or it was computed under \
             no_grad"
                .into(),
        ));
    };
    no_grad(|| {
        let mut walk = Walk::default();
        walk.deliver(start, grad)?;
        while let Some(Pending(node)) = walk.heap.pop() {
            stop::check();
            let grads = walk.grads.remove(&node.seq).expect("every pending node was given a gradient");
            let (inputs, later) = node.adjoint(grads)?;
            for (edge, grad) in node.edges.iter().zip(inputs) {
                if let (Some(edge), Some(grad)) = (edge, grad) {
                    walk.deliver(edge, grad)?;
                }
            }
            for deferred in later {
                if let Some(edge) = &node.edges[deferred.operand] {
                    walk.compute_later(edge, deferred)?;
                }
            }
        }
        (0..walk.later.len()).try_for_each(|at| walk.flush(at))
    })
}

impl Tensor {
    /// Adds the gradient of this scalar to the `grad` of every leaf it was computed from, and frees what the tape
    /// kept for that.
    ///
    /// # Errors
    /// This tensor has not exactly one element or is not tracked; a saved tensor was overwritten; a second call.
    pub fn backward(&self) -> Result<()> {
        if self.numel() != 1 {
            return Err(Error::Autograd(format!(
                "grad can be implicitly created only for scalar outputs, got shape {}; use backward_with",
                self.shape()
            )));
        }
        let seed = Tensor::ones(self.shape(), self.dtype(), self.device())?;
        backward(self, seed)
    }

    /// As [`Tensor::backward`], from a gradient of this tensor, which has its shape and dtype.
    pub fn backward_with(&self, grad: &Tensor) -> Result<()> {
        if grad.shape() != self.shape() || grad.dtype() != self.dtype() {
            return Err(Error::Autograd(format!(
                "mismatch: the gradient is {} of shape {}, the tensor {} of shape {}",
                grad.dtype(),
                grad.shape(),
                self.dtype(),
                self.shape()
            )));
        }
        backward(self, grad.detach())
    }
}
