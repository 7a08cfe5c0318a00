//! The protocol keeps its promises, whatever goes wrong within the budget.

use crate::support::{config, holds};
use hot_patch_model::{Config, Faults, Second};

#[test]
fn nothing_goes_wrong() {
    holds(config(Faults::default()));
}

#[test]
fn two_crashes() {
    // Many ways lead here: a model in which little can happen promises little.
    assert!(holds(config(Faults { crashes: 2, ..Faults::default() })) > 50_000);
}

#[test]
fn two_nodes_and_all_kinds_of_faults() {
    let faults = Faults { crashes: 1, deaths: 1, cuts: 1, failures: 1, delays: 1 };
    holds(Config { nodes: 2, ..config(faults) });
}

#[test]
fn late_answers_and_the_death_of_the_coordinator() {
    holds(config(Faults { delays: 2, deaths: 1, ..Faults::default() }));
}

#[test]
fn a_cut_and_a_failure() {
    holds(config(Faults { cuts: 1, failures: 1, ..Faults::default() }));
}

#[test]
fn two_coordinators_at_once() {
    let faults = Faults { deaths: 1, ..Faults::default() };
    holds(Config { second: Second::Apply, ..config(faults) });
}

#[test]
fn empty_disks_after_a_crash() {
    let faults = Faults { crashes: 1, ..Faults::default() };
    holds(Config { fresh_disks: true, ..config(faults) });
}

#[test]
fn what_is_decided_is_not_taken_back_where_the_coordinator_alone_died() {
    let faults = Faults { deaths: 1, ..Faults::default() };
    holds(Config { strict: true, ..config(faults) });
}
