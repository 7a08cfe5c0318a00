//! How far a build has come, for whoever wants to show it meanwhile, and whether it is still wanted.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::Error;
use hot_patch_beam::Stop;

/// Two numbers that any thread may look at, and a flag that any may raise.
#[derive(Debug, Default)]
pub struct Progress {
    stop: Stop,
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

    /// Raised, it has the build end without a patch.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// An error once nobody waits any more.
    pub(crate) fn unless_stopped(&self) -> Result<(), Error> {
        if self.stop.is_raised() { Err(Error::Stopped) } else { Ok(()) }
    }

    pub(crate) fn begin(&self, total: usize) {
        self.total.store(total, Ordering::Relaxed);
    }

    pub(crate) fn step(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}
