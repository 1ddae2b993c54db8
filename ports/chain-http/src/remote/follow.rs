//! Reads each block as it becomes final, from one peer after another, and notifies those waiting for it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use piecework_api::ledger::BlocksQuery;
use piecework_ledger::TransactionId;
use piecework_model::{Digest, Rejection};
use tokio::time::{sleep, timeout};

use super::{
    Ledger,
    peers::{Peers, Trouble},
};
use piecework_chain::{ChainFailure, ChainStatus, Final, FinalBlock, wire};

pub(super) type Verdict = Result<Final, Rejection>;

/// A peer answers an empty page after this long; then the next one is asked, in case it is only this one that stands
/// still.
const POLL_MS: u32 = 5_000;
/// And what its answer may take beyond that.
const POLL_WITHIN: Duration = Duration::from_secs(10);
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Blocks kept in memory for those who follow the head.
const RECENT_MAX: usize = 128;
/// Executed transactions whose block is remembered, some 80 bytes each.
const EXECUTED_MAX: usize = 100_000;

/// The latest blocks, and which of them executed what.
#[derive(Default)]
pub(super) struct Recent {
    blocks: VecDeque<Arc<FinalBlock>>,
    executed: HashMap<TransactionId, u64>,
    order: VecDeque<TransactionId>,
}

impl Recent {
    pub(super) fn block(&self, height: u64) -> Option<Arc<FinalBlock>> {
        let first = self.blocks.front()?.height;
        let place = usize::try_from(height.checked_sub(first)?).ok()?;
        self.blocks.get(place).cloned()
    }

    pub(super) fn executed(&self, id: &TransactionId) -> Option<u64> {
        self.executed.get(id).copied()
    }

    fn push(&mut self, block: Arc<FinalBlock>) {
        for outcome in block.outcomes.iter().filter(|outcome| outcome.result.is_ok()) {
            if self.executed.insert(outcome.id, block.height).is_none() {
                self.order.push_back(outcome.id);
            }
        }
        while self.order.len() > EXECUTED_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.executed.remove(&oldest);
            }
        }
        self.blocks.push_back(block);
        if self.blocks.len() > RECENT_MAX {
            self.blocks.pop_front();
        }
    }
}

/// The blocks of a page, if they are what their digests cover and follow one another from `from` on.
pub(super) fn open(from: u64, page: Vec<wire::Block>) -> Result<Vec<Arc<FinalBlock>>, Trouble> {
    let mut blocks: Vec<Arc<FinalBlock>> = Vec::with_capacity(page.len());
    for block in page {
        let block = block.open().map_err(|tampered| Trouble::Other(tampered.to_string()))?;
        let due = blocks.last().map_or(from, |last| last.height + 1);
        let follows = blocks.last().is_none_or(|last| last.digest == block.parent);
        if block.height != due || !follows {
            return Err(Trouble::Other(format!("block {due} does not follow the one before")));
        }
        blocks.push(Arc::new(block));
    }
    Ok(blocks)
}

/// Where the ledger is now.
pub(super) async fn begin(peers: &Peers) -> Result<(ChainStatus, Recent), ChainFailure> {
    let nothing_yet = BlocksQuery {
        from: u64::MAX,
        count: Some(1),
        wait_ms: None,
    };
    let asked = peers.ask(|peer| async move { peer.page(&nothing_yet).await }).await;
    let page = asked.map_err(Trouble::into_failure)?;
    Ok((page.head.into(), Recent::default()))
}

/// Follows until the ledger is closed.
pub(super) async fn run(ledger: Arc<Ledger>) {
    let closed = ledger.closed.clone();
    tokio::select! {
        () = closed.cancelled() => {}
        () = follow(&ledger) => {}
    }
}

async fn follow(ledger: &Ledger) {
    loop {
        let (at, peer) = ledger.peers.current();
        let query = BlocksQuery {
            from: ledger.height() + 1,
            count: None,
            wait_ms: Some(POLL_MS),
        };
        let read = match timeout(POLL_WITHIN, peer.page(&query)).await {
            Ok(Ok(page)) => ledger.take(page),
            Ok(Err(trouble)) => Err(trouble),
            Err(_) => Err(Trouble::Other(format!("{} does not answer", peer.url()))),
        };
        match read {
            Ok(0) => drop(ledger.peers.turn_from(at)),
            Ok(_) => {}
            Err(trouble) => {
                if ledger.peers.turn_from(at) {
                    tracing::warn!(peer = peer.url(), %trouble, "switched to another peer of the ledger");
                }
                ledger.moved.notify_waiters();
                sleep(AGAIN_AFTER).await;
            }
        }
    }
}

impl Ledger {
    /// How many blocks were new.
    fn take(&self, page: wire::Page) -> Result<usize, Trouble> {
        let head = *self.head.borrow();
        let blocks = open(head.height + 1, page.blocks)?;
        // Before the first block was seen, the digest is a peer's word.
        if blocks.first().is_some_and(|first| !follows(&head.block, first)) {
            return Err(Trouble::Other(
                "its history differs from what was seen before".to_owned(),
            ));
        }
        for block in &blocks {
            self.publish(block.clone(), &page.head);
        }
        Ok(blocks.len())
    }

    fn publish(&self, block: Arc<FinalBlock>, seen: &wire::Head) {
        self.recent.lock().push(block.clone());
        self.head.send_replace(ChainStatus {
            network: self.network,
            height: block.height,
            block: block.digest,
            state_root: block.state_root,
            last_block_at_ms: block.timestamp_ms,
            peers: seen.peers,
            queued: seen.queued,
        });
        for (index, outcome) in block.outcomes.iter().enumerate() {
            let waiting = self.waiters.lock().remove(&outcome.id);
            let verdict = u32::try_from(index).ok().and_then(|index| block.result_of(index));
            for (waiter, verdict) in waiting.into_iter().flatten().zip(std::iter::repeat(verdict)) {
                if let Some(verdict) = verdict {
                    // A waiter that has gone does not care.
                    let _ = waiter.send(verdict);
                }
            }
        }
    }
}

fn follows(head: &Digest, first: &FinalBlock) -> bool {
    // A peer that has just begun shows no digest yet.
    *head == Digest::default() || first.parent == *head
}
