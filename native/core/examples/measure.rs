//! Times the reading of an archive, and of the parts of it that can be told apart. What judging its
//! modules before the loader takes is timed by itself, on one core, with the parse of their tables:
//!
//! ```text
//! cargo run --release --example measure -- patch.zip [rounds]
//! ```

use std::io::Read as _;
use std::time::{Duration, Instant};

use hot_patch_beam::LoadLimits;
use hot_patch_beam::verify;
use hot_patch_core::{Kind, Options, read_archive, reply};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("name an archive")?;
    let rounds: usize = args.next().map_or(Ok(50), |rounds| rounds.parse())?;
    let bytes = std::fs::read(&path)?;
    let options =
        Options { max_archive_bytes: u64::MAX, max_unpacked_bytes: 1 << 30, ..Options::default() };
    let outcome = read_archive(&bytes, &options);
    let composition = outcome.as_ref().map_err(ToString::to_string)?;
    let files = composition.files.len();
    let is_module = |kind: &Kind| matches!(kind, Kind::Beam(_));
    let modules = composition.files.iter().filter(|file| is_module(&file.kind));
    let modules: Vec<Vec<u8>> = modules.map(|file| plain(&file.bytes)).collect::<Result<_, _>>()?;
    let limits = LoadLimits::default();
    let reply = reply::encoded_len(&outcome);
    println!("{path}: {} bytes, {files} files, reply {reply} bytes", bytes.len());
    measure("read", rounds, || read_archive(&bytes, &options).is_ok());
    measure("judge", rounds, || modules.iter().all(|one| verify::judge(one, &limits).is_ok()));
    measure("encode", rounds, || reply::encode(&outcome).len());
    measure("read and encode", rounds, || reply::encode(&read_archive(&bytes, &options)).len());
    Ok(())
}

/// A module, unpacked if it is packed.
fn plain(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    match bytes {
        [0x1f, 0x8b, ..] => flate2::read::GzDecoder::new(bytes).read_to_end(&mut unpacked)?,
        _ => return Ok(bytes.to_vec()),
    };
    Ok(unpacked)
}

/// Prints the median and the shortest time of `work`.
fn measure<T>(what: &str, rounds: usize, work: impl Fn() -> T) {
    let mut times: Vec<Duration> = (0..rounds.max(1))
        .map(|_| {
            let start = Instant::now();
            std::hint::black_box(work());
            start.elapsed()
        })
        .collect();
    times.sort();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let shortest = times.first().copied().unwrap_or_default();
    println!("{what:>16}: median {median:.2?}, shortest {shortest:.2?}");
}
