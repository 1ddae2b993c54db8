//! Code that is run once, and is no version of any function.
//!
//! ```text
//! body -> settings of the function that it is to be tried for -> code kept and loaded as in a deploy -> one job
//! ```
//!
//! What comes out is as good as a version for a call, but nothing is written of it: its code goes with the next sweep. Its id is made of all
//! that its instance depends on, so that the same code with the same settings finds its instance warm, and no other code ever gets it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock},
};

use parking_lot::Mutex;
use piecework_api::{
    execute::RunCode,
    functions::{Settings, UpdateFunction},
};
use piecework_model::{AccountId, Code, Digest, FunctionId, FunctionName, Language, Limits};
use piecework_scheduler::Placement;
use piecework_store::{Function, Kept, Policy};

use crate::{
    Answer,
    accounts::{auth::Caller, rates},
    clock::now_ms,
    failure::{refuse, rejected, store},
    functions::{
        self, Functions, Live, budget,
        build_log::BuildLog,
        deploy::{self, Draft, KeptCode},
        entry,
        images::Holds,
        live,
        update::Asked,
    },
    quotas,
};

/// What its jobs have for a version: those of functions begin with 1.
pub(crate) const NO_VERSION: u32 = 0;
/// Runs of the same code at a time: who tries something out runs it a few times.
const CONCURRENCY: u32 = 4;
/// The name of code that is tried for no function.
const NAME: &str = "unsaved";

impl Live {
    /// Whether it is code that was never deployed.
    pub(crate) fn is_unsaved(&self) -> bool {
        self.version.version == NO_VERSION
    }
}

/// Bytes on disk of code that is being tried, by account: they count as bundles of the account.
#[derive(Default)]
pub(crate) struct Tries(Arc<Mutex<HashMap<AccountId, u64>>>);

/// Counts until it is dropped.
#[derive(Debug)]
struct Tried {
    among: Arc<Mutex<HashMap<AccountId, u64>>>,
    account: AccountId,
    bytes: u64,
}

impl Tries {
    /// Beside what the account keeps. Refuses with `quota.bundles`.
    fn count(&self, account: AccountId, bytes: u64, (used, most): (u64, u64)) -> Answer<Tried> {
        let mut all = self.0.lock();
        let tried = all.get(&account).copied().unwrap_or(0).saturating_add(bytes);
        let needed = used.saturating_add(tried);
        if needed > most {
            return Err(quotas::refused((Kept::Bundles, needed, most)));
        }
        all.insert(account, tried);
        Ok(Tried {
            among: self.0.clone(),
            account,
            bytes,
        })
    }
}

impl Drop for Tried {
    fn drop(&mut self) {
        let mut all = self.among.lock();
        if let Some(tried) = all.get_mut(&self.account) {
            *tried = tried.saturating_sub(self.bytes);
            if *tried == 0 {
                all.remove(&self.account);
            }
        }
    }
}

/// What keeps the code of a try on disk, and counts it.
pub(crate) struct Trying {
    _hold: Holds,
    _tried: Option<Tried>,
}

/// Keeps and loads the code, as a deploy does. Until the run has ended its code stays for as long as the hold. Refuses as a deploy does, with
/// `version.not_found`, with `function.budget_spent` where the function has none left, and with `quota.bundles`.
pub(crate) async fn load(functions: &Functions, caller: &Caller, asked: RunCode) -> Answer<(Arc<Live>, Trying)> {
    let base = base(functions, caller, &asked).await?;
    let name = name(base.as_deref())?;
    let language = match (asked.language.as_deref(), &base) {
        (Some(language), _) => language.parse().map_err(rejected)?,
        (None, Some(base)) => base.version.language,
        (None, None) => {
            let message = "name the language of the code, or a function whose settings it is to be run with";
            return refuse(Code::FunctionBadCode, message);
        }
    };
    let code_bytes = deploy::code_bytes([&asked.code, &asked.bundle]);
    let turn = deploy::turn(functions, caller.account, code_bytes).await?;
    let mut log = BuildLog::default();
    let brings_code = asked.code.is_some() || asked.bundle.is_some();
    let draft = draft(functions, (base.as_deref(), language), asked, (&turn, &mut log)).await?;
    let tried = match brings_code {
        true => Some(count(functions, caller.account, draft.code.disk_bytes).await?),
        // A version has it, and it counts there.
        false => None,
    };
    let function = Function {
        id: id(caller, &name, &draft),
        owner: caller.account,
        owner_name: caller.name.clone(),
        name,
        live_version: NO_VERSION,
        public: false,
        concurrency: CONCURRENCY,
        created_at_ms: now_ms(),
        updated_at_ms: now_ms(),
        policy: Policy {
            budget_ucr: base.as_ref().and_then(|base| base.function.policy.budget_ucr),
            ..Policy::default()
        },
    };
    let (version, hold) = deploy::load(functions, &function, NO_VERSION, draft, (&turn, &mut log)).await?;
    let limits = rates::limits(&functions.accounts, caller.account).await?;
    let live = Live {
        budget_of: base.map(|base| base.function.id),
        ..live::with_version(functions, &function, version, limits).await?
    };
    let trying = Trying {
        _hold: hold,
        _tried: tried,
    };
    Ok((Arc::new(live), trying))
}

async fn count(functions: &Functions, account: AccountId, bytes: u64) -> Answer<Tried> {
    let used = functions.ground.store.usage(account).await.map_err(store)?;
    let most = functions.ground.store.quotas(account).get(Kept::Bundles);
    functions.tries.count(account, bytes, (used.get(Kept::Bundles), most))
}

