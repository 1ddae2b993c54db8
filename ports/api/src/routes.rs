//! Every path of the HTTP interface, shared by router and client.

pub const FUNCTIONS: &str = "/functions";
pub const FUNCTION: &str = "/functions/{id}";
/// Parts of the layers of container images.
pub const IMAGE_PARTS: &str = "/images/parts";
pub const IMAGE_PART: &str = "/images/parts/{digest}";
pub const FUNCTION_VERSIONS: &str = "/functions/{id}/versions";
/// What was said while the version was made.
pub const FUNCTION_BUILD_LOG: &str = "/functions/{id}/versions/{version}/log";
/// And while none was made.
pub const FAILED_DEPLOYS: &str = "/failed-deploys";
pub const FUNCTION_CODE: &str = "/functions/{id}/code";
pub const FUNCTION_ROLLBACK: &str = "/functions/{id}/rollback";
/// How calls are split between versions.
pub const FUNCTION_TRAFFIC: &str = "/functions/{id}/traffic";
/// A function's monthly budget.
pub const FUNCTION_BUDGET: &str = "/functions/{id}/budget";
/// Where results go and how long they are kept.
pub const FUNCTION_RESULTS: &str = "/functions/{id}/results";
/// Ends a quarantine.
pub const FUNCTION_RELEASE: &str = "/functions/{id}/release";
pub const FUNCTION_STOP: &str = "/functions/{id}/stop";
pub const FUNCTION_START: &str = "/functions/{id}/start";
/// Undoes a deletion.
pub const FUNCTION_RESTORE: &str = "/functions/{id}/restore";
pub const FUNCTION_QUOTE: &str = "/functions/{id}/quote";
/// The logs of a function's newest jobs, oldest line first.
pub const FUNCTION_LOGS: &str = "/functions/{id}/logs";
/// What calls the function by itself.
pub const FUNCTION_TRIGGERS: &str = "/functions/{id}/triggers";
pub const FUNCTION_TRIGGER: &str = "/functions/{id}/triggers/{name}";
/// Those of all of the caller's functions.
pub const TRIGGERS: &str = "/triggers";

/// Paths and hosts of the accounts' own that lead to functions.
pub const ROUTES: &str = "/routes";
/// Hosts whose paths an operator gave to accounts.
pub const ROUTE_HOSTS: &str = "/routes/hosts";
pub const ROUTE_HOST: &str = "/routes/hosts/{host}";
/// Where an account's own paths begin.
pub const ROUTED: &str = "/r/{owner}/{*path}";
/// What is wrong now, and what operators are told of it.
pub const ALERTS: &str = "/alerts";
pub const ALERTS_TEST: &str = "/alerts/test";

pub const EXECUTE: &str = "/execute/{id}";
/// Of code that is not deployed.
pub const RUN_CODE: &str = "/execute";
/// The function's plain URL: bare, with a slash, and with a path.
pub const PLAIN: &str = "/fn/{owner}/{name}";
pub const PLAIN_ROOT: &str = "/fn/{owner}/{name}/";
pub const PLAIN_PATH: &str = "/fn/{owner}/{name}/{*path}";

pub const JOBS: &str = "/jobs";
pub const JOB: &str = "/jobs/{id}";
pub const JOB_HISTORY: &str = "/jobs/{id}/history";
pub const JOB_PROOF: &str = "/jobs/{id}/proof";
/// The function's output, unchanged.
pub const JOB_RESULT: &str = "/jobs/{id}/result";
pub const JOB_LOGS: &str = "/jobs/{id}/logs";

pub const METRICS: &str = "/metrics";
pub const METRICS_FUNCTION: &str = "/metrics/functions/{id}";
pub const METRICS_SYSTEM: &str = "/metrics/system";

pub const ACCOUNTS: &str = "/accounts";
pub const ACCOUNT: &str = "/accounts/{name}";
/// Limits that an operator set for an account.
pub const ACCOUNT_LIMITS: &str = "/accounts/{name}/limits";
/// What an account keeps on the server.
pub const ACCOUNT_USAGE: &str = "/accounts/{name}/usage";
pub const ACCOUNT_LOAN: &str = "/accounts/{name}/loan";
pub const ACCOUNT_LOAN_PAYMENTS: &str = "/accounts/{name}/loan/payments";
/// The account that the token belongs to.
pub const ACCOUNT_OWN: &str = "/account";
/// A new key for the token's account, if the controller keeps the key.
pub const ACCOUNT_ROTATE_KEY: &str = "/account/rotate-key";
/// Signs that a computer belongs to the caller.
pub const ACCOUNT_PROVIDERS: &str = "/account/providers";
pub const SESSIONS: &str = "/sessions";
pub const SESSION_CHALLENGES: &str = "/sessions/challenges";
pub const TOKENS: &str = "/tokens";
pub const TOKEN: &str = "/tokens/{id}";
pub const INVITES: &str = "/invites";
/// For an account that is registered already.
pub const INVITES_ACCEPT: &str = "/invites/accept";

/// Who changed what, and when.
pub const AUDIT: &str = "/audit";

/// Receipts that are not paid, and why.
pub const HELD: &str = "/held";
pub const HELD_JOB: &str = "/held/{job}";

