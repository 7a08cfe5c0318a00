//! A patch that cannot be loaded on a member shall be in force nowhere.

use crate::support::{breaks, holds, rollback, with, without};
use hot_patch_model::{Faults, Rule};

const FAILURE: Faults = Faults { crashes: 0, deaths: 0, cuts: 0, failures: 1, delays: 0 };
const IN_FORCE: &str = "a patch that failed on a member is in force";

// The member that failed catches up by itself, and is busy when the rollback comes.
#[test]
fn a_rollback_that_is_tried_once_can_be_refused() {
    breaks(rollback(FAILURE), IN_FORCE);
}

#[test]
fn it_is_kept_until_it_is_decided() {
    holds(with(rollback(FAILURE), Rule::RollbackKept));
    let death = Faults { deaths: 1, ..FAILURE };
    breaks(with(rollback(death), Rule::RollbackReachable), IN_FORCE);
    holds(with(rollback(death), Rule::RollbackKept));
}

// Nobody has carried the apply out: its number is known from the decision alone.
#[test]
fn its_number_is_above_that_of_the_decision() {
    let all_fail = Faults { failures: 3, ..FAILURE };
    let kept = with(rollback(all_fail), Rule::RollbackKept);
    holds(kept);
    breaks(without(kept, Rule::NumbersCount), IN_FORCE);
}
