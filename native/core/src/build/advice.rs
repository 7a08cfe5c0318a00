//! What is to be known of a change beyond what differs: in which order to load it, what to do
//! with the processes, and what looks dangerous.

use super::changes::Change;
use crate::manifest::Instructions;

/// What goes into the manifest of a patch besides its files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// Names of modules, first to be loaded first.
    pub load_order: Vec<String>,
    /// In the terms of an appup.
    pub instructions: Instructions,
}

impl Advice {
    /// The one place where a change is judged. Without an analysis all modules become current in
    /// one step, so their order only matters to those that are loaded alone: that of their names.
    pub fn on(changes: &[Change]) -> Advice {
        let mut load_order: Vec<String> = changes
            .iter()
            .filter(|change| change.after.is_some())
            .filter_map(|change| change.module().map(str::to_owned))
            .collect();
        load_order.sort();
        Advice { load_order, instructions: Instructions::default() }
    }
}
