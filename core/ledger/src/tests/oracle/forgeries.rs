//! Cheats in random histories: whatever the state, they change nothing.

use piecework_model::{Domain, LeaseId, Seal};
use proptest::prelude::*;

use super::{
    super::{
        accounts::transfer,
        claims::{claim_of, other_receipt, receipt, seal_batch, seal_claimed_acks},
        world::*,
    },
    Oracle,
};
use crate::*;

/// Jobs of forgeries: sequences that honest parties do not use.
const FORGED_SEQUENCE: u64 = 1_000;

#[derive(Clone, Copy, Debug)]
pub enum Forgery {
    TransferWithOwnKey,
    TransferWithOwnersKeyNamed,
    NegativeTransfer,
    SettleByStranger,
    SettleWithPayersKeyNamed,
    ReceiptsSealedByThief,
    ReceiptsOfAnotherNetwork,
    AcksOfNoMailbox,
    AcksSealedByThief,
    PriceAboveTicket,
    PriceAboveCaps,
    ClaimOfUnsealedTickets,
    ClaimAboveTicket,
    ClaimWithForgedAck,
    ChallengeByThePayersWord,
}

pub fn forgery() -> impl Strategy<Value = Forgery> {
    prop::sample::select(vec![
        Forgery::TransferWithOwnKey,
        Forgery::TransferWithOwnersKeyNamed,
        Forgery::NegativeTransfer,
        Forgery::SettleByStranger,
        Forgery::SettleWithPayersKeyNamed,
        Forgery::ReceiptsSealedByThief,
        Forgery::ReceiptsOfAnotherNetwork,
        Forgery::AcksOfNoMailbox,
        Forgery::AcksSealedByThief,
        Forgery::PriceAboveTicket,
        Forgery::PriceAboveCaps,
        Forgery::ClaimOfUnsealedTickets,
        Forgery::ClaimAboveTicket,
        Forgery::ClaimWithForgedAck,
        Forgery::ChallengeByThePayersWord,
    ])
}

impl Oracle {
    /// A cheat changes nothing, on whatever lease, in whatever state.
    pub fn forge(&mut self, lease: u8, forgery: Forgery) {
        let lease = self.leases[self.nth(lease)].id;
        let signed = self.forged(lease, forgery);
        let before = self.world.state.clone();
        self.world.send(signed).expect_err("a cheat must be refused");
        assert_eq!(self.world.state, before);
    }

    fn forged(&self, lease: LeaseId, forgery: Forgery) -> SignedTransaction {
        let world = &self.world;
        if let Some(signed) = self.forged_claim(lease, forgery) {
            return signed;
        }
        let jobs = [job(FORGED_SEQUENCE, 5)];
        let mut settle = settlement(&world.network, lease, Who::Thief, &jobs);
        let metered = settle.jobs[0].metered.as_mut().unwrap();
        match forgery {
            Forgery::TransferWithOwnKey | Forgery::TransferWithOwnersKeyNamed => {
                let mut signed = world.sign(Who::Developer, transfer(Who::Thief, 1));
                signed.key = Who::Thief.public();
                signed.signature = Who::Thief
                    .key()
                    .sign(Domain::Transaction, &world.network, &signed.transaction);
                if matches!(forgery, Forgery::TransferWithOwnersKeyNamed) {
                    signed.key = Who::Developer.public();
                }
                return signed;
            }
            Forgery::NegativeTransfer => return world.sign(Who::Thief, transfer(Who::Developer, -1)),
            Forgery::SettleByStranger => {
                settle.acks = Some(seal_acks(&world.network, &settle, &Who::Mailbox.key(), &jobs));
                return world.sign(Who::Thief, Action::Settle(settle));
            }
            Forgery::SettleWithPayersKeyNamed => {
                let mut signed = world.sign(Who::Thief, Action::Settle(settle));
                signed.key = Who::Controller.public();
                return signed;
            }
            Forgery::ReceiptsSealedByThief => {
                settle.provider = Who::Provider.id();
                settle.receipts = seal_receipts(&world.network, &settle, &Who::Thief.key());
            }
            Forgery::ReceiptsOfAnotherNetwork => {
                let mut other = world.network;
                other.0[0] ^= 1;
                let lane = (settle.lease, settle.provider);
                let leaves = receipt_leaves(&settle);
                let seal = Seal::sign(&Who::Thief.key(), Domain::Receipts, &other, lane, &leaves);
                settle.receipts = Some(seal.signature);
            }
            Forgery::AcksOfNoMailbox => {
                settle.acks = Some(seal_acks(&world.network, &settle, &Who::Thief.key(), &jobs));
            }
            Forgery::AcksSealedByThief => {
                let (_, signature) = seal_acks(&world.network, &settle, &Who::Thief.key(), &jobs);
                settle.acks = Some((Who::Mailbox.public(), signature));
            }
            Forgery::PriceAboveTicket => settle.jobs[0].price_max_ucr = 4,
            Forgery::ClaimOfUnsealedTickets
            | Forgery::ClaimAboveTicket
            | Forgery::ClaimWithForgedAck
            | Forgery::ChallengeByThePayersWord => unreachable!("made by forged_claim"),
            Forgery::PriceAboveCaps => {
                metered.counters.cpu_us = 4;
                settle.receipts = seal_receipts(&world.network, &settle, &Who::Thief.key());
            }
        }
        world.sign(Who::Controller, Action::Settle(settle))
    }

    fn forged_claim(&self, lease: LeaseId, forgery: Forgery) -> Option<SignedTransaction> {
        let world = &self.world;
        let wrong = job(FORGED_SEQUENCE, 5);
        let mut claim = claim_of(world, lease, Who::Provider, &[&[wrong]]);
        match forgery {
            Forgery::ClaimOfUnsealedTickets => {
                seal_batch(
                    world,
                    &mut claim.batches[0],
                    (lease, Who::Provider),
                    &Who::Provider.key(),
                );
            }
            Forgery::ClaimAboveTicket => {
                claim = claim_of(world, lease, Who::Provider, &[&[wrong.at_most(4)]]);
            }
            Forgery::ClaimWithForgedAck => seal_claimed_acks(world, &mut claim, Who::Provider, &Who::Thief.key()),
            Forgery::ChallengeByThePayersWord => {
                let claimed = self.some_claim(lease).unwrap_or((Who::Provider, FORGED_SEQUENCE));
                let made_up = receipt(lease, claimed.0, &job(claimed.1, 1));
                let challenge = other_receipt(world, (lease, claimed.0), claimed.1, made_up, Who::Controller);
                return Some(world.sign(Who::Controller, Action::Challenge(challenge)));
            }
            Forgery::TransferWithOwnKey
            | Forgery::TransferWithOwnersKeyNamed
            | Forgery::NegativeTransfer
            | Forgery::SettleByStranger
            | Forgery::SettleWithPayersKeyNamed
            | Forgery::ReceiptsSealedByThief
            | Forgery::ReceiptsOfAnotherNetwork
            | Forgery::AcksOfNoMailbox
            | Forgery::AcksSealedByThief
            | Forgery::PriceAboveTicket
            | Forgery::PriceAboveCaps => return None,
        }
        Some(world.sign(Who::Provider, Action::Claim(claim)))
    }
}
