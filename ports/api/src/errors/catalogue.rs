//! Every stable code with its status and its cause. docs/errors.md is generated from these tables.

use piecework_model::Code;

mod functions;
mod ledger;
mod local;
mod operating;

/// What a code means.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub code: Code,
    /// `None` if only the command line says it, of its own machine.
    pub status: Option<u16>,
    pub when: &'static str,
}

const fn code(status: u16, code: Code, when: &'static str) -> Entry {
    let status = Some(status);
    Entry { code, status, when }
}

const TABLES: [&[Entry]; 5] = [
    PLATFORM,
    functions::FUNCTIONS,
    ledger::LEDGER,
    local::LOCAL,
    operating::OPERATING,
];

/// Every code, in no order.
pub fn catalogue() -> impl Iterator<Item = &'static Entry> {
    TABLES.into_iter().flatten()
}

/// How often the tables list a code.
const fn listed(code: Code) -> usize {
    let (mut table, mut times) = (0, 0);
    while table < TABLES.len() {
        let mut entry = 0;
        while entry < TABLES[table].len() {
            times += (TABLES[table][entry].code as u16 == code as u16) as usize;
            entry += 1;
        }
        table += 1;
    }
    times
}

/// A code without documentation does not compile. The error names the code.
const _: () = {
    let mut nth = 0;
    while nth < Code::ALL.len() {
        if listed(Code::ALL[nth]) != 1 {
            panic!("{}", Code::ALL[nth].as_str());
        }
        nth += 1;
    }
};

