//! Aligned working memory that a thread keeps between calls, so that a kernel pays for page faults once.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bullet_ops::Compute;

use crate::cpu::stop;

/// A thread keeps at most this many free buffers, and none larger than [`KEEP_BYTES`].
const KEEP: usize = 8;
const KEEP_BYTES: usize = 64 << 20;

/// A cache line: its elements are loaded together, so buffers start on one. The same memory serves f32 and f64.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u64; 8]);

thread_local! {
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of `C` on a cache line boundary; its elements hold what an earlier use left.
pub(crate) struct Scratch<C: Compute> {
    memory: Vec<Line>,
    len: usize,
    _elements: PhantomData<C>,
}

impl<C: Compute> Scratch<C> {
    /// At least `len` elements, of any value; where there is no room for them the kernel ends.
    pub(crate) fn take(len: usize) -> Scratch<C> {
        let lines = len.saturating_mul(size_of::<C>()).div_ceil(size_of::<Line>());
        let mut memory = FREE.with_borrow_mut(|free| {
            // The smallest that will do; else any, to be replaced.
            let fits = (0..free.len()).filter(|&i| free[i].len() >= lines).min_by_key(|&i| free[i].len());
            fits.or(free.len().checked_sub(1)).map_or_else(Vec::new, |i| free.swap_remove(i))
        });
        if memory.len() < lines {
            // Replaced, not grown: the old contents need no copying. A quarter more saves the next small growth.
            memory = stop::filled(Line([0; 8]), lines + lines / 4 + 1);
        }
        Scratch { memory, len, _elements: PhantomData }
    }
}

impl<C: Compute> Drop for Scratch<C> {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        if size_of_val(&memory[..]) > KEEP_BYTES {
            return;
        }
        // The thread may be ending, its list gone: then the memory just goes too.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() == KEEP {
                free.swap_remove(0);
            }
            free.push(memory);
        });
    }
}

impl<C: Compute> Deref for Scratch<C> {
    type Target = [C];
    #[inline]
    fn deref(&self) -> &[C] {
        // SAFETY: `take` made room for `len` elements of initialised memory, aligned for any; C is f32 or f64, of which
        // all bits are values.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast(), self.len) }
    }
}

impl<C: Compute> DerefMut for Scratch<C> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [C] {
        // SAFETY: as above; borrowed exclusively with `self`.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_mut_ptr().cast(), self.len) }
    }
}
