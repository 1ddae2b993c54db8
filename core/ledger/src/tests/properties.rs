//! What holds in every history: the oracle's reckoning, any order of settlements, and foreign bytes.

use borsh::BorshDeserialize;
use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestError, TestRng, TestRunner},
};

use super::{
    accounts::{owned, rotation, sponsored, transfer},
    claims,
    committee::{add_peer, new_params, pay_peers, propose, vote},
    jobs,
    leases::{close, delegate, expire, top_up},
    lending::{cover, set_limit},
    mismatches,
    offers::offer,
    oracle::{Op, Oracle, ops},
    world::*,
};
use crate::*;

/// Histories for each run of the oracle: a few seconds. The mutants' test plays as many: what goes wrong there must go
/// right here.
pub const HISTORIES: u32 = 300;

/// Plays random histories, always the same ones; the first that goes wrong, if any.
pub fn play_histories(histories: u32, max_shrink_iters: u32) -> Result<(), TestError<Vec<Op>>> {
    let config = ProptestConfig {
        cases: histories,
        max_shrink_iters,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    TestRunner::new_with_rng(config, rng).run(&ops(), |ops| {
        Oracle::play(&ops);
        Ok(())
    })
}

#[test]
fn every_history_comes_to_what_its_papers_say() {
    if let Err(failed) = play_histories(HISTORIES, 500) {
        panic!("{failed}");
    }
}

/// Papers of ten jobs, each in one or two settlements, some of them twice, in any order and any batches.
fn shuffled_papers() -> impl Strategy<Value = Vec<Job>> {
    prop::collection::vec((0u8..4, any::<bool>()), 10).prop_flat_map(|cuts| {
        let mut papers = Vec::new();
        for (sequence, (cut, twice)) in (0u64..).zip(cuts) {
            let job = job(sequence, 11 + sequence * 13 % 40).at_most(80);
            let parts = match cut {
                0 => vec![job],
                1 => vec![job.only_receipt(), job],
                2 => vec![job.only_ack(), job],
                _ => vec![job.only_receipt(), job.only_ack()],
            };
            papers.extend(if twice { [parts.clone(), parts].concat() } else { parts });
        }
        Just(papers).prop_shuffle()
    })
}

fn settled_in_blocks(papers: &[Job], batch: usize, block: usize) -> State {
    let mut world = World::new();
    let lease = world.open_lease(10_000);
    let batches: Vec<SignedTransaction> = papers
        .chunks(batch)
        .map(|jobs| {
            let mut jobs = jobs.to_vec();
            jobs.sort_by_key(|job| job.sequence);
            jobs.dedup_by(|next, kept| {
                let same = next.sequence == kept.sequence;
                if same {
                    (kept.receipt, kept.ack) = (kept.receipt | next.receipt, kept.ack | next.ack);
                }
                same
            });
            world.sign(Who::Controller, Action::Settle(world.settlement(lease, &jobs)))
        })
        .collect();
    for transactions in batches.chunks(block) {
        assert!(world.block(transactions).iter().all(Result::is_ok));
    }
    world.state
}

/// Of transactions that are altered.
const SEEDS: usize = 23;

/// Seeds of transactions of every kind, to be altered.
fn seeds(world: &World, lease: piecework_model::LeaseId) -> Vec<(Who, Action)> {
    let settle = world.settlement(lease, &[job(3, 10), job(4, 10).only_receipt(), job(6, 10)]);
    let claim = claims::claim_of(world, lease, Who::Provider, &[&[job(3, 10)], &[job(8, 5), job(9, 5)]]);
    let add = add_peer(world, 9, Who::Developer);
    vec![
        (Who::Stranger, Action::Register(sponsored(world, Who::Thief, 100))),
        (Who::Stranger, Action::Register(owned(world, Who::Thief))),
        (
            Who::Thief,
            Action::RotateKey(rotation(world, Who::Thief, Who::Stranger)),
        ),
        (Who::Thief, transfer(Who::Provider, 100)),
        (Who::Provider, Action::PutOffer(offer(100))),
        (Who::Provider, Action::DropOffer(DropOffer {})),
        (Who::Developer, Action::OpenLease(lease_terms(500))),
        (Who::Developer, top_up(lease, 500)),
        (Who::Developer, delegate(lease, Who::Mailbox, true)),
        (Who::Developer, close(lease)),
        (Who::Stranger, expire(lease)),
        (Who::Controller, jobs::open(lease, &[job(1, 10), job(3, 10)])),
        (Who::Controller, Action::Settle(settle)),
        (Who::Provider, Action::Claim(claim)),
        (Who::Stranger, claims::pay(lease, &[3, 8])),
        (
            Who::Controller,
            Action::Challenge(claims::replaced(world, lease, 8, job(1, 5))),
        ),
        (Who::Controller, mismatches::report(world, lease, |_, _| ())),
        (Who::Thief, set_limit(Who::Stranger, 50)),
        (Who::Thief, cover(Who::Stranger, 5)),
        (Who::Controller, propose(&add)),
        (
            Who::Controller,
            propose(&new_params(|params| params.commission_ppm = 0)),
        ),
        (Who::Controller, vote(Who::Controller, &add)),
        (Who::Thief, pay_peers()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn replays_batching_and_order_of_settlements_give_the_same_balances(
        papers in shuffled_papers(),
        batch in 1usize..8,
        block in 1usize..4,
    ) {
        let jobs: Vec<Job> = (0..10).map(|sequence| job(sequence, 11 + sequence * 13 % 40).at_most(80)).collect();
        prop_assert_eq!(settled_in_blocks(&papers, batch, block), settled_in_blocks(&jobs, 10, 1));
    }

    /// Bytes of valid transactions altered and signed again: nothing panics (soundness is asserted in every block).
    #[test]
    fn altered_transactions_with_good_signatures_never_break_the_ledger(
        order in Just((0..SEEDS).collect::<Vec<usize>>()).prop_shuffle(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), SEEDS),
    ) {
        let mut world = World::new();
        let lease = world.open_lease(10_000);
        world.settle(lease, &[job(3, 10).only_receipt()]).unwrap();
        for (seed, (at, value)) in order.into_iter().zip(flips) {
            let mut seeds = seeds(&world, lease);
            prop_assert_eq!(seeds.len(), SEEDS);
            let (who, action) = seeds.swap_remove(seed);
            let mut bytes = borsh::to_vec(&action).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = value;
            if let Ok(altered) = Action::try_from_slice(&bytes) {
                world.act(who, altered).ok();
            }
            prop_assert_eq!(world.supply(), GRANT.0 * 6);
        }
    }
    /// Bytes of anybody's: they decode to what encodes to them, or are refused; nothing panics, and no one byte is lost.
    #[test]
    fn arbitrary_bytes_decode_to_what_encodes_to_them_or_are_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        tag in 0u8..24,
    ) {
        let tagged = [&[tag], &bytes[..]].concat();
        round_trip::<SignedTransaction>(&bytes)?;
        round_trip::<Action>(&tagged)?;
        round_trip::<Key>(&tagged)?;
        round_trip::<crate::Value>(&tagged)?;
        round_trip::<Event>(&tagged)?;
        round_trip::<Genesis>(&bytes)?;
    }
}

fn round_trip<T: BorshDeserialize + borsh::BorshSerialize>(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(value) = T::try_from_slice(bytes) {
        prop_assert_eq!(borsh::to_vec(&value).unwrap(), bytes);
    }
    Ok(())
}
