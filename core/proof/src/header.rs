//! What votes cover: the header of a block, in two parts, so that a job's proof need not carry all of it.

use std::io;

use borsh::{BorshDeserialize, BorshSerialize};
use piecework_ledger::FIRST_RULES;
use piecework_model::{Digest, NetworkId, PublicKey};
use serde::{Deserialize, Serialize};

/// Set in the height of an encoded header, where no height of a chain reaches: the number of the rules follows it. Without
/// it they are the first rules, so that headers from before rules had numbers keep their bytes and digests.
const NAMES_RULES: u64 = 1 << 63;

/// The header of a block. Its digest is that of its [`Summary`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Below 2^63.
    pub height: u64,
    /// By which the block was executed: those that the state before it names for its height.
    #[serde(default = "first_rules", skip_serializing_if = "is_first")]
    pub rules: u32,
    /// Whose votes make the block final: `height / Params::epoch_blocks`.
    pub epoch: u64,
    /// The proposer's clock, never below the parent's.
    pub timestamp_ms: u64,
    /// Over the outcomes of the transactions: [`crate::outcomes_root`].
    pub outcomes_root: Digest,
    pub details: Details,
}

/// The part of a header that a job's proof shows only the digest of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Details {
    /// The round of the epoch in which the block was first proposed.
    pub view: u64,
    /// Who proposed it.
    pub leader: PublicKey,
    pub parent_view: u64,
    pub parent: Digest,
    /// The latest block before this one that holds transactions, or 0.
    pub previous_busy: u64,
    /// Of the state after this block: [`crate::StateProof`].
    pub state_root: Digest,
    /// Of the log of state operations after this block, which is a part of the state root.
    pub operations_root: Digest,
    /// The part of that log from which the state can be built, `[from, to)`.
    pub operations: (u64, u64),
    /// Over the signed transactions: [`crate::transactions_root`].
    pub transactions_root: Digest,
}

/// A header as a job's proof shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub height: u64,
    #[serde(default = "first_rules", skip_serializing_if = "is_first")]
    pub rules: u32,
    pub epoch: u64,
    pub timestamp_ms: u64,
    pub outcomes_root: Digest,
    pub details: Digest,
}

impl Header {
    pub fn summary(&self) -> Summary {
        Summary {
            height: self.height,
            rules: self.rules,
            epoch: self.epoch,
            timestamp_ms: self.timestamp_ms,
            outcomes_root: self.outcomes_root,
            details: Digest::of_value("piecework 2026 block details", &self.details),
        }
    }

    pub fn digest(&self) -> Digest {
        self.summary().digest()
    }
}

impl Summary {
    /// The block's digest, which peers sign and children name as their parent.
    pub fn digest(&self) -> Digest {
        Digest::of_value("piecework 2026 block", self)
    }
}

impl Header {
    /// Block 0: it names the network and holds nothing. The genesis state is written by block 1.
    pub fn genesis(network: &NetworkId) -> Self {
        Self {
            height: 0,
            rules: FIRST_RULES,
            epoch: 0,
            timestamp_ms: 0,
            outcomes_root: Digest::default(),
            details: Details {
                view: 0,
                leader: PublicKey::default(),
                parent_view: 0,
                parent: Digest(network.0),
                previous_busy: 0,
                state_root: Digest::default(),
                operations_root: Digest::default(),
                operations: (0, 0),
                transactions_root: Digest::default(),
            },
        }
    }
}

fn first_rules() -> u32 {
    FIRST_RULES
}

fn is_first(rules: &u32) -> bool {
    *rules == FIRST_RULES
}

/// How height and rules begin the encoding of a header and of its summary.
#[derive(Clone, Copy)]
struct Place {
    height: u64,
    rules: u32,
}

impl BorshSerialize for Place {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        match is_first(&self.rules) {
            true => borsh::to_writer(writer, &self.height),
            false => borsh::to_writer(writer, &(self.height | NAMES_RULES, self.rules)),
        }
    }
}

impl BorshDeserialize for Place {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let height = u64::deserialize_reader(reader)?;
        if height & NAMES_RULES == 0 {
            let rules = FIRST_RULES;
            return Ok(Self { height, rules });
        }
        let rules = u32::deserialize_reader(reader)?;
        if rules <= FIRST_RULES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a header names the first rules",
            ));
        }
        let height = height & !NAMES_RULES;
        Ok(Self { height, rules })
    }
}

