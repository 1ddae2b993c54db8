//! Which peers vote on which blocks: epochs of a fixed number of blocks, each with its own instance of consensus.
//!
//! The ledger fixes the peers of an epoch before the epoch before it is over, so the state after any block names those of
//! its own epoch and of the next. Nothing is written down here: after a restart the state says it again.

use std::{collections::BTreeMap, sync::Arc};

use commonware_consensus::{
    simplex::scheme::ed25519::Scheme,
    types::{Epoch, EpochInfo, Epocher, FixedEpocher, Height},
};
use commonware_cryptography::certificate::{Provider, Scoped};
use commonware_utils::NZU64;
use parking_lot::RwLock;

use crate::{
    ChainFailure,
    committee::{Identity, Member, Part, contains},
};

/// Epochs whose peers stay known: certificates of an earlier one are on disk and checked already.
const KNOWN: usize = 4;

struct Term {
    members: Vec<Member>,
    scheme: Arc<Scheme>,
}

/// The calendar of epochs and the peers of the latest. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Epochs {
    calendar: FixedEpocher,
    identity: Identity,
    terms: Arc<RwLock<BTreeMap<Epoch, Term>>>,
}

impl Epochs {
    /// `blocks`: of one epoch, by the genesis.
    pub(crate) fn new(blocks: u32, identity: Identity) -> Self {
        let blocks = u64::from(blocks).try_into().unwrap_or(NZU64!(2)).max(NZU64!(2));
        Self {
            calendar: FixedEpocher::new(blocks),
            identity,
            terms: Arc::default(),
        }
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The epoch of a block.
    pub(crate) fn of(&self, height: u64) -> Epoch {
        let info = self.calendar.containing(Height::new(height));
        info.expect("heights are far below 2^64").epoch()
    }

    pub(crate) fn first_block(&self, epoch: Epoch) -> u64 {
        self.calendar.first(epoch).expect("heights are far below 2^64").get()
    }

    pub(crate) fn last_block(&self, epoch: Epoch) -> u64 {
        self.calendar.last(epoch).expect("heights are far below 2^64").get()
    }

    /// Who votes in `epoch`, as the state says, and whether this peer gives its vote if it has one.
    pub(crate) fn learn(&self, epoch: Epoch, members: Vec<Member>, part: Part) -> Result<(), ChainFailure> {
        let scheme = Arc::new(self.identity.scheme(&members, part)?);
        let mut terms = self.terms.write();
        terms.insert(epoch, Term { members, scheme });
        while terms.len() > KNOWN {
            terms.pop_first();
        }
        Ok(())
    }

    /// How many peers vote in `epoch`, and whether this one does; none while that is not known.
    pub(crate) fn voters(&self, epoch: Epoch) -> (u32, bool) {
        let terms = self.terms.read();
        let members = terms.get(&epoch).map_or(&[][..], |term| &term.members);
        (members.len() as u32, contains(members, &self.identity.public()))
    }

    pub(crate) fn scheme_of(&self, epoch: Epoch) -> Option<Arc<Scheme>> {
        self.terms.read().get(&epoch).map(|term| term.scheme.clone())
    }
}

impl Provider for Epochs {
    type Scope = Epoch;
    type Scheme = Scheme;

    fn scoped(&self, epoch: Epoch) -> Option<Scoped<Scheme>> {
        self.scheme_of(epoch).map(Scoped::scheme)
    }
}

impl Epocher for Epochs {
    fn containing(&self, height: Height) -> Option<EpochInfo> {
        self.calendar.containing(height)
    }

    fn first(&self, epoch: Epoch) -> Option<Height> {
        self.calendar.first(epoch)
    }

    fn last(&self, epoch: Epoch) -> Option<Height> {
        self.calendar.last(epoch)
    }
}
