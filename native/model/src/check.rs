//! The promises.

use crate::action::Action;
use crate::rules::{Config, Second};
use crate::state::{Phase, State};
use crate::step::{self, Next};

/// What is wrong with a state, if anything; `next` is all that can follow it.
pub fn broken(config: &Config, state: &State, next: &[Next]) -> Option<String> {
    if state.undecided {
        return Some("new code was loaded that no coordinator had decided on disk".to_string());
    }
    if state.improper {
        return Some("new code was loaded that not all members had voted for and held".to_string());
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
