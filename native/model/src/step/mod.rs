//! The protocol itself: the states that follow a state.
//!
//! Messages come in any order, also after the news that a connection broke: an agent is called by
//! processes that the coordinator has on its node, which overtake each other.

mod agent;
mod catch_up;
pub(crate) mod coordinator;
mod fault;
mod inquiry;

use crate::action::Action;
use crate::message::{MESSAGES, TO_AGENT};
use crate::rules::Config;
use crate::state::{MAX_NODES, Phase, State};

/// A step and where it leads.
pub type Next = (Action, State);

/// All that can happen next.
pub fn next(config: &Config, state: &State, out: &mut Vec<Next>) {
    out.clear();
    deliver(config, state, out);
    coordinator::next(config, state, out);
    for i in (0..config.nodes).filter(|&i| state.nodes[i].up) {
        agent::next(config, state, i, out);
        inquiry::next(config, state, i, out);
        catch_up::next(config, state, i, out);
    }
    fault::next(config, state, out);
    for (_action, after) in out {
        tidy(config, after);
    }
}

fn deliver(config: &Config, state: &State, out: &mut Vec<Next>) {
    for op in 0..config.ops() {
        for i in 0..config.nodes {
            let mail = state.mail[op][i];
            for message in MESSAGES.into_iter().filter(|message| mail & message.bit() != 0) {
                let mut after = *state;
                after.mail[op][i] &= !message.bit();
                if message.to_agent() {
                    agent::gets(config, &after, op, i, message, out);
                } else {
                    coordinator::gets(config, &mut after, op, i, message);
                    out.push((Action::Answer(op, i, message), after));
                }
            }
        }
    }
}

/// What no longer matters is forgotten, so that states that are alike are one.
fn tidy(config: &Config, state: &mut State) {
    for op in 0..config.ops() {
        let known = state.nodes.iter().any(|node| node.known() & (1 << op) != 0);
        let coordinator = &mut state.coordinators[op];
        if !coordinator.lives() {
            coordinator.waiting = 0;
            coordinator.broken = 0;
            coordinator.bad = 0;
            coordinator.voted = 0;
            coordinator.held = 0;
            for mail in &mut state.mail[op] {
                *mail &= TO_AGENT;
            }
            let members = state
                .nodes
                .iter()
                .any(|node| usize::from(node.op) == op && node.phase != Phase::Idle);
            if !known && !members && state.mail[op] == [0; MAX_NODES] {
                coordinator.seq = 0;
                coordinator.members = 0;
            }
        }
    }
}
