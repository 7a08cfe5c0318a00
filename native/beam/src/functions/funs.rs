//! The funs of two versions of a module: which of the one is which of the other.
//!
//! A fun in a state belongs to the version that has made it. It can be made again as one of another
//! version, with the values it was made with, if it is sure which fun of that version it is, and
//! that those values are meant there in the same order: the order is the compiler's. So two funs
//! belong together if
//!
//! 1. they are the same, whatever they are called and wherever they stand; or
//! 2. what makes them is the same instruction for instruction, so that the same values go into
//!    them, and only their own bodies differ; or
//! 3. they stand at the same place of a function of the same name, and no values go into them.
//!
//! Of all others nothing is said: a fun that is taken for another is worse than one that is dead.

use std::collections::{HashMap, HashSet, VecDeque};

use super::digest::is_made;
use super::{Digest, Function, Functions};
use crate::digest::Hasher;
use crate::effort::{Effort, Exhausted};

/// A fun of a version of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fun {
    /// Its place in the table of funs.
    pub index: usize,
    /// The old uniq, by which the text of a fun tells versions apart.
    pub uniq: u32,
    /// As it is called.
    pub arity: u8,
    /// How many values it was made with.
    pub free: u8,
}

/// The funs of both versions, and the indices of those that belong together. None belongs to two.
#[derive(Clone, Debug, Default)]
pub struct Renewal {
    /// The funs of the old version.
    pub old: Vec<Fun>,
    /// The funs of the new version.
    pub new: Vec<Fun>,
    /// Places of the old version and of the new.
    pub pairs: Vec<(usize, usize)>,
}

/// Finds which fun is which.
pub fn renewal(
    old: &Functions<'_>,
    new: &Functions<'_>,
    effort: &Effort,
) -> Result<Renewal, Exhausted> {
    let (old, new) = (Side::read(old, effort)?, Side::read(new, effort)?);
    let mut pairs = Pairs::new(&old, &new);
    let named = old.named_in_both(&new, effort)?;
    for (one, other) in &named {
        pairs.equal(old.inside(*one), new.inside(*other));
    }
    for (one, other) in &named {
        pairs.made_alike((*one, *other), effort)?;
    }
    let all = |side: &Side<'_, '_>| (0..side.funs.len()).collect::<Vec<_>>();
    pairs.equal(&all(&old), &all(&new));
    for (one, other) in &named {
        pairs.at_the_same_place(old.inside(*one), new.inside(*other));
    }
    let pairs = pairs.found();
    Ok(Renewal { old: old.funs, new: new.funs, pairs })
}

/// One version.
struct Side<'f, 'a> {
    functions: &'f Functions<'a>,
    funs: Vec<Fun>,
    /// For each fun a digest of its body and all that is made for it.
    digests: Vec<Digest>,
    /// The funs by the places of their functions.
    by_place: HashMap<usize, usize>,
    /// The funs that stand in a function with a name, in the order in which they are met.
    inside: HashMap<usize, Vec<usize>>,
}

/// A step along functions counts as so many comparisons.
const STEP: usize = 8;

impl<'f, 'a> Side<'f, 'a> {
    fn read(functions: &'f Functions<'a>, effort: &Effort) -> Result<Self, Exhausted> {
        let tables = &functions.tables;
        let mut side = Side {
            functions,
            funs: Vec::new(),
            digests: Vec::new(),
            by_place: HashMap::new(),
            inside: HashMap::new(),
        };
        for (index, lambda) in tables.funs.iter().enumerate() {
            let place = tables.labels.get(lambda.label.into());
            let place = place.map_or(usize::MAX, |place| place.function as usize);
            effort.memory((size_of::<Fun>() + size_of::<Digest>() + 64) as u64)?;
            side.by_place.entry(place).or_insert(index);
            let arity = lambda.arity.saturating_sub(lambda.free);
            side.funs.push(Fun { index, uniq: lambda.uniq, arity, free: lambda.free });
            let digest = side.digest(place, effort)?;
            side.digests.push(digest);
        }
        side.place_all(effort)?;
        Ok(side)
    }

