//! Changing a function: a new version, or only what all versions share; and going back to an older one.

use std::{collections::BTreeMap, sync::Arc};

use piecework_api::functions::{Settings, UpdateFunction};
use piecework_model::{Code, Language};
use piecework_sandbox::BackendName;
use piecework_store::{BackendReason, FunctionSettings, Policy, Version};
use serde_json::json;

use crate::{
    Answer,
    accounts::{audit, auth::Caller},
    clock::now_ms,
    failure::{refuse, rejected, store},
    functions::{
        self, Functions, Live, budget,
        build_log::BuildLog,
        condition::Condition,
        cors,
        deploy::{self, Draft, KeptCode},
        entry, images, open_secrets, placement, sinks, traffic,
    },
};

/// What all versions of a function share, as far as a request changes it.
struct Shared {
    settings: FunctionSettings,
    budget_ucr: Option<u64>,
    results: Option<Option<piecework_store::ResultPolicy>>,
    cors: Option<Option<piecework_store::Cors>>,
}

impl Shared {
    fn of(functions: &Functions, live: &Live, settings: &Settings) -> Answer<Self> {
        let results = match &settings.results {
            Some(body) => Some(sinks::policy(functions, live.function.id, body)?),
            None => None,
        };
        Ok(Self {
            settings: FunctionSettings {
                public: settings.public,
                concurrency: deploy::concurrency(settings)?,
            },
            budget_ucr: settings.budget_ucr,
            results,
            cors: settings.cors.as_ref().map(cors::policy).transpose()?,
        })
    }

    /// Writes it, and says whether anything changed. The caller has the function's turn. `deployed` is a version that was just added, and
    /// its share.
    async fn write(self, functions: &Functions, live: &Live, deployed: Option<(u32, Option<u32>)>) -> Answer<bool> {
        let function = &live.function;
        let is_new = (self.settings.public, self.settings.concurrency);
        let is_old = (
            self.settings.public.map(|_| function.public),
            self.settings.concurrency.map(|_| function.concurrency),
        );
        if is_new != is_old || deployed.is_some() {
            let update = functions
                .ground
                .store
                .update_settings(function.id, self.settings, now_ms());
            update.await.map_err(store)?;
        }
        let changed = functions::change_policy_in_turn(functions, function.id, |policy, live_version| {
            let before = policy.clone();
            if let Some((number, canary)) = deployed {
                // With a canary the live version is the one of before.
                policy.traffic = canary.map(|percent| traffic::canary(percent, live_version, number));
            }
            self.change(policy);
            *policy != before
        })
        .await?;
        budget::forget(functions, function.id);
        functions.cache.forget(function);
        Ok(changed || is_new != is_old)
    }

    fn change(self, policy: &mut Policy) {
        if let Some(budget) = self.budget_ucr {
            policy.budget_ucr = Some(budget).filter(|budget| *budget > 0);
        }
        if let Some(results) = self.results {
            policy.results = results;
        }
        if let Some(cors) = self.cors {
            policy.cors = cors;
        }
    }
}

/// What a request asks of the version itself.
pub(super) struct Asked {
    pub(super) settings: Settings,
    pub(super) language: Language,
    /// What the new code or the request says; absent: as it is.
    pub(super) handler: Option<Option<String>>,
    pub(super) code: Option<KeptCode>,
}

