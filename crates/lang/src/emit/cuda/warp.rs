//! Sums that the threads of a warp make before they add to memory.
//!
//! A GPU makes sums of many threads to one element one by one, at about 2 ns each on an H200: gradients of what all threads
//! read are that, and totals. The lanes of a warp that are all there and all add to one element therefore make a sum first, and one
//! adds it. That they are, and do, is asked when they do it, so that it is right wherever it is written; it is written where it
//! is likely ([`sums`]), as asking takes some 30 cycles.

use bullet_ops::DType;

use crate::ir::Kernel;
use crate::sums;

/// Asks, and sums.
pub(super) const SUMS: &str = "
// Whether this lane adds x to the cell. Where all lanes of a warp are here with one cell, the first does, for all.
template <class T>
__device__ __forceinline__ bool leads_sum(const void* cell, T& x) {
    const unsigned all = 0xffffffffu;
    if (__activemask() != all) return true;
    const unsigned long long place = (unsigned long long)cell;
    if (!__all_sync(all, place == __shfl_sync(all, place, 0))) return true;
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x += __shfl_down_sync(all, x, step);
    return threadIdx.x % 32 == 0;
}
";

/// Which instructions, by their number, add what a warp sums first. Of int and unsigned the compiler does it itself.
pub(crate) fn summed(kernel: &Kernel) -> Vec<bool> {
    let mut summed = sums::shared(kernel);
    for inst in kernel.instructions() {
        let by_compiler = || matches!(kernel.dtype(kernel.inst(inst).args[0]), DType::I32 | DType::U32);
        summed[inst.index()] = summed[inst.index()] && !by_compiler();
    }
    summed
}
