//! Why no provider takes a job, in words.

use piecework_api::{
    errors::Refusal,
    jobs::{PassedOverProvider, PassedOverView},
};
use piecework_model::Code;
use piecework_scheduler::Reasons;

use crate::{Controller, failure::refusal};

pub(crate) async fn passed_over(controller: &Controller, reasons: &Reasons) -> PassedOverView {
    let mut providers = Vec::with_capacity(reasons.providers.len());
    for passed in &reasons.providers {
        providers.push(PassedOverProvider {
            provider: controller.account_name(passed.provider).await,
            reason: passed.reason.to_string(),
        });
    }
    let others = reasons.others.iter();
    PassedOverView {
        providers,
        others: others.map(|(reason, count)| (reason.to_string(), *count)).collect(),
    }
}

pub(crate) async fn no_provider(controller: &Controller, reasons: &Reasons) -> Box<Refusal> {
    let mut refusal = refusal(Code::ProviderNone, "no provider can take the job");
    let named = passed_over(controller, reasons).await;
    refusal.details = Some(serde_json::json!({ "reasons": named.providers, "others": named.others }));
    refusal.hint = Some("`details.reasons` says why each was passed over; try again in a moment".into());
    refusal
}
