//! Bytes of somebody who claims to know the ledger: a proof or an export that was changed anywhere is refused by name, or it
//! still is what it was.

use piecework_chain::export;
use piecework_fuzz::{PeakAlloc, attack, within};
use piecework_proof::{Anchor, Frame, Proof, ReadFailure, read_frames};

use crate::{
    network::{alone, start_alone},
    proofs::{job, proof_of, settled},
};

#[global_allocator]
static PEAK: PeakAlloc = PeakAlloc;

/// Decoded, lists and texts have pointers and lengths; borsh gives each text room of up to 1 MiB before it reads it.
fn room(bytes: &[u8]) -> usize {
    8 * bytes.len() + (1 << 20) + (64 << 10)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_proof_holds_as_it_was_made_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let node = start_alone(directory.path(), 3).await;
    let height = settled(&*node.chain(), 5).await;
    let proof = Proof::Job(proof_of(&*node.chain(), job(3), height).await).to_bytes();
    node.shutdown().await.unwrap();
    let anchor = Anchor::genesis(&alone(3));
    attack(std::slice::from_ref(&proof), |bytes| {
        let Ok(read) = within(&PEAK, room(bytes), || Proof::from_bytes(bytes)) else {
            return false;
        };
        assert_eq!(read.to_bytes(), bytes, "one proof has two spellings");
        match &read {
            Proof::Job(read) => {
                let holds = read.verify(anchor.clone(), job(3)).is_ok();
                // Its parts may stand twice or in another order; what it proves is the same.
                if holds && bytes != proof {
                    let proven = read.verify(anchor.clone(), job(3)).unwrap();
                    let paid = |entry: &piecework_proof::ProvenEntry| entry.entry.paid().map(|(price, _)| price);
                    assert_eq!(proven.entries.iter().find_map(paid), Some(10));
                }
            }
            Proof::Value(read) => assert!(read.verify(anchor.clone()).is_err()),
        }
        true
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_frames_of_an_export_have_one_spelling_and_take_no_room_for_a_lie() {
    let directory = tempfile::tempdir().unwrap();
    let node = start_alone(directory.path(), 3).await;
    settled(&*node.chain(), 5).await;
    let mut whole = Vec::new();
    export(&*node.chain(), &alone(3), &mut whole, |_| {}).await.unwrap();
    node.shutdown().await.unwrap();
    attack(&[whole], |bytes| {
        let read = within(&PEAK, room(bytes), || {
            let frames: Result<Vec<Frame>, ReadFailure> = read_frames(bytes)?.collect();
            frames
        });
        match read {
            Ok(frames) => {
                let again: Vec<u8> = frames.iter().flat_map(Frame::to_bytes).collect();
                assert_eq!(again, bytes[8..], "one export has two spellings");
                true
            }
            Err(ReadFailure::Invalid(_) | ReadFailure::Io(_)) => false,
        }
    });
}
