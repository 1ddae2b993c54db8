//! Exports of real peers: both verifiers take them, and neither takes what colluding peers would sign instead.

#![allow(clippy::unwrap_used)]

#[path = "../../../ports/chain-node/tests/node/network/mod.rs"]
mod network;
mod story;

use std::{path::Path, time::Duration};

use ed25519_dalek::{Signer as _, SigningKey};
use futures::future::join_all;
use network::*;
use piecework_chain::{Chain, Node, export};
use piecework_chain_node::{Options, replica, start};
use piecework_ledger::{Action, Change, Event, Genesis, Outcome, Propose, SetRules, SignedTransaction};
use piecework_loopback::free_addresses;
use piecework_model::{Code, Credits, Digest, NetworkId};
use piecework_proof::{
    Checker, EXPORT_MAGIC, ExportBlock, Frame, Header, ReadFailure, Record, Verified, outcomes_root, read_frames,
    transactions_root,
};
use piecework_verifier::{Checked, check};
use story::Story;

async fn exported(chain: &dyn Chain, genesis: &Genesis) -> Vec<u8> {
    let mut bytes = Vec::new();
    export(chain, genesis, &mut bytes, |_| {}).await.unwrap();
    bytes
}

/// By the ledger's own code, which executes everything again; else the code of what is wrong.
async fn replayed(bytes: Vec<u8>) -> Result<Verified, Code> {
    let check = move || {
        let directory = tempfile::tempdir().unwrap();
        let mut checker = Checker::new(replica(directory.path().to_owned()).unwrap());
        for frame in read_frames(&*bytes).unwrap() {
            checker.frame(frame.unwrap()).map_err(|invalid| invalid.code())?;
        }
        checker.finish().map_err(|invalid| invalid.code())
    };
    tokio::task::spawn_blocking(check).await.unwrap()
}

async fn both(bytes: &[u8]) -> (Verified, Checked) {
    let first = replayed(bytes.to_vec()).await.unwrap();
    let second = check(bytes).unwrap();
    let said = (second.network, second.blocks, second.transactions, second.certificates);
    let own = (first.network.0, first.blocks, first.transactions, first.certificates);
    assert_eq!((said, second.values, second.head), (own, first.values, first.head.0));
    (first, second)
}

/// The ledger that its only peer would have, had it signed something else: all digests fit, and all certificates.
fn forged(bytes: &[u8], height: u64, change: impl FnOnce(&mut ExportBlock)) -> Vec<u8> {
    let (mut out, mut network, mut change) = (EXPORT_MAGIC.to_vec(), NetworkId::default(), Some(change));
    let mut last = Digest::default();
    for frame in read_frames(bytes).unwrap() {
        let mut frame = frame.unwrap();
        match &mut frame {
            Frame::Genesis(genesis) => {
                network = genesis.network_id();
                last = Header::genesis(&network).digest();
            }
            Frame::Block(block) => {
                if block.header.height == height {
                    change.take().unwrap()(block);
                }
                seal(block, last, &network);
                last = block.header.digest();
            }
            Frame::End { head, .. } => *head = last,
            Frame::Values(_) => {}
        }
        out.extend(frame.to_bytes());
    }
    out
}

fn seal(block: &mut ExportBlock, parent: Digest, network: &NetworkId) {
    block.header.details.parent = parent;
    block.header.details.transactions_root = transactions_root(&block.transactions);
    block.header.outcomes_root = outcomes_root(&block.transactions, &outcomes(block));
    let Some(certificate) = &mut block.certificate else {
        return;
    };
    let mut message = [&[63], b"piecework/1/consensus/".as_slice(), &network.0, b"_FINALIZE"].concat();
    for mut number in [block.header.epoch, certificate.view, certificate.parent_view] {
        while number > 0x7f {
            message.push(number as u8 | 0x80);
            number >>= 7;
        }
        message.push(number as u8);
    }
    message.extend(block.header.digest().0);
    // The seed of the first peer's key.
    certificate.signatures[0].0 = SigningKey::from_bytes(&[200; 32]).sign(&message).to_bytes();
}

fn outcomes(block: &ExportBlock) -> Vec<Outcome> {
    let ids = block.transactions.iter().map(SignedTransaction::id);
    let records = block.outcomes.iter().cloned().zip(ids);
    records.map(|(record, id)| record.of(id)).collect()
}

