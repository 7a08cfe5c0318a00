//! From bytes to a composition.

use std::collections::HashSet;

use crate::agreement;
use crate::archive::{self, Entry, Unpacker};
use crate::composition::{Composition, Fault, File, Kind};
use crate::manifest::{self, Declared, MANIFEST, Manifest, SIGNATURE, Signature};
use crate::options::Options;
use crate::refusal::{Refusal, Rule};
use crate::workers;
use hot_patch_beam::Stop;
use hot_patch_beam::digest;
use hot_patch_beam::{Judge, Load, Reading};

/// Reads an archive, or says why it is refused. Files that are stored, not deflated, are borrowed
/// from `bytes`.
pub fn read_archive<'a>(bytes: &'a [u8], options: &Options) -> Result<Composition<'a>, Refusal> {
    read_until(&Stop::default(), bytes, options)
}

/// Reads an archive as long as `stop` is not raised. Once it is, the rest of the files is left
/// out, so that what comes must not be used.
pub fn read_until<'a>(
    stop: &Stop,
    bytes: &'a [u8],
    options: &Options,
) -> Result<Composition<'a>, Refusal> {
    let entries = archive::entries(bytes, options)?;
    let declared: u64 = entries.iter().map(|entry| entry.size() as u64).sum();
    let judge = Judge::new(
        &options.load,
        &options.significant_chunks,
        options.max_unpacked_bytes,
        declared,
    );
    let workers = workers::worth(entries.iter().map(Entry::packed_size).sum());
    let (sha256, files) = workers::in_order(
        workers,
        &entries,
        || digest::sha256(bytes),
        Unpacker::new,
        |unpacker, entry| match stop.is_raised() {
            true => Ok(None),
            false => read_entry(unpacker, entry, options, &judge),
        },
    )?;
    let mut files: Vec<File<'_>> = files.into_iter().flatten().collect();
    let signature = take(&mut files, SIGNATURE);
    let manifest = take(&mut files, MANIFEST).map(read_manifest).transpose()?;
    if signature.is_some() && manifest.is_none() {
        return Err(manifest::alone());
    }
    let left_out = leave_out(&mut files, manifest.as_deref())?;
    if let Some(declared) = &manifest {
        agreement::covers(&declared.manifest, &mut files)?;
    }
    let signature = signature.map(|file| Signature::read(&file.bytes)).transpose()?;
    let load = load(&files, options)?;
    let size = bytes.len() as u64;
    Ok(Composition { sha256, size, files, load, left_out, manifest, signature })
}

/// What all modules together take in a VM, if that is within the limits.
fn load(files: &[File<'_>], options: &Options) -> Result<Load, Refusal> {
    let modules = files.iter().filter_map(|file| match &file.kind {
        Kind::Beam(module) => Some((module.load, module.names())),
        _ => None,
    });
    let load = Load::together(modules);
    let limits = &options.load;
    let parts = [
        (Rule::TooManyAtoms, load.atoms, u64::from(limits.atoms), "atoms"),
        (Rule::TooManyFunctions, load.functions, u64::from(limits.functions), "functions"),
        (Rule::TooMuchMemory, load.memory, limits.memory, "bytes of memory"),
    ];
    match parts.iter().find(|(_, taken, limit, _)| taken > limit) {
        None => Ok(load),
        Some((rule, taken, limit, what)) => {
            let detail =
                format!("its modules bring {taken} {what}, more than the limit of {limit}");
            Err(Refusal::archive(*rule, detail))
        }
    }
}

/// Takes out what the Mac has added. What a manifest lists is meant.
fn leave_out<'a>(
    files: &mut Vec<File<'a>>,
    declared: Option<&Declared>,
) -> Result<Vec<&'a str>, Refusal> {
    let listed: HashSet<&str> = declared
        .into_iter()
        .flat_map(|declared| &declared.manifest.files)
        .map(|file| file.path.as_str())
        .collect();
    let mut left_out = Vec::new();
    files.retain(|file| {
        let added = archive::is_of_mac(file.path) && !listed.contains(file.path);
        if added {
            left_out.push(file.path);
        }
        !added
    });
    if files.is_empty() && declared.is_none() && !left_out.is_empty() {
        let detail = "it holds only what the Mac adds to an archive";
        return Err(Refusal::archive(Rule::EmptyArchive, detail));
    }
    Ok(left_out)
}

/// Takes out what is an entry of the archive and no file of the patch.
fn take<'a>(files: &mut Vec<File<'a>>, name: &str) -> Option<File<'a>> {
    let at = files.iter().position(|file| file.path == name)?;
    Some(files.remove(at))
}

fn read_manifest(file: File<'_>) -> Result<Box<Declared>, Refusal> {
    let manifest = Manifest::read(&file.bytes)?;
    Ok(Box::new(Declared { bytes: file.bytes.into_owned(), manifest }))
}

/// Unpacks and inspects one entry. A folder gives no file, but its data is checked.
fn read_entry<'a>(
    unpacker: &mut Unpacker,
    entry: &Entry<'a>,
    options: &Options,
    judge: &Judge<'_>,
) -> Result<Option<File<'a>>, Refusal> {
    let bytes = unpacker.unpack(entry)?;
    if entry.is_folder() {
        return Ok(None);
    }
    let kind = match judge.read_file(entry.name, &bytes) {
        Reading::Other => Kind::Other,
        Reading::Module(module) => Kind::Beam(module),
        Reading::Damaged(damage) => {
            Kind::Damaged(Fault { rule: damage.rule(), reason: damage.to_string() })
        }
        Reading::OverBudget => {
            let limit = options.max_unpacked_bytes;
            let detail = format!("brings what is unpacked to more than the limit of {limit} bytes");
            return Err(entry.refuse(Rule::UnpackedTooBig, detail));
        }
    };
    let sha256 = digest::sha256(&bytes);
    let executable = entry.executable;
    Ok(Some(File { path: entry.name, crc32: entry.crc32, sha256, bytes, executable, kind }))
}
