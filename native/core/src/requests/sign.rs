//! Puts a signature into an archive.

use crate::build;
use crate::manifest::Signature;
use crate::options::Options;
use crate::read;
use crate::reply::Signing;
use crate::stop::Stop;

/// Of an archive and a signature as JSON.
pub(super) fn sign(
    stop: &Stop,
    (archive, signature): (&[u8], &[u8]),
    options: &Options,
) -> Signing {
    let patch = read::read_until(stop, archive, options).map_err(|refusal| refusal.to_string())?;
    let signature = Signature::read(signature).map_err(|refusal| refusal.to_string())?;
    match build::sign(&patch, &signature) {
        Some(signed) => signed.map_err(|error| error.to_string()),
        None => Err("the archive has no manifest to sign: build it with \
                     `mix hot_patch.build`"
            .to_owned()),
    }
}