impl Asked {
    /// With what the old version has for the rest.
    pub(super) async fn draft(self, functions: &Functions, live: &Live) -> Answer<Draft> {
        let (function, old, settings) = (&live.function, &live.version, self.settings);
        let code = match self.code {
            Some(code) => code,
            None if self.language != old.language => {
                return refuse(
                    Code::FunctionBadCode,
                    "a new language needs new code; send code or bundle",
                );
            }
            None => KeptCode {
                // The old version may go meanwhile, and its bundle with it.
                _hold: images::hold(functions, old.code, old.image.is_some()).await?,
                image: old.image.clone(),
                digest: old.code,
                packages: old.packages.clone(),
                disk_bytes: old.bundle_bytes,
                site: old.site,
            },
        };
        let egress = deploy::egress(&settings)?.unwrap_or_else(|| old.egress.clone());
        let secrets = open_secrets(functions, function.id, &old.sealed_secrets)?;
        Ok(Draft {
            language: self.language,
            code,
            handler: self.handler.unwrap_or_else(|| old.handler.clone()),
            placement: placement::changed(functions, old.placement.clone(), settings.placement.clone()).await?,
            rerun_percent: placement::rerun_percent(settings.rerun_percent, old.rerun_percent)?,
            stream_bytes: deploy::stream_bytes(&settings, old.stream_bytes)?,
            limits: deploy::limits(&settings, &egress, old.limits)?,
            egress,
            sandbox: deploy::sandbox(&settings)?.unwrap_or_else(|| asked_for(old)),
            strict: settings.strict.unwrap_or(old.strict),
            env: deploy::variables(old.env.clone(), settings.env, "env")?,
            secrets: deploy::variables(secrets, settings.secrets, "secrets")?,
        })
    }
}

/// `PUT /functions/{id}`: what is not given stays. A new version, live at once or, as a canary, beside the live one; its number
/// comes back. None is made where nothing of the version changes.
pub(crate) async fn update(
    functions: &Functions,
    caller: &Caller,
    seen: &Live,
    asked: (UpdateFunction, &Condition),
) -> Answer<(Arc<Live>, Option<u32>)> {
    let mut log = BuildLog::default();
    let updated = change(functions, caller, seen, asked, &mut log).await;
    match &updated {
        Ok((live, Some(number))) => log.keep(functions, &live.function, *number).await,
        Ok((_, None)) => {}
        Err(refusal) => {
            let whose = (seen.function.owner, seen.function.name.clone());
            log.keep_failed(functions, whose, refusal).await;
        }
    }
    updated
}

async fn change(
    functions: &Functions,
    caller: &Caller,
    seen: &Live,
    (body, condition): (UpdateFunction, &Condition),
    log: &mut BuildLog,
) -> Answer<(Arc<Live>, Option<u32>)> {
    let canary = body.canary;
    traffic::check_canary(canary)?;
    let settings = body.settings();
    let language = body.language.as_deref().map_or(Ok(seen.version.language), str::parse);
    let language: Language = language.map_err(rejected)?;
    let said = (body.language.as_deref().unwrap_or_default(), body.code.is_some());
    let given = deploy::handler(entry::given(body.handler, said))?;
    let code_bytes = deploy::code_bytes([&body.code, &body.bundle]);
    let deploying = deploy::turn(functions, seen.function.owner, code_bytes).await?;
    let old = seen.version.handler.as_deref();
    let (code, handler) = match deploy::bundle(language, given.clone(), old, (body.code, body.bundle)).await? {
        Some((bundle, its)) => {
            let code = deploy::keep(functions, (&deploying, log), language, (bundle, its.as_deref())).await?;
            (Some(code), Some(its))
        }
        None => (None, given.map(Some)),
    };
    // One update of a function at a time: what stays is read, and the number taken, before the code is loaded.
    let turn = functions.cache.turn(seen.function.id);
    let _turn = turn.lock().await;
    let live = functions::fresh(functions, seen.function.id).await?;
    let function = &live.function;
    condition.check(&live)?;
    let shared = Shared::of(functions, &live, &settings)?;
    let has_code = code.is_some();
    let asked = Asked {
        settings,
        language,
        handler,
        code,
    };
    let draft = asked.draft(functions, &live).await?;
    if !has_code && canary.is_none() && is_as_before(functions, &draft, &live)? {
        if shared.write(functions, &live, None).await? {
            let detail = json!({"function": function.id, "version": live.version.version});
            record(functions, caller, &live, ("settings", detail)).await?;
        }
        return Ok((deploy::found(functions, function.id).await?, None));
    }
    let newest = functions.ground.store.versions(function.id).await.map_err(store)?;
    let number = newest.first().map_or(1, |version| version.version + 1);
    for seen in functions.providers.all().iter() {
        seen.link.forget(function.id, number);
    }
    let (version, _hold) = deploy::load(functions, function, number, draft, (&deploying, log)).await?;
    let given = functions.ground.store.add_version(&version, canary.is_none());
    assert_eq!(given.await.map_err(store)?, number, "updates of a function take turns");
    shared.write(functions, &live, Some((number, canary))).await?;
    let mut detail = deploy::deployed(&version);
    detail["canary_percent"] = json!(canary);
    record(functions, caller, &live, ("updated", detail)).await?;
    Ok((deploy::found(functions, function.id).await?, Some(number)))
}

