//! Breadth first, with the way to what is found.

use crate::action::Action;
use crate::check;
use crate::rules::Config;
use crate::seen::Seen;
use crate::state::State;
use crate::step;

/// What was looked at, and what was found.
#[derive(Debug)]
pub struct Outcome {
    /// States looked at.
    pub states: usize,
    /// Steps between them.
    pub steps: usize,
    /// States in which nothing happens any more unless something goes wrong.
    pub at_rest: usize,
    /// The most steps from the first state, on shortest ways.
    pub depth: usize,
    /// Bytes held for the states.
    pub bytes: usize,
    /// Whether all was looked at, or the limit was reached.
    pub complete: bool,
    /// The nearest broken promise.
    pub violation: Option<Violation>,
}

/// A broken promise.
#[derive(Debug)]
pub struct Violation {
    /// Which.
    pub what: String,
    /// A shortest way to it.
    pub trace: Vec<(Action, State)>,
}

/// Looks at all that can happen, up to the first broken promise.
pub fn explore(config: &Config) -> Outcome {
    let mut seen = Seen::new();
    seen.insert(State::first(config).pack(config), None);
    let mut found = Outcome {
        states: 0,
        steps: 0,
        at_rest: 0,
        depth: 0,
        bytes: 0,
        complete: true,
        violation: None,
    };
    let mut next = Vec::new();
    let (mut index, mut level_end) = (0, 1);
    while index < seen.len() {
        if index == level_end {
            found.depth += 1;
            level_end = seen.len();
        }
        let state = State::unpack(config, seen.get(index));
        step::next(config, &state, &mut next);
        found.steps += next.len();
        found.at_rest += usize::from(check::is_at_rest(&next));
        if let Some(what) = check::broken(config, &state, &next) {
            found.violation = Some(Violation { what, trace: trace(config, &seen, index) });
            break;
        }
        for (_, after) in &next {
            seen.insert(after.pack(config), Some(index));
        }
        index += 1;
        if seen.len() > config.max_states {
            found.complete = false;
            break;
        }
    }
    if found.violation.is_none() && found.complete {
        found.violation = no_way_out(config, &seen);
    }
    found.states = seen.len();
    found.bytes = seen.bytes();
    found
}

/// A state from which rest cannot be reached, though nothing goes wrong any more.
fn no_way_out(config: &Config, seen: &Seen) -> Option<Violation> {
    let mut good = vec![false; seen.len()];
    let mut next = Vec::new();
    // Steps lead mostly to states found later: from the end, a few passes are enough.
    loop {
        let mut changed = false;
        for index in (0..seen.len()).rev() {
            if good[index] {
                continue;
            }
            let state = State::unpack(config, seen.get(index));
            step::next(config, &state, &mut next);
            good[index] = check::is_at_rest(&next)
                || next.iter().any(|(action, after)| {
                    !action.is_fault()
                        && seen.find(&after.pack(config)).is_some_and(|after| good[after])
                });
            changed |= good[index];
        }
        if !changed {
            break;
        }
    }
    let index = good.iter().position(|good| !good)?;
    let what = "from here nothing comes to rest any more".to_string();
    Some(Violation { what, trace: trace(config, seen, index) })
}

fn trace(config: &Config, seen: &Seen, index: usize) -> Vec<(Action, State)> {
    let mut trace = Vec::new();
    let mut next = Vec::new();
    let mut index = index;
    while let Some(parent) = seen.parent(index) {
        step::next(config, &State::unpack(config, seen.get(parent)), &mut next);
        let packed = seen.get(index);
        let step = next.iter().find(|(_, after)| after.pack(config) == packed);
        trace.extend(step.copied());
        index = parent;
    }
    trace.reverse();
    trace
}
