//! Proofs and exports of real ledgers hold for who has the genesis alone, and nothing else does.

use std::{path::Path, time::Duration};

use crate::network::*;
use crate::processes::free_addresses;
use futures::future::join_all;
use piecework_chain::{Chain, Node, PeerChanges, export, job_proof};
use piecework_chain_node::{Options, replica, start};
use piecework_ledger::{Action, Change, Genesis, Propose, Value};
use piecework_model::{Code, Credits, JobId};
use piecework_proof::{Anchor, Checker, ExportBlock, Frame, Invalid, JobProof, Proof, Verified, read_frames};

pub fn job(sequence: u64) -> JobId {
    JobId::new(1_700_000_000_000 + sequence, [7; 10])
}

/// A lease of account 1 with jobs `0..count` of account 2 settled; the block of the settlement.
pub async fn settled(chain: &dyn Chain, count: u64) -> u64 {
    let network = chain.network();
    let (lease, open) = open_lease(&network, 1, 0, 1_000_000);
    chain.submit_and_wait(open).await.unwrap();
    let done = chain
        .submit_and_wait(settle(&network, lease, 1, 2, 0, count))
        .await
        .unwrap();
    done.height
}

pub async fn proof_of(chain: &dyn Chain, job: JobId, height: u64) -> JobProof {
    let proof = job_proof(chain, job, &[height], &PeerChanges::default()).await.unwrap();
    proof.expect("it was settled there")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_of_a_large_settlement_is_proven_in_a_kilobyte() {
    let directory = tempfile::tempdir().unwrap();
    let node = start_alone(directory.path(), 3).await;
    let height = settled(&*node.chain(), 1_000).await;
    let proof = proof_of(&*node.chain(), job(321), height).await;

    let anchor = Anchor::genesis(&alone(3));
    let proven = proof.verify(anchor.clone(), job(321)).unwrap();
    let entry = &proven.entries[0].entry;
    assert_eq!(entry.paid().map(|(price, _)| price), Some(10));
    let receipt = entry.receipt().unwrap();
    assert_eq!((receipt.job, receipt.sequence, receipt.price_ucr), (job(321), 321, 10));
    assert_eq!(proven.entries[0].height, height);

    let bytes = Proof::Job(proof.clone()).to_bytes();
    // Two more signatures, of a network of four, are 128 bytes.
    assert!(bytes.len() + 128 <= 1024, "{} bytes", bytes.len());
    assert_eq!(
        proof.verify(anchor.clone(), job(1)).unwrap_err().code(),
        Code::ProofOfAnother
    );
    let mut other = alone(3);
    other.network_name = "another".to_owned();
    let foreign = proof.verify(Anchor::genesis(&other), job(321)).unwrap_err();
    assert_eq!(foreign.code(), Code::ProofOtherNetwork);
    let mut changed = proof.clone();
    changed.changes = proof.parts.clone();
    let refused = changed.verify(anchor.clone(), job(321)).unwrap_err();
    assert_eq!(refused.code(), Code::ProofNoPeerChange);
    let mut empty = proof.clone();
    empty.parts.clear();
    let refused = empty.verify(anchor.clone(), job(321)).unwrap_err();
    assert_eq!(refused.code(), Code::ProofMalformed);
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        let Ok(Proof::Job(proof)) = Proof::from_bytes(&flipped) else {
            continue;
        };
        let refused = proof.verify(anchor.clone(), job(321));
        assert!(refused.is_err(), "byte {at} says nothing");
    }
    node.shutdown().await.unwrap();
}

async fn exported(chain: &dyn Chain, genesis: &Genesis) -> Vec<Frame> {
    let mut bytes = Vec::new();
    let done = export(chain, genesis, &mut bytes, |_| {}).await.unwrap();
    let frames: Vec<Frame> = read_frames(&*bytes).unwrap().map(Result::unwrap).collect();
    assert_eq!(
        frames.iter().filter(|frame| matches!(frame, Frame::Block(_))).count() as u64,
        done.blocks
    );
    frames
}

async fn checked(frames: Vec<Frame>) -> Result<Verified, Invalid> {
    let check = move || {
        let directory = tempfile::tempdir().unwrap();
        let mut checker = Checker::new(replica(directory.path().to_owned()).unwrap());
        for frame in frames {
            checker.frame(frame)?;
        }
        checker.finish()
    };
    tokio::task::spawn_blocking(check).await.unwrap()
}

