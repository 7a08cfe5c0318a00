//! The protocol as a list of rules, and what faults there may be.

/// A rule of the protocol that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Rule {
    /// The decision to finish is on disk before the first is told of it.
    JournalFirst,
    /// Nobody is told to commit unless all members voted yes.
    WaitForVotes,
    /// Nothing is decided before all members are held.
    WaitForHeld,
    /// Who is not yet held lets go when the coordinator is gone.
    LetGo,
    /// Who is held asks the others before it gives the coordinator up.
    Inquiry,
    /// Who hears of no decision takes back.
    TakeBackUnsure,
    /// Nobody is held for ever: a timer, and the coordinator's death, end it.
    HoldEnds,
    /// An agent lets itself be reserved only when it is idle.
    GrantIdle,
    /// What others have and this node has not, it carries out by itself.
    CatchUp,
    /// Catching up knows the decisions of coordinators too, not only what was done.
    DecisionsCount,
    /// The number of an operation is above those of decisions too, not only of what was done.
    NumbersCount,
    /// When an operation ends on a node, the others compare as well.
    TellOthers,
    /// Nodes compare also now and then, without a reason.
    NowAndThen,
    /// The disk is written when the new code is loaded, not before.
    DiskAfterLoad,
    /// The rollback after a failure is over those that can be reached, not over all members.
    RollbackReachable,
    /// The rollback after a failure is begun again until it is decided, also when its coordinator died.
    RollbackKept,
    /// The coordinator's node, once asked by who is held, does not decide to finish any more.
    AskedIsLost,
}

impl Rule {
    /// All rules, in the order of the protocol.
    pub const ALL: [Rule; 17] = [
        Rule::JournalFirst,
        Rule::WaitForVotes,
        Rule::WaitForHeld,
        Rule::LetGo,
        Rule::Inquiry,
        Rule::TakeBackUnsure,
        Rule::HoldEnds,
        Rule::GrantIdle,
        Rule::CatchUp,
        Rule::DecisionsCount,
        Rule::NumbersCount,
        Rule::TellOthers,
        Rule::NowAndThen,
        Rule::DiskAfterLoad,
        Rule::RollbackReachable,
        Rule::RollbackKept,
        Rule::AskedIsLost,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Rule::JournalFirst => "journal-first",
            Rule::WaitForVotes => "wait-for-votes",
            Rule::WaitForHeld => "wait-for-held",
            Rule::LetGo => "let-go",
            Rule::Inquiry => "inquiry",
            Rule::TakeBackUnsure => "take-back-unsure",
            Rule::HoldEnds => "hold-ends",
            Rule::GrantIdle => "grant-idle",
            Rule::CatchUp => "catch-up",
            Rule::DecisionsCount => "decisions-count",
            Rule::NumbersCount => "numbers-count",
            Rule::TellOthers => "tell-others",
            Rule::NowAndThen => "now-and-then",
            Rule::DiskAfterLoad => "disk-after-load",
            Rule::RollbackReachable => "rollback-reachable",
            Rule::RollbackKept => "rollback-kept",
            Rule::AskedIsLost => "asked-is-lost",
        }
    }

    /// What it says.
    pub fn text(self) -> &'static str {
        match self {
            Rule::JournalFirst => {
                "the decision to finish is on disk before the first is told of it"
            }
            Rule::WaitForVotes => "nobody is told to commit unless all members voted yes",
            Rule::WaitForHeld => "nothing is decided before all members are held",
            Rule::LetGo => "who is not yet held lets go when the coordinator is gone",
            Rule::Inquiry => "who is held asks the others before it gives the coordinator up",
            Rule::TakeBackUnsure => "who hears of no decision takes back",
            Rule::HoldEnds => {
                "nobody is held for ever: a timer, and the coordinator's death, end it"
            }
            Rule::GrantIdle => "an agent lets itself be reserved only when it is idle",
            Rule::CatchUp => "what others have and this node has not, it carries out by itself",
            Rule::DecisionsCount => {
                "catching up knows the decisions of coordinators too, not only what was done"
            }
            Rule::NumbersCount => {
                "the number of an operation is above those of decisions too, not only of what was done"
            }
            Rule::TellOthers => "when an operation ends on a node, the others compare as well",
            Rule::NowAndThen => "nodes compare also now and then, without a reason",
            Rule::DiskAfterLoad => "the disk is written when the new code is loaded, not before",
            Rule::RollbackReachable => {
                "the rollback after a failure is over those that can be reached, not over all members"
            }
            Rule::RollbackKept => {
                "the rollback after a failure is begun again until it is decided, also when its coordinator died"
            }
            Rule::AskedIsLost => {
                "the coordinator's node, once asked by who is held, does not decide to finish any more"
            }
        }
    }

    fn bit(self) -> u32 {
        1 << self as u8
    }
}

/// Which rules hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules(u32);

impl Default for Rules {
    /// The protocol.
    fn default() -> Self {
        Rules(Rule::ALL.iter().fold(0, |all, rule| all | rule.bit()))
            .without(Rule::RollbackReachable)
            .without(Rule::RollbackKept)
            .without(Rule::AskedIsLost)
    }
}

impl Rules {
    /// All of these but one.
    #[must_use]
    pub fn without(self, rule: Rule) -> Self {
        Rules(self.0 & !rule.bit())
    }

    /// All of these and one more.
    #[must_use]
    pub fn with(self, rule: Rule) -> Self {
        Rules(self.0 | rule.bit())
    }

    /// Whether it holds.
    pub fn has(self, rule: Rule) -> bool {
        self.0 & rule.bit() != 0
    }
}

/// How many faults of each kind there may be, at most three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A node crashes, and loses all but its disk.
    pub crashes: u8,
    /// A coordinator dies while its node goes on.
    pub deaths: u8,
    /// The connection of two nodes breaks, and any of what is under way is lost.
    pub cuts: u8,
    /// A vote is no, a conversion or a load fails.
    pub failures: u8,
    /// A hold ends, or an answer is given up, though nothing is wrong: only late.
    pub delays: u8,
}

/// What happens besides the one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Second {
    /// Nothing.
    #[default]
    None,
    /// A rollback by the same node, when the first was decided and failed somewhere.
    Rollback,
    /// Another apply, from node 1, at any time.
    Apply,
}

/// One thing to explore.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How many nodes, two to four.
    pub nodes: usize,
    /// What happens besides the one operation.
    pub second: Second,
    /// What can go wrong.
    pub faults: Faults,
    /// The protocol.
    pub rules: Rules,
    /// A node that crashes comes back with an empty disk.
    pub fresh_disks: bool,
    /// Also to be found: a decision that a member does not wait for any more, and a member that
    /// takes back what somebody it reaches knows to be decided. Late answers bring both about;
    /// catching up mends them.
    pub strict: bool,
    /// Where to stop.
    pub max_states: usize,
}

impl Config {
    /// One operation over so many nodes, by the protocol, where nothing goes wrong.
    pub fn new(nodes: usize) -> Self {
        Config {
            nodes,
            second: Second::None,
            faults: Faults::default(),
            rules: Rules::default(),
            fresh_disks: false,
            strict: false,
            max_states: 50_000_000,
        }
    }

    pub(crate) fn has(&self, rule: Rule) -> bool {
        self.rules.has(rule)
    }

    pub(crate) fn ops(&self) -> usize {
        if self.second == Second::None { 1 } else { 2 }
    }

    /// The node of an operation's coordinator.
    pub(crate) fn home(&self, op: usize) -> usize {
        usize::from(op == 1 && self.second == Second::Apply)
    }
}
