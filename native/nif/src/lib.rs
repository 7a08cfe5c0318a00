//! The HotPatch core as a NIF library for the module `HotPatch.Native`.
//!
//! There is one function for all requests, which is stateless and runs on a dirty CPU scheduler,
//! as long as its caller lives.
//! What can be asked is in `hot_patch_core::requests`: a new request is added there. A panic
//! becomes an answer there, or an Erlang error here: rustler catches it, whichever thread it
//! began in.

// The VM hands over pointers; each use says why it holds.
#![allow(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::panic, clippy::unreachable, clippy::unwrap_used)
)]

mod building;
mod caller;
mod entry;

use hot_patch_beam::{ChunkId, Stop};
use hot_patch_core::reply::{self, Reply};
use hot_patch_core::requests::{self, Request};
use rustler::{Binary, Env, Error, LocalPid, OwnedBinary};

/// Carries out a request; the result is one encoded term (see `hot_patch_core::reply`).
#[rustler::nif(schedule = "DirtyCpu")]
fn request<'a>(
    env: Env<'a>,
    name: &'a str,
    blobs: Vec<Binary<'a>>,
    options: Binary<'a>,
) -> Result<Binary<'a>, Error> {
    let blobs: Vec<&[u8]> = blobs.iter().map(Binary::as_slice).collect();
    let request = Request { name, blobs: &blobs, options: options.as_slice() };
    let stop = Stop::default();
    let reply = caller::while_it_waits(env.pid(), &stop, || requests::run(&request, &stop, encode));
    reply.map(|reply| reply.release(env))
}

/// Builds a patch (see `hot_patch_build`) as the JSON of its request says. As long as it
/// takes, `watcher` is sent `{hot_patch_build, Done, Total}` now and then.
///
/// This is no request: it reads files of the operator's own builds, of any size and for as long
/// as that takes, and tells how far it has come. The port program is made for bytes from outside:
/// its memory and time are capped, and it answers once.
#[rustler::nif(schedule = "DirtyCpu")]
fn build<'a>(
    env: Env<'a>,
    request: Binary<'a>,
    chunks: Vec<Binary<'a>>,
    watcher: LocalPid,
) -> Result<Binary<'a>, Error> {
    let building = building::build(request.as_slice(), &chunk_ids(&chunks)?, [env.pid(), watcher]);
    hot_patch_build::with_term(&building, |term| encode(Reply::Term(term)))
        .map(|reply| reply.release(env))
}

fn chunk_ids(chunks: &[Binary<'_>]) -> Result<Vec<ChunkId>, Error> {
    chunks.iter().map(|id| ChunkId::try_from(id.as_slice()).map_err(|_| Error::BadArg)).collect()
}

fn encode(reply: Reply<'_>) -> Result<OwnedBinary, Error> {
    let mut encoded = new_binary(reply::encoded_len(reply))?;
    if !reply::encode_into(reply, encoded.as_mut_slice()) {
        return Err(Error::Term(Box::new("the reply has another size than was counted")));
    }
    Ok(encoded)
}

/// A binary of `size` bytes, or an error where [`OwnedBinary::new`] would end the VM.
fn new_binary(size: usize) -> Result<OwnedBinary, Error> {
    let mut binary = std::mem::MaybeUninit::uninit();
    // SAFETY: enif_alloc_binary fills in the binary when, and only when, it does not return 0;
    // `from_raw` then owns it.
    unsafe {
        if rustler::sys::enif_alloc_binary(size, binary.as_mut_ptr()) == 0 {
            return Err(Error::Term(Box::new("there is no memory for the reply")));
        }
        Ok(OwnedBinary::from_raw(binary.assume_init()))
    }
}
