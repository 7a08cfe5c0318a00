//! Nodes, coordinators, messages under way; packed into a few words.

use crate::bits::{Packed, Reader, Walk, Writer};
use crate::rules::{Config, Faults, Second};

/// The most nodes there can be.
pub const MAX_NODES: usize = 4;
/// The most operations there can be.
pub const MAX_OPS: usize = 2;

/// How far an agent is with an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Nothing goes on.
    #[default]
    Idle,
    /// Taken by a coordinator.
    Reserved,
    /// It has voted yes.
    Prepared,
    /// Converted and standing still.
    Held,
    /// Held, and asking the others what has become of the operation.
    Asking,
    /// The new code runs, the disk has still the old.
    Loaded,
    /// It is about to carry out what it has missed.
    CatchingUp,
    /// What it has missed runs, the disk has still the old.
    CaughtUp,
}

const PHASES: [Phase; 8] = [
    Phase::Idle,
    Phase::Reserved,
    Phase::Prepared,
    Phase::Held,
    Phase::Asking,
    Phase::Loaded,
    Phase::CatchingUp,
    Phase::CaughtUp,
];

impl Phase {
    /// Whether processes stand still.
    pub fn stands_still(self) -> bool {
        matches!(self, Phase::Held | Phase::Asking)
    }
}

/// How far a coordinator is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// It has not begun.
    #[default]
    NotBegun,
    /// It waits for the first node to be reserved.
    ReserveFirst,
    /// It waits for the others to be reserved.
    ReserveRest,
    /// It waits for votes.
    Prepare,
    /// It waits for all to be held.
    Commit,
    /// All are held, nothing is decided.
    AllHeld,
    /// The decision is on disk, nobody is told.
    Decided,
    /// All are told, the decision is not on disk (only without `journal-first`).
    ToldFirst,
    /// It waits for all to end.
    Ending,
    /// The process is no more.
    Gone,
}

const STAGES: [Stage; 10] = [
    Stage::NotBegun,
    Stage::ReserveFirst,
    Stage::ReserveRest,
    Stage::Prepare,
    Stage::Commit,
    Stage::AllHeld,
    Stage::Decided,
    Stage::ToldFirst,
    Stage::Ending,
    Stage::Gone,
];

/// The patches in force, the oldest first: two bits each.
pub type Stack = u8;

/// One node and its agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Whether it runs.
    pub up: bool,
    /// Whether it has a reason to compare itself with the others.
    pub look: bool,
    /// How far its agent is.
    pub phase: Phase,
    /// With which operation.
    pub op: u8,
    /// Whether the connection to the coordinator broke since it is watched.
    pub orphan: bool,
    /// Whom it has asked.
    pub asked: u8,
    /// Whether somebody knew.
    pub found: bool,
    /// What it is about to carry out by itself.
    pub missed: u8,
    /// What runs.
    pub memory: Stack,
    /// What is current on disk.
    pub disk: Stack,
    /// On disk: operations carried out.
    pub log: u8,
    /// On disk: operations that a coordinator on this node decided to finish.
    pub decisions: u8,
}

impl Node {
    /// The operations its disk knows of.
    pub fn known(&self) -> u8 {
        self.log | self.decisions
    }

    pub(crate) fn is_in(&self, phase: Phase, op: usize) -> bool {
        self.phase == phase && usize::from(self.op) == op
    }

    /// Nothing goes on, and nothing is left of what did.
    pub(crate) fn rest(&mut self) {
        *self = Node {
            phase: Phase::Idle,
            op: 0,
            orphan: false,
            asked: 0,
            found: false,
            missed: 0,
            ..*self
        };
    }
}

/// One coordinator: a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coordinator {
    /// How far it is.
    pub stage: Stage,
    /// Who takes part.
    pub members: u8,
    /// Whose answer it waits for.
    pub waiting: u8,
    /// Who of these cannot answer any more, which it has not noticed yet.
    pub broken: u8,
    /// Who has given a bad answer, or none.
    pub bad: u8,
    /// The number of the operation.
    pub seq: u8,
    /// For the checks: who voted yes.
    pub voted: u8,
    /// For the checks: who was held.
    pub held: u8,
    /// For the checks: it was decided.
    pub decided: bool,
    /// For the checks: it was decided when all had voted yes and had been held.
    pub proper: bool,
    /// On disk: it has ended well on all members.
    pub closed: bool,
    /// For the checks: a member could not load it.
    pub failed: bool,
}

impl Coordinator {
    /// Whether the process lives.
    pub fn lives(&self) -> bool {
        !matches!(self.stage, Stage::NotBegun | Stage::Gone)
    }
}

/// All there is at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// The nodes.
    pub nodes: [Node; MAX_NODES],
    /// A coordinator for each operation.
    pub coordinators: [Coordinator; MAX_OPS],
    /// What is under way, by operation and agent: a set of [`Message`](crate::message::Message).
    pub mail: [[u16; MAX_NODES]; MAX_OPS],
    /// Pairs of nodes without a connection.
    pub cut: u8,
    /// The faults that there may still be.
    pub left: Faults,
    /// For the checks: something was loaded that was not decided properly.
    pub improper: bool,
    /// For the checks: something was loaded that no coordinator had decided.
    pub undecided: bool,
}

