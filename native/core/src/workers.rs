//! Spreads work over the processors for the length of one call.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// More threads than this would take the processors away from the system being repaired.
const MOST_WORKERS: usize = 8;

/// Below this much work for each, starting a thread costs more than it saves.
const WORK_PER_WORKER: usize = 48 * 1024;

/// How many workers there may be.
pub fn processors() -> usize {
    thread::available_parallelism().map_or(1, |n| n.get()).min(MOST_WORKERS)
}

/// How many workers pay for `work` bytes of packed data.
pub fn worth(work: usize) -> usize {
    processors().min(work / WORK_PER_WORKER).max(1)
}

/// Applies `job` to all `items` on up to `workers` threads, the calling one included, which first
/// does `before`. Results come in the order of the items; of several errors the one of the first
/// item is returned, whatever the timing. A panic in a worker goes on in the caller.
pub fn in_order<T, S, B, R, E>(
    workers: usize,
    items: &[T],
    before: impl FnOnce() -> B,
    state: impl Fn() -> S + Sync,
    job: impl Fn(&mut S, &T) -> Result<R, E> + Sync,
) -> Result<(B, Vec<R>), E>
where
    T: Sync,
    R: Send,
    E: Send,
{
    let queue =
        Queue { items, next: AtomicUsize::new(0), first_error: AtomicUsize::new(usize::MAX) };
    let work = || queue.work(&mut state(), &job);
    let (before, shares) = thread::scope(|scope| {
        // A thread that cannot be had is done without: the work is shared by those there are.
        let helpers: Vec<_> = (1..workers)
            .map_while(|_| thread::Builder::new().spawn_scoped(scope, work).ok())
            .collect();
        let before = before();
        let mut shares = vec![work()];
        for helper in helpers {
            shares.push(helper.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        (before, shares)
    });
    Ok((before, merge(items.len(), shares)?))
}

/// What one worker did: the index and result of each item it took.
type Share<R, E> = Vec<(usize, Result<R, E>)>;

struct Queue<'a, T> {
    items: &'a [T],
    next: AtomicUsize,
    first_error: AtomicUsize,
}

impl<T> Queue<'_, T> {
    /// Takes items until there are none. Items are handed out in order and every item before
    /// the first known error is still done, so the error reported does not depend on timing.
    fn work<S, R, E>(
        &self,
        state: &mut S,
        job: &impl Fn(&mut S, &T) -> Result<R, E>,
    ) -> Share<R, E> {
        let mut done = Vec::new();
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index > self.first_error.load(Ordering::Relaxed) {
                return done;
            }
            let Some(item) = self.items.get(index) else { return done };
            let result = job(state, item);
            if result.is_err() {
                self.first_error.fetch_min(index, Ordering::Relaxed);
            }
            done.push((index, result));
        }
    }
}

fn merge<R, E>(count: usize, shares: Vec<Share<R, E>>) -> Result<Vec<R>, E> {
    let mut slots: Vec<Option<Result<R, E>>> = Vec::new();
    slots.resize_with(count, || None);
    for (index, result) in shares.into_iter().flatten() {
        if let Some(slot) = slots.get_mut(index) {
            *slot = Some(result);
        }
    }
    // Only items after an error were left undone, and the error ends the collecting.
    slots.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::in_order;

    #[test]
    fn keeps_the_order() {
        let items: Vec<u32> = (0..1000).collect();
        for workers in [1, 2, 5] {
            let double = |_: &mut (), n: &u32| Ok::<_, ()>(n * 2);
            let (before, doubled) = in_order(workers, &items, || "first", || (), double).unwrap();
            assert_eq!(before, "first");
            assert!(doubled.iter().copied().eq((0..1000).map(|n| n * 2)));
        }
    }

    #[test]
    fn reports_the_first_error() {
        let items: Vec<u32> = (0..1000).collect();
        for _ in 0..50 {
            let fail = |_: &mut (), n: &u32| if n % 7 == 3 { Err(*n) } else { Ok(*n) };
            assert_eq!(in_order(4, &items, || (), || (), fail), Err(3));
        }
    }

    #[test]
    #[should_panic(expected = "in a worker")]
    fn a_panic_in_a_worker_goes_on_in_the_caller() {
        let items = [(); 2];
        let worker_came = AtomicBool::new(false);
        let caller = std::thread::current().id();
        let job = |_: &mut (), _: &()| -> Result<(), ()> {
            if std::thread::current().id() != caller {
                worker_came.store(true, Ordering::Relaxed);
                panic!("in a worker");
            }
            // The caller keeps to its one item until the worker has the other.
            while !worker_came.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            Ok(())
        };
        let _ = in_order(2, &items, || (), || (), job);
    }
}
