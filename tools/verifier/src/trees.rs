//! Hashes, Merkle trees and certificates.

use std::collections::BTreeMap;

use borsh::BorshSerialize;
use ed25519_dalek::VerifyingKey;

use crate::format::*;

/// BLAKE3 under a context.
pub fn tagged<T: BorshSerialize>(context: &str, value: &T) -> Hash {
    *blake3::Hasher::new_derive_key(context)
        .update(&bytes(value))
        .finalize()
        .as_bytes()
}

fn plain(parts: &[&[u8]]) -> Hash {
    *blake3::hash(&parts.concat()).as_bytes()
}

pub fn leaf<T: BorshSerialize>(value: &T) -> Hash {
    tagged("piecework 2026 merkle leaf", value)
}

/// Pairs from the left; an odd last node moves up as it is; the root of nothing is zero.
pub fn root(mut level: Vec<Hash>) -> Hash {
    while level.len() > 1 {
        let pair = |pair: &[Hash]| match pair {
            [left, right] => tagged("piecework 2026 merkle node", &(left, right)),
            odd => odd[0],
        };
        level = level.chunks(2).map(pair).collect();
    }
    level.first().copied().unwrap_or_default()
}

pub fn digest(header: &Header) -> Hash {
    let details = tagged("piecework 2026 block details", &header.details);
    let summary = (
        header.place,
        header.epoch,
        header.timestamp_ms,
        header.outcomes_root,
        details,
    );
    tagged("piecework 2026 block", &summary)
}

pub fn outcomes_root(block: &Block) -> Hash {
    let outcomes = block.transactions.iter().zip(&block.outcomes);
    root(
        outcomes
            .map(|(signed, outcome)| outcome_leaf(signed, outcome))
            .collect(),
    )
}

fn outcome_leaf(signed: &Signed, outcome: &Result<Vec<Event>, Refusal>) -> Hash {
    match outcome {
        Ok(events) => {
            let leaves: Vec<Hash> = entries(signed, events).iter().map(leaf).collect();
            leaf(&(0u8, leaves.len() as u32, root(leaves)))
        }
        Err(refusal) => leaf(&(1u8, refusal)),
    }
}

/// Events of one job are one entry, where the first of them stands; others are one each.
fn entries(signed: &Signed, events: &[Event]) -> Vec<Entry> {
    let (mut entries, mut places) = (Vec::new(), BTreeMap::new());
    for event in events {
        let (place, step) = match event {
            Event::JobOpened(place) => (place, Step::Opened),
            Event::JobMetered(place) => (place, Step::Metered),
            Event::JobReceived(place) => (place, Step::Received),
            Event::JobPaid(place, price, commission) => (place, Step::Paid(*price, *commission)),
            Event::JobClaimed(place, price, until) => (place, Step::Claimed(*price, *until)),
            Event::JobRefuted(place) => (place, Step::Refuted),
            Event::JobReleased(place) => (place, Step::Released),
            Event::MismatchReported(place, other) => (place, Step::MismatchReported(*other)),
            other => {
                entries.push(Entry::Event(other.clone()));
                continue;
            }
        };
        let at = *places.entry(*place).or_insert(entries.len());
        if at == entries.len() {
            entries.push(Entry::Job(JobEntry {
                place: *place,
                steps: Vec::new(),
                metering: None,
            }));
        }
        if let Entry::Job(entry) = &mut entries[at] {
            if step == Step::Metered {
                entry.metering = metering(&signed.transaction.action, place.sequence);
            }
            entry.steps.push(step);
        }
    }
    entries
}

/// Code, input and counters that the transaction brings of a job.
pub fn metering(action: &Action, sequence: u64) -> Option<(Hash, Hash, Metered)> {
    match action {
        Action::Settle(settle) => {
            let at = settle.jobs.binary_search_by_key(&sequence, |job| job.sequence).ok()?;
            let job = &settle.jobs[at];
            Some((
                *settle.codes.get(usize::from(job.code))?,
                job.input,
                job.metered.clone()?,
            ))
        }
        Action::Claim { batches, .. } => {
            batches
                .iter()
                .flat_map(|batch| &batch.tickets)
                .find_map(|ticket| match ticket {
                    BatchTicket::Claimed(job) if job.ticket.sequence == sequence => {
                        Some((job.ticket.code, job.ticket.input, job.metered.clone()))
                    }
                    BatchTicket::Claimed(_) | BatchTicket::Other(_) => None,
                })
        }
        _ => None,
    }
}

pub fn signature_holds(key: &Key, message: &[u8], signature: &Signature) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(signature);
    let verify = |key: VerifyingKey| key.verify_strict(message, &signature);
    VerifyingKey::from_bytes(key).and_then(verify).is_ok()
}

