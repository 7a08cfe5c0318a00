//! The chunks that hold terms: `Attr` and `CInf`.

use crate::chunk::ChunkId;
use crate::damage::Damage;
use crate::etf::{self, Limits, Term};

/// Far above what modules have; a term takes up to forty times its encoded size in memory.
pub(crate) const LIMITS: Limits = Limits { depth: 128, terms: 200_000 };

/// The attributes of a module.
#[derive(Debug)]
pub(crate) struct Attributes {
    /// The whole list, encoded again from what we read.
    pub(crate) all: Vec<u8>,
    /// The values of `vsn`, encoded again.
    pub(crate) vsn: Option<Vec<u8>>,
    pub(crate) behaviours: Vec<String>,
}

impl Attributes {
    /// Reads `Attr`; a module without has none.
    pub(crate) fn read(chunk: Option<&[u8]>) -> Result<Self, Damage> {
        let term = decode_list(*b"Attr", chunk)?;
        let list = properties(*b"Attr", &term)?;
        let behaviours = list
            .iter()
            .filter(|(name, _)| matches!(*name, "behaviour" | "behavior"))
            .filter_map(|(_, values)| values.as_list())
            .flatten()
            .filter_map(|value| value.as_atom().map(str::to_owned))
            .collect();
        // The VM takes the first one too.
        let vsn = list.iter().find(|(name, _)| *name == "vsn").map(|(_, value)| etf::encode(value));
        Ok(Attributes { vsn, behaviours, all: etf::encode(&term) })
    }
}

/// The compiler's version in `CInf`, as in `"8.2.3"`.
pub(crate) fn compiler_version(chunk: Option<&[u8]>) -> Result<Option<String>, Damage> {
    let term = decode_list(*b"CInf", chunk)?;
    let list = properties(*b"CInf", &term)?;
    Ok(list.iter().find(|(name, _)| *name == "version").and_then(|(_, value)| value.as_latin1()))
}

fn decode_list(id: ChunkId, chunk: Option<&[u8]>) -> Result<Term<'_>, Damage> {
    match chunk {
        None | Some([]) => Ok(Term::List(Vec::new(), None)),
        Some(chunk) => {
            etf::decode(chunk, LIMITS).map_err(|error| Damage::Term { chunk: id, error })
        }
    }
}

fn properties<'t>(id: ChunkId, term: &'t Term<'_>) -> Result<Vec<(&'t str, &'t Term<'t>)>, Damage> {
    let what = "it is no list of named values";
    term.as_list()
        .and_then(|list| list.iter().map(Term::as_property).collect())
        .ok_or(Damage::Malformed { chunk: id, what })
}
