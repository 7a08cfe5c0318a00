//! How far a build has come, for whoever wants to show it meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Two numbers that any thread may look at.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicUsize,
    total: AtomicUsize,
}

impl Progress {
    /// Nothing is done yet, and it is not known how much there is.
    pub fn new() -> Self {
        Self::default()
    }

    /// Files compared, and how many there are to compare.
    pub fn get(&self) -> (usize, usize) {
        // Relaxed: the numbers are only shown.
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    pub(super) fn begin(&self, total: usize) {
        self.total.store(total, Ordering::Relaxed);
    }

    pub(super) fn step(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}
