//! Whether the process that has asked is still there: a NIF goes on when its caller was killed.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use hot_patch_beam::Stop;
use rustler::{LocalPid, OwnedEnv};

/// How often it is looked.
const EVERY: Duration = Duration::from_millis(100);

/// Does `work`, and raises `stop` once the caller has ended. A thread of its own looks: it is none
/// of the VM's, from which this can be asked at any time.
pub(crate) fn while_it_waits<T>(caller: LocalPid, stop: &Stop, work: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        let (done, ended) = channel::<()>();
        let watch = move || {
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(EVERY) {
                if !OwnedEnv::new().run(|env| caller.is_alive(env)) {
                    stop.raise();
                    return;
                }
            }
        };
        // Without a thread to be had nobody looks; the work is done all the same.
        let _ = thread::Builder::new().spawn_scoped(scope, watch);
        let result = work();
        drop(done);
        result
    })
}
