//! Every stable code: status, when it is given, what to do. docs/errors.md is made from this table.

mod ledger;

/// One stable code.
#[derive(Clone, Copy, Debug)]
pub struct Code {
    pub code: &'static str,
    pub status: u16,
    pub when: &'static str,
}

const fn code(status: u16, code: &'static str, when: &'static str) -> Code {
    Code { code, status, when }
}

/// Every code, in no order.
pub fn catalogue() -> impl Iterator<Item = &'static Code> {
    PLATFORM.iter().chain(ledger::LEDGER)
}

const PLATFORM: &[Code] = &[
    code(422, "account.bad_name", "a name is not 1 to 30 of a-z, 0-9 and -"),
    code(
        422,
        "account.bad_password",
        "a password is shorter than 10 or longer than 200 characters",
    ),
    code(
        422,
        "account.bad_registration",
        "a signed registration does not decode or does not fit the name and key",
    ),
    code(
        422,
        "account.bad_signature",
        "a transaction's signature does not verify",
    ),
    code(409, "account.exists", "the name or the key is taken"),
    code(
        402,
        "account.insufficient_credits",
        "the account cannot cover the most that the run can cost; nothing ran",
    ),
    code(404, "account.not_found", "no account has this name"),
    code(
        422,
        "account.sponsor_limit",
        "the sponsor's signature or credits do not cover the limit",
    ),
    code(
        422,
        "account.unknown",
        "a transaction names an account that is not on the ledger",
    ),
    code(
        401,
        "auth.bad_credentials",
        "name, password, challenge or signature is wrong",
    ),
    code(401, "auth.bad_token", "the token is unknown, expired or revoked"),
    code(
        401,
        "auth.missing_token",
        "the request has no `Authorization: Bearer` header",
    ),
    code(
        429,
        "auth.rate_limited",
        "too many attempts to log in under this name; see Retry-After",
    ),
    code(403, "auth.operator", "only an operator may do this"),
    code(403, "auth.scope", "the token lacks the scope that this needs"),
    code(
        409,
        "account.other_key",
        "the account has another key than the one that was given",
    ),
    code(422, "block.bad_height", "a height is not a whole number"),
    code(404, "block.not_found", "the ledger has no block of this height yet"),
    code(
        422,
        "card.no_request",
        "a peer's card does not ask to join a running network",
    ),
    code(422, "card.other_network", "a peer's card asks to join another network"),
    code(408, "body.too_slow", "the body did not arrive whole in time"),
    code(422, "body.bad_encoding", "base64 that does not decode"),
    code(
        422,
        "body.malformed",
        "the body is not the JSON that this endpoint takes; `field` says where",
    ),
    code(
        413,
        "body.too_large",
        "the body is over the limit that the message names",
    ),
    code(
        422,
        "bundle.bad_archive",
        "the bundle is no tar archive, plain or compressed by gzip or zstd",
    ),
    code(
        422,
        "bundle.bad_path",
        "an entry of the bundle leaves it or is no file, folder or link inside it",
    ),
    code(422, "bundle.no_entry", "the bundle lacks the handler's file"),
    code(
        413,
        "bundle.too_large",
        "the bundle has more bytes or files than are taken",
    ),
    code(413, "bundle.too_many_files", "the bundle has more files than are taken"),
    code(422, "cursor.malformed", "a cursor is not the `next` of a page"),
    code(
        422,
        "egress.bad_destination",
        "an entry of the allow list is not HOST:PORT with a name, a wildcard or an IPv4 address",
    ),
    code(
        422,
        "egress.bad_limit",
        "a run's limit of network bytes is not between 1 and 16384 MiB",
    ),
    code(
        422,
        "egress.private_address",
        "the allow list names an address that no provider lets functions reach",
    ),
    code(
        422,
        "egress.too_many",
        "an allow list has more than 64 destinations or 12 different ports",
    ),
    code(
        409,
        "egress.unavailable",
        "no provider here runs functions that reach the network",
    ),
    code(
        422,
        "function.bad_code",
        "neither or both of code and bundle were given, or the code is empty",
    ),
    code(
        422,
        "function.bad_concurrency",
        "a concurrency is not between 1 and 1000",
    ),
    code(
        402,
        "function.budget_spent",
        "what the function may cost in this month is spent, or its running jobs could spend it; nothing ran",
    ),
    code(422, "function.bad_env", "the name or size of a variable is not taken"),
    code(
        422,
        "function.bad_handler",
        "a handler is not of the form file or file:function",
    ),
    code(
        422,
        "function.bad_memory",
        "a memory limit is not between 32 and 4096 MiB",
    ),
    code(422, "function.bad_name", "a name is not 1 to 30 of a-z, 0-9 and -"),
    code(
        422,
        "function.bad_stream_limit",
        "the limit of what a run may stream is over 16384 MiB",
    ),
    code(422, "function.bad_timeout", "a timeout is not between 1 and 900000 ms"),
    code(
        502,
        "function.crashed",
        "the function's process ended by itself: an exit, a signal, a trap",
    ),
    code(
        409,
        "function.exists",
        "the owner has a function of this name; PUT makes a new version",
    ),
    code(422, "function.load_failed", "the code raises while it is imported"),
    code(422, "function.no_handler", "the code has no handler of that name"),
    code(
        404,
        "function.not_found",
        "no function of the caller has this id or name",
    ),
    code(
        502,
        "function.out_of_memory",
        "the run needed more than its memory limit",
    ),
    code(409, "function.not_deleted", "the function is there: nothing to restore"),
    code(502, "function.output_invalid", "the output is not JSON"),
    code(
        502,
        "function.output_too_large",
        "the output is over the limit, or the run streamed more than it may",
    ),
    code(
        409,
        "function.quarantined",
        "the version crashed too often in a row and takes no calls until a new version or a release",
    ),
    code(
        502,
        "function.raised",
        "the handler raised; `details` has type, message and stack",
    ),
    code(
        409,
        "function.stopped",
        "its owner has stopped the function; it takes no calls until it is started",
    ),
    code(
        422,
        "function.syntax_error",
        "the code does not parse; the message has file and line",
    ),
    code(
        504,
        "function.timed_out",
        "the run took longer than its timeout; it was ended",
    ),
    code(
        429,
        "function.too_many",
        "as many runs as the function may have are running and waiting; see Retry-After",
    ),
    code(
        422,
        "function.unknown_language",
        "the language is not python or javascript",
    ),
    code(409, "idempotency.conflict", "the key was used with another request"),
    code(422, "idempotency.bad_key", "a key is 1 to 200 visible ASCII characters"),
    code(422, "id.malformed", "an id is not of its form"),
    code(422, "invite.bad", "an invite is unknown, used or expired"),
    code(
        403,
        "invite.required",
        "the network takes no accounts without an invite",
    ),
    code(422, "job.bad_state", "a state of jobs is not one of the seven"),
    code(502, "job.cancelled", "the job was cancelled while the caller waited"),
    code(504, "job.expired", "no provider began before the deadline"),
    code(409, "job.finished", "the job is over and cannot be cancelled"),
    code(409, "job.not_finished", "the job has not ended: it has no result yet"),
    code(404, "job.not_found", "no job of the caller has this id"),
    code(
        402,
        "lease.none",
        "no lease pays for the developer's runs, and only who holds the account's key can open one",
    ),
    code(404, "lease.not_found", "the ledger has no lease of this id"),
    code(422, "lease.bad_budget", "a budget is not above zero"),
    code(409, "lease.closed", "the lease takes no more jobs"),
    code(
        402,
        "lease.insufficient_funds",
        "posted + limit - held does not cover the budget",
    ),
    code(
        422,
        "lease.not_yours",
        "a transaction's signer is no party of the lease",
    ),
    code(
        422,
        "lease.unknown",
        "a transaction names a lease that is not on the ledger",
    ),
    code(
        503,
        "ledger.behind",
        "this peer has not seen the block that was asked for yet; another may have",
    ),
    code(
        503,
        "ledger.indexing",
        "this peer still reads the history that the list is made from",
    ),
    code(
        503,
        "ledger.other_network",
        "the store goes with another ledger; the controller does not start",
    ),
    code(
        503,
        "ledger.unavailable",
        "the ledger does not answer now; nothing was lost",
    ),
    code(
        409,
        "link.already_connected",
        "another program with this provider's key is connected",
    ),
    code(
        422,
        "link.bad_profile",
        "what a provider says of itself is out of bounds",
    ),
    code(
        422,
        "link.malformed",
        "a connection to `/link` does not begin as a link does",
    ),
    code(409, "link.no_offer", "the provider has no offer on the ledger"),
    code(403, "link.other_key", "the provider's account has another key"),
    code(
        409,
        "link.other_network",
        "the provider's account belongs to another network",
    ),
    code(
        409,
        "link.other_prices",
        "the provider asks for other prices than its offer on the ledger says",
    ),
    code(
        404,
        "link.unknown_provider",
        "the ledger has no account of this provider",
    ),
    code(
        403,
        "link.untrusted_controller",
        "the controller has another key than the one that the provider knows",
    ),
    code(
        426,
        "link.version",
        "provider and controller speak different versions of the link",
    ),
    code(405, "method.not_allowed", "the path exists, the method on it does not"),
    code(
        422,
        "metrics.bad_range",
        "from is not before to, or there would be more than 1500 points",
    ),
    code(422, "metrics.bad_step", "a step is not minute, hour or day"),
    code(422, "offer.deposit", "the account does not cover the offer's deposit"),
    code(422, "offer.unknown", "there is no such offer"),
    code(
        422,
        "packages.bad_requirement",
        "requirements.txt or package.json asks for more than named packages with versions",
    ),
    code(504, "packages.timeout", "pip or npm did not finish in time"),
    code(
        409,
        "packages.tool_missing",
        "packages are declared and pip or npm is not on the server",
    ),
    code(
        413,
        "packages.too_large",
        "the resolved packages have more bytes or files than are taken",
    ),
    code(
        422,
        "packages.unresolvable",
        "pip or npm could not get the packages; the message has its last lines",
    ),
    code(404, "path.not_found", "there is nothing at this path"),
    code(
        422,
        "placement.bad_label",
        "a function asks for more than 32 labels, or for one that is not 1 to 64 characters",
    ),
    code(
        422,
        "placement.bad_pin",
        "a function is pinned to more than 100 providers",
    ),
    code(
        422,
        "placement.bad_policy",
        "a policy is not random, least-loaded, warm-first, cheapest or default",
    ),
    code(422, "placement.bad_region", "a region is longer than 64 characters"),
    code(
        422,
        "placement.bad_rerun",
        "the share of jobs that run twice is over 100 percent",
    ),
    code(422, "placement.bad_trust", "a trust class is not new, known or trusted"),
    code(
        422,
        "placement.unknown_provider",
        "a function is pinned to a name that no provider has",
    ),
    code(
        503,
        "provider.bad_result",
        "what the provider sent is not the result that was ordered, and no other provider could take the job",
    ),
    code(
        503,
        "provider.disk_failed",
        "the provider cannot read or write its own disk",
    ),
    code(503, "provider.disk_full", "the provider's disk is full"),
    code(
        503,
        "provider.lost",
        "the provider went away while the job was with it, and no other could take it",
    ),
    code(
        503,
        "provider.none",
        "no provider can take the job; `details.reasons` says why each was passed over",
    ),
    code(
        422,
        "query.malformed",
        "a query parameter is unknown or not of its type; `field` says which",
    ),
    code(422, "rate.bad_limits", "a limit of an account is out of its range"),
    code(
        429,
        "rate.limited",
        "the account, or the address, sends more requests a second than it may; see Retry-After",
    ),
    code(409, "receipt.not_held", "no receipt of this job waits for a decision"),
    code(
        422,
        "result.bad_sink",
        "results cannot be sent to such a place; the message says why",
    ),
    code(
        422,
        "result.bad_ttl",
        "results are kept for a second at least and no longer than their jobs",
    ),
    code(
        404,
        "result.elsewhere",
        "the result was delivered to its function's sink and is not kept here",
    ),
    code(
        410,
        "result.expired",
        "the result was kept as long as its function said",
    ),
    code(
        404,
        "result.not_kept",
        "the job returned nothing, or more than is kept of synchronous calls",
    ),
    code(
        422,
        "result.private_address",
        "results are sent to no address that is not public, unless the operator allows it",
    ),
    code(
        409,
        "sandbox.unavailable",
        "the sandbox that was asked for does not work here; nothing else was taken in its place",
    ),
    code(422, "sandbox.unknown", "there is no sandbox of this name"),
    code(
        409,
        "sandbox.unsupported",
        "the sandbox that was asked for cannot run this code; another may",
    ),
    code(
        503,
        "server.busy",
        "the server has as much to do as it takes; see Retry-After",
    ),
    code(507, "server.disk_full", "the server's disk is full; nothing was stored"),
    code(
        500,
        "server.failed",
        "something broke on the server's side; its log says what",
    ),
    code(422, "token.bad_expiry", "an expiry is not between 60 s and a year"),
    code(
        422,
        "token.bad_scope",
        "a scope is not deploy, invoke, view or admin, or there is none",
    ),
    code(404, "token.not_found", "no token of the caller has this id"),
    code(403, "token.scope_not_held", "a token cannot give what it does not hold"),
    code(
        422,
        "traffic.bad_weights",
        "a split names no version, too many, or shares that are out of range or all zero",
    ),
    code(
        504,
        "transaction.pending",
        "the transaction is queued and not final yet; ask for it by its id",
    ),
    code(404, "transaction.not_found", "the ledger has no transaction of this id"),
    code(
        422,
        "transfer.bad_memo",
        "a memo is over 100 characters or has control characters",
    ),
    code(
        402,
        "transfer.insufficient",
        "posted + limit - held does not cover the amount",
    ),
    code(422, "transfer.not_positive", "an amount is not above zero"),
    code(422, "transfer.self", "sender and receiver are one account"),
    code(
        422,
        "value.bad_key",
        "a key of the state is not the ledger's encoding in hex",
    ),
    code(404, "version.not_found", "the function has no such version"),
];

