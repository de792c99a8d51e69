//! Host memory: zeroed, aligned, and lazily backed where it is large.
//!
//! The system allocator hands out large zeroed blocks as fresh pages, which cost nothing until they are touched; but
//! Rust asks it for that only at its natural alignment, and zeroes by hand above. So blocks are allocated at the
//! natural alignment with room to align inside, and the word before the block says where the allocation starts.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use crate::error::{Error, Result};
use crate::hardware::memory_holds;

const WORD: usize = size_of::<usize>();
/// The alignment at which the system allocator zeroes lazily.
const NATURAL: usize = 16;
/// A huge page on x86-64 and aarch64.
const HUGE: usize = 2 << 20;

/// A cache line; a page from 2 MiB; a huge page from 8 MiB.
const fn alignment(bytes: usize) -> usize {
    if bytes >= 4 * HUGE {
        HUGE
    } else if bytes >= HUGE {
        4096
    } else {
        64
    }
}

fn layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes.checked_add(alignment(bytes) + WORD)?, NATURAL).ok()
}

/// `bytes` bytes of zeroes.
pub(super) fn alloc(bytes: usize) -> Result<NonNull<u8>> {
    let layout =
        layout(bytes).filter(|_| memory_holds(bytes)).ok_or_else(|| Error::driver_out_of_memory(bytes))?;
    // SAFETY: the layout has room for a word at least.
    let base = unsafe { alloc_zeroed(layout) };
    if base.is_null() {
        return Err(Error::driver_out_of_memory(bytes));
    }
    let align = alignment(bytes);
    let skip = (base as usize + WORD).next_multiple_of(align) - base as usize;
    // SAFETY: skip is at least a word and at most align + word - 1, so the word before and the bytes after lie inside
    // the allocation; it is aligned to 64 or more, so the word is aligned.
    let start = unsafe {
        let start = base.add(skip);
        start.cast::<usize>().sub(1).write(base as usize);
        NonNull::new_unchecked(start)
    };
    if align == HUGE {
        advise_huge(start, bytes);
    }
    Ok(start)
}

/// Gives memory back.
///
/// # Safety
/// `start` came from [`alloc`] with these `bytes`, and is not used again.
pub(super) unsafe fn free(start: NonNull<u8>, bytes: usize) {
    let layout = layout(bytes).expect("alloc made this layout");
    // SAFETY: `alloc` wrote the base before the block, and allocated it with this layout.
    unsafe {
        let base = start.cast::<usize>().sub(1).read();
        dealloc(base as *mut u8, layout);
    }
}

/// Asks for huge pages for the whole ones inside the block: an op over a large tensor misses the TLB less.
#[cfg(target_os = "linux")]
fn advise_huge(start: NonNull<u8>, bytes: usize) {
    use std::ffi::{c_int, c_void};
    unsafe extern "C" {
        fn madvise(start: *mut c_void, len: usize, advice: c_int) -> c_int;
    }
    const MADV_HUGEPAGE: c_int = 14;
    // SAFETY: whole pages inside our own allocation; the advice never changes contents, and may be refused.
    unsafe { madvise(start.as_ptr().cast(), bytes / HUGE * HUGE, MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn advise_huge(_: NonNull<u8>, _: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_zeroed_and_writable() {
        for bytes in [1, 63, 64, 65, 4096, HUGE - 1, HUGE, 4 * HUGE + 12345] {
            let p = alloc(bytes).unwrap();
            assert_eq!(p.as_ptr() as usize % alignment(bytes), 0, "{bytes}");
            // SAFETY: alloc gave this many initialised bytes, and nobody else has them.
            let s = unsafe { std::slice::from_raw_parts_mut(p.as_ptr(), bytes) };
            assert!(s.iter().all(|&b| b == 0));
            s.fill(0xFF);
            // SAFETY: allocated above with this size, not used after.
            unsafe { free(p, bytes) };
        }
    }

    #[test]
    fn an_absurd_size_is_an_error() {
        for bytes in [usize::MAX, usize::MAX / 2, isize::MAX as usize - 10] {
            assert!(alloc(bytes).unwrap_err().is_out_of_memory());
        }
    }
}
