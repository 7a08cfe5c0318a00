//! A module before and after a change.

use std::collections::BTreeSet;

use super::role::Role;
use super::version::Version;

/// A module before and after.
pub(super) struct Change<'s> {
    pub(super) name: &'s str,
    pub(super) old: Option<Version<'s>>,
    pub(super) new: Option<Version<'s>>,
}

impl<'s> Change<'s> {
    /// Both versions of a module that is replaced.
    pub(super) fn both(&self) -> Option<(&Version<'s>, &Version<'s>)> {
        self.old.as_ref().zip(self.new.as_ref())
    }

    /// The version after the change, or the last there was.
    pub(super) fn latest(&self) -> Option<&Version<'s>> {
        self.new.as_ref().or(self.old.as_ref())
    }

    /// Whether it is, before or after, of a kind.
    pub(super) fn is(&self, role: Role) -> bool {
        self.latest().is_some_and(|version| version.is(role))
    }

    /// Exports that only the first version has.
    pub(super) fn removed_exports(&self) -> Vec<(&'s str, u8)> {
        exports(self.old.as_ref()).difference(&exports(self.new.as_ref())).copied().collect()
    }

    /// Exports that only the second version has.
    pub(super) fn added_exports(&self) -> Vec<(&'s str, u8)> {
        exports(self.new.as_ref()).difference(&exports(self.old.as_ref())).copied().collect()
    }

    /// Whether a function, or one that it reaches in the module, is another than before. Where that
    /// cannot be told it is not said: that it cannot is a finding of its own.
    pub(super) fn touches(&self, name: &str, arity: u8) -> bool {
        let versions = || self.old.iter().chain(&self.new);
        if versions().any(|version| version.functions().is_none()) {
            return false;
        }
        let digest = |version: &Option<Version<'s>>| {
            version.as_ref().and_then(|version| version.deep_digest(name, arity))
        };
        digest(&self.old) != digest(&self.new)
    }
}

fn exports<'s>(version: Option<&Version<'s>>) -> BTreeSet<(&'s str, u8)> {
    let exports = version.into_iter().flat_map(|version| version.parsed.module.exports());
    exports.map(|export| (export.function, export.arity)).collect()
}
