//! Has a provider load a draft before the deployment is answered.

use std::{sync::Arc, time::Duration};

use piecework_model::{AccountId, Code, EgressList, Language};
use piecework_queue::Work;
use piecework_sandbox::{BackendName, LoadError};
use piecework_scheduler::{Claim, Placement, Reason, Reasons, Request, misfit};

use crate::{
    Answer,
    failure::{Refusal, failed, refusal, refuse, rejected},
    functions::{self, Functions, checks::Turn, fallback},
    providers::{
        fair::{Label, Slot, Word},
        reasons,
        seen::{Wanted, Wants},
    },
};

/// A deploy waits this long for a slot in which its code is loaded.
const SLOT_WITHIN: Duration = Duration::from_secs(30);

/// Where a draft may be loaded: whoever loads it sees its code and its secrets.
pub(crate) struct Site<'a> {
    pub(crate) functions: &'a Functions,
    pub(crate) developer: AccountId,
    /// Its share of the slots.
    pub(crate) weight: u32,
    pub(crate) placement: &'a Placement,
    pub(crate) has_secrets: bool,
    pub(crate) turn: &'a Turn<'a>,
}

/// One draft in one sandbox.
struct Draft {
    developer: AccountId,
    work: Arc<Work>,
    request: Request,
}

impl Wants for Draft {
    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            version: (self.work.function, self.work.version),
            egress: &self.work.egress,
            developer: self.developer,
        }
    }

    fn request(&self) -> &Request {
        &self.request
    }
}

/// What there is for a draft at one moment.
enum Found {
    Slot(Slot),
    /// All that may load it are busy.
    Later(Reasons),
    Nobody(Reasons),
}

impl Site<'_> {
    /// Has a provider that may run the work load it, in a slot of the account's share; or tells why none of them may.
    async fn load(&self, work: Work) -> Answer<Result<Result<(), LoadError>, Reasons>> {
        let wanted = (self.placement, self.has_secrets);
        let draft = Arc::new(Draft {
            developer: self.developer,
            request: functions::request(self.functions, self.developer, wanted, &work).await?,
            work: Arc::new(work),
        });
        let slot = match self.slot(&draft).await? {
            Ok(slot) => slot,
            Err(reasons) => return Ok(Err(reasons)),
        };
        let loaded = self.turn.charged(slot.seen().link.check(draft.work.clone())).await;
        for (function, version) in self.turn.loaded(draft.wanted().version) {
            for seen in self.functions.providers.all().iter() {
                if !seen.link.is_warm(function, version) {
                    seen.link.forget(function, version);
                }
            }
        }
        Ok(Ok(loaded))
    }

    /// Waits for a slot where all are taken. Refuses with `deploy.busy`.
    async fn slot(&self, draft: &Arc<Draft>) -> Answer<Result<Slot, Reasons>> {
        let claim = Claim {
            developer: self.developer,
            weight: self.weight,
            function: None,
            memory_bytes: draft.request.footprint_bytes(),
        };
        let reasons = match self.find(draft, &claim) {
            Found::Slot(slot) => return Ok(Ok(slot)),
            Found::Later(reasons) => reasons,
            Found::Nobody(reasons) => return Ok(Err(reasons)),
        };
        let label = Label {
            wants: draft.clone(),
            refused: Vec::new(),
            has_run: Vec::new(),
        };
        let mut waiting = self.functions.providers.fair.wait(claim, label, false, None)?;
        match tokio::time::timeout(SLOT_WITHIN, waiting.word()).await {
            Ok(Word::Slot(slot)) => Ok(Ok(slot)),
            Ok(Word::Nobody) => Ok(Err(reasons)),
            Err(_) => refuse(
                Code::DeployBusy,
                "no provider had a slot free in which to load the code; deploy again in a moment",
            ),
        }
    }

    fn find(&self, draft: &Draft, claim: &Claim) -> Found {
        let mut reasons = Reasons::default();
        let mut is_busy = false;
        for seen in self.functions.providers.all().iter() {
            let candidate = seen.candidate(draft.wanted());
            let reason = match misfit(&candidate, &draft.request) {
                None | Some(Reason::NoFreeSlot | Reason::NoFreeMemory) => {
                    match self.functions.providers.fair.admit(seen, claim) {
                        Ok(slot) => return Found::Slot(slot),
                        Err(_) => {
                            is_busy = true;
                            Reason::NoFreeSlot
                        }
                    }
                }
                Some(reason) => reason,
            };
            reasons.add(candidate.account, reason);
        }
        match is_busy {
            true => Found::Later(reasons),
            false => Found::Nobody(reasons),
        }
    }
}

/// Whether anything but the sandbox is in the way: what the developer asked for, or providers that are away or paused.
fn more_than_the_sandbox(reasons: &Reasons) -> bool {
    reasons.any(|reason| reason != Reason::NoBackend)
}

