//! Which funs of one version of a module are which of another, see
//! [`functions`].

use crate::workers;
use hot_patch_beam::effort::Effort;
use hot_patch_beam::etf::Term;
use hot_patch_beam::functions::{self, Fun, Unread};
use hot_patch_beam::{Parsed, Stop};

/// The most bytes that are made of all modules together.
const MOST_BYTES: u64 = 256 << 20;

/// The most steps of work.
const MOST_STEPS: u64 = 1 << 28;

/// The files of two versions of a module, the old and the new.
pub type Versions<'a> = (&'a [u8], &'a [u8]);

/// The funs of two versions.
#[derive(Clone, Debug)]
pub struct Renewal(functions::Renewal);

impl Renewal {
    /// The indices of those that belong together, of the old version and the new.
    pub fn pairs(&self) -> &[(usize, usize)] {
        &self.0.pairs
    }

    /// Index, old uniq, arity and number of free variables of each fun, of the old version and the
    /// new.
    pub fn funs(&self) -> [Vec<(usize, u32, u8, u8)>; 2] {
        let of = |fun: &Fun| (fun.index, fun.uniq, fun.arity, fun.free);
        [&self.0.old, &self.0.new].map(|funs| funs.iter().map(of).collect())
    }

    /// `{ok, [{index, uniq, arity, free}] of the old, of the new, [{old index, new index}]}`
    fn term(&self) -> Term<'static> {
        let number = |number: i64| Term::Integer(number);
        let place = |index: usize| number(i64::try_from(index).unwrap_or(i64::MAX));
        let [old, new] = self.funs().map(|funs| {
            let of = |(index, uniq, arity, free): (usize, u32, u8, u8)| {
                let parts = [place(index), number(uniq.into()), number(arity.into())];
                Term::Tuple(parts.into_iter().chain([number(free.into())]).collect())
            };
            Term::List(funs.into_iter().map(of).collect(), None)
        });
        let pair = |(one, other): &(usize, usize)| Term::Tuple(vec![place(*one), place(*other)]);
        let pairs = Term::List(self.pairs().iter().map(pair).collect(), None);
        Term::Tuple(vec![Term::Atom("ok".into()), old, new, pairs])
    }
}

/// Compares versions of modules; why that is not possible stands in a clause that follows the
/// module's name.
pub fn renewals(versions: &[Versions<'_>]) -> Vec<Result<Renewal, String>> {
    renewals_until(&Stop::default(), versions)
}

/// The same as long as `stop` is not raised.
pub(crate) fn renewals_until(
    stop: &Stop,
    versions: &[Versions<'_>],
) -> Vec<Result<Renewal, String>> {
    let effort = Effort::new(stop, MOST_BYTES, MOST_STEPS);
    let workers =
        workers::worth(versions.iter().map(|(old, new)| (old.len() + new.len()) / 4).sum());
    let one = |(): &mut (), (old, new): &Versions<'_>| {
        Ok::<_, ()>(renewal(old, new, &effort).map_err(|why| why.to_string()))
    };
    let outcomes = workers::in_order(workers, versions, || (), || (), one);
    outcomes.map_or_else(|()| Vec::new(), |((), renewals)| renewals)
}

fn renewal(old: &[u8], new: &[u8], effort: &Effort) -> Result<Renewal, Unread> {
    let (old, new) = (Parsed::read(old, effort)?, Parsed::read(new, effort)?);
    let (old, new) = (old.functions(effort)?, new.functions(effort)?);
    Ok(Renewal(functions::renewal(&old, &new, effort)?))
}

/// All as one term: for each `{ok, ...}` or `{error, why}`.
pub(crate) fn with_term<R>(
    renewals: &[Result<Renewal, String>],
    take: impl FnOnce(&Term<'_>) -> R,
) -> R {
    take(&Term::List(renewals.iter().map(term).collect(), None))
}

fn term(renewal: &Result<Renewal, String>) -> Term<'_> {
    match renewal {
        Ok(renewal) => renewal.term(),
        Err(why) => Term::Tuple(vec![Term::Atom("error".into()), Term::Binary(why.as_bytes())]),
    }
}
