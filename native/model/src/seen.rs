//! All states found so far, in the order in which they were found, and whence.

use crate::bits::Packed;

const FREE: u32 = u32::MAX;

pub(crate) struct Seen {
    states: Vec<Packed>,
    parents: Vec<u32>,
    // Open addressing over indices into `states`: half the size of a map that owns its keys.
    slots: Vec<u32>,
}

impl Seen {
    pub(crate) fn new() -> Self {
        Seen { states: Vec::new(), parents: Vec::new(), slots: vec![FREE; 1 << 16] }
    }

    pub(crate) fn len(&self) -> usize {
        self.states.len()
    }

    pub(crate) fn get(&self, index: usize) -> Packed {
        self.states[index]
    }

    pub(crate) fn parent(&self, index: usize) -> Option<usize> {
        Some(self.parents[index]).filter(|&parent| parent != FREE).map(|parent| parent as usize)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.states.capacity() * size_of::<Packed>()
            + (self.parents.capacity() + self.slots.capacity()) * size_of::<u32>()
    }

    pub(crate) fn find(&self, state: &Packed) -> Option<usize> {
        let index = self.slots[self.slot(state)];
        (index != FREE).then_some(index as usize)
    }

    /// Its index, if it is new.
    pub(crate) fn insert(&mut self, state: Packed, parent: Option<usize>) -> Option<usize> {
        let slot = self.slot(&state);
        if self.slots[slot] != FREE {
            return None;
        }
        let index = self.states.len();
        self.slots[slot] = index as u32;
        self.states.push(state);
        self.parents.push(parent.map_or(FREE, |parent| parent as u32));
        if self.states.len() * 3 > self.slots.len() * 2 {
            self.grow();
        }
        Some(index)
    }

    fn grow(&mut self) {
        self.slots = vec![FREE; self.slots.len() * 2];
        for index in 0..self.states.len() {
            let slot = self.slot(&self.states[index]);
            self.slots[slot] = index as u32;
        }
    }

    fn slot(&self, state: &Packed) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash(state) as usize & mask;
        while self.slots[slot] != FREE && self.states[self.slots[slot] as usize] != *state {
            slot = (slot + 1) & mask;
        }
        slot
    }
}

fn hash(state: &Packed) -> u64 {
    let mixed = state.iter().fold(0x9e37_79b9_7f4a_7c15, |hash: u64, word| {
        (hash ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(31)
    });
    mixed ^ (mixed >> 29)
}
