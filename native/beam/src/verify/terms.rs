//! The chunk that holds one term.

use super::rule::{Breach, LoaderRule};
use crate::etf;
use crate::info;

/// `Meta`: a list, of which the loader takes the digest and Erlang's tools the rest.
pub(super) fn meta(chunk: &[u8]) -> Result<(), Breach> {
    let term = etf::decode(chunk, info::LIMITS).ok();
    let list = term.as_ref().and_then(|term| term.as_list());
    match list {
        Some(list) if list.iter().all(|one| one.as_property().is_some()) => Ok(()),
        _ => Err(Breach::of(b"Meta", LoaderRule::MetaTerm)),
    }
}