const PLATFORM: &[Entry] = &[
    code(
        422,
        Code::AccountBadName,
        "the name is not 1 to 30 characters from a-z, 0-9 and -",
    ),
    code(
        422,
        Code::AccountBadPassword,
        "the password is shorter than 10 or longer than 200 characters",
    ),
    code(
        422,
        Code::AccountBadRegistration,
        "the signed registration cannot be decoded or does not match the name and key",
    ),
    code(422, Code::AccountBadSignature, "the transaction's signature is invalid"),
    code(409, Code::AccountExists, "the name or key is already taken"),
    code(
        402,
        Code::AccountInsufficientCredits,
        "the account cannot cover the maximum cost of the run; nothing ran",
    ),
    code(404, Code::AccountNotFound, "no account has this name"),
    code(
        422,
        Code::AccountReservedName,
        "the name is a word of the platform's own: platform or commission",
    ),
    code(
        422,
        Code::AccountSponsorLimit,
        "the sponsor's signature or credits do not cover the limit",
    ),
    code(
        422,
        Code::AccountUnknown,
        "the transaction names an account that is not on the ledger",
    ),
    code(
        401,
        Code::AuthBadCredentials,
        "the name, password, challenge or signature is wrong",
    ),
    code(401, Code::AuthBadToken, "the token is unknown, expired or revoked"),
    code(
        403,
        Code::AuthForeignPage,
        "the request to the portal did not come from a page of the portal",
    ),
    code(
        401,
        Code::AuthMissingToken,
        "the request has no `Authorization: Bearer` header",
    ),
    code(
        429,
        Code::AuthRateLimited,
        "too many failed attempts from this address; see Retry-After",
    ),
    code(403, Code::AuthOperator, "only an operator can do this"),
    code(
        403,
        Code::AuthRole,
        "the account lacks the role that this request needs, such as developer",
    ),
    code(
        403,
        Code::AuthScope,
        "the token lacks the scope that this request needs",
    ),
    code(
        409,
        Code::AccountOtherKey,
        "the account has a different key than the one given",
    ),
    code(422, Code::BlockBadHeight, "the height is not a whole number"),
    code(404, Code::BlockNotFound, "the ledger has no block at this height yet"),
    code(
        422,
        Code::CardNoRequest,
        "the peer's card contains no request to join a running network",
    ),
    code(
        422,
        Code::CardOtherNetwork,
        "the peer's card asks to join another network",
    ),
    code(408, Code::BodyTooSlow, "the body did not arrive in time"),
    code(422, Code::BodyBadEncoding, "the base64 cannot be decoded"),
    code(
        422,
        Code::BodyMalformed,
        "the body is not the JSON that this endpoint expects; `field` says where",
    ),
    code(
        413,
        Code::BodyTooLarge,
        "the body is larger than the limit in the message",
    ),
    code(
        422,
        Code::BundleBadArchive,
        "the bundle is neither a zip nor a tar archive (plain, gzip or zstd)",
    ),
    code(
        422,
        Code::BundleBadPath,
        "an entry of the bundle is outside it, or is not a file, folder or link inside it",
    ),
    code(
        503,
        Code::DiskLow,
        "the server's disk is nearly full: new work and data are refused until there is room; see Retry-After",
    ),
    code(
        429,
        Code::DeployAllowance,
        "the account's deploys have used the computing that is free in a day; the hint says when to deploy again",
    ),
    code(
        503,
        Code::DeployBusy,
        "too many deploys of the account are under way, or no provider has a slot free to load the code; see Retry-After",
    ),
    code(
        422,
        Code::BundleNoEntry,
        "the bundle does not contain the handler's file",
    ),
    code(413, Code::BundleTooLarge, "the bundle has too many bytes or files"),
    code(413, Code::BundleTooManyFiles, "the bundle has too many files"),
    code(
        422,
        Code::ImageBad,
        "the file is not a container image, or its manifest or configuration is not valid",
    ),
    code(
        422,
        Code::ImageBadLayer,
        "a layer of the image is damaged, or has an entry that is not allowed: a device, a path with `..`, a hard link that leads out of it",
    ),
    code(
        422,
        Code::ImageDigestMismatch,
        "a part of the image does not have the digest by which it is named",
    ),
    code(
        409,
        Code::ImageMissingPart,
        "the image names a part that the account has not uploaded; upload it, then deploy again",
    ),
    code(
        422,
        Code::ImageOtherPlatform,
        "the image is not built for linux, or not for the architecture of the server",
    ),
    code(
        413,
        Code::ImageTooLarge,
        "the image has too many layers, files or bytes, compressed or unpacked",
    ),
    code(422, Code::CursorMalformed, "the cursor is not the `next` of a page"),
    code(
        422,
        Code::EgressBadDestination,
        "an entry of the allow list is not HOST:PORT with a name, a wildcard or an IPv4 address",
    ),
    code(
        422,
        Code::EgressBadLimit,
        "the limit on network bytes per run is not between 1 and 16384 MiB",
    ),
    code(
        422,
        Code::EgressPrivateAddress,
        "the allow list names an address that no provider allows",
    ),
    code(
        422,
        Code::EgressTooMany,
        "the allow list has more than 64 destinations or 12 different ports",
    ),
    code(
        409,
        Code::EgressUnavailable,
        "no provider runs functions that need the network",
    ),
    code(
        409,
        Code::IdempotencyConflict,
        "the key was already used with a different request",
    ),
    code(
        422,
        Code::IdempotencyBadKey,
        "the key is not 1 to 200 visible ASCII characters",
    ),
    code(422, Code::IdMalformed, "the id does not have the right form"),
    code(422, Code::InviteBad, "the invite is unknown, used or expired"),
    code(
        422,
        Code::InviteNoDeposit,
        "the invite has no credits for the deposit of a provider's offer; nothing was registered",
    ),
    code(
        422,
        Code::InviteWrongRole,
        "the invite is for another role; nothing was registered",
    ),
    code(403, Code::InviteRequired, "this network requires an invite to register"),
    code(
        409,
        Code::InviteTooMany,
        "the account has 100 invites that nobody has used; wait until some are used or expire",
    ),
    code(422, Code::JobBadState, "the job state is not one of the seven"),
    code(502, Code::JobCancelled, "the job was cancelled while the caller waited"),
    code(504, Code::JobExpired, "no provider started the job before its deadline"),
    code(409, Code::JobFinished, "the job has finished and cannot be cancelled"),
    code(
        409,
        Code::JobNotFinished,
        "the job has not finished, so it has no result yet",
    ),
    code(404, Code::JobNotFound, "you have no job with this id"),
    code(
        402,
        Code::LeaseNone,
        "you have no open lease, and only the holder of the account's key can open one",
    ),
    code(404, Code::LeaseNotFound, "the ledger has no lease with this id"),
    code(422, Code::LeaseBadBudget, "the budget is not above zero"),
    code(409, Code::LeaseClosed, "the lease takes no more jobs"),
    code(
        402,
        Code::LeaseInsufficientFunds,
        "posted + limit - held does not cover the budget",
    ),
    code(
        422,
        Code::LeaseNotYours,
        "the transaction's signer is not a party to the lease",
    ),
    code(
        422,
        Code::LeaseUnknown,
        "the transaction names a lease that is not on the ledger",
    ),
    code(
        503,
        Code::LedgerBehind,
        "this peer has not seen the requested block yet; another one may have",
    ),
    code(
        503,
        Code::LedgerIndexing,
        "this peer is still reading the history that the list is built from",
    ),
    code(
        503,
        Code::LedgerOtherNetwork,
        "the store belongs to another ledger; the controller does not start",
    ),
    code(
        503,
        Code::LedgerUnavailable,
        "the ledger does not answer; nothing was lost; retry later",
    ),
    code(
        409,
        Code::LinkAlreadyConnected,
        "another program with this provider's key is connected",
    ),
    code(422, Code::LinkBadProfile, "the provider's profile is out of bounds"),
    code(
        422,
        Code::LinkMalformed,
        "the connection to `/link` did not start with a valid handshake",
    ),
    code(409, Code::LinkNoOffer, "the provider has no offer on the ledger"),
    code(403, Code::LinkOtherKey, "the provider's account has a different key"),
    code(
        409,
        Code::LinkOtherNetwork,
        "the provider's account belongs to another network",
    ),
    code(
        409,
        Code::LinkOtherPrices,
        "the provider's prices differ from its offer on the ledger",
    ),
    code(
        404,
        Code::LinkUnknownProvider,
        "the ledger has no account for this provider",
    ),
    code(
        403,
        Code::LinkUntrustedController,
        "the controller has a different key than the one the provider knows",
    ),
    code(
        426,
        Code::LinkVersion,
        "provider and controller speak different versions of the link",
    ),
    code(
        405,
        Code::MethodNotAllowed,
        "the path exists, but does not support this method",
    ),
    code(
        422,
        Code::MetricsBadRange,
        "from is not before to, or the range has more than 1500 points",
    ),
    code(422, Code::MetricsBadStep, "the step is not minute, hour or day"),
    code(
        422,
        Code::OfferDeposit,
        "the account does not cover the offer's deposit",
    ),
    code(422, Code::OfferUnknown, "there is no such offer"),
    code(404, Code::PathNotFound, "there is nothing at this path"),
    code(
        422,
        Code::PlacementBadLabel,
        "the function asks for more than 32 labels, or for a label that is not 1 to 64 characters",
    ),
    code(
        422,
        Code::PlacementBadPin,
        "the function is pinned to more than 100 providers",
    ),
    code(
        422,
        Code::PlacementBadPolicy,
        "the policy is not random, least-loaded, warm-first, cheapest or default",
    ),
    code(422, Code::PlacementBadRegion, "the region is longer than 64 characters"),
    code(
        422,
        Code::PlacementBadRerun,
        "the share of jobs that run twice is over 100 percent",
    ),
    code(
        422,
        Code::PlacementBadTrust,
        "the trust class is not any, known, trusted or default",
    ),
    code(
        422,
        Code::PlacementUnknownProvider,
        "the function is pinned to an unknown provider",
    ),
    code(
        503,
        Code::ProviderBadResult,
        "the provider sent something other than the ordered result, and no other provider could take the job",
    ),
    code(
        503,
        Code::ProviderDiskFailed,
        "the provider cannot read or write its disk",
    ),
    code(503, Code::ProviderDiskFull, "the provider's disk is full"),
    code(
        503,
        Code::ProviderLost,
        "the provider was lost while it had the job, and no other provider could take it",
    ),
    code(
        503,
        Code::ProviderNone,
        "no provider can take the job; `details.reasons` says why each was passed over",
    ),
    code(
        422,
        Code::QueryMalformed,
        "a query parameter is unknown or has the wrong type; `field` says which",
    ),
    code(
        403,
        Code::QuotaBundles,
        "the bundles of the account's functions would take more room than they may",
    ),
    code(
        403,
        Code::QuotaFunctions,
        "the account would have more functions than it may, deleted ones that can be restored included",
    ),
    code(
        429,
        Code::QuotaInputs,
        "the inputs of the account's asynchronous jobs would take more room than they may; retry when some have ended",
    ),
    code(
        403,
        Code::QuotaVersions,
        "the account's functions would have more versions than they may",
    ),
    code(422, Code::RateBadLimits, "a limit of the account is out of range"),
    code(
        429,
        Code::RateLimited,
        "the account or address sends too many requests; see Retry-After",
    ),
    code(
        409,
        Code::ReceiptNotHeld,
        "no receipt of this job is waiting for a decision",
    ),
    code(
        422,
        Code::ResultBadSink,
        "results cannot be sent there; the message says why",
    ),
    code(
        422,
        Code::ResultBadTtl,
        "results must be kept for at least a second and no longer than their jobs",
    ),
    code(
        404,
        Code::ResultElsewhere,
        "the result was delivered to the function's sink and is not kept here",
    ),
    code(
        410,
        Code::ResultExpired,
        "the result has expired, as the function's settings say",
    ),
    code(
        404,
        Code::ResultNotKept,
        "the job returned nothing, or more than is kept for synchronous calls",
    ),
    code(
        422,
        Code::ResultPrivateAddress,
        "results cannot be sent to a private address unless the operator allows it",
    ),
    code(
        409,
        Code::SandboxUnavailable,
        "the requested sandbox does not work here; no other was used instead",
    ),
    code(
        502,
        Code::SandboxFellShort,
        "the chosen sandbox lacks something that the call used; later calls run in another one",
    ),
    code(422, Code::SandboxUnknown, "there is no sandbox with this name"),
    code(
        409,
        Code::SandboxUnsupported,
        "the requested sandbox cannot run this code; another one may",
    ),
    code(503, Code::ServerBusy, "the server is overloaded; see Retry-After"),
    code(
        507,
        Code::ServerDiskFull,
        "the server's disk is full; nothing was stored",
    ),
    code(
        500,
        Code::ServerFailed,
        "something failed on the server; its log says what",
    ),
    code(
        503,
        Code::ServerStopping,
        "the server stops, and the job has not begun or not ended; see Retry-After",
    ),
    code(422, Code::TokenBadExpiry, "the expiry is not between 60 s and a year"),
    code(
        422,
        Code::TokenBadScope,
        "the scope is not deploy, invoke, view or admin, or is missing",
    ),
    code(404, Code::TokenNotFound, "you have no token with this id"),
    code(
        422,
        Code::TokenOutlives,
        "a token cannot make one that is valid for longer than itself",
    ),
    code(409, Code::TokenTooMany, "the account has 256 tokens; delete some"),
    code(
        403,
        Code::TokenScopeNotHeld,
        "a token cannot grant a scope that it does not have",
    ),
    code(
        504,
        Code::TransactionPending,
        "the transaction is queued but not final yet; query it by its id",
    ),
    code(
        404,
        Code::TransactionNotFound,
        "the ledger has no transaction with this id",
    ),
    code(
        422,
        Code::TransferBadMemo,
        "the memo is over 100 characters or contains control characters",
    ),
    code(
        402,
        Code::TransferInsufficient,
        "posted + limit - held does not cover the amount",
    ),
    code(422, Code::TransferNotPositive, "the amount is not above zero"),
    code(
        503,
        Code::TransferQueued,
        "too few peers answer: the transfer waits and becomes final when they do; repeated with the same key, it moves the credits once",
    ),
    code(422, Code::TransferSelf, "sender and receiver are the same account"),
    code(
        422,
        Code::ValueBadKey,
        "the state key is not the ledger's encoding in hex",
    ),
];

/// The entry of a code.
pub(super) fn entry(code: Code) -> &'static Entry {
    let found = catalogue().find(|entry| entry.code == code);
    found.expect("a code that is in no table does not compile")
}

#[cfg(test)]
mod tests;
