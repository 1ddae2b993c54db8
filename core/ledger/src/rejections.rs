//! Every refusal of the ledger in one table: a code that never changes once published, and what to do about it.

use piecework_model::{Code, Rejection};

macro_rules! rejections {
    ($($name:ident = $code:expr, $says:literal;)*) => {
        $(pub(crate) fn $name() -> Rejection {
            Rejection::new($code, $says)
        })*

        /// Code and sentence of every rejection that the contracts and the genesis can give.
        pub fn rejections() -> &'static [(Code, &'static str)] {
            &[$(($code, $says)),*]
        }
    };
}

rejections! {
    too_large = Code::TransactionTooLarge, "the transaction is over a size limit; send it in smaller parts";
    wrong_key = Code::TransactionWrongKey, "the transaction is not signed with the key of its sender's account";
    bad_signature = Code::TransactionBadSignature,
        "the signature does not fit this transaction on this network; sign it again";
    stale_nonce = Code::TransactionStaleNonce,
        "this nonce was used before; read the account's next nonce and sign again";
    future_nonce = Code::TransactionFutureNonce, "earlier transactions of this account are missing; send them first";

    not_started = Code::LedgerNotStarted, "this ledger has no parameters yet; begin with a genesis";
    overflow = Code::LedgerOverflow, "an amount leaves the range of the ledger; use smaller amounts";

    account_exists = Code::AccountExists, "this key has an account already; use it or register another key";
    account_unknown = Code::AccountUnknown,
        "an account that the transaction names is not on the ledger; register it first";
    bad_name = Code::AccountBadName,
        "the name is not 1 to 30 of a-z, 0-9 and -, beginning with a letter; choose another";
    name_taken = Code::AccountNameTaken, "another account has this name; choose another";
    sponsor_limit = Code::AccountSponsorLimit,
        "a sponsor lends more than zero and no more than it has free; ask for less";
    sponsor_signature = Code::AccountSponsorSignature,
        "the sponsor has not signed this limit for this account; ask it to";
    account_not_sponsor = Code::AccountNotSponsor,
        "only the account's sponsor may do this; the account itself may lower its limit";
    account_limit_in_use = Code::AccountLimitInUse,
        "the account owes or holds more than the lower limit covers; have it pay back first";
    account_no_debt = Code::AccountNoDebt,
        "an amount to cover is more than zero and no more than the account owes; give less";
    owner_signature = Code::AccountOwnerSignature, "the owner has not signed for this account; ask it to";
    key_proof = Code::AccountKeyProof, "the new key has not signed for this account; prove that you hold it";

    transfer_not_positive = Code::TransferNotPositive, "a transfer moves more than zero; give a positive amount";
    transfer_self = Code::TransferSelf, "a transfer goes to another account; name one";
    transfer_insufficient = Code::TransferInsufficient,
        "the account has not enough free credits; send less or close a lease";

    offer_deposit = Code::OfferDeposit,
        "the account has not enough free credits for the deposit of an offer; get some first";
    offer_expired = Code::OfferExpired, "an offer expires at a height that is still to come; name a later one";
    offer_unknown = Code::OfferUnknown, "this account has no offer; put one first";

    lease_unknown = Code::LeaseUnknown, "there is no such lease; open one";
    lease_not_yours = Code::LeaseNotYours, "only the developer of a lease may do this; sign with the developer's key";
    lease_bad_budget = Code::LeaseBadBudget, "a budget is more than zero; give a positive amount";
    lease_insufficient_funds = Code::LeaseInsufficientFunds,
        "the account has not enough free credits for this budget; hold less";
    lease_no_payer = Code::LeaseNoPayer,
        "a lease without a payer key or a mailbox can pay nothing; name at least one of each";
    lease_payer_exists = Code::LeasePayerExists, "this key is a payer of the lease already; nothing is to be done";
    lease_payer_unknown = Code::LeasePayerUnknown, "this key is no payer of the lease; nothing is to be taken away";
    lease_too_many_payers = Code::LeaseTooManyPayers,
        "the lease has as many payer keys as it may have; take one away first";
    lease_draining = Code::LeaseDraining, "the lease is closing and takes nothing new; open another";
    lease_still_draining = Code::LeaseStillDraining, "the lease drains until its height is past; ask again then";
    lease_not_draining = Code::LeaseNotDraining, "the lease is open; its developer closes it first";
    lease_claims_pending = Code::LeaseClaimsPending,
        "claims on the lease wait; have them paid when their window is over, then ask again";
    lease_closed = Code::LeaseClosed, "the lease is closed; open another";

    settle_not_payer = Code::SettleNotPayer, "the signing key is no payer of the lease; have the developer delegate it";
    settle_other_provider = Code::SettleOtherProvider, "the lease is with another provider; settle on that one's lane";
    settle_empty = Code::SettleEmpty, "there is no job in it; add one";
    settle_not_ascending = Code::SettleNotAscending,
        "sequences ascend strictly and end below 2^64 - 1; sort them, each once";
    settle_bad_code = Code::SettleBadCode, "a job's code is not in the list of codes; add the function version";
    settle_no_paper = Code::SettleNoPaper, "a job has neither receipt nor ack; send it when one is there";
    settle_price_above_ticket = Code::SettlePriceAboveTicket,
        "a price is above its ticket's maximum; refuse that receipt";
    settle_price_above_caps = Code::SettlePriceAboveCaps,
        "a price is above what the lease's caps allow; refuse that receipt";
    settle_bad_receipts = Code::SettleBadReceipts,
        "the receipts are not sealed by the provider's current key; fetch them again";
    settle_bad_acks = Code::SettleBadAcks, "the acks are not signed by a mailbox of the lease; have one sign them";
    settle_ack_without_receipt = Code::SettleAckWithoutReceipt,
        "another mailbox's ack travels with or after its receipt; send both";
    settle_job_mismatch = Code::SettleJobMismatch,
        "a job differs from what was recorded under its sequence; send what was recorded";
    settle_budget = Code::SettleBudget, "the lease's budget does not cover these jobs; have the developer top it up";
    settle_too_many_gaps = Code::SettleTooManyGaps,
        "the lane has too many unsettled gaps; settle the missing sequences first";
    settle_too_many_open = Code::SettleTooManyOpen,
        "the lease has too many unfinished jobs; bring their missing papers first";

    release_none = Code::ReleaseNone, "none of these is open without a paper; there is nothing to free";
    release_not_due = Code::ReleaseNotDue,
        "the window since a job was opened is not over, and its provider may still claim it; ask again then";

    claim_other_lane = Code::ClaimOtherLane, "a ticket is of another lane; claim each lane with its own tickets";
    claim_bad_tickets = Code::ClaimBadTickets,
        "the tickets are not sealed by a key that pays for the lease, or did within its window; claim what is sealed";
    claim_bad_acks = Code::ClaimBadAcks,
        "the acks are not sealed by a mailbox of the lease; claim without them or have one seal them";
    claim_price_above_ticket = Code::ClaimPriceAboveTicket,
        "a price is above what its ticket allows for these counters; claim what the ticket pays";
    claim_job_mismatch = Code::ClaimJobMismatch,
        "a job differs from what was recorded under its sequence; claim what was recorded";
    claim_none = Code::ClaimNone, "nothing is claimed there; it was paid, settled or refuted, or never claimed";
    claim_not_due = Code::ClaimNotDue, "the window of a claim is still open; ask again when it is over";
    claim_too_late = Code::ClaimTooLate, "the window of the claim is over; it can no longer be refuted";
    challenge_not_shown = Code::ChallengeNotShown,
        "the evidence does not show that the claim is wrong; only what others have signed can";
    challenge_acknowledged = Code::ChallengeAcknowledged,
        "the claimed result was acknowledged, so that its replacement is no reason; it is paid";
    challenge_not_paid = Code::ChallengeNotPaid,
        "the job's replacement is not paid yet; settle it, then refute the claim";

    mismatch_not_shown = Code::MismatchNotShown, "the receipts do not contradict one another; send two that do";
    mismatch_reported = Code::MismatchReported, "this receipt has been reported; nothing is to be done";

    peers_not_owner = Code::PeersNotOwner, "only who owns a present peer proposes and votes; ask one of them";
    peers_exists = Code::PeersExists, "this key is a peer already; nothing is to be done";
    peers_unknown = Code::PeersUnknown, "this key is no present peer; nothing is to be removed";
    peers_last = Code::PeersLast, "the last peer cannot go; add another first";
    peers_too_many = Code::PeersTooMany, "there are as many peers as there may be; remove one first";
    peers_bad_address = Code::PeersBadAddress, "a peer's address is host:port; correct it";
    peers_bad_proof = Code::PeersBadProof, "the peer's key has not signed for its owner; prove that you hold it";
    peers_change_pending = Code::PeersChangePending,
        "another change of the peers waits for its height; vote again after it";
    peers_nothing_to_pay = Code::PeersNothingToPay,
        "the peers have earned less than one ucr each; ask again later";
    params_fixed = Code::ParamsFixed, "the genesis fixed this parameter; leave it as it is";
    rules_not_next = Code::RulesNotNext,
        "the rules move on one number at a time; name the next one, or the present one to call off a switch";
    rules_too_soon = Code::RulesTooSoon,
        "a switch of the rules is announced a whole epoch ahead; name a later height";
    proposal_unknown = Code::ProposalUnknown, "this account has put nothing to the vote; it may have been carried";
    proposal_changed = Code::ProposalChanged, "the proposal is another one by now; read it and vote again";
    proposal_expired = Code::ProposalExpired, "the time for votes is over; propose it again";
    proposal_voted = Code::ProposalVoted, "you have voted for it already; nothing is to be done";

    genesis_no_peer = Code::GenesisNoPeer, "a network needs a peer; name at least one";
    genesis_bad_params = Code::GenesisBadParams, "a parameter is out of its bounds; see the hint and correct it";
    genesis_bad_grant = Code::GenesisBadGrant,
        "a grant is negative or all of them are above 2^96 ucr; correct the amounts";
    genesis_duplicate = Code::GenesisDuplicate, "a name or a key appears twice; name each once";
    genesis_unknown_owner = Code::GenesisUnknownOwner,
        "a peer's owner is not among the grants; grant it an account, be it of zero";
    genesis_too_large = Code::GenesisTooLarge, "a text or a list of the genesis is over its limit; shorten it";
}
