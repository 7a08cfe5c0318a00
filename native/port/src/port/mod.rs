//! The program behind `{packet, 4}`: the core for a VM that does not want it in its own process.
//!
//! One thread reads requests, a few carry them out, one writes the replies, in whatever order they
//! are done. When standard input closes, what was asked is still answered, then the program ends;
//! a request that does not come to an end does not keep it.

mod frames;
mod limits;
mod pool;
pub mod protocol;

use std::io::{self, BufReader, Read};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use frames::FrameError;
pub use limits::Limits;
use pool::Pool;
use protocol::Message;

/// How long work in progress may go on after standard input has closed.
const GRACE: Duration = Duration::from_secs(10);

/// Exit code when the parent did not keep to the protocol.
const BROKEN: u8 = 3;

/// Bytes of a pipe, as many as anybody may ask for on Linux unless it is set otherwise.
#[cfg(target_os = "linux")]
const PIPE: usize = 1024 * 1024;

/// Archives are large: whenever a pipe is full one side waits for a turn of the other. Where a pipe cannot be made
/// larger it stays as it is.
fn widen() {
    #[cfg(target_os = "linux")]
    {
        let _ = rustix::pipe::fcntl_setpipe_size(io::stdin(), PIPE);
        let _ = rustix::pipe::fcntl_setpipe_size(io::stdout(), PIPE);
    }
}

/// Serves standard input until it closes.
pub fn run(limits: &Limits) -> ExitCode {
    widen();
    if let Err(error) = limits.impose() {
        return leave(&protocol::broken(&format!("the limits could not be set: {error}")));
    }
    let pool = match Pool::start(limits.workers) {
        Ok(pool) => pool,
        Err(error) => return leave(&protocol::broken(&format!("no thread to work: {error}"))),
    };
    // Locked for each read only is not enough: nobody else reads.
    let outcome = serve(&mut BufReader::new(io::stdin().lock()), &pool, limits.max_frame);
    // Where no thread can be had, work in progress keeps the program until it ends.
    let _ = thread::Builder::new().spawn(|| {
        thread::sleep(GRACE);
        std::process::exit(BROKEN.into());
    });
    let broken = outcome.err().map(|error| protocol::broken(&error.to_string()));
    pool.finish(broken.as_deref());
    if broken.is_some() { ExitCode::from(BROKEN) } else { ExitCode::SUCCESS }
}

fn serve(input: &mut impl Read, pool: &Pool, max_frame: u32) -> Result<(), FrameError> {
    while let Some(frame) = frames::read(input, max_frame)? {
        match protocol::decode(&frame)? {
            Message::Call(call) => pool.submit(call),
            Message::Cancel(id) => pool.cancel(id),
        }
    }
    Ok(())
}

/// Tells the parent why nothing will be done.
fn leave(frame: &[u8]) -> ExitCode {
    // If it does not listen there is nobody else to tell.
    let _ = frames::write(&mut io::stdout(), &[frame]);
    ExitCode::from(BROKEN)
}