/// The caller's function whose settings the code is run with, in the version that was named or the live one.
async fn base(functions: &Functions, caller: &Caller, asked: &RunCode) -> Answer<Option<Arc<Live>>> {
    let Some(name) = &asked.function else {
        return match asked.version {
            Some(_) => refuse(Code::VersionNotFound, "a version is one of a function: name it, too"),
            None => Ok(None),
        };
    };
    let live = functions::own(functions, caller, name).await?;
    budget::check(functions, &live).await?;
    let Some(number) = asked.version.filter(|number| *number != live.version.version) else {
        return Ok(Some(live));
    };
    let function = &live.function;
    if functions
        .ground
        .store
        .version(function.id, number)
        .await
        .map_err(store)?
        .is_none()
    {
        return refuse(
            Code::VersionNotFound,
            format!("`{}` has no version {number}", function.name),
        );
    }
    let there = functions::of_version(functions, function, number, live.limits).await?;
    Ok(Some(Arc::new(there)))
}

fn name(base: Option<&Live>) -> Answer<FunctionName> {
    match base {
        Some(base) => Ok(base.function.name.clone()),
        None => NAME.parse().map_err(rejected),
    }
}

async fn draft(
    functions: &Functions,
    (base, language): (Option<&Live>, Language),
    asked: RunCode,
    (turn, log): (&super::checks::Turn<'_>, &mut BuildLog),
) -> Answer<Draft> {
    let settings = settings(&asked);
    let said = (asked.language.as_deref().unwrap_or_default(), asked.code.is_some());
    let given = deploy::handler(entry::given(asked.handler, said))?;
    let old = base.and_then(|base| base.version.handler.as_deref());
    let (code, handler) = match deploy::bundle(language, given.clone(), old, (asked.code, asked.bundle)).await? {
        Some((bundle, its)) => {
            let code = deploy::keep(functions, (turn, log), language, (bundle, its.as_deref())).await?;
            (Some(code), Some(its))
        }
        None => (None, given.map(Some)),
    };
    let draft = match (base, code) {
        (Some(base), code) => {
            let asked = Asked {
                settings,
                language,
                handler,
                code,
            };
            asked.draft(functions, base).await?
        }
        (None, Some(code)) => of_nothing(language, settings, (code, handler.flatten()))?,
        (None, None) => return refuse(Code::FunctionBadCode, "send exactly one of code and bundle"),
    };
    // A try is recorded when it is paid, and runs once.
    Ok(Draft {
        strict: false,
        rerun_percent: 0,
        ..draft
    })
}

/// With what a new function has for the rest.
fn of_nothing(language: Language, settings: Settings, (code, handler): (KeptCode, Option<String>)) -> Answer<Draft> {
    let egress = deploy::egress(&settings)?.unwrap_or_default();
    Ok(Draft {
        language,
        code,
        handler,
        limits: deploy::limits(&settings, &egress, Limits::DEFAULT)?,
        egress,
        sandbox: deploy::sandbox(&settings)?.flatten(),
        stream_bytes: deploy::stream_bytes(&settings, Limits::STREAM_BYTES_DEFAULT)?,
        env: deploy::variables(BTreeMap::new(), settings.env, "env")?,
        secrets: BTreeMap::new(),
        placement: Placement::default(),
        strict: false,
        rerun_percent: 0,
    })
}

fn settings(asked: &RunCode) -> Settings {
    UpdateFunction {
        timeout_ms: asked.timeout_ms,
        memory_limit_mb: asked.memory_limit_mb,
        process_limit: asked.process_limit,
        disk_limit_mb: asked.disk_limit_mb,
        env: asked.env.clone(),
        sandbox: asked.sandbox.clone(),
        egress: asked.egress.clone(),
        egress_limit_mb: asked.egress_limit_mb,
        ..UpdateFunction::default()
    }
    .settings()
}

/// Jobs show ids, and a secret is among what makes one: without this, a short one could be guessed from it.
static ID_KEY: LazyLock<[u8; 32]> = LazyLock::new(rand::random);

/// Of all that an instance of it depends on. Another one after each start of the process, as instances are.
fn id(caller: &Caller, name: &FunctionName, draft: &Draft) -> FunctionId {
    let sandbox = draft.sandbox.map(|backend| backend.to_string());
    let code = (draft.code.digest, draft.language.to_string(), &draft.handler, sandbox);
    let world = (&draft.env, &draft.secrets, &draft.limits, &draft.egress);
    let whole = (*ID_KEY, caller.account, name.as_str(), code, world);
    let digest = Digest::of_value("piecework 2026 unsaved code", &whole);
    FunctionId(*digest.0.first_chunk().expect("a digest is longer than an id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_that_is_tried_counts_as_a_bundle_until_its_run_has_ended() {
        let tries = Tries::default();
        let (ada, eve) = (AccountId([1; 20]), AccountId([2; 20]));
        let first = tries.count(ada, 60, (30, 100)).expect("there is room");
        let refused = tries.count(ada, 20, (30, 100)).expect_err("110 of 100");
        assert_eq!(refused.code, Code::QuotaBundles);
        tries.count(eve, 60, (30, 100)).expect("another account");
        let second = tries.count(ada, 10, (30, 100)).expect("100 of 100");
        drop(first);
        tries.count(ada, 60, (30, 100)).expect("as before");
        drop(second);
        assert!(tries.0.lock().is_empty(), "nothing is remembered of who tries nothing");
    }
}
