//! Tensors over memory that belongs to someone else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bullet_tensor::{DType, Device, Result, Tensor};

/// Memory that says when it goes.
struct Owner {
    _data: Vec<f32>,
    gone: Arc<AtomicBool>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}

/// 12 numbers from 0, seen from element `first` under this shape and these strides, and whether they are gone.
fn adopt(first: usize, shape: &[usize], strides: &[isize], read_only: bool) -> (Tensor, Arc<AtomicBool>) {
    let gone = Arc::new(AtomicBool::new(false));
    let mut data: Vec<f32> = (0..12).map(|i| i as f32).collect();
    let at = data.as_mut_ptr().wrapping_add(first).expose_provenance() as u64;
    let owner = Box::new(Owner { _data: data, gone: gone.clone() });
    // SAFETY: the callers' shapes stay inside the 12 numbers, which the owner keeps.
    let tensor =
        unsafe { Tensor::adopt(at, (shape, strides), DType::F32, &Device::cpu(), owner, read_only) }.unwrap();
    (tensor, gone)
}

#[test]
fn strides_are_followed_backwards_too() -> Result<()> {
    let (t, _) = adopt(0, &[3, 4], &[4, 1], false);
    assert_eq!(t.to_vec::<f32>()?, (0..12).map(|i| i as f32).collect::<Vec<_>>());
    let (t, _) = adopt(11, &[2, 3], &[-6, -2], false);
    assert_eq!(t.to_vec::<f32>()?, [11.0, 9.0, 7.0, 5.0, 3.0, 1.0]);
    let (t, _) = adopt(1, &[3, 2], &[0, 2], false);
    assert_eq!(t.add_scalar(1.0)?.to_vec::<f32>()?, [2.0, 4.0, 2.0, 4.0, 2.0, 4.0]);
    let (t, _) = adopt(5, &[], &[], false);
    assert_eq!(t.item()?, 5.0);
    let (t, _) = adopt(5, &[0, 7], &[-100, 3], false);
    assert_eq!(t.numel(), 0);
    Ok(())
}

#[test]
fn writes_reach_the_owners_memory_and_the_last_view_lets_go() -> Result<()> {
    let (t, gone) = adopt(0, &[12], &[1], false);
    let view = t.slice(0, 2..4)?;
    view.fill_(7.0)?;
    assert_eq!(t.to_vec::<f32>()?[..5], [0.0, 1.0, 7.0, 7.0, 4.0]);
    drop(t);
    assert!(!gone.load(Ordering::Relaxed));
    drop(view);
    assert!(gone.load(Ordering::Relaxed));
    Ok(())
}

#[test]
fn what_may_not_be_written_is_not() -> Result<()> {
    let (t, _) = adopt(0, &[12], &[1], true);
    let message = t.fill_(1.0).unwrap_err().to_string();
    assert!(message.contains("read-only") && message.contains("copy()"), "{message}");
    assert!(t.slice(0, 0..2)?.add_(&t.slice(0, 0..2)?).is_err());
    t.copy()?.fill_(1.0)?;
    assert_eq!(t.to_vec::<f32>()?[3], 3.0);
    Ok(())
}
