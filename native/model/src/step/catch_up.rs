//! Catching up: what others have and this node has not, it carries out by itself.

use super::{Next, agent};
use crate::action::Action;
use crate::rules::{Config, Rule};
use crate::state::{Phase, State};

pub(super) fn next(config: &Config, state: &State, i: usize, out: &mut Vec<Next>) {
    match state.nodes[i].phase {
        Phase::Idle => compare(config, state, i, out),
        Phase::CatchingUp => load(config, state, i, out),
        Phase::CaughtUp => write(config, state, i, out),
        _ => {}
    }
}

fn compare(config: &Config, state: &State, i: usize, out: &mut Vec<Next>) {
    let node = &state.nodes[i];
    let missed = missed(config, state, i);
    let behind =
        missed != 0 || (config.has(Rule::CatchUp) && state.fold(config, node.log) != node.disk);
    let now = config.has(Rule::NowAndThen) && behind;
    if !node.look && !now {
        return;
    }
    let mut after = *state;
    let node = &mut after.nodes[i];
    node.look = false;
    if behind {
        node.phase = Phase::CatchingUp;
        node.missed = missed;
    }
    out.push((Action::Compare(i), after));
}

fn missed(config: &Config, state: &State, i: usize) -> u8 {
    if !config.has(Rule::CatchUp) {
        return 0;
    }
    let of = |j: usize| {
        let node = &state.nodes[j];
        if config.has(Rule::DecisionsCount) { node.known() } else { node.log }
    };
    let all = (0..config.nodes).filter(|&j| state.reaches(i, j)).fold(0, |all, j| all | of(j));
    all & !state.nodes[i].log
}

fn load(config: &Config, state: &State, i: usize, out: &mut Vec<Next>) {
    let node = &state.nodes[i];
    let mut after = *state;
    agent::check_loaded(config, &mut after, node.missed);
    after.nodes[i].memory = state.fold(config, node.log | node.missed);
    after.nodes[i].phase = Phase::CaughtUp;
    out.push((Action::CatchUp(i), after));
    if state.left.failures > 0 {
        let mut after = *state;
        after.left.failures -= 1;
        after.nodes[i].rest();
        // It tries again.
        looks(config, &mut after, i);
        out.push((Action::CatchUpFails(i), after));
    }
}

fn write(config: &Config, state: &State, i: usize, out: &mut Vec<Next>) {
    let mut after = *state;
    let node = &mut after.nodes[i];
    node.disk = node.memory;
    node.log |= node.missed;
    node.rest();
    ended(config, &mut after, i);
    out.push((Action::WriteMissed(i), after));
}

/// An operation has ended on this node: a reason to compare.
pub(super) fn ended(config: &Config, state: &mut State, i: usize) {
    looks(config, state, i);
    if config.has(Rule::TellOthers) {
        for j in (0..config.nodes).filter(|&j| j != i) {
            if state.reaches(i, j) {
                looks(config, state, j);
            }
        }
    }
}

/// Where nodes compare at any time, reasons add nothing.
pub(super) fn looks(config: &Config, state: &mut State, i: usize) {
    state.nodes[i].look = config.has(Rule::CatchUp) && !config.has(Rule::NowAndThen);
}
