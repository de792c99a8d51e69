//! Faults of threads: what a kernel with [sites](crate::fault) says when one of them stops a thread.
//!
//! Behind the kernel's parameters such a function takes a [`Faults`](FAULTS) by value: a pointer to the cell of the device, `long long`
//! the number of the launch's first thread, `unsigned` the code of the kernel's first site, and `int[4]` the lengths of the grid, 40 bytes
//! in all. A thread that cannot go on puts down what went wrong, if nobody did since the cell's code was 0, and returns.
//! What it has stored stays; other threads go on. Barriers do not wait for threads that have returned.
//!
//! The cell has 64 bytes: `unsigned` the code, of the first site plus the site's number, 4 bytes and, from byte 8 on, `long long`
//! the index; 8 bytes; from byte 24 on `long long` the number of the thread, `int[4]` the lengths of the grid, and `int[4]` the shape of
//! the array, if the index is of an argument. The first 24 are those of other kernels' faults.

use super::{Checks, CudaOptions, Emitter, Sharing};
use crate::fault::{Place, Site, Sites};
use crate::ir::{Const, Inst, Kernel, Value};
use crate::order;

/// What kernels with sites use.
pub(super) const FAULTS: &str = "
// The first fault that a thread finds, and where threads put it; `first` is the code of the kernel's first site.
struct Fault {
    unsigned code, unused;
    long long index, bound, thread;
    int grid[4], shape[4];
};
struct Faults {
    Fault* cell;
    long long begin;
    unsigned first;
    int grid[4];

    __device__ __forceinline__ bool is_first(unsigned site, int index) const {
        // Of many that find one, most see that there is one.
        if (*(volatile unsigned*)&cell->code != 0u || atomicCAS(&cell->code, 0u, first + site) != 0u) return false;
        cell->index = index;
        cell->thread = begin + (long long)blockIdx.x * blockDim.x + threadIdx.x;
        for (int axis = 0; axis < 4; ++axis) cell->grid[axis] = grid[axis];
        return true;
    }
    __device__ __forceinline__ void report(unsigned site, int index = 0) const { is_first(site, index); }
    template <int N>
    __device__ __forceinline__ void report(unsigned site, int index, const int (&shape)[N]) const {
        if (!is_first(site, index)) return;
        for (int axis = 0; axis < N; ++axis) cell->shape[axis] = shape[axis];
    }
};
";

/// The sites of a kernel's function, by their numbers; a function without any takes no argument for faults.
pub fn sites(kernel: &Kernel, options: CudaOptions) -> Vec<Site> {
    let kernel = &*kernel.plain();
    sites_of(kernel, options, &recorded(kernel, options)).all
}

/// The instructions of a plain kernel that put down records.
pub(crate) fn recorded(kernel: &Kernel, options: CudaOptions) -> Vec<bool> {
    let distinct = options.records.map(|sharing| sharing == Sharing::Distinct);
    distinct.map_or(vec![], |distinct| order::recorded_sums(kernel, distinct))
}

pub(crate) fn sites_of(kernel: &Kernel, options: CudaOptions, recorded: &[bool]) -> Sites {
    let all = |_| true;
    let unrecorded = |inst: Inst| recorded.get(inst.index()) != Some(&true);
    let checked: Option<&dyn Fn(Inst) -> bool> = match options.checks {
        Checks::Off => None,
        Checks::All => Some(&all),
        Checks::Unrecorded => Some(&unrecorded),
    };
    Sites::of(kernel, checked)
}

impl Emitter<'_> {
    /// Stops the thread if an assertion does not hold.
    pub(super) fn assertion(&mut self, inst: Inst) {
        let test = self.text(self.kernel.inst(inst).args[0]).negated();
        let site = self.sites.number(inst, 0).unwrap_or(0);
        self.line(&format!("if ({test}) return faults.report({site});"));
    }

    /// Stops the thread if an index is outside of its bounds.
    pub(super) fn within(&mut self, inst: Inst) {
        let [index, low, high] = [0, 1, 2].map(|at| self.kernel.inst(inst).args[at]);
        let index = self.named_index(index);
        let test = if self.kernel.as_const(low).is_some_and(|low| low.is(0)) {
            match self.kernel.as_const(high).and_then(Const::as_int) {
                Some(high) => format!("(unsigned){index} >= {high}u"),
                None => format!("(unsigned){index} >= (unsigned){}", self.text(high).operand()),
            }
        } else {
            let [low, high] = [low, high].map(|value| self.text(value).operand());
            format!("{index} < {low} || {index} >= {high}")
        };
        let site = self.sites.number(inst, 0).unwrap_or(0);
        self.line(&format!("if ({test}) return faults.report({site}, {index});"));
    }

    /// The indices of a memory op, behind checks of those that are to be checked.
    pub(super) fn checked_indices(&mut self, inst: Inst, ndim: usize) -> Vec<String> {
        let kernel = self.kernel;
        let data = kernel.inst(inst);
        let mut indices = vec![];
        for (axis, &index) in data.args[1..=ndim].iter().enumerate() {
            let Some(site) = self.sites.number(inst, axis) else {
                indices.push(self.text(index).text);
                continue;
            };
            let index = self.named_index(index);
            let line = match self.sites.all[site as usize] {
                Site::Index { place: Place::Local(count), .. } => {
                    format!("if ((unsigned){index} >= {count}u) return faults.report({site}, {index});")
                }
                _ => {
                    let shape = format!("{}.shape", self.text(data.args[0]).text);
                    let call = format!("faults.report({site}, {index}, {shape})");
                    format!("if ((unsigned){index} >= (unsigned){shape}[{axis}]) return {call};")
                }
            };
            self.line(&line);
            indices.push(index);
        }
        indices
    }

    /// An index under a name or as a number, to be written more than once.
    fn named_index(&mut self, index: Value) -> String {
        let text = self.text(index);
        if text.is_atom() {
            return text.text;
        }
        let name = self.names.unique("index");
        self.line(&format!("const int {name} = {};", text.text));
        name
    }
}
