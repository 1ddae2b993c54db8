//! Who may ask for what: signatures, nonces, and the papers that jobs are paid by.

use crate::{
    books::{Books, Checked, Lease, ensure},
    format::*,
    trees::{leaf, root, signed, tagged},
};

/// What a transaction itself says of one job.
pub struct Paper {
    pub price_ucr: u64,
    pub price_max_ucr: u64,
}

pub fn account_id(key: &Key) -> Id {
    short(tagged("piecework 2026 account id", key))
}

pub fn lease_id(developer: &Id, nonce: u64) -> Id {
    short(tagged("piecework 2026 lease id", &(developer, nonce)))
}

fn short(hash: Hash) -> Id {
    let mut id = [0; 20];
    id.copy_from_slice(&hash[..20]);
    id
}

/// The receipt's price of a job that this transaction brings, and its ticket's.
pub fn paper(from: &Signed, place: &Place) -> Option<Paper> {
    let of = |metered: &Metered, price_max_ucr| Paper {
        price_ucr: metered.price_ucr,
        price_max_ucr,
    };
    match &from.transaction.action {
        Action::Settle(settle) if (settle.lease, settle.provider) == (place.lease, place.provider) => {
            let at = settle.jobs.binary_search_by_key(&place.sequence, |job| job.sequence);
            let job = &settle.jobs[at.ok()?];
            let metered = job.metered.as_ref()?;
            (job.job == place.job).then(|| of(metered, job.price_max_ucr))
        }
        Action::Claim { batches, .. } => batches.iter().flat_map(claimed).find_map(|job| {
            let ticket = &job.ticket;
            let own = (ticket.lease, ticket.provider, ticket.sequence, ticket.job)
                == (place.lease, place.provider, place.sequence, place.job);
            own.then(|| of(&job.metered, ticket.price_max_ucr))
        }),
        _ => None,
    }
}

fn claimed(batch: &TicketBatch) -> impl Iterator<Item = &ClaimedJob> {
    batch.tickets.iter().filter_map(|ticket| match ticket {
        BatchTicket::Claimed(job) => Some(job),
        BatchTicket::Other(_) => None,
    })
}

impl Books {
    /// The signature is good, and of somebody who may ask for this; what moves with a nonce comes once and in order.
    pub fn authorize(&mut self, from: &Signed) -> Checked {
        let transaction = &from.transaction;
        let good = signed(&from.key, "transaction", &self.network, transaction, &from.signature);
        ensure(good, "a transaction's signature is invalid")?;
        match &transaction.action {
            Action::Register { .. } => {
                let own = account_id(&from.key) == transaction.sender && transaction.nonce == 0;
                ensure(own, "an id does not match its key")
            }
            Action::ExpireLease { .. } | Action::PayClaims { .. } => Ok(()),
            Action::Settle(Settle { lease, .. })
            | Action::OpenJobs { lease, .. }
            | Action::Challenge { lease, .. }
            | Action::ReleaseJobs { lease, .. }
            | Action::ReportMismatch { lease, .. } => {
                let pays = |lease: &Lease| lease.payers.contains(&from.key);
                let own = self.leases.get(lease).is_some_and(pays);
                ensure(own, "a payer is not a payer of the lease")
            }
            _ => {
                let own = self.account(&transaction.sender)?;
                ensure(own.key == from.key, "a transaction is not signed by its sender")?;
                ensure(
                    own.nonce == transaction.nonce,
                    "a transaction appears twice or too early",
                )?;
                own.nonce += 1;
                Ok(())
            }
        }
    }

    /// What others signed for a registration, a settlement, a claim.
    pub fn check_papers(&self, from: &Signed) -> Checked {
        match &from.transaction.action {
            Action::Register { sponsor, owner, .. } => {
                let id = &from.transaction.sender;
                if let Some((sponsor, limit, signature)) = sponsor {
                    self.check_word(sponsor, "sponsor", &(id, limit), signature)?;
                }
                match owner {
                    Some((owner, signature)) => self.check_word(owner, "owner", id, signature),
                    None => Ok(()),
                }
            }
            Action::Settle(settle) if settle.jobs.iter().any(|job| job.metered.is_some()) => {
                self.check_receipts(settle)
            }
            Action::Claim { lease, batches, .. } => batches
                .iter()
                .try_for_each(|batch| self.check_tickets(*lease, from.transaction.sender, batch)),
            _ => Ok(()),
        }
    }

    fn check_word<T: borsh::BorshSerialize>(&self, by: &Id, domain: &str, word: &T, signature: &Signature) -> Checked {
        let key = self.accounts.get(by).map(|account| account.key);
        let holds = key.is_some_and(|key| signed(&key, domain, &self.network, word, signature));
        ensure(holds, &format!("the {domain} has not signed"))
    }

    /// The provider sealed all receipts of the settlement. In a claim its signature of the transaction stands for them.
    fn check_receipts(&self, settle: &Settle) -> Checked {
        let Some(seal) = settle.receipts else {
            return Err("the receipts are not sealed".to_owned());
        };
        let receipts = settle.jobs.iter().filter_map(|job| receipt(settle, job));
        let leaves: Vec<Hash> = receipts.map(|receipt| leaf(&receipt)).collect();
        let fields = (settle.lease, settle.provider, leaves.len() as u32, root(leaves));
        self.check_word(&settle.provider, "receipts", &fields, &seal)
    }

    /// A payer of the lease, or one that it had, sealed the tickets. For how long a former one counts is not looked at.
    fn check_tickets(&self, lease: Id, provider: Id, batch: &TicketBatch) -> Checked {
        let known = self.leases.get(&lease).ok_or("a lease does not exist")?;
        let pays = known.payers.contains(&batch.payer) || known.former_payers.contains(&batch.payer);
        ensure(pays, "a ticket's payer is not a payer of the lease")?;
        let leaves = batch.tickets.iter().map(|ticket| match ticket {
            BatchTicket::Claimed(job) => leaf(&job.ticket),
            BatchTicket::Other(leaf) => *leaf,
        });
        let leaves: Vec<Hash> = leaves.collect();
        let fields = (lease, provider, leaves.len() as u32, root(leaves));
        let sealed = signed(&batch.payer, "tickets", &self.network, &fields, &batch.signature);
        ensure(sealed, "the payer has not sealed the tickets")
    }
}

fn receipt(settle: &Settle, job: &SettledJob) -> Option<Receipt> {
    let metered = job.metered.as_ref()?;
    Some(Receipt {
        lease: settle.lease,
        provider: settle.provider,
        sequence: job.sequence,
        job: job.job,
        code: *settle.codes.get(usize::from(job.code))?,
        input: job.input,
        metered_output: metered.output,
        status: metered.status,
        counters: metered.counters,
        price_ucr: metered.price_ucr,
        duration_us: metered.duration_us,
    })
}
