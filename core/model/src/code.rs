//! Every stable code of a refusal, once. `ports/api` says of each which HTTP status it has and what it means.

use std::{fmt, io};

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! codes {
    ($($variant:ident = $text:literal,)*) => {
        /// A stable code: `noun.reason`. What it is called here may change, its text never does once it is published.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $text] $variant,)*
        }

        impl Code {
            /// Every code, sorted by its text.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// What programs see: in HTTP bodies, on links, in stored records and in a block's outcomes.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// `None` for a code of another program, such as a newer version of this one.
            pub fn parse(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    AccountBadName = "account.bad_name",
    AccountBadPassword = "account.bad_password",
    AccountBadRegistration = "account.bad_registration",
    AccountBadSignature = "account.bad_signature",
    AccountExists = "account.exists",
    AccountInsufficientCredits = "account.insufficient_credits",
    AccountKeyProof = "account.key_proof",
    AccountLimitInUse = "account.limit_in_use",
    AccountNameTaken = "account.name_taken",
    AccountNoDebt = "account.no_debt",
    AccountNotFound = "account.not_found",
    AccountNotSponsor = "account.not_sponsor",
    AccountOtherKey = "account.other_key",
    AccountOwnerSignature = "account.owner_signature",
    AccountReservedName = "account.reserved_name",
    AccountSponsorLimit = "account.sponsor_limit",
    AccountSponsorSignature = "account.sponsor_signature",
    AccountUnknown = "account.unknown",
    AlertNoChannel = "alert.no_channel",
    AlertUndelivered = "alert.undelivered",
    AuthBadCredentials = "auth.bad_credentials",
    AuthBadToken = "auth.bad_token",
    AuthForeignPage = "auth.foreign_page",
    AuthMissingToken = "auth.missing_token",
    AuthOperator = "auth.operator",
    AuthRateLimited = "auth.rate_limited",
    AuthRole = "auth.role",
    AuthScope = "auth.scope",
    BlockBadHeight = "block.bad_height",
    BlockNotFound = "block.not_found",
    BodyBadEncoding = "body.bad_encoding",
    BodyMalformed = "body.malformed",
    BodyTooLarge = "body.too_large",
    BodyTooSlow = "body.too_slow",
    BundleBadArchive = "bundle.bad_archive",
    BundleBadPath = "bundle.bad_path",
    BundleNoEntry = "bundle.no_entry",
    BundleTooLarge = "bundle.too_large",
    BundleTooManyFiles = "bundle.too_many_files",
    CardNoRequest = "card.no_request",
    CardOtherNetwork = "card.other_network",
    ChallengeAcknowledged = "challenge.acknowledged",
    ChallengeNotPaid = "challenge.not_paid",
    ChallengeNotShown = "challenge.not_shown",
    ClaimBadAcks = "claim.bad_acks",
    ClaimBadTickets = "claim.bad_tickets",
    ClaimJobMismatch = "claim.job_mismatch",
    ClaimNone = "claim.none",
    ClaimNotDue = "claim.not_due",
    ClaimOtherLane = "claim.other_lane",
    ClaimPriceAboveTicket = "claim.price_above_ticket",
    ClaimTooLate = "claim.too_late",
    CursorMalformed = "cursor.malformed",
    DeployAllowance = "deploy.allowance",
    DeployBusy = "deploy.busy",
    DevnetForeignDirectory = "devnet.foreign_directory",
    DevnetOtherNetwork = "devnet.other_network",
    DirectoryDamaged = "directory.damaged",
    DirectoryForeign = "directory.foreign",
    DirectoryInUse = "directory.in_use",
    DirectoryNewer = "directory.newer",
    DiskLow = "disk.low",
    EgressBadDestination = "egress.bad_destination",
    EgressBadLimit = "egress.bad_limit",
    EgressPrivateAddress = "egress.private_address",
    EgressTooMany = "egress.too_many",
    EgressUnavailable = "egress.unavailable",
    FunctionBadCode = "function.bad_code",
    FunctionBadConcurrency = "function.bad_concurrency",
    FunctionBadCors = "function.bad_cors",
    FunctionBadDisk = "function.bad_disk",
    FunctionBadEnv = "function.bad_env",
    FunctionBadHandler = "function.bad_handler",
    FunctionBadMemory = "function.bad_memory",
    FunctionBadName = "function.bad_name",
    FunctionBadProcesses = "function.bad_processes",
    FunctionBadStreamLimit = "function.bad_stream_limit",
    FunctionBadTimeout = "function.bad_timeout",
    FunctionBudgetSpent = "function.budget_spent",
    FunctionChanged = "function.changed",
    FunctionCrashed = "function.crashed",
    FunctionDiskFull = "function.disk_full",
    FunctionExists = "function.exists",
    FunctionLoadFailed = "function.load_failed",
    FunctionNoHandler = "function.no_handler",
    FunctionNoScheduled = "function.no_scheduled",
    FunctionNotDeleted = "function.not_deleted",
    FunctionNotFound = "function.not_found",
    FunctionOutOfMemory = "function.out_of_memory",
    FunctionOutputInvalid = "function.output_invalid",
    FunctionOutputTooLarge = "function.output_too_large",
    FunctionQuarantined = "function.quarantined",
    FunctionRaised = "function.raised",
    FunctionStopped = "function.stopped",
    FunctionSyntaxError = "function.syntax_error",
    FunctionTimedOut = "function.timed_out",
    FunctionTooMany = "function.too_many",
    FunctionTooManyFiles = "function.too_many_files",
    FunctionTooManyProcesses = "function.too_many_processes",
    FunctionUnknownLanguage = "function.unknown_language",
    GenesisBadGrant = "genesis.bad_grant",
    GenesisBadParams = "genesis.bad_params",
    GenesisDuplicate = "genesis.duplicate",
    GenesisNoPeer = "genesis.no_peer",
    GenesisTooLarge = "genesis.too_large",
    GenesisUnknownOwner = "genesis.unknown_owner",
    IdMalformed = "id.malformed",
    IdempotencyBadKey = "idempotency.bad_key",
    IdempotencyConflict = "idempotency.conflict",
    ImageBad = "image.bad",
    ImageBadLayer = "image.bad_layer",
    ImageDigestMismatch = "image.digest_mismatch",
    ImageLoginRequired = "image.login_required",
    ImageMissingPart = "image.missing_part",
    ImageOtherPlatform = "image.other_platform",
    ImageRegistryFailed = "image.registry_failed",
    ImageTooLarge = "image.too_large",
    InviteBad = "invite.bad",
    InviteNoDeposit = "invite.no_deposit",
    InviteRequired = "invite.required",
    InviteTooMany = "invite.too_many",
    InviteWrongRole = "invite.wrong_role",
    JobBadState = "job.bad_state",
    JobCancelled = "job.cancelled",
    JobExpired = "job.expired",
    JobFinished = "job.finished",
    JobNotFinished = "job.not_finished",
    JobNotFound = "job.not_found",
    LeaseBadBudget = "lease.bad_budget",
    LeaseClaimsPending = "lease.claims_pending",
    LeaseClosed = "lease.closed",
    LeaseDraining = "lease.draining",
    LeaseInsufficientFunds = "lease.insufficient_funds",
    LeaseNoPayer = "lease.no_payer",
    LeaseNone = "lease.none",
    LeaseNotDraining = "lease.not_draining",
    LeaseNotFound = "lease.not_found",
    LeaseNotYours = "lease.not_yours",
    LeasePayerExists = "lease.payer_exists",
    LeasePayerUnknown = "lease.payer_unknown",
    LeaseShortWindow = "lease.short_window",
    LeaseStillDraining = "lease.still_draining",
    LeaseTooManyPayers = "lease.too_many_payers",
    LeaseUnknown = "lease.unknown",
    LedgerBehind = "ledger.behind",
    LedgerIndexing = "ledger.indexing",
    LedgerNotStarted = "ledger.not_started",
    LedgerOtherNetwork = "ledger.other_network",
    LedgerOverflow = "ledger.overflow",
    LedgerUnavailable = "ledger.unavailable",
    LinkAlreadyConnected = "link.already_connected",
    LinkBadProfile = "link.bad_profile",
    LinkMalformed = "link.malformed",
    LinkNoOffer = "link.no_offer",
    LinkOtherKey = "link.other_key",
    LinkOtherNetwork = "link.other_network",
    LinkOtherPrices = "link.other_prices",
    LinkUnknownProvider = "link.unknown_provider",
    LinkUntrustedController = "link.untrusted_controller",
    LinkVersion = "link.version",
    ListenBadCertificate = "listen.bad_certificate",
    ListenRefused = "listen.refused",
    MempoolFull = "mempool.full",
    MempoolNonceTaken = "mempool.nonce_taken",
    MethodNotAllowed = "method.not_allowed",
    MetricsBadRange = "metrics.bad_range",
    MetricsBadStep = "metrics.bad_step",
    MismatchNotShown = "mismatch.not_shown",
    MismatchReported = "mismatch.reported",
    NetworkMalformed = "network.malformed",
    OfferDeposit = "offer.deposit",
    OfferExpired = "offer.expired",
    OfferUnknown = "offer.unknown",
    PackagesBadRequirement = "packages.bad_requirement",
    PackagesBusy = "packages.busy",
    PackagesDirectReference = "packages.direct_reference",
    PackagesNoJail = "packages.no_jail",
    PackagesTimeout = "packages.timeout",
    PackagesTooLarge = "packages.too_large",
    PackagesToolMissing = "packages.tool_missing",
    PackagesUnresolvable = "packages.unresolvable",
    ParamsFixed = "params.fixed",
    PathNotFound = "path.not_found",
    PeersBadAddress = "peers.bad_address",
    PeersBadProof = "peers.bad_proof",
    PeersChangePending = "peers.change_pending",
    PeersExists = "peers.exists",
    PeersLast = "peers.last",
    PeersNotOwner = "peers.not_owner",
    PeersNothingToPay = "peers.nothing_to_pay",
    PeersTooMany = "peers.too_many",
    PeersUnknown = "peers.unknown",
    PlacementBadLabel = "placement.bad_label",
    PlacementBadPin = "placement.bad_pin",
    PlacementBadPolicy = "placement.bad_policy",
    PlacementBadRegion = "placement.bad_region",
    PlacementBadRerun = "placement.bad_rerun",
    PlacementBadTrust = "placement.bad_trust",
    PlacementUnknownProvider = "placement.unknown_provider",
    ProofBadCertificate = "proof.bad_certificate",
    ProofBadGenesis = "proof.bad_genesis",
    ProofBadHeader = "proof.bad_header",
    ProofBadOutcomes = "proof.bad_outcomes",
    ProofBadParent = "proof.bad_parent",
    ProofBadPath = "proof.bad_path",
    ProofBadStateRoot = "proof.bad_state_root",
    ProofBadTransactions = "proof.bad_transactions",
    ProofBadValue = "proof.bad_value",
    ProofCutOff = "proof.cut_off",
    ProofMalformed = "proof.malformed",
    ProofMissingBlock = "proof.missing_block",
    ProofNoPeerChange = "proof.no_peer_change",
    ProofNotFinal = "proof.not_final",
    ProofOfAnother = "proof.of_another",
    ProofOtherNetwork = "proof.other_network",
    ProofReplayFailed = "proof.replay_failed",
    ProofTooFewSignatures = "proof.too_few_signatures",
    ProofUnknownRules = "proof.unknown_rules",
    ProposalChanged = "proposal.changed",
    ProposalExpired = "proposal.expired",
    ProposalUnknown = "proposal.unknown",
    ProposalVoted = "proposal.voted",
    ProviderBadHours = "provider.bad_hours",
    ProviderBadResult = "provider.bad_result",
    ProviderDiskFailed = "provider.disk_failed",
    ProviderDiskFull = "provider.disk_full",
    ProviderDraining = "provider.draining",
    ProviderLost = "provider.lost",
    ProviderNoMemory = "provider.no_memory",
    ProviderNoSlot = "provider.no_slot",
    ProviderNone = "provider.none",
    ProviderPaused = "provider.paused",
    QueryMalformed = "query.malformed",
    QuotaBundles = "quota.bundles",
    QuotaFunctions = "quota.functions",
    QuotaInputs = "quota.inputs",
    QuotaVersions = "quota.versions",
    RateBadLimits = "rate.bad_limits",
    RateLimited = "rate.limited",
    ReceiptNotHeld = "receipt.not_held",
    ReceiptNotMine = "receipt.not_mine",
    ReferenceMalformed = "reference.malformed",
    ReferenceTaken = "reference.taken",
    ReleaseNone = "release.none",
    ReleaseNotDue = "release.not_due",
    ResultBadSink = "result.bad_sink",
    ResultBadTtl = "result.bad_ttl",
    ResultElsewhere = "result.elsewhere",
    ResultExpired = "result.expired",
    ResultNotKept = "result.not_kept",
    ResultPrivateAddress = "result.private_address",
    RouteMalformed = "route.malformed",
    RouteNotAllowed = "route.not_allowed",
    RouteNotFound = "route.not_found",
    RouteTaken = "route.taken",
    RouteTooMany = "route.too_many",
    RulesNotNext = "rules.not_next",
    RulesTooSoon = "rules.too_soon",
    SandboxFailed = "sandbox.failed",
    SandboxFellShort = "sandbox.fell_short",
    SandboxUnavailable = "sandbox.unavailable",
    SandboxUnknown = "sandbox.unknown",
    SandboxUnsupported = "sandbox.unsupported",
    SandboxWorkerLost = "sandbox.worker_lost",
    ServerBusy = "server.busy",
    ServerDiskFull = "server.disk_full",
    ServerFailed = "server.failed",
    ServerStopping = "server.stopping",
    SettleAckWithoutReceipt = "settle.ack_without_receipt",
    SettleBadAcks = "settle.bad_acks",
    SettleBadCode = "settle.bad_code",
    SettleBadReceipts = "settle.bad_receipts",
    SettleBudget = "settle.budget",
    SettleEmpty = "settle.empty",
    SettleJobMismatch = "settle.job_mismatch",
    SettleNoPaper = "settle.no_paper",
    SettleNotAscending = "settle.not_ascending",
    SettleNotPayer = "settle.not_payer",
    SettleOtherProvider = "settle.other_provider",
    SettlePriceAboveCaps = "settle.price_above_caps",
    SettlePriceAboveTicket = "settle.price_above_ticket",
    SettleTooManyGaps = "settle.too_many_gaps",
    SettleTooManyOpen = "settle.too_many_open",
    SiteBadRange = "site.bad_range",
    TicketBadSeal = "ticket.bad_seal",
    TicketExpired = "ticket.expired",
    TicketOtherCode = "ticket.other_code",
    TicketOtherInput = "ticket.other_input",
    TicketOtherProvider = "ticket.other_provider",
    TicketOverLimits = "ticket.over_limits",
    TicketReplayed = "ticket.replayed",
    TicketUnderpriced = "ticket.underpriced",
    TicketUnknownPayer = "ticket.unknown_payer",
    TicketUnsealed = "ticket.unsealed",
    TokenBadExpiry = "token.bad_expiry",
    TokenBadScope = "token.bad_scope",
    TokenNotFound = "token.not_found",
    TokenOutlives = "token.outlives",
    TokenScopeNotHeld = "token.scope_not_held",
    TokenTooMany = "token.too_many",
    TrafficBadWeights = "traffic.bad_weights",
    TransactionBadSignature = "transaction.bad_signature",
    TransactionFutureNonce = "transaction.future_nonce",
    TransactionNotFound = "transaction.not_found",
    TransactionPending = "transaction.pending",
    TransactionQueued = "transaction.queued",
    TransactionStaleNonce = "transaction.stale_nonce",
    TransactionTooLarge = "transaction.too_large",
    TransactionWrongKey = "transaction.wrong_key",
    TransferBadMemo = "transfer.bad_memo",
    TransferInsufficient = "transfer.insufficient",
    TransferNotPositive = "transfer.not_positive",
    TransferQueued = "transfer.queued",
    TransferSelf = "transfer.self",
    TriggerBadSchedule = "trigger.bad_schedule",
    TriggerNotFound = "trigger.not_found",
    TriggerTooMany = "trigger.too_many",
    TypescriptTooComplex = "typescript.too_complex",
    TypescriptUnavailable = "typescript.unavailable",
    TypescriptUnsupported = "typescript.unsupported",
    ValueBadKey = "value.bad_key",
    VersionNotFound = "version.not_found",
    WithdrawalDecided = "withdrawal.decided",
    WithdrawalNotFound = "withdrawal.not_found",
    WithdrawalTooMany = "withdrawal.too_many",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A code that may have come from elsewhere: one of [`Code`], or the text of one that only the other program knows.
///
/// The text is kept so that it can be shown and passed on, but nothing here can decide by it. Encoded as its text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AnyCode(Said);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Said {
    Known(Code),
    /// Never the text of a [`Code`].
    Unknown(Box<str>),
}

impl AnyCode {
    pub fn known(&self) -> Option<Code> {
        match &self.0 {
            Said::Known(code) => Some(*code),
            Said::Unknown(_) => None,
        }
    }

    pub fn is_one_of(&self, codes: &[Code]) -> bool {
        self.known().is_some_and(|code| codes.contains(&code))
    }

    pub fn as_str(&self) -> &str {
        match &self.0 {
            Said::Known(code) => code.as_str(),
            Said::Unknown(text) => text,
        }
    }
}

impl From<Code> for AnyCode {
    fn from(code: Code) -> Self {
        Self(Said::Known(code))
    }
}

impl From<String> for AnyCode {
    fn from(text: String) -> Self {
        Self(match Code::parse(&text) {
            Some(code) => Said::Known(code),
            None => Said::Unknown(text.into()),
        })
    }
}

impl From<&str> for AnyCode {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl PartialEq<Code> for AnyCode {
    fn eq(&self, code: &Code) -> bool {
        self.known() == Some(*code)
    }
}

impl PartialEq<AnyCode> for Code {
    fn eq(&self, code: &AnyCode) -> bool {
        code == self
    }
}

impl fmt::Display for AnyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for AnyCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for AnyCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <String as Deserialize>::deserialize(deserializer).map(Self::from)
    }
}

impl BorshSerialize for AnyCode {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        BorshSerialize::serialize(self.as_str(), writer)
    }
}