/// Over a domain, the network and a value.
pub fn signed<T: BorshSerialize>(key: &Key, domain: &str, network: &Hash, value: &T, signature: &Signature) -> bool {
    let message = [format!("piecework/1/{domain}\0").as_bytes(), network, &bytes(value)].concat();
    signature_holds(key, &message, signature)
}

fn varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// How many peers signed, if all signatures are good; `peers` ascend.
pub fn votes(certificate: &Certificate, network: &Hash, header: &Header, peers: &[Key]) -> Option<usize> {
    let domain = [b"piecework/1/consensus/".as_slice(), network, b"_FINALIZE"].concat();
    let mut message = Vec::new();
    varint(&mut message, domain.len() as u64);
    message.extend(domain);
    for number in [header.epoch, certificate.view, certificate.parent_view] {
        varint(&mut message, number);
    }
    message.extend(digest(header));
    let bits = certificate.signers.len() * 8;
    let signers: Vec<usize> = (0..bits)
        .filter(|at| certificate.signers[at / 8] >> (at % 8) & 1 == 1)
        .collect();
    let good = |(at, signature): (&usize, &Signature)| {
        let peer = peers.get(*at);
        peer.is_some_and(|peer| signature_holds(peer, &message, signature))
    };
    let exact = certificate.signers.len() == peers.len().div_ceil(8);
    let whole = exact && signers.len() == certificate.signatures.len();
    (whole && signers.iter().zip(&certificate.signatures).all(good)).then_some(signers.len())
}

/// The root of the state that this path leads to, for a key that has this value.
pub fn state_root(key: &StateKey, value: &Value, proof: &StateProof, operations_root: &Hash) -> Option<Hash> {
    let StateProof {
        location,
        leaves,
        inactive_peaks,
        ..
    } = *proof;
    let bit = (location % 256) as usize;
    if location >= leaves || leaves > 1 << 48 || proof.chunk[bit / 8] >> (bit % 8) & 1 == 0 {
        return None;
    }
    // The mountain that covers the location: its height, and its place among all.
    let heights: Vec<u32> = (0..64).rev().filter(|height| leaves >> height & 1 == 1).collect();
    let mut end = 0;
    let own = heights.iter().position(|height| {
        end += 1u64 << height;
        location < end
    })?;
    let height = heights[own];
    let position = |leaf: u64| 2 * leaf - u64::from(leaf.count_ones());
    let value = bytes(value);
    let mut operation = position(location).to_be_bytes().to_vec();
    operation.push(0xD2);
    operation.extend(tagged("piecework 2026 state key", key));
    varint(&mut operation, value.len() as u64);
    operation.extend(value);
    operation.extend(proof.next_place);
    let mut at = plain(&[&operation]);
    if proof.siblings.len() != height as usize {
        return None;
    }
    for (level, sibling) in (1..).zip(&proof.siblings) {
        let node = (position(location >> level << level) + (2 << level) - 2).to_be_bytes();
        let is_right = location >> (level - 1) & 1 == 1;
        let (left, right) = if is_right { (sibling, &at) } else { (&at, sibling) };
        at = plain(&[&node, left, right]);
        if level == 8 {
            at = plain(&[&proof.chunk, &at]);
        }
    }
    if height < 8 && proof.partial != Some(plain(&[&proof.chunk])) {
        return None;
    }
    let folded = fold(proof, own, heights.len(), at)?;
    let mut head = vec![0, 1];
    head.extend(leaves.to_be_bytes());
    if inactive_peaks > 0 {
        head.extend(inactive_peaks.to_be_bytes());
    }
    let grafted = plain(&[&head, &folded]);
    match (leaves % 256, &proof.partial) {
        (0, None) => Some(plain(&[operations_root, &grafted])),
        (next, Some(partial)) if next > 0 => Some(plain(&[operations_root, &grafted, &next.to_be_bytes(), partial])),
        _ => None,
    }
}

/// Inactive peaks from the left, active ones from the right, then both; the proof brings those before and after as few.
fn fold(proof: &StateProof, own: usize, count: usize, at: Hash) -> Option<Hash> {
    let inactive = usize::try_from(proof.inactive_peaks)
        .ok()
        .filter(|inactive| *inactive <= count)?;
    let joined = inactive.min(own);
    let before = own - joined + usize::from(joined > 0);
    let inactive_after = inactive.saturating_sub(own + 1);
    let active_after = usize::from(own + 1 + inactive_after < count);
    if proof.peaks.len() != before + inactive_after + active_after {
        return None;
    }
    let mut peaks = proof.peaks.clone();
    peaks.insert(before, at);
    let left = if joined > 0 { inactive - joined + 1 } else { inactive };
    let (left, right) = peaks.split_at(left.max(1));
    let head = left.iter().copied().reduce(|acc, peak| plain(&[&acc, &peak]))?;
    let tail = right.iter().rev().copied().reduce(|acc, peak| plain(&[&peak, &acc]));
    Some(tail.map_or(head, |tail| plain(&[&head, &tail])))
}
