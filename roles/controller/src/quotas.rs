//! Quotas in words: which one, how much of it is used, and what to do.

use piecework_api::{
    audit::{AccountLimits, UsageItem, UsageView},
    errors::Refusal,
};
use piecework_model::{AccountId, Code};
use piecework_store::Kept;

use crate::{Answer, failure::store, ground::Ground};

const MIB: u64 = 1 << 20;

/// A quota's code, what it counts, and how to keep less.
struct Words {
    /// Of its refusal; what is dropped is never refused.
    code: Option<Code>,
    /// As the API names it.
    name: &'static str,
    what: &'static str,
    advice: &'static str,
}

fn words(kept: Kept) -> Words {
    let (code, name, what, advice) = match kept {
        Kept::Inputs => (
            Some(Code::QuotaInputs),
            "inputs",
            "inputs of asynchronous jobs that have not ended",
            "retry when some have ended, or cancel some with `piecework cancel JOB`",
        ),
        Kept::Bundles => (
            Some(Code::QuotaBundles),
            "bundles",
            "bundles of your functions",
            "delete functions with `piecework delete NAME --for-good`, or ask the operator for more (`piecework limits`)",
        ),
        Kept::Versions => (
            Some(Code::QuotaVersions),
            "versions",
            "versions of your functions",
            "delete functions with `piecework delete NAME --for-good`, or ask the operator for more (`piecework limits`)",
        ),
        Kept::Functions => (
            Some(Code::QuotaFunctions),
            "functions",
            "functions, those included that are deleted and can be restored",
            "delete some with `piecework delete NAME --for-good`, or ask the operator for more (`piecework limits`)",
        ),
        // They are dropped, never refused.
        Kept::Outputs => (None, "outputs", "outputs", ""),
        Kept::Logs => (None, "logs", "logs", ""),
        Kept::Records => (None, "jobs", "records of jobs", ""),
    };
    Words {
        code,
        name,
        what,
        advice,
    }
}

fn is_bytes(kept: Kept) -> bool {
    match kept {
        Kept::Outputs | Kept::Logs | Kept::Records | Kept::Inputs | Kept::Bundles => true,
        Kept::Versions | Kept::Functions => false,
    }
}

/// Bytes as MiB, rounded up: what is over shows as over.
fn shown(kept: Kept, amount: u64) -> String {
    match is_bytes(kept) {
        true => format!("{} MiB", amount.div_ceil(MIB)),
        false => amount.to_string(),
    }
}

/// `used` is what it would be with what is refused.
pub(crate) fn refused((kept, used, most): (Kept, u64, u64)) -> Box<Refusal> {
    let Words { code, what, advice, .. } = words(kept);
    let code = code.expect("outputs, logs and records are dropped, never refused");
    let message = format!(
        "{what} would take {} of at most {}",
        shown(kept, used),
        shown(kept, most)
    );
    let details = serde_json::json!({ "used": used, "limit": most });
    Box::new(Refusal::new(code, message).hint(advice).details(details))
}

/// What the limits of an account say of its quotas.
pub(crate) fn of_limits(limits: &AccountLimits) -> [(Kept, Option<u64>); 7] {
    let bytes = |mib: Option<u32>| mib.map(|mib| u64::from(mib) * MIB);
    [
        (Kept::Outputs, bytes(limits.outputs_mb)),
        (Kept::Logs, bytes(limits.logs_mb)),
        (Kept::Records, bytes(limits.jobs_mb)),
        (Kept::Inputs, bytes(limits.inputs_mb)),
        (Kept::Bundles, bytes(limits.bundles_mb)),
        (Kept::Versions, limits.versions.map(u64::from)),
        (Kept::Functions, limits.functions.map(u64::from)),
    ]
}

/// What an account keeps and may keep.
pub(crate) async fn view(ground: &Ground, account: AccountId) -> Answer<UsageView> {
    let used = ground.store.usage(account).await.map_err(store)?;
    let most = ground.store.quotas(account);
    let item = |kept: Kept| UsageItem {
        kind: words(kept).name.to_owned(),
        unit: if is_bytes(kept) { "bytes" } else { "items" }.to_owned(),
        used: used.get(kept),
        limit: most.get(kept),
    };
    Ok(UsageView {
        items: Kept::ALL.map(item).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_which_quota_how_much_and_what_to_do() {
        for (kept, code) in [
            (Kept::Inputs, Code::QuotaInputs),
            (Kept::Bundles, Code::QuotaBundles),
            (Kept::Versions, Code::QuotaVersions),
            (Kept::Functions, Code::QuotaFunctions),
        ] {
            let refusal = refused((kept, 3 * MIB + 1, 3 * MIB));
            assert_eq!(refusal.code, code);
            assert!(refusal.hint.is_some_and(|hint| hint.contains("piecework")));
        }
        let refusal = refused((Kept::Bundles, 3 * MIB + 1, 3 * MIB));
        assert!(
            refusal.message.contains("4 MiB of at most 3 MiB"),
            "{}",
            refusal.message
        );
    }
}
