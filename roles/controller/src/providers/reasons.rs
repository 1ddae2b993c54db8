//! Why no provider takes a job, in words.

use piecework_api::{
    errors::Refusal,
    jobs::{PassedOverProvider, PassedOverView},
};
use piecework_model::Code;
use piecework_scheduler::{Reason, Reasons};

use crate::{failure::refusal, providers::Providers};

pub(crate) async fn passed_over(providers: &Providers, reasons: &Reasons) -> PassedOverView {
    let mut named = Vec::with_capacity(reasons.providers.len());
    for passed in &reasons.providers {
        named.push(PassedOverProvider {
            provider: providers.ground.account_name(passed.provider).await,
            reason: passed.reason.to_string(),
        });
    }
    let others = reasons.others.iter();
    PassedOverView {
        providers: named,
        others: others.map(|(reason, count)| (reason.to_string(), *count)).collect(),
    }
}

pub(crate) async fn no_provider(providers: &Providers, reasons: &Reasons) -> Box<Refusal> {
    let mut refusal = refusal(Code::ProviderNone, "no provider can take the job");
    let named = passed_over(providers, reasons).await;
    refusal.details = Some(serde_json::json!({ "reasons": named.providers, "others": named.others }));
    refusal.hint = Some(match reasons.any(|reason| reason == Reason::NotConfided) {
        true => "the function has secrets or an allow list, so providers of class new get none of its jobs; deploy it \
                 with `--trust any` to allow them"
            .into(),
        false => "`details.reasons` says why each was passed over; try again in a moment".into(),
    });
    refusal
}
