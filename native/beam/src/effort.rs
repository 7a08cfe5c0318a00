//! What a request may take: memory for what it makes, steps of work, and time until nobody waits
//! for it any more.
//!
//! Bytes that come from outside can be small and mean much: a table that names one large term many
//! times, two tables of which each entry is compared with each. So what is made is counted as it
//! is made, and work is counted where it could grow faster than the input.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::budget::Budget;
use crate::stop::Stop;

/// A limit was reached, or nobody waits any more. What was made up to then must not be taken for
/// the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

/// The limits of one request, shared by its workers.
#[derive(Debug)]
pub struct Effort {
    stop: Stop,
    bytes: Budget,
    steps: Budget,
    exhausted: AtomicBool,
}

impl Effort {
    /// So many bytes of memory, and so many steps of work, as long as nobody raises `stop`.
    pub fn new(stop: &Stop, bytes: u64, steps: u64) -> Self {
        Effort {
            stop: stop.clone(),
            bytes: Budget::new(bytes),
            steps: Budget::new(steps),
            exhausted: AtomicBool::new(false),
        }
    }

    /// Takes memory for something that is kept.
    pub fn memory(&self, bytes: u64) -> Result<(), Exhausted> {
        self.unless_refused(self.bytes.take(bytes))
    }

    /// Counts steps of work, each about as long as it takes to compare two names. It fails too
    /// when nobody waits any more.
    pub fn work(&self, steps: usize) -> Result<(), Exhausted> {
        if self.stop.is_raised() {
            return Err(Exhausted);
        }
        self.unless_refused(self.steps.take(steps as u64))
    }

    /// The same, for those who leave out what they have no more steps for.
    pub fn goes_on(&self, steps: usize) -> bool {
        self.work(steps).is_ok()
    }

    /// Whether something was refused, so that something was left out.
    pub fn is_exhausted(&self) -> bool {
        self.exhausted.load(Ordering::Relaxed)
    }

    fn unless_refused(&self, taken: bool) -> Result<(), Exhausted> {
        if taken {
            return Ok(());
        }
        // Relaxed: the flag guards nothing but itself.
        self.exhausted.store(true, Ordering::Relaxed);
        Err(Exhausted)
    }

    /// Counts what is made in small parts.
    pub fn meter(&self) -> Meter<'_> {
        Meter { effort: self, left: 0 }
    }
}

/// Takes memory in larger pieces than it is asked for, so that counting costs nothing.
#[derive(Debug)]
pub struct Meter<'e> {
    effort: &'e Effort,
    left: u64,
}

/// How much a meter takes at once.
const PIECE: u64 = 16 * 1024;

impl Meter<'_> {
    /// Takes memory for something that is kept.
    pub fn memory(&mut self, bytes: usize) -> Result<(), Exhausted> {
        let bytes = bytes as u64;
        if let Some(lacking) = bytes.checked_sub(self.left).filter(|lacking| *lacking > 0) {
            // Each piece stands for work too, which nobody may wait for any more.
            self.effort.work(1)?;
            if self.effort.bytes.take(lacking.saturating_add(PIECE)) {
                self.left += PIECE;
            } else {
                self.effort.memory(lacking)?;
            }
            self.left += lacking;
        }
        self.left -= bytes;
        Ok(())
    }
}

impl Drop for Meter<'_> {
    fn drop(&mut self) {
        self.effort.bytes.give_back(self.left);
    }
}

#[cfg(test)]
mod tests {
    use super::{Effort, Exhausted};
    use crate::stop::Stop;

    #[test]
    fn memory_and_steps_come_to_an_end_and_it_is_known() {
        let effort = Effort::new(&Stop::default(), 10, 3);
        assert_eq!(effort.memory(10), Ok(()));
        assert_eq!(effort.work(3), Ok(()));
        assert!(!effort.is_exhausted());
        assert_eq!(effort.memory(1), Err(Exhausted));
        assert!(!effort.goes_on(1) && effort.is_exhausted());
    }

    #[test]
    fn whoever_stops_it_has_left_nothing_out() {
        let stop = Stop::default();
        let effort = Effort::new(&stop, 10, 3);
        stop.raise();
        assert!(!effort.goes_on(1) && !effort.is_exhausted());
    }

    #[test]
    fn a_meter_takes_what_is_used_and_no_more() {
        let effort = Effort::new(&Stop::default(), 100_000, u64::MAX);
        for _ in 0..100 {
            let mut meter = effort.meter();
            assert_eq!(meter.memory(100).and_then(|()| meter.memory(900)), Ok(()));
        }
        assert_eq!(effort.memory(1), Err(Exhausted));
        let effort = Effort::new(&Stop::default(), 100_000, u64::MAX);
        assert_eq!(effort.meter().memory(100_001), Err(Exhausted));
    }
}