impl BorshSerialize for Header {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        let (height, rules) = (self.height, self.rules);
        let place = Place { height, rules };
        let rest = (self.epoch, self.timestamp_ms, self.outcomes_root, &self.details);
        borsh::to_writer(writer, &(place, rest))
    }
}

impl BorshDeserialize for Header {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let Place { height, rules } = Place::deserialize_reader(reader)?;
        let (epoch, timestamp_ms, outcomes_root, details) = BorshDeserialize::deserialize_reader(reader)?;
        Ok(Self {
            height,
            rules,
            epoch,
            timestamp_ms,
            outcomes_root,
            details,
        })
    }
}

impl BorshSerialize for Summary {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        let (height, rules) = (self.height, self.rules);
        let place = Place { height, rules };
        let rest = (self.epoch, self.timestamp_ms, self.outcomes_root, self.details);
        borsh::to_writer(writer, &(place, rest))
    }
}

impl BorshDeserialize for Summary {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let Place { height, rules } = Place::deserialize_reader(reader)?;
        let (epoch, timestamp_ms, outcomes_root, details) = BorshDeserialize::deserialize_reader(reader)?;
        Ok(Self {
            height,
            rules,
            epoch,
            timestamp_ms,
            outcomes_root,
            details,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(rules: u32) -> Header {
        Header {
            height: 7,
            rules,
            timestamp_ms: 1_700_000_000_000,
            ..Header::genesis(&NetworkId([9; 32]))
        }
    }

    #[test]
    fn headers_of_the_first_rules_keep_the_bytes_and_digests_that_they_had_before_rules_had_numbers() {
        let header = header(FIRST_RULES);
        let before = (7u64, 0u64, 1_700_000_000_000u64, Digest::default(), &header.details);
        let bytes = borsh::to_vec(&header).expect("a vector accepts every byte");
        assert_eq!(bytes, borsh::to_vec(&before).expect("a vector accepts every byte"));
        let details = Digest::of_value("piecework 2026 block details", &header.details);
        let summary = (7u64, 0u64, 1_700_000_000_000u64, Digest::default(), details);
        assert_eq!(header.digest(), Digest::of_value("piecework 2026 block", &summary));
        let json = serde_json::to_string(&header).expect("plain data");
        assert!(!json.contains("rules"), "{json}");
    }

    #[test]
    fn headers_of_other_rules_name_them_and_their_digest_covers_them() {
        let digests: Vec<Digest> = [1, 2, 3].map(|rules| header(rules).digest()).into();
        assert!(digests[0] != digests[1] && digests[1] != digests[2]);
        for rules in [1, 2, u32::MAX] {
            let header = header(rules);
            let bytes = borsh::to_vec(&header).expect("a vector accepts every byte");
            assert_eq!(borsh::from_slice::<Header>(&bytes).expect("decodes"), header);
            let bytes = borsh::to_vec(&header.summary()).expect("a vector accepts every byte");
            assert_eq!(borsh::from_slice::<Summary>(&bytes).expect("decodes"), header.summary());
            let json = serde_json::to_string(&header).expect("plain data");
            assert_eq!(serde_json::from_str::<Header>(&json).expect("decodes"), header);
        }
    }

    #[test]
    fn there_is_one_encoding_of_a_header() {
        for rules in [0u32, FIRST_RULES] {
            let mut bytes = borsh::to_vec(&(7u64 | NAMES_RULES, rules)).expect("a vector accepts every byte");
            let whole = borsh::to_vec(&header(FIRST_RULES)).expect("a vector accepts every byte");
            bytes.extend_from_slice(&whole[8..]);
            borsh::from_slice::<Header>(&bytes).expect_err("the first rules are not named");
        }
    }

    #[test]
    fn any_bytes_are_one_header_or_refused() {
        let bytes = |rules| borsh::to_vec(&header(rules)).expect("a vector accepts every byte");
        piecework_fuzz::attack(&[bytes(1), bytes(2)], |bytes| {
            let Ok(header) = borsh::from_slice::<Header>(bytes) else {
                return false;
            };
            assert_eq!(
                borsh::to_vec(&header).expect("a vector accepts every byte"),
                bytes,
                "one header has two spellings"
            );
            true
        });
        let summary = borsh::to_vec(&header(2).summary()).expect("a vector accepts every byte");
        piecework_fuzz::attack(&[summary], |bytes| {
            let Ok(summary) = borsh::from_slice::<Summary>(bytes) else {
                return false;
            };
            assert_eq!(
                borsh::to_vec(&summary).expect("a vector accepts every byte"),
                bytes,
                "one summary has two spellings"
            );
            true
        });
    }
}
