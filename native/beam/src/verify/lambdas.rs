//! The local funs (`FunT`).

use super::code::Found;
use super::rule::{Breach, LoaderRule};
use crate::damage::Damage;
use crate::reader::Reader;

/// A local fun, as the table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lambda {
    /// The place of its function's name among the atoms.
    pub(crate) name: u32,
    /// With the free variables.
    pub(crate) arity: u8,
    pub(crate) label: u32,
    pub(crate) free: u8,
    /// What tells the funs of one version of the module from those of others, beside its MD5.
    pub(crate) uniq: u32,
}

/// An entry: function, arity, label, index, free variables, old uniq.
const ENTRY: usize = 24;

/// Reads the table. What it says of labels is checked when those are known.
pub(crate) fn read(chunk: Option<&[u8]>) -> Result<Vec<Lambda>, Damage> {
    let Some(chunk) = chunk else { return Ok(Vec::new()) };
    let malformed = || Damage::Malformed {
        chunk: *b"FunT",
        what: "its size does not fit the entries it counts",
    };
    let mut reader = Reader::new(chunk);
    let count = reader.count(ENTRY).ok_or_else(malformed)?;
    let mut lambdas = Vec::new();
    lambdas.try_reserve_exact(count).map_err(|_| Damage::OutOfMemory)?;
    for place in 0..count {
        let mut word = || reader.u32().unwrap_or_default();
        let [name, arity, label, index, free, uniq] = [(); 6].map(|()| word());
        let breach = |rule| Breach::of(b"FunT", rule).at(place);
        let arity = u8::try_from(arity).map_err(|_| breach(LoaderRule::LambdaEntry))?;
        let free = u8::try_from(free).ok().filter(|free| *free <= arity);
        let free = free.ok_or_else(|| breach(LoaderRule::LambdaFree))?;
        if usize::try_from(index).ok() != Some(place) {
            return Err(breach(LoaderRule::LambdaIndex).into());
        }
        lambdas.push(Lambda { name, arity, label, free, uniq });
    }
    if reader.rest().is_empty() { Ok(lambdas) } else { Err(malformed()) }
}

/// Checks that each entry is of the function at its label, and none of that of another; and that an
/// instruction makes each. Such an instruction leaves a literal behind which the loader fills in when
/// the code becomes current: for every fun in OTP 27, for those without free variables from OTP 28
/// on. Where there is none it writes to an address that is none.
pub(super) fn check(lambdas: &[Lambda], found: &Found) -> Result<(), Breach> {
    let labels = &found.labels;
    let mut seen = vec![false; labels.len()];
    for (place, lambda) in lambdas.iter().enumerate() {
        let breach = |rule| Err(Breach::of(b"FunT", rule).at(place));
        let function = labels.function_at(lambda.label);
        if function.map(|function| (function.name, function.arity))
            != Some((lambda.name, lambda.arity))
        {
            return breach(LoaderRule::LambdaEntry);
        }
        let seen = usize::try_from(lambda.label).ok().and_then(|label| seen.get_mut(label));
        if seen.is_none_or(|seen| std::mem::replace(seen, true)) {
            return breach(LoaderRule::LambdaLabel);
        }
        if found.made.get(place) != Some(&true) {
            return breach(LoaderRule::LambdaMade);
        }
    }
    Ok(())
}
