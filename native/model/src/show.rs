//! States in words.

use std::fmt;

use crate::rules::Config;
use crate::state::{MAX_OPS, Node, Phase, Stack, State};

impl State {
    /// The nodes in one line.
    pub fn describe(&self, config: &Config) -> String {
        let nodes = self.nodes.iter().take(config.nodes).enumerate();
        let lines: Vec<String> = nodes.map(|(index, node)| format!("{index}: {node}")).collect();
        lines.join(" | ")
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.up, self.phase) {
            (false, _) => write!(f, "down")?,
            (true, Phase::Idle) => write!(f, "idle")?,
            (true, Phase::CatchingUp | Phase::CaughtUp) => write!(f, "{:?}", self.phase)?,
            (true, phase) => write!(f, "{phase:?} {}", name(usize::from(self.op)))?,
        }
        write!(
            f,
            ", runs {} disk {} log {}",
            patches(self.memory),
            patches(self.disk),
            ops(self.log)
        )?;
        if self.decisions != 0 {
            write!(f, " decided {}", ops(self.decisions))?;
        }
        Ok(())
    }
}

fn patches(stack: Stack) -> String {
    match (stack & 3, stack >> 2) {
        (0, _) => "-".to_string(),
        (low, 0) => name(low as usize - 1).to_string(),
        (low, high) => format!("{}{}", name(low as usize - 1), name(high as usize - 1)),
    }
}

fn ops(set: u8) -> String {
    let names: String = (0..MAX_OPS).filter(|op| set & (1 << op) != 0).map(name).collect();
    if names.is_empty() { "-".to_string() } else { names }
}

/// What an operation is called.
pub(crate) fn name(op: usize) -> char {
    if op == 0 { 'A' } else { 'B' }
}
