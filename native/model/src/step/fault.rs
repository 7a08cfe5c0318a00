//! Crashes and cuts, and what comes back after them.

use super::{Next, catch_up};
use crate::action::Action;
use crate::message::TO_AGENT;
use crate::rules::Config;
use crate::state::{Node, Phase, Stage, State, pair};

pub(super) fn next(config: &Config, state: &State, out: &mut Vec<Next>) {
    for i in 0..config.nodes {
        if !state.nodes[i].up {
            out.push((Action::Start(i), start(config, state, i)));
        } else if state.left.crashes > 0 {
            crash(config, state, i, out);
        }
        for j in (0..i).filter(|&j| state.nodes[i].up && state.nodes[j].up) {
            if !state.connected(i, j) {
                out.push((Action::Heal(j, i), heal(config, state, i, j)));
            } else if state.left.cuts > 0 {
                cut(config, state, i, j, out);
            }
        }
    }
    for op in 0..config.ops() {
        if state.coordinators[op].lives() && state.left.deaths > 0 {
            let mut after = *state;
            after.left.deaths -= 1;
            after.coordinators[op].stage = Stage::Gone;
            out.push((Action::Die(op), after));
        }
    }
}

fn start(config: &Config, state: &State, i: usize) -> State {
    let mut after = *state;
    after.nodes[i].up = true;
    after.nodes[i].memory = after.nodes[i].disk;
    let node = after.nodes[i];
    for patch in [node.memory & 3, node.memory >> 2].into_iter().filter(|&patch| patch != 0) {
        let op = usize::from(patch) - 1;
        after.undecided |= !after.coordinators[op].decided;
    }
    catch_up::looks(config, &mut after, i);
    after
}

fn heal(config: &Config, state: &State, i: usize, j: usize) -> State {
    let mut after = *state;
    after.cut &= !pair(i, j);
    catch_up::looks(config, &mut after, i);
    catch_up::looks(config, &mut after, j);
    after
}

fn crash(config: &Config, state: &State, i: usize, out: &mut Vec<Next>) {
    let mut after = *state;
    after.left.crashes -= 1;
    let Node { disk, log, decisions, .. } = state.nodes[i];
    after.nodes[i] = Node { memory: disk, disk, log, decisions, ..Node::default() };
    if config.fresh_disks {
        after.nodes[i] = Node::default();
    }
    for op in 0..config.ops() {
        after.mail[op][i] &= !TO_AGENT;
        if config.home(op) == i && after.coordinators[op].lives() {
            after.coordinators[op].stage = Stage::Gone;
        }
    }
    let mut found = vec![after];
    for j in (0..config.nodes).filter(|&j| j != i) {
        found = found.iter().flat_map(|state| parted(config, state, i, j)).collect();
    }
    out.extend(found.into_iter().map(|state| (Action::Crash(i), state)));
}

fn cut(config: &Config, state: &State, i: usize, j: usize, out: &mut Vec<Next>) {
    let mut after = *state;
    after.left.cuts -= 1;
    let found = parted(config, &after, i, j);
    out.extend(found.into_iter().map(|state| (Action::Cut(j, i), state)));
}

/// The connection of two nodes is no more. Of what was under way between them any part may have
/// come through.
fn parted(config: &Config, state: &State, i: usize, j: usize) -> Vec<State> {
    if !state.connected(i, j) {
        return vec![*state];
    }
    let mut after = *state;
    after.cut |= pair(i, j);
    let mut found = vec![after];
    for op in 0..config.ops() {
        let home = config.home(op);
        if home != i && home != j {
            continue;
        }
        let far = i + j - home;
        found = found.iter().flat_map(|state| broken(state, op, far)).collect();
    }
    found
}

fn broken(state: &State, op: usize, far: usize) -> Vec<State> {
    let mut after = *state;
    after.coordinators[op].broken |= after.coordinators[op].waiting & (1 << far);
    let node = &mut after.nodes[far];
    if usize::from(node.op) == op
        && matches!(node.phase, Phase::Reserved | Phase::Prepared | Phase::Held)
    {
        node.orphan = true;
    }
    let mail = state.mail[op][far];
    (0..=mail)
        .filter(|part| part & !mail == 0)
        .map(|part| {
            let mut after = after;
            after.mail[op][far] = part;
            after
        })
        .collect()
}