/// Why the work does not run in its sandbox whatever its code is: the adapters of contracts are in the jail's runners.
fn needs_the_jail(work: &Work) -> Option<String> {
    match (work.backend, work.contract()) {
        (BackendName::Wasm, _) if work.language == Language::Image => {
            Some("a container image needs a jail or a container".to_owned())
        }
        (BackendName::Wasm, Some(contract)) => Some(format!("the contract `{}` needs the jail", contract.as_str())),
        (_, Some(_) | None) => None,
    }
}

pub(crate) async fn load_as_asked(site: &Site<'_>, work: &Work, backend: BackendName) -> Answer<()> {
    let work = Work {
        backend,
        ..work.clone()
    };
    let language = work.language;
    if let Some(reason) = needs_the_jail(&work) {
        return refuse(
            Code::SandboxUnsupported,
            format!("the sandbox `{backend}` cannot run this code: {reason}"),
        );
    }
    let loaded = match site.load(work).await? {
        Ok(loaded) => loaded,
        Err(reasons) if more_than_the_sandbox(&reasons) => {
            return Err(reasons::no_provider(&site.functions.providers, &reasons).await);
        }
        Err(_) => {
            let why = why_not_here(site.functions, backend);
            let message =
                format!("no provider has a working sandbox `{backend}` for {language}; no other was used instead{why}");
            return Err(Refusal::new(Code::SandboxUnavailable, message)
                .hint("run `piecework doctor` to see why, or use `--sandbox auto`")
                .into());
        }
    };
    match loaded {
        Ok(()) => Ok(()),
        Err(LoadError::Code(rejection)) => Err(rejected(rejection)),
        Err(LoadError::Unsupported { reason }) => refuse(
            Code::SandboxUnsupported,
            format!("the sandbox `{backend}` cannot run this code: {reason}"),
        ),
        Err(LoadError::Failed(reason)) => Err(failed("load a function", &reason)),
    }
}

/// What the probe on this machine said, where it is a provider itself: others keep to themselves what they lack.
fn why_not_here(functions: &Functions, backend: BackendName) -> String {
    let all = functions.providers.all();
    let own = all.iter().filter(|seen| seen.is_own);
    let probe = own
        .flat_map(|seen| &seen.link.profile().probes)
        .find(|probe| probe.backend == backend && !probe.works);
    probe.map_or_else(String::new, |probe| format!(". Here: {}", probe.detail))
}

/// What `auto` says where nothing can take over from wasm.
fn without_jail(language: Language) -> String {
    format!(
        "no provider has the jail for {language}, so calls that use what wasm lacks fail (time zones and languages, the network, \
         processes, threads, files, parts of the standard library; the error names it)"
    )
}

/// Lightest first; each that does not take the code says why. An error that one sandbox finds in the code may be its own: the
/// last one's counts.
pub(crate) async fn load_where_it_goes(site: &Site<'_>, work: &Work) -> Answer<(BackendName, String)> {
    let mut said = Vec::new();
    let mut others = None;
    let mut refused = None;
    for backend in [BackendName::Wasm, BackendName::Jail] {
        let draft = Work {
            backend,
            ..work.clone()
        };
        if let Some(reason) = needs_the_jail(&draft) {
            said.push(format!("{backend}: {reason}"));
            continue;
        }
        let loaded = match site.load(draft).await? {
            Ok(loaded) => loaded,
            Err(reasons) => {
                said.push(format!("{backend} does not work for {} on any provider", work.language));
                others = others.or(Some(reasons).filter(more_than_the_sandbox));
                continue;
            }
        };
        match loaded {
            Ok(()) => {
                if backend == BackendName::Wasm && !fallback::has_jail(site.functions, work.language) {
                    said.push(without_jail(work.language));
                }
                said.insert(0, format!("the code loads in {backend}"));
                return Ok((backend, said.join("; ")));
            }
            Err(LoadError::Code(rejection)) => {
                said.push(format!("{backend}: {}", first_line(&rejection.message)));
                refused = Some(rejection);
            }
            Err(LoadError::Unsupported { reason }) => said.push(format!("{backend}: {reason}")),
            Err(LoadError::Failed(reason)) => {
                tracing::error!(%backend, %reason, "a sandbox failed to load a function");
                said.push(format!("{backend}: the sandbox failed"));
            }
        }
    }
    if let Some(rejection) = refused {
        return Err(rejected(rejection));
    }
    match others {
        Some(reasons) => Err(reasons::no_provider(&site.functions.providers, &reasons).await),
        None => refuse(
            Code::SandboxUnavailable,
            format!("no sandbox can run this code: {}", said.join("; ")),
        ),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or("")
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
