//! What one receipt costs in CPU: both parties' leaf, and its share of the seal that signs a batch and is verified.

use std::{hint::black_box, time::Duration};

use piecework_model::{
    AccountId, Counters, Digest, Domain, JobId, JobStatus, LeaseId, NetworkId, Receipt, Seal, SecretKey,
};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

#[derive(Debug, Serialize)]
pub struct ReceiptCost {
    /// Receipts under one signature.
    pub batch: usize,
    /// The provider: leaf, and a share of root and signature.
    pub make_us: f64,
    /// The controller: leaf, and a share of root and verification.
    pub check_us: f64,
}

/// Receipts of each measurement; enough for some tenths of a second.
const RECEIPTS: usize = 16_384;

pub fn measure() -> Vec<ReceiptCost> {
    [1, 16, 64, 256].into_iter().map(measure_batch).collect()
}

fn measure_batch(batch: usize) -> ReceiptCost {
    let key = SecretKey::from_seed([7; 32]);
    let (network, lane) = (NetworkId([1; 32]), (LeaseId([2; 20]), AccountId([3; 20])));
    // One signature a receipt is slow: fewer of them suffice.
    let count = if batch == 1 { RECEIPTS / 8 } else { RECEIPTS };
    let receipts: Vec<Receipt> = (0..count as u64).map(|sequence| receipt(lane, sequence)).collect();

    let began = cpu();
    let seals: Vec<Seal> = receipts
        .chunks(batch)
        .map(|batch| {
            let leaves: Vec<Digest> = batch.iter().map(Receipt::leaf).collect();
            Seal::sign(&key, Domain::Receipts, &network, lane, &leaves)
        })
        .collect();
    let make = cpu().saturating_sub(began);

    let began = cpu();
    for (batch, seal) in receipts.chunks(batch).zip(&seals) {
        let leaves: Vec<Digest> = batch.iter().map(Receipt::leaf).collect();
        let valid = seal.verify(&key.public(), Domain::Receipts, &network, &leaves);
        assert!(black_box(valid).is_ok(), "a seal just made verifies");
    }
    let check = cpu().saturating_sub(began);
    let each = |total: Duration| total.as_secs_f64() * 1e6 / count as f64;
    ReceiptCost {
        batch,
        make_us: each(make),
        check_us: each(check),
    }
}

/// CPU time of this thread: others on the machine do not count.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

fn receipt((lease, provider): (LeaseId, AccountId), sequence: u64) -> Receipt {
    Receipt {
        lease,
        provider,
        sequence,
        job: JobId::new(sequence, [9; 10]),
        code: Digest([4; 32]),
        input: Digest([5; 32]),
        output: Digest([6; 32]),
        status: JobStatus::Ok,
        counters: Counters {
            cpu_us: 100,
            memory_byte_ms: 1 << 20,
            egress_bytes: 0,
        },
        price_ucr: 3,
        duration_us: 120,
    }
}
