//! Whose an instance is: owners never share a process, and each keeps a bounded share of what is idle.

use std::{collections::HashMap, sync::Arc, time::Instant};

use piecework_model::AccountId;
use piecework_queue::{Order, Work};

use super::{Idle, Key, Pool};

/// Idle instances of one owner: more than its calls of a moment need, and too few to crowd out others'.
const IDLE_OF_AN_OWNER_MAX: usize = 64;

/// The order with an owner: over a link, the lease stands for the developer.
pub(crate) fn with_owner(mut order: Order) -> Order {
    if order.work.owner.is_none() {
        Arc::make_mut(&mut order.work).owner = Some(AccountId(order.ticket.lease.0));
    }
    order
}

/// Where only the function is known, it shares a process with no other.
pub(crate) fn owner_of(work: &Work) -> AccountId {
    work.owner.unwrap_or_else(|| {
        let function = work.function.0;
        let mut bytes = [0; 20];
        bytes[..function.len()].copy_from_slice(&function);
        AccountId(bytes)
    })
}

/// The longest idle instances of each owner beyond its share, to be dropped.
pub(super) fn over_share(pools: &HashMap<Key, Arc<Pool>>) -> Vec<Idle> {
    let mut owners: HashMap<AccountId, Vec<Instant>> = HashMap::new();
    for pool in pools.values() {
        for idle in pool.idle.lock().iter() {
            owners.entry(idle.owner).or_default().push(idle.since);
        }
    }
    let before: HashMap<AccountId, Instant> = owners
        .into_iter()
        .filter_map(|(owner, mut since)| {
            since.sort_unstable_by(|one, other| other.cmp(one));
            Some((owner, *since.get(IDLE_OF_AN_OWNER_MAX)?))
        })
        .collect();
    let mut dropped = Vec::new();
    for pool in pools.values().filter(|_| !before.is_empty()) {
        let goes = |idle: &mut Idle| before.get(&idle.owner).is_some_and(|before| idle.since <= *before);
        dropped.extend(pool.idle.lock().extract_if(.., goes));
    }
    dropped
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use piecework_model::FunctionId;
    use piecework_sandbox::{Call, Finished, Instance};

    use super::*;
    use crate::memory::Memory;

    struct Still;

    #[async_trait::async_trait]
    impl Instance for Still {
        async fn call(&mut self, _: Call) -> Finished {
            unreachable!("nobody calls")
        }

        fn memory_bytes(&self) -> u64 {
            1
        }
    }

    #[test]
    fn an_owner_keeps_so_many_idle_instances_and_others_keep_theirs() {
        let now = Instant::now();
        let memory = Memory::new(1 << 20);
        let idle = |owner: u8, age: usize| Idle {
            owner: AccountId([owner; 20]),
            instance: Box::new(Still),
            since: now - Duration::from_secs(age as u64),
            reserved: memory.count(1),
        };
        let pools: HashMap<Key, Arc<Pool>> = [1, 2]
            .map(|version| ((FunctionId([1; 12]), version), Pool::new(&crate::orders::order(1).work)))
            .into();
        let keys: Vec<Key> = pools.keys().copied().collect();
        for age in 0..IDLE_OF_AN_OWNER_MAX + 10 {
            pools[&keys[age % 2]].idle.lock().push(idle(1, age));
        }
        pools[&keys[0]].idle.lock().push(idle(2, 1_000));
        let dropped = over_share(&pools);
        assert_eq!(dropped.len(), 10);
        let least = now - Duration::from_secs(IDLE_OF_AN_OWNER_MAX as u64);
        assert!(
            dropped
                .iter()
                .all(|idle| idle.owner == AccountId([1; 20]) && idle.since <= least)
        );
        assert!(over_share(&pools).is_empty(), "the rest is its share");
    }
}
