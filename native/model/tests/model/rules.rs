//! The promises hang on the rules: without one of them there is a way to break one.

use crate::support::{breaks, config, holds, with, without};
use hot_patch_model::{Config, Faults, Rule};

const NONE: Faults = Faults { crashes: 0, deaths: 0, cuts: 0, failures: 0, delays: 0 };
const CRASH: Faults = Faults { crashes: 1, ..NONE };
const DEATH: Faults = Faults { deaths: 1, ..NONE };
const DELAY: Faults = Faults { delays: 1, ..NONE };
const FAILURE: Faults = Faults { failures: 1, ..NONE };

#[test]
fn the_decision_comes_first() {
    breaks(without(config(DEATH), Rule::JournalFirst), "no coordinator had decided");
}

#[test]
fn all_are_waited_for() {
    breaks(without(config(NONE), Rule::WaitForHeld), "not all members");
}

#[test]
fn who_is_unsure_takes_back() {
    breaks(without(config(DEATH), Rule::TakeBackUnsure), "no coordinator had decided");
}

#[test]
fn nobody_is_held_for_ever() {
    breaks(without(config(NONE), Rule::HoldEnds), "cannot end its standing still");
}

#[test]
fn who_is_not_held_lets_go() {
    breaks(without(config(DEATH), Rule::LetGo), "taken for ever");
}

#[test]
fn neither_asking_nor_catching_up() {
    let neither = without(without(config(DEATH), Rule::Inquiry), Rule::CatchUp);
    breaks(neither, "is not where the recorded operations lead");
}

#[test]
fn asking_alone_does_not_do() {
    breaks(without(config(CRASH), Rule::CatchUp), "is not where the recorded operations lead");
}

// Catching up alone does, but late: what is decided is taken back for a while.
#[test]
fn catching_up_alone_does_in_the_end() {
    holds(without(config(DEATH), Rule::Inquiry));
    let strict = Config { strict: true, ..config(DEATH) };
    breaks(without(strict, Rule::Inquiry), "takes back what a node that it reaches knows");
}

#[test]
fn decisions_of_a_crashed_coordinator_count() {
    breaks(
        without(config(CRASH), Rule::DecisionsCount),
        "is not where the recorded operations lead",
    );
}

#[test]
fn the_disk_comes_after_the_load() {
    breaks(without(config(CRASH), Rule::DiskAfterLoad), "no coordinator had decided");
}

// A member whose vote is no refuses the commit as well.
#[test]
fn the_votes_are_a_second_lock() {
    holds(without(config(FAILURE), Rule::WaitForVotes));
}

#[test]
fn others_are_told() {
    let silent = without(config(DELAY), Rule::NowAndThen);
    holds(silent);
    breaks(without(silent, Rule::TellOthers), "is not where the recorded operations lead");
}

// Every hold ends by its timer, then it is decided: nobody has a reason to compare any more.
#[test]
fn nodes_compare_now_and_then() {
    let late = config(Faults { delays: 3, ..NONE });
    holds(late);
    breaks(without(late, Rule::NowAndThen), "is not where the recorded operations lead");
}

// A hold may end while the coordinator still counts on it.
#[test]
fn who_asked_the_coordinators_node_is_not_counted_on() {
    let strict = Config { strict: true, ..config(DELAY) };
    breaks(strict, "to be decided");
    holds(with(strict, Rule::AskedIsLost));
}