    fn function(&self, place: usize) -> Option<&'f Function> {
        self.functions.list.get(place)
    }

    /// What a function is, whatever it and the functions made for it are called: the bodies of all
    /// that it leads to, each with the numbers, in the order in which they are met, of those that
    /// it names itself.
    fn digest(&self, from: usize, effort: &Effort) -> Result<Digest, Exhausted> {
        let mut met = vec![from];
        let mut numbers = HashMap::from([(from, 0)]);
        let mut whole = Hasher::default();
        let mut next = 0;
        while let Some(function) = met.get(next).and_then(|place| self.function(*place)) {
            effort.work(STEP)?;
            whole.put(&[function.arity]);
            whole.put(&function.body);
            for made in &function.made {
                effort.work(1)?;
                let number = *numbers.entry(*made as usize).or_insert_with(|| {
                    met.push(*made as usize);
                    met.len() - 1
                });
                whole.tagged(b'r', number as u64);
            }
            next += 1;
        }
        Ok(whole.finish())
    }

    /// Finds out for each function with a name which funs stand in it.
    fn place_all(&mut self, effort: &Effort) -> Result<(), Exhausted> {
        let mut seen = HashSet::new();
        for (place, function) in self.functions.list.iter().enumerate() {
            effort.work(1)?;
            if is_made(self.functions.name(function)) {
                continue;
            }
            let mut inside = Vec::new();
            let mut waiting: Vec<usize> = backwards(function);
            while let Some(made) = waiting.pop() {
                effort.work(STEP)?;
                if !seen.insert(made) {
                    continue;
                }
                inside.extend(self.by_place.get(&made));
                waiting.extend(self.function(made).map(backwards).unwrap_or_default());
            }
            if !inside.is_empty() {
                self.inside.insert(place, inside);
            }
        }
        Ok(())
    }

    fn inside(&self, place: usize) -> &[usize] {
        self.inside.get(&place).map(Vec::as_slice).unwrap_or_default()
    }

    /// The places of the functions that have a name, and have it in both versions.
    fn named_in_both(
        &self,
        new: &Side<'_, '_>,
        effort: &Effort,
    ) -> Result<Vec<(usize, usize)>, Exhausted> {
        let mut both = Vec::new();
        for (place, function) in self.functions.list.iter().enumerate() {
            effort.work(1)?;
            let name = self.functions.name(function);
            if !is_made(name)
                && !function.made.is_empty()
                && let Some(other) = new.functions.place(name, function.arity)
            {
                both.push((place, other));
            }
        }
        Ok(both)
    }

    fn kind(&self, index: usize) -> Option<(u8, u8)> {
        self.funs.get(index).map(|fun| (fun.arity, fun.free))
    }
}

/// To be taken from the end.
fn backwards(function: &Function) -> Vec<usize> {
    function.made.iter().rev().map(|place| *place as usize).collect()
}

/// What belongs together, as far as it is known.
struct Pairs<'s, 'f, 'a> {
    old: &'s Side<'f, 'a>,
    new: &'s Side<'f, 'a>,
    of_old: Vec<Option<usize>>,
    of_new: Vec<Option<usize>>,
}

impl<'s, 'f, 'a> Pairs<'s, 'f, 'a> {
    fn new(old: &'s Side<'f, 'a>, new: &'s Side<'f, 'a>) -> Self {
        let (of_old, of_new) = (vec![None; old.funs.len()], vec![None; new.funs.len()]);
        Pairs { old, new, of_old, of_new }
    }

    fn is_free(&self, one: usize, other: usize) -> bool {
        self.of_old.get(one) == Some(&None) && self.of_new.get(other) == Some(&None)
    }

    fn put(&mut self, one: usize, other: usize) {
        if self.is_free(one, other)
            && let (Some(old), Some(new)) = (self.of_old.get_mut(one), self.of_new.get_mut(other))
        {
            (*old, *new) = (Some(other), Some(one));
        }
    }

    /// Those that are the same. Where there are several, any of them will do.
    fn equal(&mut self, old: &[usize], new: &[usize]) {
        let mut there: HashMap<(Digest, (u8, u8)), VecDeque<usize>> = HashMap::new();
        for other in new.iter().filter(|other| self.of_new.get(**other) == Some(&None)) {
            if let Some(key) = key(self.new, *other) {
                there.entry(key).or_default().push_back(*other);
            }
        }
        for one in old.iter().copied() {
            if self.of_old.get(one) != Some(&None) {
                continue;
            }
            let found = key(self.old, one).and_then(|key| there.get_mut(&key)?.pop_front());
            if let Some(other) = found {
                self.put(one, other);
            }
        }
    }

    /// Those that functions of the same name make by the same instructions.
    fn made_alike(&mut self, from: (usize, usize), effort: &Effort) -> Result<(), Exhausted> {
        let mut waiting = vec![from];
        let mut seen = HashSet::new();
        while let Some((one, other)) = waiting.pop() {
            effort.work(STEP)?;
            let (Some(old), Some(new)) = (self.old.function(one), self.new.function(other)) else {
                continue;
            };
            let alike =
                old.body == new.body && old.arity == new.arity && old.made.len() == new.made.len();
            if !alike || !seen.insert((one, other)) {
                continue;
            }
            for (one, other) in old.made.iter().zip(&new.made) {
                effort.work(1)?;
                let (one, other) = (*one as usize, *other as usize);
                let funs = (self.old.by_place.get(&one), self.new.by_place.get(&other));
                if let (Some(one), Some(other)) = funs
                    && self.old.kind(*one) == self.new.kind(*other)
                {
                    self.put(*one, *other);
                }
                waiting.push((one, other));
            }
        }
        Ok(())
    }

    /// Those that stand at the same place among as many, without values.
    fn at_the_same_place(&mut self, old: &[usize], new: &[usize]) {
        if old.len() != new.len() {
            return;
        }
        for (one, other) in old.iter().zip(new) {
            let kind = self.old.kind(*one);
            if kind == self.new.kind(*other) && kind.is_some_and(|(_arity, free)| free == 0) {
                self.put(*one, *other);
            }
        }
    }

    fn found(&self) -> Vec<(usize, usize)> {
        let pairs = self.of_old.iter().enumerate();
        pairs.filter_map(|(one, other)| Some((one, (*other)?))).collect()
    }
}

fn key(side: &Side<'_, '_>, index: usize) -> Option<(Digest, (u8, u8))> {
    Some((*side.digests.get(index)?, side.kind(index)?))
}
