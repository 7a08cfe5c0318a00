//! The HotPatch core as a NIF library for the module `HotPatch.Native`.
//!
//! All functions are stateless and run on dirty CPU schedulers. A panic becomes an Erlang error:
//! rustler catches it, whichever thread it began in.

mod building;
mod entry;

use hot_patch_core::analysis::instructions::{
    Appup, Builds, encode as encode_instructions, read as read_instructions,
};
use hot_patch_core::analysis::{self, Kind, Request};
use hot_patch_core::beam::shadow;
use hot_patch_core::reply::Reply;
use hot_patch_core::{ChunkId, Options, json, reply};
use rustler::{Binary, Env, Error, LocalPid, OwnedBinary};

/// Limits and significant chunks as they come from Elixir: the largest archive, most entries,
/// most unpacked bytes, longest name, chunk ids.
type Limits<'a> = (u64, u32, u64, u32, Vec<Binary<'a>>);

/// Reads an archive; the result is one encoded term (see `hot_patch_core::reply`).
#[rustler::nif(schedule = "DirtyCpu")]
fn read_archive<'a>(
    env: Env<'a>,
    archive: Binary<'a>,
    limits: Limits<'a>,
) -> Result<Binary<'a>, Error> {
    let options = options(limits)?;
    let outcome = hot_patch_core::read_archive(archive.as_slice(), &options);
    encode(env, (&outcome).into())
}

/// Makes the shadows of modules (see `hot_patch_core::beam::shadow`); the result is one encoded
/// term (see `hot_patch_core::reply`).
#[rustler::nif(schedule = "DirtyCpu")]
fn shadow<'a>(
    env: Env<'a>,
    modules: Vec<Binary<'a>>,
    suffix: &'a str,
) -> Result<Binary<'a>, Error> {
    let modules: Vec<&[u8]> = modules.iter().map(Binary::as_slice).collect();
    let shadows = shadow::make(&modules, suffix);
    encode(env, shadows.as_slice().into())
}

/// Compares modules before a change with those after it (see `hot_patch_core::analysis`); the
/// result is one encoded term. Without names of modules that go, `after` is all there is. `down`:
/// it is an older version that comes.
#[rustler::nif(schedule = "DirtyCpu")]
fn analyse<'a>(
    env: Env<'a>,
    before: Vec<Binary<'a>>,
    after: Vec<Binary<'a>>,
    deleted: Option<Vec<&'a str>>,
    compiled_with: Vec<(&'a str, &'a str)>,
    down: bool,
) -> Result<Binary<'a>, Error> {
    let before: Vec<&[u8]> = before.iter().map(Binary::as_slice).collect();
    let after: Vec<&[u8]> = after.iter().map(Binary::as_slice).collect();
    let request = Request {
        before: &before,
        after: &after,
        deleted: deleted.as_deref().unwrap_or_default(),
        whole: deleted.is_none(),
        compiled_with: &compiled_with,
        down,
    };
    bytes(env, &analysis::analyse(&request).encode())
}

/// The text of an appup: for an application, its versions and its modules before and after, and
/// whether it is to be restarted.
#[rustler::nif(schedule = "DirtyCpu")]
fn appup<'a>(
    env: Env<'a>,
    application: &'a str,
    (from, to): (&'a str, &'a str),
    (before, after): (Vec<Binary<'a>>, Vec<Binary<'a>>),
    restart: bool,
) -> Result<Binary<'a>, Error> {
    let before: Vec<&[u8]> = before.iter().map(Binary::as_slice).collect();
    let after: Vec<&[u8]> = after.iter().map(Binary::as_slice).collect();
    let builds = Builds { application, versions: [from, to], modules: [&before, &after], restart };
    bytes(env, Appup::between(&builds).to_string().as_bytes())
}

/// Instructions from their texts; the result is one encoded term (see
/// `hot_patch_core::analysis::instructions`).
#[rustler::nif(schedule = "DirtyCpu")]
fn instructions<'a>(env: Env<'a>, texts: Vec<&'a str>) -> Result<Binary<'a>, Error> {
    bytes(env, &encode_instructions(&read_instructions(&texts)))
}

/// Every name of a finding: name, severity, what it means, what to do.
#[rustler::nif]
fn finding_names() -> Vec<(&'static str, &'static str, &'static str, &'static str)> {
    let row = |kind: &Kind| (kind.name(), kind.severity().name(), kind.what(), kind.next_step());
    Kind::ALL.iter().map(row).collect()
}

/// The JSON of an encoded term.
#[rustler::nif(schedule = "DirtyCpu")]
fn encode_json<'a>(env: Env<'a>, etf: Binary<'a>) -> Result<Result<Binary<'a>, String>, Error> {
    match json::to_json(etf.as_slice()) {
        Ok(json) => Ok(Ok(bytes(env, &json)?)),
        Err(error) => Ok(Err(error.to_string())),
    }
}

/// Builds a patch (see `hot_patch_core::build`) as the JSON of its request says. As long as it
/// takes, `watcher` is sent `{hot_patch_build, Done, Total}` now and then.
#[rustler::nif(schedule = "DirtyCpu")]
fn build<'a>(
    env: Env<'a>,
    request: Binary<'a>,
    chunks: Vec<Binary<'a>>,
    watcher: LocalPid,
) -> Result<Binary<'a>, Error> {
    let building = building::build(request.as_slice(), &chunk_ids(&chunks)?, watcher);
    encode(env, (&building).into())
}

/// Puts a signature (JSON, see `hot_patch_core::manifest`) into an archive.
#[rustler::nif(schedule = "DirtyCpu")]
fn sign<'a>(
    env: Env<'a>,
    archive: Binary<'a>,
    limits: Limits<'a>,
    signature: Binary<'a>,
) -> Result<Binary<'a>, Error> {
    let options = options(limits)?;
    let signing = building::sign(archive.as_slice(), &options, signature.as_slice());
    encode(env, (&signing).into())
}

fn encode<'a>(env: Env<'a>, reply: Reply<'_>) -> Result<Binary<'a>, Error> {
    let mut encoded = new_binary(reply::encoded_len(reply))?;
    if !reply::encode_into(reply, encoded.as_mut_slice()) {
        return Err(Error::Term(Box::new("the reply has another size than was counted")));
    }
    Ok(encoded.release(env))
}

fn bytes<'a>(env: Env<'a>, bytes: &[u8]) -> Result<Binary<'a>, Error> {
    let mut binary = new_binary(bytes.len())?;
    binary.as_mut_slice().copy_from_slice(bytes);
    Ok(binary.release(env))
}

fn options((archive, entries, unpacked, name, chunks): Limits<'_>) -> Result<Options, Error> {
    Ok(Options {
        max_archive_bytes: archive,
        max_entries: entries,
        max_unpacked_bytes: unpacked,
        max_name_bytes: name,
        significant_chunks: chunk_ids(&chunks)?,
    })
}

fn chunk_ids(chunks: &[Binary<'_>]) -> Result<Vec<ChunkId>, Error> {
    chunks.iter().map(|id| ChunkId::try_from(id.as_slice()).map_err(|_| Error::BadArg)).collect()
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