/// The entry of a code.
pub(super) fn find(code: &str) -> Option<&'static Code> {
    catalogue().find(|entry| entry.code == code)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

    use super::*;

    #[test]
    fn codes_are_unique_and_of_one_form() {
        let mut seen = BTreeSet::new();
        for Code { code, status, when } in catalogue() {
            assert!(seen.insert(code), "{code} stands twice");
            let (noun, reason) = code
                .split_once('.')
                .unwrap_or_else(|| panic!("{code} is not noun.reason"));
            let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            assert!(plain(noun) && plain(reason), "{code}");
            assert!((400..600).contains(status) && !when.is_empty(), "{code}");
        }
    }

    fn page() -> String {
        let mut codes: Vec<_> = catalogue().collect();
        codes.sort_by_key(|entry| entry.code);
        let mut page = String::from(
            "# Errors\n\nEvery refusal is `{\"error\": {\"code\", \"message\", \"hint\"?, \"field\"?, \"fields\"?, \"job_id\"?, \
             \"details\"?}}` with the\nstatus below. Codes are stable; messages are for people and may change. This list is \
             made from the table in\nports/api (`UPDATE_GOLDEN=1 cargo test -p piecework-api` writes it).\n\n\
             | code | status | when |\n|---|---|---|\n",
        );
        for Code { code, status, when } in codes {
            writeln!(page, "| `{code}` | {status} | {when} |").expect("a string takes every write");
        }
        page
    }

    #[test]
    fn the_documentation_lists_every_code() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, page()).expect("docs can be written");
        }
        let written = fs::read_to_string(&path).expect("docs/errors.md is there");
        assert!(
            written == page(),
            "docs/errors.md is stale: run UPDATE_GOLDEN=1 cargo test -p piecework-api"
        );
    }
}
