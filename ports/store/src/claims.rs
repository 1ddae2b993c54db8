//! Idempotency keys that are in use and not in the tables yet.

use std::collections::HashMap;

use piecework_model::{AccountId, Digest, FunctionId, JobId};

use crate::{Accepted, Idempotency};

/// How long a key is remembered.
pub(crate) const KEPT_MS: u64 = 24 * 3_600_000;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    account: AccountId,
    function: FunctionId,
    key: String,
}

struct Claim {
    request: Digest,
    job: JobId,
    /// The position after the journal entry that made it durable.
    end: Option<u64>,
}

#[derive(Default)]
pub(crate) struct Claims {
    claims: HashMap<Key, Claim>,
    /// Raised whenever claims move into the tables: an earlier look there is out of date then.
    generation: u64,
}

fn key_of(function: FunctionId, idempotency: &Idempotency) -> Key {
    Key {
        account: idempotency.account,
        function,
        key: idempotency.key.clone(),
    }
}

/// What a key that is known already means for a request.
pub(crate) fn judge(known: (Digest, JobId), request: &Digest) -> Accepted {
    let (known_request, job) = known;
    if known_request == *request {
        Accepted::Existing(job)
    } else {
        Accepted::IdempotencyConflict
    }
}

impl Claims {
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Claims a key unless it is claimed.
    pub(crate) fn claim(&mut self, function: FunctionId, idempotency: &Idempotency, job: JobId) -> Accepted {
        let key = key_of(function, idempotency);
        if let Some(claim) = self.claims.get(&key) {
            return judge((claim.request, claim.job), &idempotency.request);
        }
        let claim = Claim {
            request: idempotency.request,
            job,
            end: None,
        };
        self.claims.insert(key, claim);
        Accepted::New
    }

    /// The claim is in the journal now.
    pub(crate) fn journaled(&mut self, function: FunctionId, idempotency: &Idempotency, job: JobId, end: u64) {
        let claim = Claim {
            request: idempotency.request,
            job,
            end: Some(end),
        };
        self.claims.insert(key_of(function, idempotency), claim);
    }

    /// Gives a key back if this job has it and it is not in the journal.
    pub(crate) fn release(&mut self, function: FunctionId, idempotency: &Idempotency, job: JobId) {
        let key = key_of(function, idempotency);
        if self
            .claims
            .get(&key)
            .is_some_and(|claim| claim.job == job && claim.end.is_none())
        {
            self.claims.remove(&key);
        }
    }

    /// Forgets what the tables hold now, and claims of jobs created before `oldest_ms` that never ended.
    pub(crate) fn forget(&mut self, filed_until: u64, oldest_ms: u64) {
        self.claims.retain(|_, claim| match claim.end {
            Some(end) => end > filed_until,
            None => claim.job.created_at_ms() >= oldest_ms,
        });
        self.generation += 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }
}
