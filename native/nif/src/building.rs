//! Building patches, for the one who asks from Elixir.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use hot_patch_beam::ChunkId;
use hot_patch_build::{Building, Progress, Request};
use rustler::{Encoder, LocalPid, OwnedEnv};

use crate::caller;

rustler::atoms! { hot_patch_build }

/// How often the watcher hears.
const EVERY: Duration = Duration::from_millis(200);

pub(crate) fn build(
    request: &[u8],
    significant: &[ChunkId],
    [caller, watcher]: [LocalPid; 2],
) -> Building {
    let request: Request = serde_json::from_slice(request).map_err(|error| error.to_string())?;
    let progress = Progress::new();
    let built = caller::while_it_waits(caller, progress.stop(), || {
        watched(&progress, watcher, || hot_patch_build::build(&request, significant, &progress))
    });
    built.map_err(|error| error.to_string())
}

/// Does `work` while a thread of its own, which is none of the VM's and so may send, tells how
/// far it has come.
fn watched<T>(progress: &Progress, watcher: LocalPid, work: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        let (done, ended) = channel::<()>();
        let watch = move || {
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(EVERY) {
                let (compared, total) = progress.get();
                // Whoever has gone away need not hear.
                let _ = OwnedEnv::new().send_and_clear(&watcher, |env| {
                    (hot_patch_build(), compared, total).encode(env)
                });
            }
        };
        // Without a thread to be had nobody hears; the work is done all the same.
        let _ = thread::Builder::new().spawn_scoped(scope, watch);
        let result = work();
        drop(done);
        result
    })
}
