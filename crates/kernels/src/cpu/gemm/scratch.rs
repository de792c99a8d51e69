//! Aligned working memory that a thread keeps between calls, so that a kernel pays for page faults once.

use std::any::Any;
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use bullet_ops::Compute;

/// Elements of a cache line are loaded together; buffers start on one.
const ALIGN: usize = 64;

/// A thread keeps at most this many free buffers, and none larger than [`KEEP_BYTES`].
const KEEP: usize = 8;
const KEEP_BYTES: usize = 64 << 20;

thread_local! {
    static FREE: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of `C` on a cache line boundary; its elements hold what an earlier use left.
pub(crate) struct Scratch<C: Compute> {
    memory: Vec<C>,
    start: usize,
    len: usize,
}

impl<C: Compute> Scratch<C> {
    /// At least `len` elements, of any value.
    pub(crate) fn take(len: usize) -> Scratch<C> {
        let pad = ALIGN / size_of::<C>();
        let mut memory = FREE.with_borrow_mut(|free| {
            let fits =
                |b: &Box<dyn Any>| b.downcast_ref::<Vec<C>>().map(Vec::len).filter(|&n| n >= len + pad);
            let best = (0..free.len()).filter_map(|i| Some((fits(&free[i])?, i))).min();
            let any = || (0..free.len()).find(|&i| free[i].is::<Vec<C>>());
            let found = best.map(|(_, i)| i).or_else(any).map(|i| free.swap_remove(i));
            found.and_then(|b| b.downcast::<Vec<C>>().ok()).map_or_else(Vec::new, |b| *b)
        });
        if memory.len() < len + pad {
            // Replaced, not grown: the old contents need no copying. A quarter more saves the next small growth.
            memory = vec![C::ZERO; len + len / 4 + pad];
        }
        let start = memory.as_ptr().align_offset(ALIGN).min(pad);
        Scratch { memory, start, len }
    }
}

impl<C: Compute> Drop for Scratch<C> {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        if memory.len() * size_of::<C>() > KEEP_BYTES {
            return;
        }
        // The thread may be ending, its list gone: then the memory just goes too.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() == KEEP {
                free.swap_remove(0);
            }
            free.push(Box::new(memory));
        });
    }
}

impl<C: Compute> Deref for Scratch<C> {
    type Target = [C];
    fn deref(&self) -> &[C] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl<C: Compute> DerefMut for Scratch<C> {
    fn deref_mut(&mut self) -> &mut [C] {
        &mut self.memory[self.start..self.start + self.len]
    }
}
