//! The bytes that may still be made out of an archive, shared by the workers.

use std::sync::atomic::{AtomicU64, Ordering};

/// A sum that only goes down.
#[derive(Debug)]
pub(crate) struct Budget(AtomicU64);

impl Budget {
    pub(crate) fn new(bytes: u64) -> Self {
        Budget(AtomicU64::new(bytes))
    }

    /// Takes `bytes` from what is left; false, and nothing taken, if there are not so many.
    #[must_use]
    pub(crate) fn take(&self, bytes: u64) -> bool {
        let less = |left: u64| left.checked_sub(bytes);
        // Relaxed: the number guards nothing but itself.
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;

    #[test]
    fn never_goes_below_zero() {
        let budget = Budget::new(10);
        assert!(budget.take(4));
        assert!(!budget.take(7));
        assert!(budget.take(6));
        assert!(budget.take(0));
        assert!(!budget.take(1));
    }
}
