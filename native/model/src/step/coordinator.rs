//! The coordinator: reserve, prepare, commit, decide.

use super::Next;
use crate::action::Action;
use crate::message::Message;
use crate::rules::{Config, Rule, Second};
use crate::state::{Phase, Stage, State};

pub(super) fn next(config: &Config, state: &State, out: &mut Vec<Next>) {
    for op in 0..config.ops() {
        let coordinator = &state.coordinators[op];
        for i in (0..config.nodes).filter(|&i| coordinator.waiting & (1 << i) != 0) {
            if coordinator.broken & (1 << i) != 0 {
                out.push((Action::NoticeNode(op, i), lost(config, state, op, i)));
            } else if state.left.delays > 0 {
                let mut after = lost(config, state, op, i);
                after.left.delays -= 1;
                out.push((Action::GiveUp(op, i), after));
            }
        }
        alone(config, state, op, out);
    }
    begins(config, state, out);
}

fn lost(config: &Config, state: &State, op: usize, i: usize) -> State {
    let mut after = *state;
    answered(config, &mut after, op, i, false);
    after
}

/// What a coordinator does without an answer.
fn alone(config: &Config, state: &State, op: usize, out: &mut Vec<Next>) {
    let mut after = *state;
    match state.coordinators[op].stage {
        Stage::AllHeld if state.coordinators[op].bad != 0 => {
            after.coordinators[op].stage = Stage::Commit;
            on(config, &mut after, op);
            out.push((Action::TakeBackAll(op), after));
        }
        Stage::AllHeld if config.has(Rule::JournalFirst) => {
            decide(config, &mut after, op);
            after.coordinators[op].stage = Stage::Decided;
            out.push((Action::Decide(op), after));
        }
        Stage::AllHeld => {
            ask_all(config, &mut after, op, Message::Finish, Stage::ToldFirst);
            out.push((Action::Tell(op), after));
        }
        Stage::Decided => {
            ask_all(config, &mut after, op, Message::Finish, Stage::Ending);
            out.push((Action::Tell(op), after));
        }
        Stage::ToldFirst => {
            decide(config, &mut after, op);
            after.coordinators[op].stage = Stage::Ending;
            on(config, &mut after, op);
            out.push((Action::Decide(op), after));
        }
        _ => {}
    }
}

fn decide(config: &Config, state: &mut State, op: usize) {
    state.nodes[config.home(op)].decisions |= 1 << op;
    let coordinator = &mut state.coordinators[op];
    let (voted, held) = (coordinator.voted, coordinator.held);
    coordinator.decided = true;
    coordinator.proper = voted == coordinator.members && held == coordinator.members;
}

fn begins(config: &Config, state: &State, out: &mut Vec<Next>) {
    let [first, second] = &state.coordinators;
    let may = match config.second {
        Second::None => false,
        Second::Apply => second.stage == Stage::NotBegun && state.nodes[1].up,
        Second::Rollback => {
            config.has(Rule::RollbackKept)
                && state.nodes[0].up
                && first.stage == Stage::Gone
                && state.nodes[0].decisions == 1
                && !first.closed
                && !second.lives()
                // Two attempts share their messages in this model, so one has to be over.
                && state.mail[1] == [0; 4]
                && !state.nodes.iter().any(|node| node.phase != Phase::Idle && node.op == 1)
        }
    };
    if may {
        let mut after = *state;
        let reached = reached(config, state, config.home(1));
        begin(config, &mut after, 1, reached);
        let action = match config.second {
            Second::Rollback => Action::Resume(1),
            _ => Action::Begin(1),
        };
        out.push((action, after));
    }
}

fn reached(config: &Config, state: &State, home: usize) -> u8 {
    (0..config.nodes).filter(|&i| state.reaches(home, i)).fold(0, |set, i| set | 1 << i)
}

/// The first in the order of nodes decides between two coordinators at once.
pub(crate) fn begin(config: &Config, state: &mut State, op: usize, members: u8) {
    let coordinator = &mut state.coordinators[op];
    coordinator.members = members;
    coordinator.bad = 0;
    coordinator.seq = 0;
    coordinator.stage = Stage::ReserveFirst;
    coordinator.waiting = 0;
    coordinator.broken = 0;
    coordinator.voted = 0;
    coordinator.held = 0;
    ask(config, state, op, members.trailing_zeros() as usize, Message::Reserve);
}

