//! Finality certificates: more than two thirds of an epoch's peers signed the digest of a block.
//!
//! The consensus engine (commonware's simplex with Ed25519) makes them. This module has only the format, so that you
//! can check one without the engine.

use borsh::{BorshDeserialize, BorshSerialize};
use curve25519_dalek::{EdwardsPoint, edwards::CompressedEdwardsY, scalar::Scalar, traits::IsIdentity as _};
use piecework_model::{Digest, NetworkId, PublicKey, Signature};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha512};

use crate::Invalid;

/// The votes that made a block final, without what the block's header says already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Certificate {
    /// The round of the epoch in which it became final.
    pub view: u64,
    pub parent_view: u64,
    /// Who signed: bit `i % 8` of byte `i / 8` is the peer at `i` in the ascending order of keys.
    pub signers: Vec<u8>,
    /// In the order of the signers.
    pub signatures: Vec<Signature>,
}

/// A certificate as the engine encodes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finalization {
    pub epoch: u64,
    pub block: Digest,
    pub certificate: Certificate,
}

/// Consensus is all to all; the ledger has at most 500 peers.
const SIGNERS_MAX: u64 = 1 << 10;

impl Finalization {
    /// Reads the engine's bytes: varints of epoch, view and parent view; the block's digest; the signers as a count of
    /// bits (8 bytes, big-endian) and the bits; a varint count of signatures and the signatures.
    pub fn from_engine(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let (epoch, view, parent_view) = (reader.varint()?, reader.varint()?, reader.varint()?);
        let block = Digest(reader.array()?);
        let bits = u64::from_be_bytes(reader.array()?);
        if bits > SIGNERS_MAX {
            return None;
        }
        let signers = reader.take(bits.div_ceil(8) as usize)?.to_vec();
        let count = reader.varint()?;
        let signatures = (0..count.min(bits)).map(|_| Some(Signature(reader.array()?)));
        let certificate = Certificate {
            view,
            parent_view,
            signers,
            signatures: signatures.collect::<Option<_>>()?,
        };
        let whole = reader.0.is_empty() && certificate.signatures.len() as u64 == count;
        whole.then_some(Self {
            epoch,
            block,
            certificate,
        })
    }
}

/// Number of votes out of `peers` that make a block final: more than two thirds.
pub fn quorum(peers: usize) -> usize {
    peers - peers.saturating_sub(1) / 3
}

impl Certificate {
    /// Whether more than two thirds of `peers`, which ascend, signed that the block of this digest is final.
    pub fn verify(
        &self,
        network: &NetworkId,
        (epoch, height, block): (u64, u64, Digest),
        peers: &[PublicKey],
    ) -> Result<(), Invalid> {
        let signers = self.signers(peers).ok_or(Invalid::Certificate { height })?;
        let (signed, needed) = (signers.len(), quorum(peers.len()));
        if signed < needed {
            return Err(Invalid::TooFewSignatures { height, signed, needed });
        }
        let message = self.message(network, epoch, block);
        for (peer, signature) in signers.into_iter().zip(&self.signatures) {
            if !signature_holds(&peer, &message, signature) {
                return Err(Invalid::CertificateSignature { height, peer });
            }
        }
        Ok(())
    }

    /// Who signed; `None` where the bits do not fit the peers or the signatures.
    fn signers(&self, peers: &[PublicKey]) -> Option<Vec<PublicKey>> {
        let bit = |index: usize| {
            self.signers
                .get(index / 8)
                .is_some_and(|byte| byte >> (index % 8) & 1 == 1)
        };
        let beyond = (peers.len()..self.signers.len() * 8).any(bit);
        let signed: Vec<_> = peers
            .iter()
            .enumerate()
            .filter(|(index, _)| bit(*index))
            .map(|(_, key)| *key)
            .collect();
        let fits = !beyond && self.signers.len() == peers.len().div_ceil(8) && signed.len() == self.signatures.len();
        fits.then_some(signed)
    }

    /// What each peer signs: the length of the domain, the domain, epoch, view, parent view, digest; numbers as
    /// varints.
    fn message(&self, network: &NetworkId, epoch: u64, block: Digest) -> Vec<u8> {
        let domain = [b"piecework/1/consensus/".as_slice(), &network.0, b"_FINALIZE"].concat();
        let mut message = Vec::with_capacity(128);
        put_varint(&mut message, domain.len() as u64);
        message.extend_from_slice(&domain);
        for number in [epoch, self.view, self.parent_view] {
            put_varint(&mut message, number);
        }
        message.extend_from_slice(&block.0);
        message
    }
}

/// Ed25519 by the rules of ZIP 215, which consensus keeps to: `[8](R - (sB - kA)) = 0`, `s` canonical, points as they
/// decode. A stricter check would refuse certificates that the peers took for good.
fn signature_holds(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    let (r_bytes, s_bytes) = signature.0.split_at(32);
    let (Ok(r_bytes), Ok(s_bytes)) = (<[u8; 32]>::try_from(r_bytes), <[u8; 32]>::try_from(s_bytes)) else {
        return false;
    };
    let Some(s) = Scalar::from_canonical_bytes(s_bytes).into_option() else {
        return false;
    };
    let (Some(r), Some(a)) = (
        CompressedEdwardsY(r_bytes).decompress(),
        CompressedEdwardsY(key.0).decompress(),
    ) else {
        return false;
    };
    let hash = Sha512::new()
        .chain_update(r_bytes)
        .chain_update(key.0)
        .chain_update(message)
        .finalize();
    let k = Scalar::from_bytes_mod_order_wide(&hash.into());
    let expected = EdwardsPoint::vartime_double_scalar_mul_basepoint(&k, &-a, &s);
    (r - expected).mul_by_cofactor().is_identity()
}

/// Seven bits a byte, the lowest first; the top bit says that more follow.
pub(crate) fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_of_an_engine_are_a_certificate_that_still_has_to_be_checked() {
        let key = PublicKey([7; 32]);
        let mut bytes = vec![1, 0x80, 1, 5];
        bytes.extend([9; 32]);
        bytes.extend(1u64.to_be_bytes());
        bytes.extend([1, 1]);
        bytes.extend([3; 64]);
        piecework_fuzz::attack(&[bytes], |bytes| {
            let Some(read) = Finalization::from_engine(bytes) else {
                return false;
            };
            let held = read.certificate.signatures.len() * 64 + read.certificate.signers.len();
            assert!(held <= bytes.len(), "a count that was only said takes room");
            let of = (read.epoch, 5, read.block);
            assert!(
                read.certificate.verify(&NetworkId([1; 32]), of, &[key]).is_err(),
                "nobody has signed it"
            );
            true
        });
    }
}
