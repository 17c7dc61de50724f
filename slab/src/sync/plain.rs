//! A lock without counters: for what has no heap to count for.
//!
//! Owns the choice of what waits: the system's mutex with `std`, a spinning flag without. Nothing that
//! runs under it panics, so there is no poison to speak of.

#![allow(clippy::disallowed_types, reason = "part of the facade that the ban points at")]

#[cfg(feature = "std")]
pub(crate) use with_std::{PlainGuard, PlainLock};
#[cfg(not(feature = "std"))]
pub(crate) use without_std::{PlainGuard, PlainLock};

#[cfg(feature = "std")]
mod with_std {
    use std::cell::UnsafeCell;
    use std::sync::PoisonError;

    use super::super::{Mutex, MutexGuard, const_off_loom};

    pub(crate) struct PlainLock<T: 'static> {
        lock: Mutex<T>,
        /// The guard, while the lock is held over a fork. Only its holder touches this.
        held: UnsafeCell<Option<MutexGuard<'static, T>>>,
    }

    // SAFETY: the value is under the lock; the cell is touched by the lock's holder only.
    unsafe impl<T: Send> Sync for PlainLock<T> {}
    // SAFETY: as above; nobody holds a lock that moves.
    unsafe impl<T: Send> Send for PlainLock<T> {}

    pub(crate) type PlainGuard<'a, T> = MutexGuard<'a, T>;

    impl<T> PlainLock<T> {
        const_off_loom! {
            pub(crate) fn new(value: T) -> Self {
                Self { lock: Mutex::new(value), held: UnsafeCell::new(None) }
            }
        }

        #[inline]
        pub(crate) fn lock(&self) -> PlainGuard<'_, T> {
            self.lock.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// Takes the lock until [`release`](Self::release): over a fork.
        pub(crate) fn hold(&self) {
            let guard = self.lock();
            // SAFETY: the lock is held, so the cell is ours. The guard lies in the lock that it is a
            // guard of, which does not move while it is borrowed and held.
            unsafe {
                *self.held.get() =
                    Some(std::mem::transmute::<PlainGuard<'_, T>, PlainGuard<'static, T>>(guard));
            }
        }

        /// # Safety
        /// The thread, or the one that it is a copy of, called [`hold`](Self::hold) and not this since.
        pub(crate) unsafe fn release(&self) {
            // SAFETY: by contract the lock is held, so the cell is ours until the guard is dropped.
            drop(unsafe { (*self.held.get()).take() });
        }

        #[cfg(not(flagstone_loom))]
        pub(crate) fn get_mut(&mut self) -> &mut T {
            self.lock.get_mut().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

#[cfg_attr(feature = "std", allow(dead_code, reason = "compiled for its test"))]
#[cfg(any(not(feature = "std"), test))]
mod without_std {
    use core::cell::UnsafeCell;
    use core::hint;
    use core::ops::{Deref, DerefMut};
    use core::sync::atomic::{AtomicBool, Ordering};

    pub(crate) struct PlainLock<T> {
        taken: AtomicBool,
        value: UnsafeCell<T>,
    }

    pub(crate) struct PlainGuard<'a, T>(&'a PlainLock<T>);

    // SAFETY: the lock gives its value to one thread at a time.
    unsafe impl<T: Send> Sync for PlainLock<T> {}

    impl<T> PlainLock<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
        }

        #[inline]
        pub(crate) fn lock(&self) -> PlainGuard<'_, T> {
            // Acquire pairs with the release in `drop`: whoever reads `false` sees all that the
            // holder before did; whoever reads `true` tries again.
            while self
                .taken
                .compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed)
                .is_err()
            {
                // Reading keeps the line shared while another thread has the lock.
                while self.taken.load(Ordering::Relaxed) {
                    hint::spin_loop();
                }
            }
            PlainGuard(self)
        }

        pub(crate) fn get_mut(&mut self) -> &mut T {
            self.value.get_mut()
        }
    }

    impl<T> Deref for PlainGuard<'_, T> {
        type Target = T;

        #[inline]
        fn deref(&self) -> &T {
            // SAFETY: a guard exists only while its maker has the lock.
            unsafe { &*self.0.value.get() }
        }
    }

    impl<T> DerefMut for PlainGuard<'_, T> {
        #[inline]
        fn deref_mut(&mut self) -> &mut T {
            // SAFETY: as above; the guard is borrowed exclusively.
            unsafe { &mut *self.0.value.get() }
        }
    }

    impl<T> Drop for PlainGuard<'_, T> {
        #[inline]
        fn drop(&mut self) {
            // Release pairs with the acquire in `lock`.
            self.0.taken.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::without_std::PlainLock;

    #[test]
    fn the_spinning_lock_lets_one_thread_in() {
        const EACH: usize = 5_000;
        let mut lock = PlainLock::new([0usize; 2]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        let mut pair = lock.lock();
                        // Two halves that agree only if nobody comes between.
                        let seen = pair[0];
                        assert_eq!(seen, pair[1]);
                        pair[0] = seen + 1;
                        std::hint::black_box(&mut *pair);
                        pair[1] = seen + 1;
                    }
                });
            }
        });
        assert_eq!(*lock.get_mut(), [4 * EACH; 2]);
    }
}
