//! The promises.

use crate::action::Action;
use crate::rules::{Config, Second};
use crate::state::{Node, Phase, Stage, State};
use crate::step::{self, Next};

/// What is wrong with a state, if anything; `next` is all that can follow it.
pub fn broken(config: &Config, state: &State, next: &[Next]) -> Option<String> {
    if state.undecided {
        return Some("new code was loaded that no coordinator had decided on disk".to_string());
    }
    if state.improper {
        return Some("new code was loaded that not all members had voted for and held".to_string());
    }
    if let Some(what) = strictly(config, state, next) {
        return Some(what);
    }
    if next.iter().all(|(action, _)| action.is_fault()) {
        return at_rest(config, state);
    }
    stuck(config, state)
}

/// Whether nothing happens any more unless something goes wrong again.
pub fn is_at_rest(next: &[Next]) -> bool {
    next.iter().all(|(action, _)| action.is_fault())
}

fn strictly(config: &Config, state: &State, next: &[Next]) -> Option<String> {
    if !config.strict {
        return None;
    }
    for (op, coordinator) in state.coordinators.iter().enumerate().take(config.ops()) {
        for (i, node) in state.nodes.iter().enumerate() {
            let member = coordinator.members & (1 << i) != 0;
            if member && coordinator.stage == Stage::Decided && !holds(node, op) {
                return Some(format!(
                    "it is decided to finish, though node {i} does not wait for that"
                ));
            }
        }
    }
    next.iter().find_map(|(action, _)| match *action {
        Action::TakeBackByItself(i) if is_known(config, state, i) => {
            Some(format!("node {i} takes back what a node that it reaches knows to be decided"))
        }
        _ => None,
    })
}

fn holds(node: &Node, op: usize) -> bool {
    let takes_part = node.phase.stands_still() || node.phase == Phase::Loaded;
    (takes_part && usize::from(node.op) == op) || node.log & (1 << op) != 0
}

fn is_known(config: &Config, state: &State, i: usize) -> bool {
    (0..config.nodes)
        .any(|j| state.reaches(i, j) && state.nodes[j].known() & (1 << state.nodes[i].op) != 0)
}

fn at_rest(config: &Config, state: &State) -> Option<String> {
    let nodes = &state.nodes[..config.nodes];
    let recorded = nodes.iter().fold(0, |all, node| all | node.known());
    let wanted = state.fold(config, recorded);
    for (i, node) in nodes.iter().enumerate() {
        if node.phase.stands_still() {
            return Some(format!("at rest, node {i} stands still for ever"));
        }
        if node.phase != Phase::Idle {
            return Some(format!("at rest, node {i} is taken for ever"));
        }
        if node.memory != node.disk {
            return Some(format!("at rest, memory and disk of node {i} do not agree"));
        }
        if node.memory != wanted || node.log != recorded {
            return Some(format!("at rest, node {i} is not where the recorded operations lead"));
        }
    }
    // It failed on a member, and the operator wanted it nowhere then.
    if config.second == Second::Rollback && state.coordinators[0].failed && wanted != 0 {
        return Some("at rest, a patch that failed on a member is in force".to_string());
    }
    None
}

/// Who stands still can end it by itself.
fn stuck(config: &Config, state: &State) -> Option<String> {
    (0..config.nodes)
        .find(|&i| state.nodes[i].phase.stands_still() && !ends_by_itself(config, state, i))
        .map(|i| format!("node {i} cannot end its standing still by itself"))
}

fn ends_by_itself(config: &Config, state: &State, i: usize) -> bool {
    let mut state = *state;
    let mut next = Vec::new();
    // Phase, timer, one question for each other node, the end.
    for _ in 0..config.nodes + 2 {
        // Time passes, whatever the budget of delays.
        state.left.delays = 1;
        step::next(config, &state, &mut next);
        let Some((_, after)) = next
            .iter()
            .find(|(action, _)| action.is_own(i) && !matches!(action, Action::AskInVain(..)))
        else {
            return false;
        };
        state = *after;
        if !state.nodes[i].phase.stands_still() {
            return true;
        }
    }
    false
}
