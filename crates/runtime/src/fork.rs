//! How often this process was forked on its way from its first ancestor. A child has the memory of its parent, but of the
//! threads only the one that forked, and no right to the parent's CUDA context.

use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

static GENERATION: AtomicUsize = AtomicUsize::new(0);

/// Differs between a process and its forked child, if it was called before the fork.
pub fn generation() -> usize {
    static WATCH: Once = Once::new();
    WATCH.call_once(watch);
    GENERATION.load(Ordering::Relaxed)
}

#[cfg(unix)]
fn watch() {
    extern "C" fn in_child() {
        GENERATION.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: the handler is a static function that does nothing but add to an atomic number. Should there be no memory to
    // register it, children are not told apart, as without this.
    unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
}

#[cfg(not(unix))]
fn watch() {}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_told_apart() {
        let before = generation();
        // SAFETY: the child only reads an atomic number and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: ends the child at once, without what else the test program has to do.
            unsafe { libc::_exit(i32::from(generation() != before + 1)) };
        }
        let mut status = 0;
        // SAFETY: waits for the child made above; the pointer is to a live integer.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0);
        assert_eq!(generation(), before);
    }
}
