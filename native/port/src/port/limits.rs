//! What the process may take from the system, set by the parent that starts it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limits, as options of the command line.
#[derive(Args, Clone, Debug)]
pub struct Limits {
    /// The most memory the process may have, in bytes of address space
    #[arg(long, value_name = "BYTES")]
    pub(super) memory: Option<u64>,

    /// How many requests are carried out at the same time
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(super) workers: u8,

    /// The largest frame that is accepted, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 64 * 1024 * 1024)]
    pub(super) max_frame: u32,
}

impl Limits {
    /// Takes from the process what it has no need of. There is no way back.
    pub(super) fn impose(&self) -> io::Result<()> {
        // Its standard error may be a file. What is said there, as of a panic that is then answered,
        // is to fail and not to end the program by a signal.
        let noted = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGXFSZ, noted)?;
        if let Some(memory) = self.memory {
            lower(Resource::As, memory)?;
        }
        // It writes no file and leaves no image of its memory behind.
        lower(Resource::Core, 0)?;
        lower(Resource::Fsize, 0)?;
        Ok(())
    }
}

fn lower(resource: Resource, to: u64) -> rustix::io::Result<()> {
    let most = getrlimit(resource).maximum.map_or(to, |maximum| maximum.min(to));
    setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
}