pub const TRANSFERS: &str = "/transfers";
pub const STATEMENT: &str = "/statement";
/// Credits that an operator booked in.
pub const DEPOSITS: &str = "/deposits";
/// Credits that are to be paid out outside of the ledger.
pub const WITHDRAWALS: &str = "/withdrawals";
pub const WITHDRAWAL_SETTLE: &str = "/withdrawals/{id}/settle";
pub const WITHDRAWAL_DECLINE: &str = "/withdrawals/{id}/decline";
pub const OFFERS: &str = "/offers";
pub const PROVIDERS: &str = "/providers";
pub const LEASES: &str = "/leases";
pub const LEASE_TERMS: &str = "/leases/terms";
pub const LEASE_CLOSE: &str = "/leases/{id}/close";
pub const LEASE_PAYERS: &str = "/leases/{id}/payers";
pub const LEASE_PAYER: &str = "/leases/{id}/payers/{key}";

pub const LEDGER_STATUS: &str = "/ledger/status";
pub const LEDGER_BLOCKS: &str = "/ledger/blocks";
/// By height or by digest.
pub const LEDGER_BLOCK: &str = "/ledger/blocks/{height}";
/// The block in its wire encoding.
pub const LEDGER_BLOCK_RAW: &str = "/ledger/blocks/{height}/raw";
/// Blocks in their wire encoding, as soon as there are any.
pub const LEDGER_RAW_BLOCKS: &str = "/ledger/raw/blocks";
/// A value of the state in its wire encoding; the key is in hex.
pub const LEDGER_RAW_VALUE: &str = "/ledger/raw/values/{key}";
/// Values of the state with their proofs, in their wire encoding; the keys are a list in hex.
pub const LEDGER_RAW_PROOFS: &str = "/ledger/raw/proofs/{keys}";
/// Server-sent events: each block as it becomes final.
pub const LEDGER_EVENTS: &str = "/ledger/events";
pub const LEDGER_TRANSACTIONS: &str = "/ledger/transactions";
pub const LEDGER_TRANSACTION: &str = "/ledger/transactions/{id}";
pub const LEDGER_ACCOUNTS: &str = "/ledger/accounts";
pub const LEDGER_ACCOUNT: &str = "/ledger/accounts/{name}";
pub const LEDGER_OFFERS: &str = "/ledger/offers";
pub const LEDGER_LEASES: &str = "/ledger/leases";
pub const LEDGER_LEASE: &str = "/ledger/leases/{id}";
pub const LEDGER_JOBS: &str = "/ledger/jobs";
pub const LEDGER_JOB: &str = "/ledger/jobs/{id}";
pub const LEDGER_PEERS: &str = "/ledger/peers";
pub const LEDGER_PARAMS: &str = "/ledger/params";
pub const LEDGER_GENESIS: &str = "/ledger/genesis";

/// The pages that people look at; all paths below it that nothing else answers are theirs.
pub const PORTAL: &str = "/portal/";
/// The session of a browser, held by a cookie.
pub const PORTAL_SESSION: &str = "/portal/session";
/// Before each path of this interface, for the portal's own pages: there, and only there, the cookie authenticates.
pub const PORTAL_API: &str = "/portal/api";
/// Their scripts and styles, named by their digests.
pub const PORTAL_ASSETS: &str = "/portal/assets/";
/// Every request that a cookie may authenticate has this header, which no other site's page can send.
pub const PORTAL_HEADER: &str = "x-piecework-portal";

pub const EVENTS: &str = "/events";
pub const HEALTHZ: &str = "/healthz";
pub const READYZ: &str = "/readyz";
/// WebSocket to which providers connect.
pub const LINK: &str = "/link";
pub const OPENAPI: &str = "/openapi.json";

/// A request that repeats this header's value gets the first response and does no work.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// `Prefer: respond-async` answers 202 with the job's id at once.
pub const RESPOND_ASYNC: &str = "respond-async";
/// `Prefer: respond-stream` passes on what the function streams as it comes, and confirms it in `Preference-Applied`.
pub const RESPOND_STREAM: &str = "respond-stream";
/// On every response of `/fn/` and `/execute/`, including failures.
pub const JOB_ID_HEADER: &str = "x-job-id";

/// Puts `values` in place of the route's `{...}` in order, percent-encoded; a `{*...}` keeps its slashes.
///
/// Panics when the counts differ: both are written in this repository.
pub fn fill(route: &str, values: &[&str]) -> String {
    let mut filled = String::with_capacity(route.len() + 32);
    let (mut rest, mut values) = (route, values.iter());
    while let Some((before, after)) = rest.split_once('{') {
        let (name, tail) = after.split_once('}').expect("a route closes what it opens");
        let value = values.next().expect("a value for each part of the route");
        filled.push_str(before);
        encode(value, name.starts_with('*'), &mut filled);
        rest = tail;
    }
    assert!(values.next().is_none(), "more values than parts in {route}");
    filled.push_str(rest);
    filled
}

fn encode(value: &str, keep_slashes: bool, into: &mut String) {
    use std::fmt::Write as _;
    for byte in value.bytes() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
        if plain || (keep_slashes && byte == b'/') {
            into.push(char::from(byte));
        } else {
            write!(into, "%{byte:02X}").expect("a string takes every write");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_so_that_they_stay_one_segment() {
        assert_eq!(
            fill(FUNCTION_VERSIONS, &["a b/../c?"]),
            "/functions/a%20b%2F..%2Fc%3F/versions"
        );
        assert_eq!(fill(PLAIN_PATH, &["ada", "hello", "a/b c"]), "/fn/ada/hello/a/b%20c");
    }
}
