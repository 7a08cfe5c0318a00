//! What may still be used of something, shared by the workers: the bytes that are made out of an
//! archive, the steps of an analysis.

use std::sync::atomic::{AtomicU64, Ordering};

/// A sum that goes down, and up again only by what was taken and not used.
#[derive(Debug)]
pub(crate) struct Budget(AtomicU64);

impl Budget {
    pub(crate) fn new(sum: u64) -> Self {
        Budget(AtomicU64::new(sum))
    }

    /// Takes `part` from what is left; false, and nothing taken, if there is not so much.
    #[must_use]
    pub(crate) fn take(&self, part: u64) -> bool {
        let less = |left: u64| left.checked_sub(part);
        // Relaxed: the number guards nothing but itself.
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// Gives back what was taken and not used.
    pub(crate) fn give_back(&self, part: u64) {
        self.0.fetch_add(part, Ordering::Relaxed);
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
        budget.give_back(2);
        assert!(budget.take(2));
    }
}
