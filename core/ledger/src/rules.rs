//! The number of the rules that a block is executed by, and the height from which the peers have voted for other ones.
//!
//! ```text
//! rules 1 from the genesis on -- SetRules{2, from_height} carried --> rules 1 up to from_height - 1, rules 2 from there on
//! ```
//! A block's rules follow from the state before it and its height alone. A build that does not know them must not execute
//! the block: it would give another state than the others' builds do.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::state::{Key, Value, View};

/// The rules that every ledger begins with. Neither the state nor the header of a block names them.
pub const FIRST_RULES: u32 = 1;

/// The highest rules that this build executes; it executes all below as well.
///
/// Rules 2 are rules 1 with another number: no contract differs. They are there so that a network can go through a switch,
/// with all that belongs to it, before the first one that matters. The number shows in the headers of their blocks.
pub const RULES: u32 = 2;

/// Which rules are in force. No value in the state means [`FIRST_RULES`] for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Rules {
    /// Up to `next.from_height - 1` where others wait.
    pub now: u32,
    /// Stays here after its height has come, until another switch is carried: ask [`Rules::at`].
    pub next: Option<NextRules>,
}

/// Other rules from a height on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct NextRules {
    /// The first block that is executed by them.
    pub from_height: u64,
    pub rules: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            now: FIRST_RULES,
            next: None,
        }
    }
}

impl Rules {
    /// Those of the block at `height`, as far as this state knows: right up to the end of the epoch after the one that
    /// this state is of.
    pub fn at(&self, height: u64) -> u32 {
        match self.next {
            Some(next) if height >= next.from_height => next.rules,
            Some(_) | None => self.now,
        }
    }

    /// The switch to another number that waits for its height, seen from the block at `height`.
    pub fn pending(&self, height: u64) -> Option<NextRules> {
        self.next
            .filter(|next| height < next.from_height && next.rules != self.now)
    }
}

/// The rules in the state that `view` reads.
pub fn rules(view: &dyn View) -> Rules {
    match view.get(&Key::Rules) {
        Some(Value::Rules(rules)) => rules,
        Some(other) => unreachable!("the state holds {other:?} under the key of the rules"),
        None => Rules::default(),
    }
}
