//! Bugs that can be put in, to show that the checks would notice them.

use clap::ValueEnum;

/// One thing done wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bug {
    /// One peer loses a change now and then.
    PeerLosesAChange,
    /// Peers vote for every proposal of a round.
    PeersVoteTwice,
    /// The ledger does not remember which sequences of a lane are taken.
    LedgerForgetsLanes,
    /// The ledger makes a ucr with every block that pays.
    LedgerMints,
    /// The controller pays what the provider says, whatever it saw.
    ControllerBelievesReceipts,
    /// After a crash the controller begins with sequence 0 again.
    ControllerReusesSequences,
    /// The controller forgets what it owes when it crashes.
    ControllerForgetsItsOutbox,
    /// Providers do not claim when the controller is gone.
    ProvidersNeverClaim,
    /// Claims are made, and nobody has them paid.
    NobodyPaysClaims,
    /// The controller lets a provider be paid for a job that it had to have done elsewhere.
    ControllerNeverChallenges,
}

impl Bug {
    /// The ledger that the real peers run has no place to put a bug into; what the checks make of one is tried on the model.
    pub fn needs_the_model(self) -> bool {
        matches!(
            self,
            Self::PeerLosesAChange | Self::LedgerForgetsLanes | Self::LedgerMints
        )
    }
}