impl State {
    /// All nodes are up and connected, the first operation begins.
    pub fn first(config: &Config) -> Self {
        let mut state = State {
            nodes: [Node::default(); MAX_NODES],
            coordinators: [Coordinator::default(); MAX_OPS],
            mail: [[0; MAX_NODES]; MAX_OPS],
            cut: 0,
            left: config.faults,
            improper: false,
            undecided: false,
        };
        for node in &mut state.nodes[..config.nodes] {
            node.up = true;
        }
        crate::step::coordinator::begin(config, &mut state, 0, (1 << config.nodes) - 1);
        state
    }

    /// Whether two nodes that are not the same are connected.
    pub fn connected(&self, a: usize, b: usize) -> bool {
        self.cut & pair(a, b) == 0
    }

    /// Whether a call from one to the other gets through.
    pub fn reaches(&self, a: usize, b: usize) -> bool {
        self.nodes[b].up && (a == b || self.connected(a, b))
    }

    /// What these operations lead to, in the order of their numbers.
    pub fn fold(&self, config: &Config, ops: u8) -> Stack {
        // Equal numbers: the ids decide, which are random; here they fall in the worse way.
        let first_leads = self.coordinators[0].seq < self.coordinators[1].seq;
        let order = if first_leads { [0, 1] } else { [1, 0] };
        order
            .iter()
            .filter(|&&op| ops & (1 << op) != 0)
            .fold(0, |stack, &op| after(config, stack, op))
    }

    pub(crate) fn pack(&self, config: &Config) -> Packed {
        let mut writer = Writer::default();
        let mut copy = *self;
        copy.walk(config, &mut writer);
        writer.words
    }

    pub(crate) fn unpack(config: &Config, words: Packed) -> Self {
        let mut state = State::first(config);
        state.walk(config, &mut Reader::new(words));
        state
    }

    fn walk(&mut self, config: &Config, walk: &mut impl Walk) {
        for node in &mut self.nodes[..config.nodes] {
            let mut phase = node.phase as u8;
            walk.field(&mut phase, 3);
            node.phase = PHASES[usize::from(phase)];
            walk.flag(&mut node.up);
            walk.flag(&mut node.look);
            walk.field(&mut node.op, 1);
            walk.flag(&mut node.orphan);
            walk.field(&mut node.asked, 4);
            walk.flag(&mut node.found);
            walk.field(&mut node.missed, 2);
            walk.field(&mut node.memory, 4);
            walk.field(&mut node.disk, 4);
            walk.field(&mut node.log, 2);
            walk.field(&mut node.decisions, 2);
        }
        for (coordinator, mail) in
            self.coordinators.iter_mut().zip(&mut self.mail).take(config.ops())
        {
            let mut stage = coordinator.stage as u8;
            walk.field(&mut stage, 4);
            coordinator.stage = STAGES[usize::from(stage)];
            for mask in [
                &mut coordinator.members,
                &mut coordinator.waiting,
                &mut coordinator.broken,
                &mut coordinator.bad,
                &mut coordinator.voted,
                &mut coordinator.held,
            ] {
                walk.field(mask, 4);
            }
            walk.field(&mut coordinator.seq, 2);
            walk.flag(&mut coordinator.decided);
            walk.flag(&mut coordinator.proper);
            walk.flag(&mut coordinator.closed);
            walk.flag(&mut coordinator.failed);
            for messages in &mut mail[..config.nodes] {
                walk.wide(messages);
            }
        }
        walk.field(&mut self.cut, 6);
        let left = &mut self.left;
        for kind in [
            &mut left.crashes,
            &mut left.deaths,
            &mut left.cuts,
            &mut left.failures,
            &mut left.delays,
        ] {
            walk.field(kind, 2);
        }
        walk.flag(&mut self.improper);
        walk.flag(&mut self.undecided);
    }
}

/// The patches in force after one more operation.
pub(crate) fn after(config: &Config, stack: Stack, op: usize) -> Stack {
    match (op, config.second) {
        (1, Second::Rollback) => [stack & 3, stack >> 2]
            .iter()
            .filter(|&&patch| patch != 1)
            .rev()
            .fold(0, |below, patch| below << 2 | patch),
        _ => {
            let patch = 1 + op as u8;
            match (stack & 3, stack >> 2) {
                (0, _) => patch,
                (lower, upper) if lower == patch || upper == patch => stack,
                (lower, _) => patch << 2 | lower,
            }
        }
    }
}

/// The bit of a pair of nodes.
pub(crate) fn pair(a: usize, b: usize) -> u8 {
    let (low, high) = (a.min(b), a.max(b));
    1 << (high * (high - 1) / 2 + low)
}
