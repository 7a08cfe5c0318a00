//! Held without a coordinator: what has become of the operation?

use super::{Next, agent};
use crate::action::Action;
use crate::rules::{Config, Rule};
use crate::state::{Phase, Stage, State};

pub(super) fn next(config: &Config, state: &State, i: usize, out: &mut Vec<Next>) {
    match state.nodes[i].phase {
        Phase::Held if config.has(Rule::HoldEnds) => begins(config, state, i, out),
        Phase::Asking => asks(config, state, i, out),
        _ => {}
    }
}

fn begins(config: &Config, state: &State, i: usize, out: &mut Vec<Next>) {
    if agent::gone(state, i) {
        out.push((Action::NoticeCoordinator(i), asking(config, state, i)));
    } else if state.left.delays > 0 {
        let mut after = asking(config, state, i);
        after.left.delays -= 1;
        out.push((Action::Timer(i), after));
    }
}

fn asking(config: &Config, state: &State, i: usize) -> State {
    let mut after = *state;
    let everybody = (1 << config.nodes) - 1;
    let node = &mut after.nodes[i];
    node.phase = Phase::Asking;
    node.orphan = false;
    // Its own disk needs no asking.
    node.asked = if config.has(Rule::Inquiry) { 1 << i } else { everybody };
    node.found = config.has(Rule::Inquiry) && node.known() & (1 << node.op) != 0;
    let op = usize::from(node.op);
    asked(config, &mut after, i, i, op);
    after
}

fn asks(config: &Config, state: &State, i: usize, out: &mut Vec<Next>) {
    let node = &state.nodes[i];
    let op = usize::from(node.op);
    let unasked = state.coordinators[op].members & !node.asked;
    if node.found || (unasked == 0 && !config.has(Rule::TakeBackUnsure)) {
        return finishes(config, state, op, i, out);
    }
    if unasked == 0 {
        let mut after = *state;
        agent::back(config, &mut after, i);
        out.push((Action::TakeBackByItself(i), after));
    }
    for j in (0..config.nodes).filter(|j| unasked & (1 << j) != 0) {
        let mut after = *state;
        after.nodes[i].asked |= 1 << j;
        if state.reaches(i, j) && state.left.delays > 0 {
            let mut in_vain = after;
            in_vain.left.delays -= 1;
            out.push((Action::AskInVain(i, j), in_vain));
        }
        after.nodes[i].found = state.reaches(i, j) && knows(state, j, op);
        if state.reaches(i, j) {
            asked(config, &mut after, j, i, op);
        }
        out.push((Action::Ask(i, j), after));
    }
}

/// Who asks and hears of no decision takes back: the coordinator must not count on it.
fn asked(config: &Config, state: &mut State, j: usize, i: usize, op: usize) {
    let coordinator = &mut state.coordinators[op];
    let open = matches!(coordinator.stage, Stage::Commit | Stage::AllHeld);
    if config.has(Rule::AskedIsLost) && j == config.home(op) && open {
        coordinator.bad |= 1 << i;
    }
}

/// An agent that was told to finish knows it too, before its disk does.
fn knows(state: &State, j: usize, op: usize) -> bool {
    let node = &state.nodes[j];
    node.known() & (1 << op) != 0 || node.is_in(Phase::Loaded, op)
}

fn finishes(config: &Config, state: &State, op: usize, i: usize, out: &mut Vec<Next>) {
    let mut after = *state;
    agent::load(config, &mut after, op, i);
    out.push((Action::FinishByItself(i), after));
    if state.left.failures > 0 {
        let mut after = *state;
        after.left.failures -= 1;
        agent::fails_to_load(config, &mut after, op, i);
        out.push((Action::FinishFails(i), after));
    }
}
