//! Times the reading of an archive, and of the parts of it that can be told apart:
//!
//! ```text
//! cargo run --release --example measure -- patch.zip [rounds]
//! ```

use std::time::{Duration, Instant};

use hot_patch_core::{Options, read_archive, reply};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("name an archive")?;
    let rounds: usize = args.next().map_or(Ok(50), |rounds| rounds.parse())?;
    let bytes = std::fs::read(&path)?;
    let options =
        Options { max_archive_bytes: u64::MAX, max_unpacked_bytes: 1 << 30, ..Options::default() };
    let outcome = read_archive(&bytes, &options);
    let files = match &outcome {
        Ok(composition) => composition.files.len(),
        Err(refusal) => return Err(refusal.to_string().into()),
    };
    let reply = reply::encoded_len(&outcome);
    println!("{path}: {} bytes, {files} files, reply {reply} bytes", bytes.len());
    measure("read", rounds, || read_archive(&bytes, &options).is_ok());
    measure("encode", rounds, || reply::encode(&outcome).len());
    measure("read and encode", rounds, || reply::encode(&read_archive(&bytes, &options)).len());
    Ok(())
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