fn ask(config: &Config, state: &mut State, op: usize, i: usize, message: Message) {
    state.coordinators[op].waiting |= 1 << i;
    if state.reaches(config.home(op), i) {
        state.mail[op][i] |= message.bit();
    } else {
        state.coordinators[op].broken |= 1 << i;
    }
}

fn ask_all(config: &Config, state: &mut State, op: usize, message: Message, stage: Stage) {
    state.coordinators[op].stage = stage;
    state.coordinators[op].broken = 0;
    let members = state.coordinators[op].members;
    for i in (0..config.nodes).filter(|i| members & (1 << i) != 0) {
        ask(config, state, op, i, message);
    }
}

/// Tells some, waits for no answer, and is gone.
fn tell(config: &Config, state: &mut State, op: usize, nodes: u8, message: Message) {
    for i in (0..config.nodes).filter(|i| nodes & (1 << i) != 0) {
        if state.reaches(config.home(op), i) {
            state.mail[op][i] |= message.bit();
        }
    }
    state.coordinators[op].stage = Stage::Gone;
}

pub(super) fn gets(config: &Config, state: &mut State, op: usize, i: usize, message: Message) {
    let expected = match state.coordinators[op].stage {
        Stage::ReserveFirst | Stage::ReserveRest => [Message::Granted, Message::Busy],
        Stage::Prepare => [Message::Yes, Message::No],
        Stage::Commit => [Message::Held, Message::Failed],
        _ => [Message::Ended, Message::NotEnded],
    };
    let waits = state.coordinators[op].waiting & (1 << i) != 0;
    if waits && expected.contains(&message) {
        answered(config, state, op, i, message == expected[0]);
    }
}

fn answered(config: &Config, state: &mut State, op: usize, i: usize, well: bool) {
    let coordinator = &mut state.coordinators[op];
    coordinator.waiting &= !(1 << i);
    coordinator.broken &= !(1 << i);
    if !well {
        coordinator.bad |= 1 << i;
    }
    let hasty = !config.has(Rule::WaitForHeld) && coordinator.stage == Stage::Commit && well;
    if hasty {
        coordinator.waiting = 0;
        coordinator.bad = 0;
    }
    on(config, state, op);
}

/// To the next stage, when all have answered.
fn on(config: &Config, state: &mut State, op: usize) {
    let coordinator = state.coordinators[op];
    if coordinator.waiting != 0 {
        return;
    }
    let well = coordinator.bad == 0;
    match coordinator.stage {
        Stage::ReserveFirst if well => {
            state.coordinators[op].stage = Stage::ReserveRest;
            let rest = coordinator.members & (coordinator.members - 1);
            for i in (0..config.nodes).filter(|i| rest & (1 << i) != 0) {
                ask(config, state, op, i, Message::Reserve);
            }
            on(config, state, op);
        }
        Stage::ReserveRest if well => {
            ask_all(config, state, op, Message::Prepare, Stage::Prepare);
        }
        Stage::Prepare if well || !config.has(Rule::WaitForVotes) => {
            state.coordinators[op].bad = 0;
            ask_all(config, state, op, Message::Commit, Stage::Commit);
        }
        Stage::ReserveFirst | Stage::ReserveRest | Stage::Prepare => {
            tell(config, state, op, coordinator.members, Message::Abort);
        }
        Stage::Commit if well => state.coordinators[op].stage = Stage::AllHeld,
        // No record: what is not known to be decided is taken back.
        Stage::Commit => {
            let held = coordinator.members & !coordinator.bad;
            tell(config, state, op, held, Message::TakeBack);
        }
        Stage::Ending => ended(config, state, op, well),
        _ => {}
    }
}

fn ended(config: &Config, state: &mut State, op: usize, well: bool) {
    state.coordinators[op].stage = Stage::Gone;
    if op != 0 || config.second != Second::Rollback {
        return;
    }
    if well {
        state.coordinators[0].closed = true;
    } else if !config.has(Rule::RollbackKept) {
        let members = if config.has(Rule::RollbackReachable) {
            reached(config, state, 0)
        } else {
            state.coordinators[0].members
        };
        begin(config, state, 1, members);
    }
}