/// Changes what came of the block's first transaction.
fn events(block: &mut ExportBlock, change: impl FnOnce(&mut Vec<Event>)) {
    let mut outcomes = outcomes(block);
    change(outcomes[0].result.as_mut().unwrap());
    block.outcomes[0] = Record::from(&outcomes[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_the_ledger_does_is_in_the_books() {
    let directory = tempfile::tempdir().unwrap();
    let mut genesis = alone(5);
    genesis.params.window_blocks = 4;
    let mut own = options(directory.path(), genesis.clone());
    own.heartbeat = Duration::from_millis(20);
    let node = start(own).await.unwrap();
    let chain = node.chain();
    let mut story = Story::new(&*chain);
    let transfer = story.accounts().await;
    story.lending().await;
    let settlement = story.jobs().await;
    story.claims().await;
    story.votes().await;
    let bytes = exported(&*chain, &genesis).await;
    node.shutdown().await.unwrap();

    let (first, second) = both(&bytes).await;
    assert_eq!(first.transactions, story.sent);
    // Five of the genesis, one that came later; the pools.
    assert_eq!((second.accounts, second.values), (6, 7));

    // The peer signs what was really done once more: nothing is wrong with how the rest is forged.
    let honest = forged(&bytes, transfer, |_| {});
    both(&honest).await;
    let refused = |forged: Vec<u8>, what: &'static str| async move {
        let said = check(&*forged).unwrap_err().to_string();
        assert!(said.contains(what), "{said}");
        assert_eq!(replayed(forged).await.unwrap_err(), Code::ProofBadOutcomes, "{what}");
    };
    let again = forged(&bytes, transfer, |block| {
        block.transactions.push(block.transactions[0].clone());
        block.outcomes.push(block.outcomes[0].clone());
    });
    refused(again, "appears twice").await;
    let more = forged(&bytes, transfer, |block| {
        events(block, |events| match &mut events[0] {
            Event::CreditsTransferred { amount, .. } => *amount = Credits(amount.0 + 1),
            other => panic!("{other:?}"),
        });
    });
    refused(more, "does not match its transaction").await;
    let elsewhere = forged(&bytes, transfer, |block| {
        events(block, |events| match &mut events[0] {
            Event::CreditsTransferred { to, .. } => *to = account(4),
            other => panic!("{other:?}"),
        });
    });
    refused(elsewhere, "does not match its transaction").await;
    let bonus = forged(&bytes, transfer, |block| {
        events(block, |events| {
            events.push(Event::PeerPaid {
                peer: peer_key(0).public(),
                owner: account(0),
                amount: Credits(1),
            });
        });
    });
    refused(bonus, "an amount other than its share").await;
    let paid_twice = forged(&bytes, settlement, |block| {
        events(block, |events| {
            let paid = events.iter().rfind(|event| matches!(event, Event::JobPaid { .. }));
            events.push(paid.unwrap().clone());
        });
    });
    refused(paid_twice, "paid twice").await;
    let dear = forged(&bytes, settlement, |block| {
        events(block, |events| {
            for event in events {
                if let Event::JobPaid { price_ucr, .. } = event {
                    *price_ucr += 1;
                }
            }
        });
    });
    refused(dear, "a price other than its receipt's").await;
    let unsigned = forged(&bytes, settlement, |block| {
        let Action::Settle(settle) = &mut block.transactions[0].transaction.action else {
            panic!("a settlement was there");
        };
        settle.jobs[0].price_max_ucr += 1;
    });
    refused(unsigned, "signature is invalid").await;
}

/// The export with one block changed, and nothing signed anew.
fn altered(bytes: &[u8], height: u64, change: impl FnOnce(&mut ExportBlock)) -> Vec<u8> {
    let (mut out, mut change) = (EXPORT_MAGIC.to_vec(), Some(change));
    for frame in read_frames(bytes).unwrap() {
        let mut frame = frame.unwrap();
        match &mut frame {
            Frame::Block(block) if block.header.height == height => change.take().unwrap()(block),
            Frame::Genesis(_) | Frame::Block(_) | Frame::End { .. } | Frame::Values(_) => {}
        }
        out.extend(frame.to_bytes());
    }
    out
}

/// The export with its genesis changed.
fn founded(bytes: &[u8], change: impl FnOnce(&mut Genesis)) -> Vec<u8> {
    let mut frames = read_frames(bytes).unwrap().map(Result::unwrap);
    let Some(Frame::Genesis(mut genesis)) = frames.next() else {
        panic!("an export begins with its genesis");
    };
    change(&mut genesis);
    let mut out = [EXPORT_MAGIC.to_vec(), Frame::Genesis(genesis).to_bytes()].concat();
    frames.for_each(|frame| out.extend(frame.to_bytes()));
    out
}

/// Each thing that can be wrong with a block, whether its peers signed it or not: its code, and that the second
/// verifier does not take it either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_of_an_export_has_its_code() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(options(directory.path(), alone(6))).await.unwrap();
    let chain = node.chain();
    let sent = transfer(&chain.network(), 1, 0, 2, 5);
    let height = chain.submit_and_wait(sent).await.unwrap().height;
    story::reach(&*chain, height + 1).await;
    let bytes = exported(&*chain, &alone(6)).await;
    node.shutdown().await.unwrap();
    both(&bytes).await;
    let head = check(&*bytes).unwrap().blocks;

    let nothing = Digest([9; 32]);
    let faults: [(Vec<u8>, Code); 9] = [
        (
            forged(&bytes, height, |block| block.header.timestamp_ms = 0),
            Code::ProofBadHeader,
        ),
        (
            forged(&bytes, height, |block| block.header.details.previous_busy += 1),
            Code::ProofBadHeader,
        ),
        (
            altered(&bytes, height, |block| block.header.details.parent = nothing),
            Code::ProofBadParent,
        ),
        (
            altered(&bytes, height, |block| block.transactions.clear()),
            Code::ProofBadTransactions,
        ),
        (
            altered(&bytes, height, |block| block.outcomes.clear()),
            Code::ProofBadOutcomes,
        ),
        (
            altered(&bytes, height, |block| {
                block.certificate.as_mut().unwrap().signers.clear()
            }),
            Code::ProofBadCertificate,
        ),
        (
            altered(&bytes, height, |block| {
                let certificate = block.certificate.as_mut().unwrap();
                certificate.signers.fill(0);
                certificate.signatures.clear();
            }),
            Code::ProofTooFewSignatures,
        ),
        (
            altered(&bytes, head, |block| block.certificate = None),
            Code::ProofNotFinal,
        ),
        (
            founded(&bytes, |genesis| genesis.params.epoch_blocks = 0),
            Code::ProofBadGenesis,
        ),
    ];
    for (changed, code) in faults {
        assert_eq!(replayed(changed.clone()).await.unwrap_err(), code);
        assert!(check(&*changed).is_err(), "the second verifier takes what is {code}");
    }
    // Another state than the transactions make of it: only who executes them again sees it.
    let other_state = forged(&bytes, height, |block| block.header.details.state_root = nothing);
    assert_eq!(replayed(other_state).await.unwrap_err(), Code::ProofBadStateRoot);
    for (damaged, what) in [
        (bytes[1..].to_vec(), "another beginning"),
        (bytes[..bytes.len() - 1].to_vec(), "a frame cut off"),
        ([&bytes[..], &[1, 0, 0, 0, 0xff]].concat(), "no frame at all"),
    ] {
        let failure = read_frames(&*damaged).and_then(|mut frames| frames.try_for_each(|frame| frame.map(drop)));
        let Err(ReadFailure::Invalid(invalid)) = failure else {
            panic!("{what} is read: {failure:?}");
        };
        assert_eq!(invalid.code(), Code::ProofMalformed, "{what}");
    }
    // Nothing can be executed again where no state can be kept.
    let file = tempfile::NamedTempFile::new().unwrap();
    let nowhere = replica(file.path().to_owned()).unwrap();
    let replay = tokio::task::spawn_blocking(move || {
        let mut checker = Checker::new(nowhere);
        let mut frames = read_frames(&*bytes).unwrap();
        frames.try_for_each(|frame| checker.frame(frame.unwrap()))
    });
    assert_eq!(replay.await.unwrap().unwrap_err().code(), Code::ProofReplayFailed);
}

async fn four(directories: &Path) -> (Genesis, Vec<Box<dyn Node>>) {
    let addresses = free_addresses(4).unwrap();
    let mut genesis = genesis(3, &addresses);
    genesis.params.epoch_blocks = 10;
    let starts = addresses.iter().enumerate().map(|(number, address)| {
        let directory = directories.join(number.to_string());
        let mut options = Options::new(directory, genesis.clone(), peer_key(number as u8), *address);
        options.heartbeat = Duration::from_millis(50);
        async { start(options).await.unwrap() }
    });
    (genesis.clone(), join_all(starts).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_books_follow_the_peers_that_are_voted_for() {
    let directories = tempfile::tempdir().unwrap();
    let (genesis, nodes) = four(directories.path()).await;
    let chain = nodes[0].chain();
    let first = genesis.peers.iter().map(|peer| peer.key).min().unwrap();
    let propose = Action::Propose(Propose {
        change: Change::RemovePeer(first),
    });
    let carried = chain.submit_and_wait(sign(0, 0, propose, &chain.network())).await;
    let from = (carried.unwrap().height / 10 + 2) * 10;
    story::reach(&*chain, from + 1).await;
    chain
        .submit_and_wait(transfer(&chain.network(), 1, 0, 2, 5))
        .await
        .unwrap();
    let bytes = exported(&*chain, &genesis).await;
    join_all(nodes.into_iter().map(|node| node.shutdown())).await;
    let (replayed, _) = both(&bytes).await;
    assert_eq!(replayed.peer_changes, 1);
}

/// The peer of one that owns all votes: the height from which the rules are 2.
async fn switched(chain: &dyn Chain, nonce: u64) -> u64 {
    let epoch = u64::from(params().epoch_blocks);
    // One epoch more than is asked for: blocks go on while this is sent.
    let from_height = (chain.status().height / epoch + 3) * epoch + 3;
    let change = Change::SetRules(SetRules { rules: 2, from_height });
    let propose = Action::Propose(Propose { change });
    let sent = sign(0, nonce, propose, &chain.network());
    let carried = chain.submit_and_wait(sent).await.unwrap();
    assert_eq!(
        carried.events.last(),
        Some(&Event::RulesChanged { from_height, rules: 2 })
    );
    from_height
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_name_the_rules_from_the_voted_height_on_and_both_verifiers_hold_them_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut own = options(directory.path(), alone(6));
    own.heartbeat = Duration::from_millis(20);
    let node = start(own).await.unwrap();
    let chain = node.chain();
    let from = switched(&*chain, 0).await;
    story::reach(&*chain, from + 1).await;
    let sent = transfer(&chain.network(), 1, 0, 2, 5);
    chain.submit_and_wait(sent).await.unwrap();
    let bytes = exported(&*chain, &alone(6)).await;
    node.shutdown().await.unwrap();

    let (replay, _) = both(&bytes).await;
    assert_eq!(replay.rules, 2);
    for frame in read_frames(&*bytes).unwrap() {
        if let Frame::Block(block) = frame.unwrap() {
            let expected = if block.header.height < from { 1 } else { 2 };
            assert_eq!(block.header.rules, expected, "block {}", block.header.height);
        }
    }
    for (height, rules) in [(from - 1, 2), (from, 1), (from, 3)] {
        let other = forged(&bytes, height, |block| block.header.rules = rules);
        let said = check(&*other).unwrap_err().to_string();
        assert!(said.contains("its rules are not those that were voted for"), "{said}");
        assert_eq!(replayed(other).await.unwrap_err(), Code::ProofBadHeader);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_bytes_end_the_second_verifier_with_anything_but_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let node = start_alone(directory.path(), 3).await;
    let chain = node.chain();
    chain
        .submit_and_wait(transfer(&chain.network(), 1, 0, 2, 5))
        .await
        .unwrap();
    let bytes = exported(&*chain, &alone(3)).await;
    node.shutdown().await.unwrap();
    each_byte_counts(&bytes);
    piecework_fuzz::attack(std::slice::from_ref(&bytes), |changed| {
        let Ok(checked) = check(changed) else { return false };
        assert_eq!(changed, bytes, "what was changed is taken: {checked:?}");
        true
    });
}

/// What is easily taken for the same export: more behind its end, a length that says too much, values left out, and a list
/// of signers with room for more.
fn each_byte_counts(bytes: &[u8]) {
    let refused = |changed: &[u8]| {
        assert!(check(changed).is_err());
        let frames = read_frames(changed).unwrap();
        frames
            .map(|frame| frame.map_err(|_| ()))
            .filter_map(Result::err)
            .count()
    };
    for more in 1..5 {
        assert_eq!(
            refused(&[bytes, &vec![0; more][..]].concat()),
            1,
            "{more} bytes behind the end"
        );
    }
    let frames: Vec<Frame> = read_frames(bytes).unwrap().map(Result::unwrap).collect();
    let last = bytes.len() - frames.last().unwrap().to_bytes().len();
    let mut longer = bytes.to_vec();
    longer[last] += 1;
    assert_eq!(refused(&longer), 1);
    let written = |frames: &mut dyn Iterator<Item = Vec<u8>>| {
        [EXPORT_MAGIC.to_vec(), frames.collect::<Vec<_>>().concat()].concat()
    };
    let values = |frame: &&Frame| matches!(frame, Frame::Values(_));
    refused(&written(
        &mut frames.iter().filter(|frame| !values(frame)).map(Frame::to_bytes),
    ));
    let roomier = frames.iter().map(|frame| match frame {
        Frame::Block(block) => {
            let mut block = block.clone();
            if let Some(certificate) = &mut block.certificate {
                certificate.signers.push(0);
            }
            Frame::Block(block).to_bytes()
        }
        other => other.to_bytes(),
    });
    refused(&written(&mut { roomier }));
}
