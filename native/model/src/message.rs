//! What coordinators and agents say to each other.

/// A message between a coordinator and an agent. Each is sent once at most, so that what is under
/// way is a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Message {
    /// To the agent, as are those up to `Abort`.
    Reserve,
    /// Vote.
    Prepare,
    /// Convert and stand still.
    Commit,
    /// Load.
    Finish,
    /// Resume as before.
    TakeBack,
    /// Let go.
    Abort,
    /// To the coordinator, as are those that follow.
    Granted,
    /// Another operation goes on.
    Busy,
    /// A vote.
    Yes,
    /// A vote.
    No,
    /// Converted, standing still.
    Held,
    /// Not converted, gone back.
    Failed,
    /// Loaded and written.
    Ended,
    /// Told to finish, and has not.
    NotEnded,
}

/// All messages.
pub const MESSAGES: [Message; 14] = [
    Message::Reserve,
    Message::Prepare,
    Message::Commit,
    Message::Finish,
    Message::TakeBack,
    Message::Abort,
    Message::Granted,
    Message::Busy,
    Message::Yes,
    Message::No,
    Message::Held,
    Message::Failed,
    Message::Ended,
    Message::NotEnded,
];

impl Message {
    pub(crate) fn bit(self) -> u16 {
        1 << self as u8
    }

    pub(crate) fn to_agent(self) -> bool {
        self as u8 <= Message::Abort as u8
    }
}

/// Messages to agents, as a set.
pub(crate) const TO_AGENT: u16 = 0b11_1111;
