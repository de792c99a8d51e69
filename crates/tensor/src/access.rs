//! The memory of tensors for code that is not an op: kernels that a user wrote, which follow addresses.

use smallvec::SmallVec;

use crate::dispatch::{check_in_place, common_device};
use crate::error::Result;
use crate::storage::{Guards, Storage};
use crate::tensor::Tensor;

/// Runs `f`, which may read the elements of `reads` by their [addresses](Tensor::address), and read and write those of
/// `writes`, whose [versions](Tensor::version) grow; on a GPU, enqueue work that does. No other thread's kernels touch that
/// memory meanwhile. `f` must use no tensor that shares memory with these: it would wait for itself.
///
/// # Errors
/// Tensors on several devices; a target that ops would not overwrite in place either: read-only memory, a broadcast view, a
/// tensor on the tape.
pub fn access<R>(reads: &[&Tensor], writes: &[&Tensor], f: impl FnOnce() -> R) -> Result<R> {
    let all = || reads.iter().chain(writes);
    if let Some(first) = all().next()
        && all().any(|t| t.device() != first.device())
    {
        let all: Vec<&Tensor> = all().copied().collect();
        common_device(&all)?;
    }
    for target in writes {
        check_in_place(target)?;
    }
    let (reads, writes) = (storages(reads), storages(writes));
    let _guards = Guards::take(&reads, &writes);
    Ok(f())
}

fn storages<'a>(tensors: &[&'a Tensor]) -> SmallVec<[&'a Storage; 8]> {
    tensors.iter().map(|tensor| &**tensor.storage()).collect()
}

impl Tensor {
    /// What tells the memory that this is a view of from all other memory that tensors use now.
    pub fn memory_id(&self) -> usize {
        std::sync::Arc::as_ptr(self.storage()).addr()
    }

    /// The first and the last place of elements, counted in elements from the beginning of the memory that this is a view
    /// of; `None` if it has no elements.
    pub fn extent(&self) -> Option<(usize, usize)> {
        self.layout().bounds()
    }

    /// The elements of `memory`, a tensor of one dimension, that lie where those of this tensor lie in its own memory.
    ///
    /// # Panics
    /// If `memory` is not contiguous from the beginning of its own memory, or shorter than where this reaches.
    pub fn place_in(&self, memory: &Tensor) -> Tensor {
        assert!(memory.is_contiguous() && memory.layout().offset == 0, "the other's memory begins elsewhere");
        assert!(
            self.extent().is_none_or(|(_, last)| last < memory.numel()),
            "the other's memory is too short"
        );
        memory.view_as(*self.layout(), None)
    }
}