/// The export with the block of the settlement changed.
fn with_block(frames: &[Frame], height: u64, change: impl FnOnce(&mut ExportBlock)) -> Vec<Frame> {
    let mut frames = frames.to_vec();
    let block = frames.iter_mut().find_map(|frame| match frame {
        Frame::Block(block) if block.header.height == height => Some(block),
        _ => None,
    });
    change(block.unwrap());
    frames
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_checks_and_a_changed_one_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let node = start_alone(directory.path(), 3).await;
    let height = settled(&*node.chain(), 20).await;
    let frames = exported(&*node.chain(), &alone(3)).await;
    node.shutdown().await.unwrap();

    let verified = checked(frames.clone()).await.unwrap();
    assert_eq!((verified.transactions, verified.refused, verified.values), (2, 0, 4));
    assert_eq!(verified.certificates, verified.blocks);
    let refused = |frames: Vec<Frame>| async { checked(frames).await.unwrap_err() };

    let paid = with_block(&frames, height, |block| block.transactions[0].signature.0[0] ^= 1);
    assert_eq!(refused(paid).await, Invalid::Transactions { height });
    let quiet = with_block(&frames, height, |block| block.outcomes.clear());
    assert_eq!(refused(quiet).await, Invalid::Outcomes { height });
    let early = with_block(&frames, height, |block| block.header.timestamp_ms += 1);
    assert_eq!(refused(early).await.code(), Code::ProofBadCertificate);
    let unsigned = with_block(&frames, height, |block| {
        let certificate = block.certificate.as_mut().unwrap();
        certificate.signers = vec![0];
        certificate.signatures.clear();
    });
    let too_few = Invalid::TooFewSignatures {
        height,
        signed: 0,
        needed: 1,
    };
    assert_eq!(refused(unsigned).await, too_few);

    let mut dropped = frames.clone();
    dropped.retain(|frame| !matches!(frame, Frame::Block(block) if block.header.height == height - 1));
    assert_eq!(
        refused(dropped).await,
        Invalid::MissingBlock {
            height: height - 1,
            found: height
        }
    );
    let mut short = frames.clone();
    short.pop();
    assert_eq!(refused(short).await.code(), Code::ProofCutOff);
    let mut forged = frames.clone();
    for frame in &mut forged {
        let Frame::Values(values) = frame else { continue };
        for value in values {
            if let Value::Account(account) = &mut value.value {
                account.posted = Credits(account.posted.0 + 1);
            }
        }
    }
    assert_eq!(refused(forged).await.code(), Code::ProofBadValue);
}

async fn four(directories: &Path) -> (Genesis, Vec<Box<dyn Node>>) {
    let addresses = free_addresses(4);
    let mut genesis = genesis(3, &addresses);
    genesis.params.epoch_blocks = 10;
    let starts = addresses.iter().enumerate().map(|(number, address)| {
        let directory = directories.join(number.to_string());
        let mut options = Options::new(directory, genesis.clone(), peer_key(number as u8), *address);
        options.heartbeat = Duration::from_millis(50);
        async { start(options).await.unwrap() }
    });
    let nodes = join_all(starts).await;
    (genesis, nodes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_follows_the_peers_from_the_genesis_on() {
    let directories = tempfile::tempdir().unwrap();
    let (genesis, nodes) = four(directories.path()).await;
    let chain = nodes[0].chain();
    let mut keys: Vec<_> = genesis.peers.iter().map(|peer| peer.key).collect();
    keys.sort();
    // The places of all others shift.
    let removed = keys.remove(0);
    let propose = Action::Propose(Propose {
        change: Change::RemovePeer(removed),
    });
    let change = sign(0, 0, propose, &chain.network());
    let carried = chain.submit_and_wait(change).await.unwrap().height;
    let from = (carried / 10 + 2) * 10;
    let late = tokio::time::timeout(Duration::from_secs(120), async {
        while chain.status().height < from {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    late.await.expect("the epochs go on");
    let height = settled(&*chain, 1_000).await;

    let proof = proof_of(&*chain, job(5), height).await;
    let anchor = Anchor::genesis(&genesis);
    assert!(height >= from && proof.changes.len() == 1);
    proof.verify(anchor.clone(), job(5)).unwrap();
    let now = Anchor::peers(chain.network(), keys);
    proof.verify_with(&now, job(5)).unwrap();
    let mut bare = proof.clone();
    bare.changes.clear();
    assert_eq!(
        bare.verify(anchor.clone(), job(5)).unwrap_err().code(),
        Code::ProofBadCertificate
    );
    let bytes = Proof::Job(bare).to_bytes().len();
    assert!(bytes <= 1024, "{bytes} bytes");

    let frames = exported(&*chain, &genesis).await;
    let verified = checked(frames.clone()).await.unwrap();
    assert_eq!(verified.peer_changes, 1);
    let signed = frames.iter().find_map(|frame| match frame {
        Frame::Block(block) if block.certificate.is_some() => Some(block.header.height),
        _ => None,
    });
    let height = signed.unwrap();
    let outvoted = with_block(&frames, height, |block| {
        let certificate = block.certificate.as_mut().unwrap();
        while certificate.signatures.len() > 2 {
            let top = certificate.signers[0].ilog2();
            certificate.signers[0] ^= 1 << top;
            certificate.signatures.pop();
        }
    });
    let too_few = Invalid::TooFewSignatures {
        height,
        signed: 2,
        needed: 3,
    };
    assert_eq!(checked(outvoted).await.unwrap_err(), too_few);
    join_all(nodes.into_iter().map(|node| node.shutdown())).await;
}