impl BorshDeserialize for AnyCode {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        String::deserialize_reader(reader).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_each_is_a_noun_and_a_reason() {
        assert!(
            Code::ALL.is_sorted_by(|a, b| a.as_str() < b.as_str()),
            "sort the list by text, without doubles"
        );
        for code in Code::ALL {
            let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            let parts = code.as_str().split_once('.');
            assert!(
                parts.is_some_and(|(noun, reason)| plain(noun) && plain(reason)),
                "{code}"
            );
            let words = code.as_str().split(['.', '_']);
            let name: String = words.map(|word| word[..1].to_uppercase() + &word[1..]).collect();
            assert_eq!(format!("{code:?}"), name, "name the variant after its text");
            assert_eq!(Code::parse(code.as_str()), Some(*code));
        }
    }

    #[test]
    fn a_code_of_a_newer_program_is_kept_as_it_was_said() {
        let newer: AnyCode = serde_json::from_str(r#""moon.too_far""#).expect("a text");
        assert_eq!((newer.known(), newer.as_str()), (None, "moon.too_far"));
        assert_eq!(serde_json::to_string(&newer).expect("a text"), r#""moon.too_far""#);
        let ours: AnyCode = serde_json::from_str(r#""job.expired""#).expect("a text");
        assert_eq!(ours, Code::JobExpired);
    }

    #[test]
    fn a_code_is_encoded_as_its_text() {
        for text in ["job.expired", "moon.too_far", ""] {
            let bytes = borsh::to_vec(text).expect("bytes");
            assert_eq!(borsh::to_vec(&AnyCode::from(text)).expect("bytes"), bytes);
            assert_eq!(
                borsh::from_slice::<AnyCode>(&bytes).expect("a code"),
                AnyCode::from(text)
            );
        }
    }
}
