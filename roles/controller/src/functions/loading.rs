//! Has a provider load a draft before the deployment is answered.

use std::sync::Arc;

use piecework_model::{AccountId, Code, EgressList};
use piecework_queue::{ProviderLink, Work};
use piecework_sandbox::{BackendName, LoadError};
use piecework_scheduler::{Placement, Reason, Reasons, misfit};

use crate::{
    Answer,
    failure::{Refusal, failed, refusal, refuse, rejected},
    functions::{self, Functions},
    providers::{reasons, seen::Wanted},
};

/// The stored reason if the developer named the sandbox.
pub(crate) const ASKED_FOR: &str = "it was asked for";

/// Where a draft may be loaded: whoever loads it sees its code and its secrets.
pub(crate) struct Site<'a> {
    pub(crate) functions: &'a Functions,
    pub(crate) developer: AccountId,
    pub(crate) placement: &'a Placement,
}

impl Site<'_> {
    /// A provider that may run the work, however busy; or why none of them may.
    async fn provider(&self, work: &Work) -> Answer<Result<Arc<dyn ProviderLink>, Reasons>> {
        let request = functions::request(self.functions, self.developer, self.placement, work).await?;
        let wanted = Wanted {
            version: (work.function, work.version),
            egress: &work.egress,
            developer: self.developer,
        };
        let mut reasons = Reasons::default();
        for seen in self.functions.providers.all().iter() {
            let candidate = seen.candidate(wanted);
            match misfit(&candidate, &request) {
                None | Some(Reason::NoFreeSlot | Reason::Draining) => return Ok(Ok(seen.link.clone())),
                Some(reason) => reasons.add(candidate.account, reason),
            }
        }
        Ok(Err(reasons))
    }
}

/// Whether anything but the sandbox is in the way: what the developer asked for, or providers that are away or paused.
fn more_than_the_sandbox(reasons: &Reasons) -> bool {
    reasons.any(|reason| reason != Reason::NoBackend)
}

pub(crate) async fn load_as_asked(site: &Site<'_>, work: &Work, backend: BackendName) -> Answer<String> {
    let work = Work {
        backend,
        ..work.clone()
    };
    let provider = match site.provider(&work).await? {
        Ok(provider) => provider,
        Err(reasons) if more_than_the_sandbox(&reasons) => {
            return Err(reasons::no_provider(&site.functions.providers, &reasons).await);
        }
        Err(_) => {
            let message = format!(
                "no provider has a working sandbox `{backend}` for {}; no other was used instead",
                work.language
            );
            return Err(Refusal::new(Code::SandboxUnavailable, message)
                .hint("run `piecework doctor` to see why, or use `--sandbox auto`")
                .into());
        }
    };
    match provider.check(Arc::new(work)).await {
        Ok(()) => Ok(ASKED_FOR.to_owned()),
        Err(LoadError::Code(rejection)) => Err(rejected(rejection)),
        Err(LoadError::Unsupported { reason }) => refuse(
            Code::SandboxUnsupported,
            format!("the sandbox `{backend}` cannot run this code: {reason}"),
        ),
        Err(LoadError::Failed(reason)) => Err(failed("load a function", &reason)),
    }
}

/// Lightest first; each that does not take the code says why.
pub(crate) async fn load_where_it_goes(site: &Site<'_>, work: &Work) -> Answer<(BackendName, String)> {
    let mut said = Vec::new();
    let mut others = None;
    for backend in [BackendName::Wasm, BackendName::Jail] {
        let work = Work {
            backend,
            ..work.clone()
        };
        let provider = match site.provider(&work).await? {
            Ok(provider) => provider,
            Err(reasons) => {
                said.push(format!("{backend} does not work for {} on any provider", work.language));
                others = others.or(Some(reasons).filter(more_than_the_sandbox));
                continue;
            }
        };
        match provider.check(Arc::new(work)).await {
            Ok(()) if said.is_empty() => return Ok((backend, format!("the code loads in {backend}"))),
            Ok(()) => return Ok((backend, format!("the code loads in {backend}; {}", said.join("; ")))),
            Err(LoadError::Code(rejection)) => return Err(rejected(rejection)),
            Err(LoadError::Unsupported { reason }) => said.push(format!("{backend}: {reason}")),
            Err(LoadError::Failed(reason)) => {
                tracing::error!(%backend, %reason, "a sandbox failed to load a function");
                said.push(format!("{backend}: the sandbox failed"));
            }
        }
    }
    match others {
        Some(reasons) => Err(reasons::no_provider(&site.functions.providers, &reasons).await),
        None => refuse(
            Code::SandboxUnavailable,
            format!("no sandbox can run this code: {}", said.join("; ")),
        ),
    }
}

/// Whether any provider lets functions reach the addresses on the list. Names are judged when they are connected to.
pub(crate) fn somebody_lets_reach(functions: &Functions, list: &EgressList) -> Answer<()> {
    let all = functions.providers.all();
    if !all.iter().any(|seen| seen.link.is_linked()) {
        return Err(Refusal::new(
            Code::ProviderNone,
            "no provider is connected, so the code cannot be loaded",
        )
        .hint("start one with `piecework provide`, then deploy again")
        .into());
    }
    if all.iter().any(|seen| seen.lets_reach(list)) {
        return Ok(());
    }
    let mut policies = all.iter().filter_map(|seen| seen.link.profile().egress.as_ref());
    let mut refusal = match policies.find_map(|policy| policy.forbidden(list)) {
        None => refusal(
            Code::EgressUnavailable,
            "no provider runs functions that need the network",
        ),
        Some(address) => {
            let message = format!("{address} is not a public address, and no provider allows it");
            Refusal::new(Code::EgressPrivateAddress, message)
                .hint("a provider can allow private networks with `--egress-to NETWORK`")
                .into()
        }
    };
    refusal.field = Some("egress".into());
    Err(refusal)
}