async fn record(
    functions: &Functions,
    caller: &Caller,
    live: &Live,
    (action, detail): (&'static str, serde_json::Value),
) -> Answer<()> {
    let name = live.function.name.as_str();
    audit::own(&functions.accounts, caller.account, ("function", action), name, detail).await
}

/// Whether a version of this draft would be the live one again.
fn is_as_before(functions: &Functions, draft: &Draft, live: &Live) -> Answer<bool> {
    let old = &live.version;
    let secrets: BTreeMap<String, String> = open_secrets(functions, live.function.id, &old.sealed_secrets)?;
    Ok(draft.handler == old.handler
        && draft.limits == old.limits
        && draft.env == old.env
        && draft.secrets == secrets
        && draft.sandbox == asked_for(old)
        && draft.strict == old.strict
        && draft.egress == old.egress
        && draft.placement == old.placement
        && draft.rerun_percent == old.rerun_percent
        && draft.stream_bytes == old.stream_bytes)
}

/// The backend that an earlier version named, if it was not left to `auto`.
fn asked_for(version: &Version) -> Option<BackendName> {
    match version.backend_reason {
        BackendReason::AskedFor => Some(version.backend),
        BackendReason::Chosen(_) => None,
    }
}

/// Makes a version live for all calls: a split ends. Without a number it is the newest one before the live version, or, where
/// calls are split, the live version. Refuses with `version.not_found`.
pub(crate) async fn rollback(
    functions: &Functions,
    caller: &Caller,
    seen: &Live,
    (number, condition): (Option<u32>, &Condition),
) -> Answer<Arc<Live>> {
    let turn = functions.cache.turn(seen.function.id);
    let _turn = turn.lock().await;
    let live = functions::fresh(functions, seen.function.id).await?;
    condition.check(&live)?;
    let function = &live.function;
    let versions = functions.ground.store.versions(function.id).await.map_err(store)?;
    let numbers: Vec<u32> = versions.iter().map(|version| version.version).collect();
    let number = match number {
        Some(number) if !numbers.contains(&number) => {
            return refuse(
                Code::VersionNotFound,
                format!("`{}` has no version {number}", function.name),
            );
        }
        Some(number) => number,
        None if function.policy.traffic.is_some() => function.live_version,
        None => match numbers
            .into_iter()
            .filter(|number| *number < function.live_version)
            .max()
        {
            Some(number) => number,
            None => {
                return refuse(
                    Code::VersionNotFound,
                    format!("`{}` has no version before {}", function.name, function.live_version),
                );
            }
        },
    };
    let set = functions.ground.store.set_live(function.id, number, now_ms());
    set.await.map_err(store)?;
    functions::change_policy_in_turn(functions, function.id, |policy, _| policy.traffic.take().is_some()).await?;
    functions.cache.forget(function);
    let detail = json!({"from": function.live_version, "to": number});
    record(functions, caller, &live, ("rolled_back", detail)).await?;
    deploy::found(functions, function.id).await
}
