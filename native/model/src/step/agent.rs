//! The agent: what it does when it is told.

use super::{Next, catch_up};
use crate::action::Action;
use crate::message::Message;
use crate::rules::{Config, Rule};
use crate::state::{Phase, State, after};

pub(super) fn gets(
    config: &Config,
    state: &State,
    op: usize,
    i: usize,
    message: Message,
    out: &mut Vec<Next>,
) {
    let mut after = *state;
    let node = &state.nodes[i];
    match message {
        Message::Reserve => reserve(config, &mut after, op, i),
        Message::Prepare if node.is_in(Phase::Reserved, op) => {
            may_fail(config, state, op, i, message, out);
            after.nodes[i].phase = Phase::Prepared;
            after.coordinators[op].voted |= 1 << i;
            answer(config, &mut after, op, i, Message::Yes);
        }
        Message::Prepare => answer(config, &mut after, op, i, Message::No),
        Message::Commit if node.is_in(Phase::Prepared, op) => {
            may_fail(config, state, op, i, message, out);
            held(config, &mut after, op, i);
            after.coordinators[op].held |= 1 << i;
            answer(config, &mut after, op, i, Message::Held);
        }
        Message::Commit => answer(config, &mut after, op, i, Message::Failed),
        Message::Finish if stands_still(state, op, i) => {
            may_fail(config, state, op, i, message, out);
            load(config, &mut after, op, i);
        }
        Message::Finish => answer(config, &mut after, op, i, Message::NotEnded),
        Message::TakeBack if stands_still(state, op, i) => back(config, &mut after, i),
        Message::Abort if node.is_in(Phase::Reserved, op) || node.is_in(Phase::Prepared, op) => {
            after.nodes[i].rest();
        }
        _ => {}
    }
    out.push((Action::ToAgent(op, i, message), after));
}

fn stands_still(state: &State, op: usize, i: usize) -> bool {
    let node = &state.nodes[i];
    node.phase.stands_still() && usize::from(node.op) == op
}

fn may_fail(
    config: &Config,
    state: &State,
    op: usize,
    i: usize,
    message: Message,
    out: &mut Vec<Next>,
) {
    if state.left.failures == 0 {
        return;
    }
    let mut after = *state;
    after.left.failures -= 1;
    match message {
        Message::Prepare => answer(config, &mut after, op, i, Message::No),
        Message::Commit => {
            back(config, &mut after, i);
            answer(config, &mut after, op, i, Message::Failed);
        }
        _ => fails_to_load(config, &mut after, op, i),
    }
    out.push((Action::Fails(op, i, message), after));
}

pub(super) fn fails_to_load(config: &Config, state: &mut State, op: usize, i: usize) {
    state.coordinators[op].failed = true;
    back(config, state, i);
    answer(config, state, op, i, Message::NotEnded);
}

fn reserve(config: &Config, state: &mut State, op: usize, i: usize) {
    let node = &state.nodes[i];
    let steals = !config.has(Rule::GrantIdle)
        && matches!(node.phase, Phase::Reserved | Phase::Prepared | Phase::CatchingUp);
    if node.phase != Phase::Idle && !steals {
        return answer(config, state, op, i, Message::Busy);
    }
    let counted = if config.has(Rule::NumbersCount) { node.known() } else { node.log };
    let last = (0..config.ops())
        .filter(|other| counted & (1 << other) != 0)
        .map(|other| state.coordinators[other].seq)
        .max()
        .unwrap_or(0);
    let home = config.home(op);
    // Watching over a connection that is not there fails at once.
    let orphan = home != i && !state.connected(home, i);
    let node = &mut state.nodes[i];
    node.rest();
    node.phase = Phase::Reserved;
    node.op = op as u8;
    node.orphan = orphan;
    if state.coordinators[op].lives() {
        state.coordinators[op].seq = state.coordinators[op].seq.max(last + 1);
    }
    answer(config, state, op, i, Message::Granted);
}

pub(super) fn answer(config: &Config, state: &mut State, op: usize, i: usize, message: Message) {
    if state.reaches(config.home(op), i) {
        state.mail[op][i] |= message.bit();
    }
}

/// The new code runs from here on.
pub(super) fn load(config: &Config, state: &mut State, op: usize, i: usize) {
    check_loaded(config, state, 1 << op);
    let node = &mut state.nodes[i];
    node.memory = after(config, node.memory, op);
    node.phase = Phase::Loaded;
    node.asked = 0;
    node.found = false;
}

pub(super) fn check_loaded(config: &Config, state: &mut State, ops: u8) {
    for op in (0..config.ops()).filter(|op| ops & (1 << op) != 0) {
        state.undecided |= !state.coordinators[op].decided;
        state.improper |= !state.coordinators[op].proper;
    }
}

fn held(config: &Config, state: &mut State, op: usize, i: usize) {
    let node = &mut state.nodes[i];
    node.phase = Phase::Held;
    if !config.has(Rule::DiskAfterLoad) {
        node.disk = after(config, node.disk, op);
    }
}

/// As before the operation.
pub(super) fn back(config: &Config, state: &mut State, i: usize) {
    state.nodes[i].disk = state.nodes[i].memory;
    state.nodes[i].rest();
    catch_up::ended(config, state, i);
}

/// What an agent does by itself, in an operation with others.
pub(super) fn next(config: &Config, state: &State, i: usize, out: &mut Vec<Next>) {
    let node = &state.nodes[i];
    let op = usize::from(node.op);
    let mut after = *state;
    match node.phase {
        Phase::Reserved | Phase::Prepared if gone(state, i) && config.has(Rule::LetGo) => {
            after.nodes[i].rest();
            out.push((Action::NoticeCoordinator(i), after));
        }
        Phase::Loaded => {
            let node = &mut after.nodes[i];
            node.disk = node.memory;
            node.log |= 1 << op;
            node.rest();
            catch_up::ended(config, &mut after, i);
            answer(config, &mut after, op, i, Message::Ended);
            out.push((Action::Write(i), after));
        }
        _ => {}
    }
}

/// Whether there is something to notice about the coordinator.
pub(super) fn gone(state: &State, i: usize) -> bool {
    let node = &state.nodes[i];
    node.orphan || !state.coordinators[usize::from(node.op)].lives()
}
