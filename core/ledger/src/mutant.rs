//! Deliberately broken rules, with which the tests show that they would notice. Outside of tests no rule can be broken.

/// One rule of the contracts, broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    SkipTransactionSignature,
    SkipNonce,
    AnyPayer,
    AcceptNegativeTransfer,
    SkipReceiptSeal,
    SkipAckSeal,
    PayWithoutAck,
    IgnorePriceMax,
    IgnorePriceCaps,
    PayTwice,
    IgnoreBudget,
    ForgetCommission,
    CommissionPerBatch,
    KeepHeld,
    SettleAfterDrain,
    SkipTicketSeal,
    SkipClaimAcks,
    ClaimTwice,
    IgnoreTicketPrice,
    PayClaimsEarly,
    BelieveChallenge,
    ExpireWithClaims,
    CutWindowShort,
    CountMismatchAgain,
    SkipMismatchSeal,
    LowerLimitInUse,
    KeepLoanHeld,
    AnyVoter,
    TwoThirdsWillDo,
    SkipPeerProof,
    SharePoolWhole,
    AnyDelegate,
    SkipKeyProof,
    SkipSponsorSignature,
    LendWhatIsHeld,
    SkipOwnerSignature,
    OpenUnreserved,
    CommissionWithinOwner,
    FormerPayersForever,
    ReplacedUnpaid,
    ReplacedByOtherWork,
    PeersChangeAtOnce,
    ManyPeerChanges,
    UnboundedParams,
    ReleaseEarly,
    ReleaseClaimed,
    AnyRules,
    RulesAtOnce,
}

#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn broken(_rule: Mutant) -> bool {
    false
}

#[cfg(test)]
thread_local! {
    static BROKEN: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
pub(crate) fn broken(rule: Mutant) -> bool {
    BROKEN.get() == Some(rule)
}

#[cfg(test)]
impl Mutant {
    pub(crate) const ALL: [Self; 48] = [
        Self::SkipTransactionSignature,
        Self::SkipNonce,
        Self::AnyPayer,
        Self::AcceptNegativeTransfer,
        Self::SkipReceiptSeal,
        Self::SkipAckSeal,
        Self::PayWithoutAck,
        Self::IgnorePriceMax,
        Self::IgnorePriceCaps,
        Self::PayTwice,
        Self::IgnoreBudget,
        Self::ForgetCommission,
        Self::CommissionPerBatch,
        Self::KeepHeld,
        Self::SettleAfterDrain,
        Self::SkipTicketSeal,
        Self::SkipClaimAcks,
        Self::ClaimTwice,
        Self::IgnoreTicketPrice,
        Self::PayClaimsEarly,
        Self::BelieveChallenge,
        Self::ExpireWithClaims,
        Self::CutWindowShort,
        Self::CountMismatchAgain,
        Self::SkipMismatchSeal,
        Self::LowerLimitInUse,
        Self::KeepLoanHeld,
        Self::AnyVoter,
        Self::TwoThirdsWillDo,
        Self::SkipPeerProof,
        Self::SharePoolWhole,
        Self::AnyDelegate,
        Self::SkipKeyProof,
        Self::SkipSponsorSignature,
        Self::LendWhatIsHeld,
        Self::SkipOwnerSignature,
        Self::OpenUnreserved,
        Self::CommissionWithinOwner,
        Self::FormerPayersForever,
        Self::ReplacedUnpaid,
        Self::ReplacedByOtherWork,
        Self::PeersChangeAtOnce,
        Self::ManyPeerChanges,
        Self::UnboundedParams,
        Self::ReleaseEarly,
        Self::ReleaseClaimed,
        Self::AnyRules,
        Self::RulesAtOnce,
    ];

    /// Runs `body` on this thread with the rule broken; mended again even when `body` panics.
    pub(crate) fn during<T>(self, body: impl FnOnce() -> T) -> std::thread::Result<T> {
        BROKEN.set(Some(self));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        BROKEN.set(None);
        result
    }
}
