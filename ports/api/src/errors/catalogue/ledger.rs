//! Codes of the ledger's contracts, of tickets and of providers: seen where somebody sends signed messages himself.

use super::{Code, code};

pub(super) const LEDGER: &[Code] = &[
    code(422, "account.key_proof", "the new key has not signed for this account"),
    code(409, "account.name_taken", "another account has this name"),
    code(
        422,
        "account.owner_signature",
        "the owner has not signed for this account",
    ),
    code(
        422,
        "account.sponsor_signature",
        "the sponsor has not signed this limit for this account",
    ),
    code(409, "lease.draining", "the lease is closing and takes nothing new"),
    code(
        422,
        "lease.no_payer",
        "a lease without a payer key or a mailbox can pay nothing",
    ),
    code(409, "lease.not_draining", "the lease is open"),
    code(409, "lease.payer_exists", "this key is a payer of the lease already"),
    code(409, "lease.payer_unknown", "this key is no payer of the lease"),
    code(409, "lease.still_draining", "the lease drains until its height is past"),
    code(
        422,
        "lease.too_many_payers",
        "the lease has as many payer keys as it may have",
    ),
    code(503, "ledger.not_started", "this ledger has no parameters yet"),
    code(422, "ledger.overflow", "an amount leaves the range of the ledger"),
    code(
        503,
        "mempool.full",
        "the ledger has as many transactions waiting as it takes",
    ),
    code(
        409,
        "mempool.nonce_taken",
        "another transaction with this nonce waits already",
    ),
    code(
        422,
        "offer.expired",
        "an offer expires at a height that is still to come",
    ),
    code(
        503,
        "provider.draining",
        "the provider ends what it runs and takes nothing new",
    ),
    code(503, "provider.no_slot", "the provider runs as many jobs as it may"),
    code(422, "receipt.not_mine", "a receipt or ticket names another lane"),
    code(
        500,
        "sandbox.failed",
        "the sandbox broke on the provider's side; the job is not charged",
    ),
    code(
        422,
        "settle.ack_without_receipt",
        "another mailbox's ack travels with or after its receipt",
    ),
    code(
        422,
        "settle.bad_acks",
        "the acks are not signed by a mailbox of the lease",
    ),
    code(422, "settle.bad_code", "a job's code is not in the list of codes"),
    code(
        422,
        "settle.bad_receipts",
        "the receipts are not sealed by the provider's current key",
    ),
    code(422, "settle.budget", "the lease's budget does not cover these jobs"),
    code(422, "settle.empty", "there is no job in it"),
    code(
        422,
        "settle.job_mismatch",
        "a job differs from what was recorded under its sequence",
    ),
    code(422, "settle.no_paper", "a job has neither receipt nor ack"),
    code(
        422,
        "settle.not_ascending",
        "sequences ascend strictly and end below 2^64 - 1",
    ),
    code(422, "settle.not_payer", "the signing key is no payer of the lease"),
    code(422, "settle.other_provider", "the lease is with another provider"),
    code(
        422,
        "settle.price_above_caps",
        "a price is above what the lease's caps allow",
    ),
    code(
        422,
        "settle.price_above_ticket",
        "a price is above its ticket's maximum",
    ),
    code(422, "settle.too_many_gaps", "the lane has too many unsettled gaps"),
    code(422, "settle.too_many_open", "the lease has too many unfinished jobs"),
    code(
        422,
        "ticket.bad_seal",
        "tickets are not sealed by a payer key of the lease",
    ),
    code(422, "ticket.expired", "a ticket's deadline is past"),
    code(
        422,
        "ticket.other_code",
        "the code is not the one that the ticket orders",
    ),
    code(
        422,
        "ticket.other_input",
        "the input is not the one that the ticket orders",
    ),
    code(422, "ticket.other_provider", "a ticket is for another provider"),
    code(
        422,
        "ticket.replayed",
        "a ticket's sequence was used before in its lane",
    ),
    code(
        422,
        "ticket.underpriced",
        "a ticket's prices are below the provider's offer",
    ),
    code(
        422,
        "ticket.unknown_payer",
        "a ticket's signer is no payer of the lease",
    ),
    code(
        422,
        "ticket.unsealed",
        "more is owed without a signature than the lease's exposure allows",
    ),
    code(
        422,
        "transaction.bad_signature",
        "the signature does not fit this transaction on this network",
    ),
    code(
        422,
        "transaction.future_nonce",
        "earlier transactions of this account are missing",
    ),
    code(422, "transaction.stale_nonce", "this nonce was used before"),
    code(422, "transaction.too_large", "the transaction is over a size limit"),
    code(
        422,
        "transaction.wrong_key",
        "the transaction is not signed with the key of its sender's account",
    ),
];
