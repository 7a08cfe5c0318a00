//! What can happen next, in words.

use std::fmt;

use crate::message::Message;
use crate::show::name;

/// One step of somebody, or a fault. The numbers are nodes and operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// An agent gets a message (operation, node).
    ToAgent(usize, usize, Message),
    /// The same, but what it asks for fails there.
    Fails(usize, usize, Message),
    /// A coordinator gets an answer (operation, node).
    Answer(usize, usize, Message),
    /// A coordinator notices that a node will not answer.
    NoticeNode(usize, usize),
    /// A coordinator waits no longer for a node that would have answered.
    GiveUp(usize, usize),
    /// A coordinator writes its decision.
    Decide(usize),
    /// A coordinator, whose node was asked meanwhile, has all take back.
    TakeBackAll(usize),
    /// A coordinator tells all members to finish.
    Tell(usize),
    /// The rollback is begun again.
    Resume(usize),
    /// An operation begins.
    Begin(usize),
    /// An agent notices that its coordinator is gone.
    NoticeCoordinator(usize),
    /// A hold has lasted too long.
    Timer(usize),
    /// An agent asks another node what has become of the operation.
    Ask(usize, usize),
    /// The answer comes too late.
    AskInVain(usize, usize),
    /// Somebody knew of the decision: an agent finishes.
    FinishByItself(usize),
    /// The same, but loading fails.
    FinishFails(usize),
    /// Nobody knew: an agent takes back.
    TakeBackByItself(usize),
    /// An agent writes to disk what it has loaded.
    Write(usize),
    /// A node compares itself with those it reaches.
    Compare(usize),
    /// It loads what it has missed.
    CatchUp(usize),
    /// It cannot load what it has missed.
    CatchUpFails(usize),
    /// It writes to disk what it has missed.
    WriteMissed(usize),
    /// A node crashes.
    Crash(usize),
    /// It starts again.
    Start(usize),
    /// A coordinator dies alone.
    Die(usize),
    /// The connection of two nodes breaks.
    Cut(usize, usize),
    /// It comes back.
    Heal(usize, usize),
}

impl Action {
    /// Whether it need not happen.
    pub fn is_fault(self) -> bool {
        use Action::*;
        match self {
            Fails(..) | GiveUp(..) | Timer(_) | AskInVain(..) | FinishFails(_) => true,
            CatchUpFails(_) | Crash(_) | Die(_) | Cut(..) => true,
            // An operator may or may not.
            Begin(_) => true,
            _ => false,
        }
    }

    /// Whether the agent of this node does it, with no coordinator's help.
    pub(crate) fn is_own(self, node: usize) -> bool {
        use Action::*;
        match self {
            NoticeCoordinator(i) | Timer(i) | FinishByItself(i) | TakeBackByItself(i) => i == node,
            Ask(i, _) => i == node,
            _ => false,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Action::*;
        match *self {
            ToAgent(op, i, message) => write!(f, "node {i} gets {message:?} of {}", name(op)),
            Fails(op, i, Message::Prepare) => write!(f, "node {i} votes no on {}", name(op)),
            Fails(op, i, Message::Commit) => write!(f, "node {i} cannot convert for {}", name(op)),
            Fails(op, i, _) => write!(f, "node {i} is told to finish {} and cannot load", name(op)),
            Answer(op, i, message) => {
                write!(f, "the coordinator of {} gets {message:?} from node {i}", name(op))
            }
            NoticeNode(op, i) => {
                write!(f, "the coordinator of {} notices that node {i} does not answer", name(op))
            }
            GiveUp(op, i) => {
                write!(f, "the coordinator of {} waits no longer for node {i}", name(op))
            }
            Decide(op) => {
                write!(f, "the coordinator of {} writes the decision to finish", name(op))
            }
            TakeBackAll(op) => write!(f, "the coordinator of {} has all take back", name(op)),
            Tell(op) => write!(f, "the coordinator of {} tells all to finish", name(op)),
            Resume(op) => {
                write!(f, "the rollback, {}, is begun by the node of the coordinator", name(op))
            }
            Begin(op) => write!(f, "operation {} begins", name(op)),
            NoticeCoordinator(i) => write!(f, "node {i} notices that its coordinator is gone"),
            Timer(i) => write!(f, "node {i} has been held too long"),
            Ask(i, j) => write!(f, "node {i} asks node {j}"),
            AskInVain(i, j) => write!(f, "node {i} asks node {j}, the answer comes too late"),
            FinishByItself(i) => write!(f, "node {i} heard of the decision and loads"),
            FinishFails(i) => write!(f, "node {i} heard of the decision and cannot load"),
            TakeBackByItself(i) => write!(f, "node {i} heard of no decision and takes back"),
            Write(i) => write!(f, "node {i} writes to disk what it has loaded"),
            Compare(i) => write!(f, "node {i} compares itself with those it reaches"),
            CatchUp(i) => write!(f, "node {i} loads what it has missed"),
            CatchUpFails(i) => write!(f, "node {i} cannot load what it has missed"),
            WriteMissed(i) => write!(f, "node {i} writes to disk what it has missed"),
            Crash(i) => write!(f, "node {i} crashes"),
            Start(i) => write!(f, "node {i} starts"),
            Die(op) => write!(f, "the coordinator of {} dies, its node goes on", name(op)),
            Cut(i, j) => write!(f, "the connection of nodes {i} and {j} breaks"),
            Heal(i, j) => write!(f, "nodes {i} and {j} are connected again"),
        }
    }
}
