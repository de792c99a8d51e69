//! The memory of tensors for code that is not an op: kernels that a user wrote, which follow addresses.

use bullet_ops::{DType, Layout, Shape};
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

    /// The elements of `memory`, a tensor of bytes, that lie there as those of this tensor do in its own memory.
    ///
    /// # Panics
    /// If `memory` is not of bytes from the beginning of its own memory, or shorter than where this reaches.
    pub fn place_in(&self, memory: &Tensor) -> Tensor {
        let bytes = memory.dtype() == DType::U8 && memory.is_contiguous() && memory.layout().offset == 0;
        assert!(bytes, "the other is no memory from its beginning");
        let end = self.extent().map_or(0, |(_, last)| (last + 1) * self.dtype().size());
        assert!(end <= memory.numel(), "the other's memory is too short");
        Tensor::from_parts(memory.storage().clone(), *self.layout(), self.dtype(), None)
    }

    /// A field of records, in the same memory. Records are the last axis of a tensor of bytes, side by side within; the field
    /// begins at byte `offset` of each, and is of `lanes` elements of `dtype`: shape (.., lanes), or (..) of one.
    ///
    /// # Errors
    /// The tensor is not of such records, the field reaches beyond them or does not lie on multiples of its elements' size.
    pub fn field(&self, dtype: DType, offset: usize, lanes: usize) -> Result<Tensor> {
        let size = dtype.size();
        let strides = self.layout().strides();
        let (outer, record) = match (self.dtype(), self.rank()) {
            (DType::U8, rank @ 1..) if strides[rank - 1] == 1 => (rank - 1, self.dim(rank - 1)),
            _ => {
                return Err(
                    bullet_ops::Error::argument("records are bytes side by side in the last axis").into()
                );
            }
        };
        let start = self.layout().offset + offset;
        let aligned = |bytes: isize| bytes % size as isize == 0;
        if offset + lanes * size > record
            || !aligned(start as isize)
            || !strides[..outer].iter().all(|&s| aligned(s))
        {
            return Err(bullet_ops::Error::argument(format!(
                "no field of {lanes} {dtype} at byte {offset} of records of {record} bytes: it does not fit, or does not lie on a \
                 multiple of {size} bytes"
            ))
            .into());
        }
        let mut shape = self.shape()[..outer].to_vec();
        let mut steps: Vec<isize> = strides[..outer].iter().map(|&stride| stride / size as isize).collect();
        if lanes != 1 {
            shape.push(lanes);
            steps.push(1);
        }
        let layout = Layout::strided(Shape::new(&shape)?, &steps, start / size);
        Ok(Tensor::from_parts(self.storage().clone(), layout, dtype, None))
    }
}

#[cfg(test)]
mod tests {
    use bullet_runtime::Device;

    use super::*;

    #[test]
    fn fields_of_records_are_views() -> Result<()> {
        // Two records of { u8, padding, f32[2] }.
        let bytes = Tensor::zeros(&[2, 12], DType::U8, &Device::cpu())?;
        let numbers = bytes.field(DType::F32, 4, 2)?;
        numbers.copy_(&Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2], &Device::cpu())?)?;
        bytes.field(DType::U8, 0, 1)?.fill_(7.0)?;
        let found = bytes.to_vec::<u8>()?;
        assert_eq!((found[0], &found[4..8], found[12]), (7, &1.0f32.to_ne_bytes()[..], 7));
        assert_eq!(bytes.narrow(0, 1, 1)?.field(DType::F32, 8, 1)?.to_vec::<f32>()?, [4.0]);
        assert!(numbers.shares_memory(&bytes));
        for (offset, lanes) in [(2, 1), (8, 2), (12, 1)] {
            assert!(bytes.field(DType::F32, offset, lanes).is_err());
        }
        assert!(numbers.field(DType::U8, 0, 1).is_err());
        Ok(())
    }

    #[test]
    fn places_in_other_memory_have_the_same_layout() -> Result<()> {
        let x = Tensor::zeros(&[4, 3], DType::F32, &Device::cpu())?;
        let memory = Tensor::zeros(&[x.storage_bytes()], DType::U8, &Device::cpu())?;
        x.narrow(0, 1, 2)?.place_in(&memory).fill_(1.0)?;
        let all = x.place_in(&memory).to_vec::<f32>()?;
        assert_eq!(all, [0., 0., 0., 1., 1., 1., 1., 1., 1., 0., 0., 0.]);
        Ok(())
    }
}
