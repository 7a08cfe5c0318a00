//! The names of shadows, and the atom table of one.

use std::collections::HashMap;

use super::{Naming, Reason, by_name};
use crate::atoms::{Atoms, LONGEST_ATOM};
use crate::damage::Damage;
use crate::writer::Writer;

/// The modules of a set, and the suffix of their shadows.
pub(super) struct Names<'a> {
    modules: HashMap<&'a str, String>,
    /// The module that carries out calls by names known only when the code runs.
    helper: Option<&'a str>,
    /// Whether all that leads out of the set goes through the helper.
    closed: bool,
}

impl<'a> Names<'a> {
    pub(super) fn new(modules: impl Iterator<Item = &'a str>, naming: &Naming<'a>) -> Self {
        let named = |name| (name, format!("{name}{}", naming.suffix));
        Names {
            modules: modules.map(named).collect(),
            helper: naming.helper,
            closed: naming.closed,
        }
    }

    /// Whether a module is of the set.
    pub(super) fn has(&self, module: &str) -> bool {
        self.modules.contains_key(module)
    }

    /// Whether all that leads out of the set goes through the helper.
    pub(super) fn closed(&self) -> bool {
        self.closed && self.helper.is_some()
    }

    /// The name of the shadow of `module`, if that is of the set.
    pub(super) fn shadow_of(&self, module: &str) -> Result<Option<&str>, Reason> {
        let Some(name) = self.modules.get(module) else { return Ok(None) };
        if self.modules.contains_key(name.as_str()) {
            return Err(Reason::NameTaken(name.clone()));
        }
        if name.chars().count() > LONGEST_ATOM {
            return Err(Reason::NameTooLong(name.clone()));
        }
        Ok(Some(name))
    }
}

/// The atoms of a module under its new name. The old name and the new ones of other modules stand
/// behind those that were there.
pub(super) struct Renamed<'a> {
    atoms: &'a Atoms,
    names: &'a Names<'a>,
    module: &'a str,
    appended: Vec<&'a str>,
    /// The places of the helper's name, and of other names for calls of it, once they were asked for.
    helping: HashMap<&'a str, u32>,
    /// The new places of the names of other modules of the set, once they were asked for.
    modules: HashMap<u32, u32>,
}

impl<'a> Renamed<'a> {
    pub(super) fn new(atoms: &'a Atoms, names: &'a Names<'a>) -> Result<Self, Reason> {
        let old = atoms.module();
        let taken = || Reason::NameTaken(old.to_owned());
        let module = names.shadow_of(old)?.ok_or_else(taken)?;
        Ok(Renamed {
            atoms,
            names,
            module,
            appended: vec![old],
            helping: HashMap::new(),
            modules: HashMap::new(),
        })
    }

    /// The new name.
    pub(super) fn module(&self) -> &'a str {
        self.module
    }

    /// The place of the old name.
    pub(super) fn old_name(&self) -> u32 {
        self.atoms.len().saturating_add(1)
    }

    /// The new place of an atom that is not the name of a module to call; `None` if there was none.
    pub(super) fn data(&self, index: u32) -> Option<u32> {
        match index {
            1 => Some(self.old_name()),
            _ => self.atoms.id(index).map(|_| index),
        }
    }

    /// The new place of the name of a module to call; `None` if there was none.
    pub(super) fn called(&mut self, index: u32) -> Result<Option<u32>, Reason> {
        let Some(id) = self.atoms.id(index) else { return Ok(None) };
        if index == 1 {
            return Ok(Some(index));
        }
        if let Some(place) = self.modules.get(&index) {
            return Ok(Some(*place));
        }
        let Some(shadow) = self.names.shadow_of(self.atoms.text(id))? else {
            return Ok(Some(index));
        };
        let place = self.append(shadow)?;
        self.modules.insert(index, place);
        Ok(Some(place))
    }

    fn append(&mut self, name: &'a str) -> Result<u32, Damage> {
        self.appended.push(name);
        let appended = u32::try_from(self.appended.len()).map_err(|_| Damage::OutOfMemory)?;
        self.atoms.len().checked_add(appended).ok_or(Damage::OutOfMemory)
    }

    /// Whether calls by names that are known only when the code runs go to a helper.
    pub(super) fn has_helper(&self) -> bool {
        self.names.helper.is_some()
    }

    /// The place of the helper's name instead of that of a module whose function goes by a name
    /// that it is given; `None` where it is another function.
    pub(super) fn helper_for(
        &mut self,
        [module, function, arity]: [u32; 3],
    ) -> Result<Option<u32>, Damage> {
        // There the calls themselves are changed.
        if self.names.closed() {
            return Ok(None);
        }
        let atoms = self.atoms;
        let text = |index| atoms.id(index).map(|id| atoms.text(id));
        let (Some(module), Some(function)) = (text(module), text(function)) else {
            return Ok(None);
        };
        if by_name::goes_by_name(module, function, arity) { self.helper() } else { Ok(None) }
    }

    /// The place of the helper's name.
    pub(super) fn helper(&mut self) -> Result<Option<u32>, Damage> {
        self.names.helper.map(|helper| self.place_of(helper)).transpose()
    }

    /// The place of a name for calls of the helper.
    pub(super) fn place_of(&mut self, name: &'a str) -> Result<u32, Damage> {
        if let Some(place) = self.helping.get(name) {
            return Ok(*place);
        }
        let place = self.append(name)?;
        self.helping.insert(name, place);
        Ok(place)
    }

    /// The chunk `AtU8`, with lengths as they were written.
    pub(super) fn table(&self) -> Result<Vec<u8>, Reason> {
        let appended = u32::try_from(self.appended.len()).ok();
        let count = appended
            .and_then(|appended| i32::try_from(self.atoms.len().checked_add(appended)?).ok())
            .ok_or(Damage::OutOfMemory)?;
        let long_format = self.atoms.is_long_format();
        let mut out = Writer::default();
        out.put(&if long_format { -count } else { count }.to_be_bytes())?;
        let old = self.atoms.names().skip(1);
        for name in std::iter::once(self.module).chain(old).chain(self.appended.iter().copied()) {
            let too_long = |_| Reason::NameTooLong(name.to_owned());
            if long_format {
                out.tagged(0, u32::try_from(name.len()).map_err(too_long)?)?;
            } else {
                out.put(&[u8::try_from(name.len()).map_err(too_long)?])?;
            }
            out.put(name.as_bytes())?;
        }
        Ok(out.into_bytes())
    }
}
