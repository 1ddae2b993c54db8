//! Blocks as the HTTP interface shows them.

use jiff::Timestamp;
use piecework_api::ledger::BlockView;

use crate::FinalBlock;

impl From<&FinalBlock> for BlockView {
    fn from(block: &FinalBlock) -> Self {
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let rejected = block.outcomes.iter().filter(|outcome| outcome.result.is_err()).count();
        let proposed_ms = i64::try_from(block.timestamp_ms).ok().filter(|ms| *ms > 0);
        Self {
            height: block.height,
            digest: block.digest,
            parent: block.parent,
            state_root: block.state_root,
            proposed_at: proposed_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()),
            proposer: None,
            transactions: count(block.transactions.len()),
            rejected: count(rejected),
        }
    }
}
