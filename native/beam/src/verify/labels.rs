//! Labels, and the functions that begin at some of them.

use super::rule::{Breach, Check, LoaderRule};
use crate::code::Code;

/// A call of a function of the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) label: u64,
    pub(super) arity: u64,
    /// Where its instruction begins.
    pub(super) at: usize,
}

/// A function, as `func_info` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Function {
    /// The place of its name among the atoms.
    pub(super) name: u32,
    pub(super) arity: u8,
}

/// What is known of a label: nothing, that it is there, or the function that begins there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Label {
    #[default]
    Missing,
    Inside,
    Entry(u32),
}

/// All labels, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Labels {
    list: Vec<Label>,
    defined: usize,
    functions: Vec<Function>,
    calls: Vec<Call>,
}

impl Labels {
    /// Room for the labels that the header counts, if the code can have so many: each takes two
    /// bytes, and the label 0 is not used.
    pub(super) fn new(code: &Code<'_>) -> Check<Self> {
        let most = code.instructions().len() / 2 + 1;
        let count = usize::try_from(code.label_count).ok().filter(|count| *count <= most);
        let count = count.filter(|count| *count > 0).ok_or(LoaderRule::CodeLabelCount)?;
        Ok(Labels { list: vec![Label::Missing; count], ..Labels::default() })
    }

    fn get(&self, label: u64) -> Label {
        let place = usize::try_from(label).ok();
        place.and_then(|place| self.list.get(place)).copied().unwrap_or_default()
    }

    fn set(&mut self, label: u64, to: Label) -> Check {
        let slot = usize::try_from(label).ok().filter(|label| *label > 0);
        let slot = slot.and_then(|label| self.list.get_mut(label));
        match slot {
            Some(slot @ Label::Missing) => {
                *slot = to;
                self.defined += 1;
                Ok(())
            }
            Some(_) => Err(LoaderRule::CodeLabelTwice),
            None => Err(LoaderRule::CodeLabelCount),
        }
    }

    pub(super) fn define(&mut self, label: u64) -> Check {
        self.set(label, Label::Inside)
    }

    /// Begins a function: its name and its number of arguments, both already checked.
    pub(super) fn function(&mut self, name: u64, arity: u64) -> Check {
        let name = u32::try_from(name).map_err(|_| LoaderRule::CodeAtom)?;
        let arity = u8::try_from(arity).map_err(|_| LoaderRule::CodeNumber)?;
        self.functions.push(Function { name, arity });
        Ok(())
    }

    /// Defines the label where the function that was begun last begins.
    pub(super) fn entry(&mut self, label: u64) -> Check {
        let last = self.functions.len().checked_sub(1).and_then(|last| u32::try_from(last).ok());
        self.set(label, Label::Entry(last.ok_or(LoaderRule::CodeFunctionCount)?))
    }

    pub(super) fn call(&mut self, call: Call) {
        self.calls.push(call);
    }

    /// Whether a label may have this number.
    pub(super) fn has_number(&self, label: u64) -> bool {
        label < self.list.len() as u64
    }

    /// Whether a label that is named is not there.
    pub(super) fn lacks(&self, label: u64) -> bool {
        label > 0 && self.get(label) == Label::Missing
    }

    /// Whether all labels are there.
    pub(super) fn are_dense(&self) -> bool {
        self.defined + 1 == self.list.len()
    }

    /// The function that begins at a label.
    pub(super) fn function_at(&self, label: u32) -> Option<Function> {
        match self.get(label.into()) {
            Label::Entry(function) => self.functions.get(usize::try_from(function).ok()?).copied(),
            _ => None,
        }
    }

    pub(super) fn functions(&self) -> &[Function] {
        &self.functions
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// What can be told when all was read: the number of functions, and where calls lead.
    pub(super) fn finish(&self, code: &Code<'_>) -> Result<(), Breach> {
        if u32::try_from(self.functions.len()).ok() != Some(code.function_count) {
            return Err(Breach::of(b"Code", LoaderRule::CodeFunctionCount));
        }
        for call in &self.calls {
            let label = u32::try_from(call.label).unwrap_or_default();
            let arity = self.function_at(label).map(|function| u64::from(function.arity));
            if arity != Some(call.arity) {
                return Err(Breach::of(b"Code", LoaderRule::CodeEntry).at(call.at));
            }
        }
        Ok(())
    }
}
