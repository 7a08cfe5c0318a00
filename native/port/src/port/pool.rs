//! The threads between the reader and the writer.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use hot_patch_beam::Stop;
use hot_patch_core::Failure;
use hot_patch_core::reply::{self, Reply};
use hot_patch_core::requests::{self, Request};
use rustix::fs::{Mode, OFlags};

use super::frames;
use super::protocol::{self, Blob, Call};

/// Requests that may wait for a worker. The parent keeps its own queue; this bounds the memory.
const MOST_WAITING: usize = 64;

/// Replies that may wait for a parent that does not read. Then the workers wait, and what is asked
/// meanwhile waits in the pipe.
const MOST_UNREAD: usize = 8;

/// What is written: the bytes in front, and the reply.
type Frame = (Vec<u8>, Vec<u8>);

/// A request on its way.
struct Job {
    call: Call,
    stop: Stop,
}

/// The requests in flight, by number.
type InFlight = Arc<Mutex<HashMap<u32, Stop>>>;

/// The workers and the writer.
pub(super) struct Pool {
    jobs: Sender<Job>,
    frames: Sender<Frame>,
    in_flight: InFlight,
    workers: Vec<JoinHandle<()>>,
    writer: JoinHandle<()>,
}

impl Pool {
    pub(super) fn start(workers: u8) -> io::Result<Self> {
        let (jobs, waiting) = bounded::<Job>(MOST_WAITING);
        let (frames, written) = bounded::<Frame>(MOST_UNREAD);
        let in_flight = InFlight::default();
        // If it cannot be sent there is no writer, and the process is about to end.
        let _ = frames.send((protocol::hello(), Vec::new()));
        let writer = named("writer").spawn(move || write(&written))?;
        let workers = (0..workers)
            .map(|_| {
                let (waiting, frames) = (waiting.clone(), frames.clone());
                let in_flight = in_flight.clone();
                named("worker").spawn(move || work(&waiting, &frames, &in_flight))
            })
            .collect::<io::Result<_>>()?;
        Ok(Pool { jobs, frames, in_flight, workers, writer })
    }

    /// Has a request carried out, without waiting for it.
    pub(super) fn submit(&self, call: Call) {
        let stop = Stop::default();
        let id = call.id;
        lock(&self.in_flight).insert(id, stop.clone());
        let failure = match self.jobs.try_send(Job { call, stop }) {
            Ok(()) => return,
            Err(TrySendError::Full(_)) => {
                Failure::BadRequest(format!("more than {MOST_WAITING} requests are waiting"))
            }
            Err(TrySendError::Disconnected(_)) => {
                Failure::Internal("all workers are gone".to_owned())
            }
        };
        answer(&self.frames, &self.in_flight, id, encode((&failure).into()));
    }

    /// A request that is not in flight was answered already.
    pub(super) fn cancel(&self, id: u32) {
        if let Some(stop) = lock(&self.in_flight).get(&id) {
            stop.raise();
        }
    }

    /// Answers what was asked, has the last word, and ends.
    pub(super) fn finish(self, last_word: Option<&[u8]>) {
        drop(self.jobs);
        for worker in self.workers {
            // A worker that panicked has left its request unanswered; the parent sees the end.
            let _ = worker.join();
        }
        if let Some(word) = last_word {
            let _ = self.frames.send((word.to_vec(), Vec::new()));
        }
        drop(self.frames);
        let _ = self.writer.join();
    }
}

fn named(name: &str) -> thread::Builder {
    thread::Builder::new().name(name.to_owned())
}

fn work(jobs: &Receiver<Job>, frames: &Sender<Frame>, in_flight: &InFlight) {
    for Job { call, stop } in jobs {
        let reply = carry_out(&call, &stop);
        answer(frames, in_flight, call.id, reply);
    }
}

fn carry_out(call: &Call, stop: &Stop) -> Option<Vec<u8>> {
    if stop.is_raised() {
        return encode((&Failure::Cancelled).into());
    }
    let blobs: Result<Vec<_>, Failure> = call.blobs.iter().map(load).collect();
    match blobs {
        Ok(blobs) => {
            let blobs: Vec<&[u8]> = blobs.iter().map(AsRef::as_ref).collect();
            let request = Request { name: &call.name, blobs: &blobs, options: &call.options };
            requests::run(&request, stop, encode)
        }
        Err(failure) => encode((&failure).into()),
    }
}

/// The bytes of a blob.
fn load(blob: &Blob) -> Result<std::borrow::Cow<'_, [u8]>, Failure> {
    match blob {
        Blob::Bytes(bytes) => Ok(bytes.into()),
        Blob::File(path, most) => match read_file(path, *most) {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) => Err(Failure::File(words(&error))),
        },
    }
}

/// Anything but a plain file could keep the reader waiting for ever. What is looked at is what was
/// opened, and opening does not wait: a path may lead elsewhere a moment later.
fn read_file(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let how = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, how, Mode::empty())?);
    let facts = file.metadata()?;
    let kind = facts.file_type();
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !kind.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    let size = usize::try_from(facts.len().min(most)).unwrap_or(usize::MAX);
    bytes.try_reserve_exact(size)?;
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// As Erlang says it: without the number, in lower case.
fn words(error: &io::Error) -> String {
    let text = match error.kind() {
        io::ErrorKind::IsADirectory => "illegal operation on a directory".to_owned(),
        io::ErrorKind::InvalidInput => "invalid argument".to_owned(),
        _ => error.to_string(),
    };
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// The encoded reply, if there is memory for it.
fn encode(reply: Reply<'_>) -> Option<Vec<u8>> {
    let size = reply::encoded_len(reply);
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size).ok()?;
    bytes.resize(size, 0);
    reply::encode_into(reply, &mut bytes).then_some(bytes)
}

fn answer(frames: &Sender<Frame>, in_flight: &InFlight, id: u32, reply: Option<Vec<u8>>) {
    let no_memory = Failure::OutOfMemory("the reply");
    let reply = reply.unwrap_or_else(|| reply::encode(&no_memory));
    let size = u32::try_from(reply.len()).unwrap_or(u32::MAX);
    lock(in_flight).remove(&id);
    // If it cannot be sent the writer is gone, and with it the process.
    let _ = frames.send((protocol::reply_head(id, size), reply));
}

fn write(frames: &Receiver<Frame>) {
    let mut output = io::stdout().lock();
    for (head, body) in frames {
        if frames::write(&mut output, &[&head, &body]).is_err() {
            // The parent is gone, so that nobody waits for anything any more.
            std::process::exit(0);
        }
    }
}

/// The map is whole after every step, so that a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
