//! The local funs (`FunT`).

use super::code::Found;
use super::rule::{Breach, LoaderRule};
use crate::beam::Damage;
use crate::beam::reader::Reader;

/// A local fun, as the table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::beam) struct Lambda {
    /// The place of its function's name among the atoms.
    pub(in crate::beam) name: u32,
    /// With the free variables.
    pub(in crate::beam) arity: u8,
    pub(in crate::beam) label: u32,
    pub(in crate::beam) free: u8,
    /// What tells the funs of one version of the module from those of others, beside its MD5.
    pub(in crate::beam) uniq: u32,
}

/// An entry: function, arity, label, index, free variables, old uniq.
const ENTRY: usize = 24;

/// Reads the table. What it says of labels is checked when those are known.
pub(in crate::beam) fn read(chunk: Option<&[u8]>) -> Result<Vec<Lambda>, Damage> {
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

/// Checks that each entry is of the function at its label, and none of that of another. One without
/// free variables must be made by an instruction: from OTP 28 on that makes the literal which the
/// loader wants when the code becomes current.
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
        if lambda.free == 0 && found.made.get(place) != Some(&true) {
            return breach(LoaderRule::LambdaMade);
        }
    }
    Ok(())
}
