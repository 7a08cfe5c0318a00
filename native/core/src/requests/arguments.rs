//! What comes with a request, checked.

use super::Request;
use crate::calls::Name;
use crate::failure::Failure;
use crate::funs::Versions;
use crate::options::Options;
use hot_patch_beam::etf::{self, Limits, Term};
use hot_patch_beam::shadow::Naming;
use hot_patch_beam::{ChunkId, LoadLimits};

/// Options are small; a list of files takes a few terms each.
const LIMITS: Limits = Limits { depth: 16, terms: 1_000_000 };

/// Modules before a change and those after it.
pub(super) type Sides<'a> = (&'a [&'a [u8]], &'a [&'a [u8]]);

/// The blobs and the decoded options of a request.
pub(super) struct Arguments<'a> {
    request: &'a Request<'a>,
    options: Term<'a>,
}

impl<'a> Arguments<'a> {
    pub(super) fn read(request: &'a Request<'a>) -> Result<Self, Failure> {
        Ok(Arguments { request, options: etf::decode(request.options, LIMITS)? })
    }

    /// The only blob.
    pub(super) fn blob(&self) -> Result<&'a [u8], Failure> {
        match self.request.blobs {
            [blob] => Ok(blob),
            blobs => Err(self.bad(format!("takes one blob, not {}", blobs.len()))),
        }
    }

    /// The only two blobs.
    pub(super) fn two(&self) -> Result<(&'a [u8], &'a [u8]), Failure> {
        match self.request.blobs {
            [one, other] => Ok((one, other)),
            blobs => Err(self.bad(format!("takes two blobs, not {}", blobs.len()))),
        }
    }

    /// The blobs two by two.
    pub(super) fn pairs(&self) -> Result<Vec<Versions<'a>>, Failure> {
        let (pairs, rest) = self.request.blobs.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.bad("takes an even number of blobs"));
        }
        Ok(pairs.iter().map(|[one, other]| (*one, *other)).collect())
    }

    /// The blobs up to the given one, and the rest.
    pub(super) fn sides(&self, first: usize) -> Result<Sides<'a>, Failure> {
        let blobs = self.request.blobs;
        blobs.split_at_checked(first).ok_or_else(|| {
            self.bad(format!("has {} blobs, and says that {first} come first", blobs.len()))
        })
    }

    /// The options as the naming of shadows, of a closed set or not.
    pub(super) fn naming(&self, closed: bool) -> Result<Naming<'a>, Failure> {
        match pair(&self.options) {
            Some((suffix, helper)) => Ok(Naming { suffix, helper: Some(helper), closed }),
            None => Err(self.bad("takes {suffix, helper} as its options")),
        }
    }

    /// The options as a list of functions: `{module, name, arity}`.
    pub(super) fn functions(&self) -> Result<Vec<Name>, Failure> {
        let functions = self.options.as_list().map(|list| list.iter().map(function).collect());
        let bad = || self.bad("takes a list of {module, name, arity} as its options");
        functions.flatten().ok_or_else(bad)
    }

    /// The options as a tuple of so many parts.
    pub(super) fn tuple<const N: usize>(&self) -> Option<&[Term<'a>; N]> {
        match &self.options {
            Term::Tuple(elements) => elements.as_slice().try_into().ok(),
            _ => None,
        }
    }

    /// The options as limits on an archive: `{archive, entries, unpacked, name, load, chunk ids}`.
    pub(super) fn limits(&self) -> Result<Options, Failure> {
        let bad = || {
            self.bad("takes four limits, those of modules and a list of chunk ids as its options")
        };
        let [archive, entries, unpacked, name, load, chunks] = self.tuple().ok_or_else(bad)?;
        let ids = chunks.as_list().ok_or_else(bad)?.iter().map(chunk_id);
        Ok(Options {
            max_archive_bytes: count(archive).ok_or_else(bad)?,
            max_entries: count(entries).ok_or_else(bad)?,
            max_unpacked_bytes: count(unpacked).ok_or_else(bad)?,
            max_name_bytes: count(name).ok_or_else(bad)?,
            load: load_limits(load).ok_or_else(bad)?,
            significant_chunks: ids.collect::<Option<_>>().ok_or_else(bad)?,
        })
    }

    pub(super) fn bad(&self, what: impl std::fmt::Display) -> Failure {
        Failure::BadRequest(format!("the request \"{}\" {what}", self.request.name))
    }
}

/// `{module atoms, atoms, module functions, functions, literal words, literal depth, added
/// literals, module memory, memory}`.
fn load_limits(term: &Term<'_>) -> Option<LoadLimits> {
    let Term::Tuple(limits) = term else { return None };
    let [atoms, all_atoms, functions, all_functions, words, depth, added, memory, all_memory] =
        limits.as_slice()
    else {
        return None;
    };
    Some(LoadLimits {
        module_atoms: count(atoms)?,
        atoms: count(all_atoms)?,
        module_functions: count(functions)?,
        functions: count(all_functions)?,
        literal_words: count(words)?,
        literal_depth: count(depth)?,
        added_literals: count(added)?,
        module_memory: count(memory)?,
        memory: count(all_memory)?,
    })
}

pub(super) fn count<N: TryFrom<i64>>(term: &Term<'_>) -> Option<N> {
    match term {
        Term::Integer(value) => N::try_from(*value).ok(),
        _ => None,
    }
}

pub(super) fn text<'a>(term: &Term<'a>) -> Option<&'a str> {
    match term {
        Term::Binary(bytes) => str::from_utf8(bytes).ok(),
        _ => None,
    }
}

pub(super) fn texts<'a>(term: &Term<'a>) -> Option<Vec<&'a str>> {
    term.as_list()?.iter().map(text).collect()
}

fn function(term: &Term<'_>) -> Option<Name> {
    let Term::Tuple(elements) = term else { return None };
    let [module, name, arity] = elements.as_slice() else { return None };
    Some((text(module)?.to_owned(), text(name)?.to_owned(), count(arity)?))
}

pub(super) fn pair<'a>(term: &Term<'a>) -> Option<(&'a str, &'a str)> {
    match term {
        Term::Tuple(elements) => match elements.as_slice() {
            [one, other] => Some((text(one)?, text(other)?)),
            _ => None,
        },
        _ => None,
    }
}

pub(super) fn boolean(term: &Term<'_>) -> Option<bool> {
    match term.as_atom()? {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

fn chunk_id(term: &Term<'_>) -> Option<ChunkId> {
    match term {
        Term::Binary(id) => (*id).try_into().ok(),
        _ => None,
    }
}
