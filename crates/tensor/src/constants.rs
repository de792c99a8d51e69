//! Scalars of a GPU that come again and again: `x + 1` in a loop needs its 1 on the device.
//!
//! Writing one there is a launch, which takes a third of the host's time for the whole operation. So the last few are kept:
//! nothing overwrites them, as only ops see them and results are always new memory. A kept scalar may be forgotten at any
//! time: whoever uses it has it, and memory is freed in the order of the stream.
//!
//! Captures take no part: what they record must own its memory, or be kept by who keeps the graph.

use std::sync::{Mutex, PoisonError};

use bullet_ops::DType;
use bullet_runtime::Device;

use crate::error::Result;
use crate::tensor::Tensor;

/// How many are kept, of all devices together: numbers that stand in programs are few.
const MOST: usize = 64;

struct Kept {
    /// The value's bits: 0 and -0 are two.
    bits: u64,
    tensor: Tensor,
}

/// The one used last is last.
static KEPT: Mutex<Vec<Kept>> = Mutex::new(Vec::new());

/// A scalar tensor of `value` as `dtype`, which nobody may overwrite.
pub(crate) fn of(value: f64, dtype: DType, device: &Device) -> Result<Tensor> {
    if device.is_capturing() {
        return Tensor::full(value, &[], dtype, device);
    }
    let bits = value.to_bits();
    let is = |k: &Kept| k.bits == bits && k.tensor.dtype() == dtype && k.tensor.device() == device;
    {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = kept.iter().rposition(is) {
            kept[at..].rotate_left(1);
            return Ok(kept[kept.len() - 1].tensor.clone());
        }
    }
    // Without the lock: another thread may keep the same one meanwhile, and does no harm.
    let tensor = Tensor::full(value, &[], dtype, device)?;
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let forgotten = (kept.len() >= MOST).then(|| kept.remove(0));
    kept.push(Kept { bits, tensor: tensor.clone() });
    drop(kept);
    drop(forgotten);
    Ok(tensor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_again_is_the_same_memory() -> Result<()> {
        // The CPU needs none of this; it serves to test it.
        let device = Device::with_options(Device::cpu().driver().clone(), Default::default());
        let two = of(2.0, DType::F32, &device)?;
        assert!(of(2.0, DType::F32, &device)?.shares_memory(&two));
        for (value, dtype) in [(2.0, DType::F64), (-2.0, DType::F32), (0.0, DType::F32), (-0.0, DType::F32)] {
            let other = of(value, dtype, &device)?;
            assert!(!other.shares_memory(&two));
            assert_eq!((other.item()?.to_bits(), other.dtype()), (value.to_bits(), dtype));
        }
        // Those of another device are other ones.
        assert!(!of(2.0, DType::F32, &Device::cpu())?.shares_memory(&two));
        // What ops make of it is theirs.
        let sum = two.add(&of(2.0, DType::F32, &device)?)?;
        sum.add_(&sum)?;
        assert_eq!((two.item()?, sum.item()?), (2.0, 8.0));
        // The least used is forgotten, and lives on with who has it.
        for i in 0..MOST {
            of(100.0 + i as f64, DType::F32, &device)?;
        }
        assert!(!of(2.0, DType::F32, &device)?.shares_memory(&two));
        assert_eq!(two.item()?, 2.0);
        assert!(KEPT.lock().unwrap().len() <= MOST);
        Ok(())
    }
}
