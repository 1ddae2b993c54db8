//! Deploying: from an upload to a version that was loaded in its sandbox.
//!
//! ```text
//! body -> bundle -> packages resolved -> blob kept -> loaded in wasm, else jail (or in what was asked for) -> version
//!           `-------------------------- what is said: the build log --------------------------------------------'
//! ```

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use piecework_api::functions::{Changes, CreateFunction, Settings};
use piecework_blobs::{Bundle, BundleLimits};
use piecework_model::{
    AccountId, Code, Contract, Digest, EgressList, FunctionId, FunctionName, Language, Limits, typescript,
};
use piecework_packages::ResolveError;
use piecework_queue::Work;
use piecework_sandbox::BackendName;
use piecework_scheduler::Placement;
use piecework_store::{BackendReason, Function, ImageName, Policy, Site as Pages, Version};
use piecework_typescript::TranslateError;
use rand::RngExt as _;
use serde_json::json;

use crate::{
    Answer,
    accounts::{audit, auth::Caller, rates},
    clock::now_ms,
    failure::{Refusal, blobs, failed, refusal, refuse, rejected, store},
    functions::{
        self, Functions, Live,
        build_log::BuildLog,
        checks::Turn,
        condition::Condition,
        cors, entry, fallback,
        images::{self, Holds},
        keeping,
        loading::{Site, load_as_asked, load_where_it_goes, somebody_lets_reach},
        placement, seal_secrets, sinks,
    },
};

/// A thousand concurrent runs of one function are more than one machine has room for.
const CONCURRENCY_MAX: u32 = 1_000;
const CONCURRENCY_DEFAULT: u32 = 100;
/// Variables together: an environment above this does not reach every interpreter.
const ENV_BYTES_MAX: usize = 64 << 10;
const ENV_VARIABLES_MAX: usize = 256;

/// The code of a version, kept and ready to load.
pub(super) struct KeptCode {
    pub(super) digest: Digest,
    pub(super) packages: Vec<String>,
    pub(super) disk_bytes: u64,
    pub(super) site: Pages,
    /// Until its version is written.
    pub(super) _hold: Holds,
    pub(super) image: Option<ImageName>,
}

/// Everything of a version but its number.
pub(super) struct Draft {
    pub(super) language: Language,
    pub(super) code: KeptCode,
    pub(super) handler: Option<String>,
    pub(super) limits: Limits,
    pub(super) env: BTreeMap<String, String>,
    pub(super) secrets: BTreeMap<String, String>,
    pub(super) sandbox: Option<BackendName>,
    pub(super) strict: bool,
    pub(super) egress: EgressList,
    pub(super) placement: Placement,
    pub(super) rerun_percent: u32,
    pub(super) stream_bytes: u64,
}

/// `POST /functions`.
pub(crate) async fn create(functions: &Functions, caller: &Caller, body: CreateFunction) -> Answer<Arc<Live>> {
    let mut log = BuildLog::default();
    let name = body.name.parse();
    let created = begin(functions, caller, body, &mut log).await;
    match (&created, name) {
        (Ok(live), _) => log.keep(functions, &live.function, 1).await,
        (Err(refusal), Ok(name)) => log.keep_failed(functions, (caller.account, name), refusal).await,
        (Err(_), Err(_)) => {}
    }
    created
}

async fn begin(functions: &Functions, caller: &Caller, body: CreateFunction, log: &mut BuildLog) -> Answer<Arc<Live>> {
    let name: FunctionName = body.name.parse().map_err(rejected)?;
    let language: Language = body.language.parse().map_err(rejected)?;
    let settings = body.settings();
    let concurrency = concurrency(&settings)?.unwrap_or(CONCURRENCY_DEFAULT);
    let egress = egress(&settings)?.unwrap_or_default();
    let limits = limits(&settings, &egress, Limits::DEFAULT)?;
    let sandbox = sandbox(&settings)?.flatten();
    let stream_bytes = stream_bytes(&settings, Limits::STREAM_BYTES_DEFAULT)?;
    let placement = placement::changed(functions, Placement::default(), settings.placement).await?;
    let rerun_percent = placement::rerun_percent(settings.rerun_percent, 0)?;
    let env = variables(BTreeMap::new(), settings.env, "env")?;
    let secrets = variables(BTreeMap::new(), settings.secrets, "secrets")?;
    let cors = settings.cors.as_ref().map(cors::policy).transpose()?.flatten();
    let given = handler(entry::given(body.handler, (&body.language, body.code.is_some())))?;
    if functions
        .ground
        .store
        .function_by_name(caller.account, &name)
        .await
        .map_err(store)?
        .is_some()
    {
        return exists(&name);
    }
    keeping::check_room(functions, caller.account).await?;
    let turn = turn(functions, caller.account, code_bytes([&body.code, &body.bundle])).await?;
    let Some((bundle, handler)) = bundle(language, given, None, (body.code, body.bundle)).await? else {
        return refuse(Code::FunctionBadCode, "send exactly one of code and bundle");
    };
    let code = keep(functions, (&turn, log), language, (bundle, handler.as_deref())).await?;
    let strict = settings.strict.unwrap_or(false);
    let draft = Draft {
        language,
        code,
        handler,
        limits,
        env,
        secrets,
        sandbox,
        strict,
        egress,
        placement,
        rerun_percent,
        stream_bytes,
    };
    let now = now_ms();
    let id = FunctionId(rand::rng().random());
    let results = match &settings.results {
        Some(body) => sinks::policy(functions, id, body)?,
        None => None,
    };
    let function = Function {
        id,
        owner: caller.account,
        owner_name: caller.name.clone(),
        name: name.clone(),
        live_version: 1,
        public: settings.public.unwrap_or(false),
        concurrency,
        created_at_ms: now,
        updated_at_ms: now,
        policy: Policy {
            budget_ucr: settings.budget_ucr.filter(|budget| *budget > 0),
            results,
            cors,
            ..Policy::default()
        },
    };
    let (version, _hold) = load(functions, &function, 1, draft, (&turn, log)).await?;
    match functions.ground.store.create_function(&function, &version).await {
        Ok(()) => {}
        Err(failure) if failure.is_conflict() => return exists(&name),
        Err(failure) => return Err(store(failure)),
    }
    audit::own(
        &functions.accounts,
        caller.account,
        ("function", "created"),
        name.as_str(),
        deployed(&version),
    )
    .await?;
    found(functions, function.id).await
}

/// What the audit record says of a version.
pub(super) fn deployed(version: &Version) -> serde_json::Value {
    json!({"function": version.function, "version": version.version, "code": version.code, "sandbox": version.backend})
}

fn exists<T>(name: &FunctionName) -> Answer<T> {
    Err(
        Refusal::new(Code::FunctionExists, format!("you already have a function `{name}`"))
            .hint("create a new version with PUT /functions/{id} or `piecework deploy`")
            .into(),
    )
}

pub(super) async fn found(functions: &Functions, id: FunctionId) -> Answer<Arc<Live>> {
    match functions::by_id(functions, id).await? {
        Some(live) => Ok(live),
        None => refuse(Code::FunctionNotFound, "the function was deleted in the meantime"),
    }
}

/// Restores a deleted function by its id, or the last one deleted of a name. Refuses with `function.not_deleted`,
/// `function.exists` where the name is taken by now, and `function.not_found` after the window.
pub(crate) async fn restore(functions: &Functions, caller: &Caller, id_or_name: &str) -> Answer<Arc<Live>> {
    let deleted = functions::deleted(functions, caller).await?;
    let is_meant = |function: &Function| function.id.to_string() == id_or_name || function.name.as_str() == id_or_name;
    let Some((function, _)) = deleted.into_iter().find(|(function, _)| is_meant(function)) else {
        let live = functions::own(functions, caller, id_or_name).await?;
        return refuse(
            Code::FunctionNotDeleted,
            format!("`{}` is not deleted", live.function.name),
        );
    };
    match functions.ground.store.restore_function(function.id, now_ms()).await {
        Ok(_) => {}
        Err(failure) if failure.is_conflict() => return exists(&function.name),
        Err(failure) => return Err(store(failure)),
    }
    functions.cache.forget(&function);
    let detail = json!({"function": function.id});
    audit::own(
        &functions.accounts,
        caller.account,
        ("function", "restored"),
        function.name.as_str(),
        detail,
    )
    .await?;
    found(functions, function.id).await
}

/// Deletes a function; with `for_good` beyond restoring, so that what it takes is free.
pub(crate) async fn delete(
    functions: &Functions,
    caller: &Caller,
    live: &Live,
    (for_good, condition): (bool, &Condition),
) -> Answer<()> {
    let function = &live.function;
    let turn = functions.cache.turn(function.id);
    let _turn = turn.lock().await;
    condition.check(&*functions::fresh(functions, function.id).await?)?;
    functions
        .ground
        .store
        .delete_function(function.id, now_ms())
        .await
        .map_err(store)?;
    functions.cache.forget(function);
    functions.watch.forget(function.id);
    functions.walls.forget(function.id);
    for seen in functions.providers.all().iter() {
        seen.link.forget(function.id, live.version.version);
    }
    if for_good {
        keeping::purge(functions, function).await?;
    }
    let detail = json!({"function": function.id, "for_good": for_good});
    audit::own(
        &functions.accounts,
        caller.account,
        ("function", "deleted"),
        function.name.as_str(),
        detail,
    )
    .await
}

pub(super) fn egress(settings: &Settings) -> Answer<Option<EgressList>> {
    let list = settings.egress.as_deref().map(EgressList::parse);
    list.transpose().map_err(rejected)
}

pub(super) fn limits(settings: &Settings, egress: &EgressList, base: Limits) -> Answer<Limits> {
    let memory_bytes = settings
        .memory_limit_mb
        .map_or(base.memory_bytes, |mib| u64::from(mib) << 20);
    let limits = Limits {
        timeout_ms: settings.timeout_ms.unwrap_or(base.timeout_ms),
        memory_bytes,
        processes: settings.process_limit.unwrap_or(base.processes),
        disk_bytes: settings
            .disk_limit_mb
            .map_or(base.disk_bytes, |mib| u64::from(mib) << 20),
        egress_bytes: egress_bytes(settings, egress, &base)?,
        ..base
    };
    limits.check().map_err(rejected)?;
    Ok(limits)
}

/// Nothing where the network is off.
fn egress_bytes(settings: &Settings, egress: &EgressList, base: &Limits) -> Answer<u64> {
    match settings.egress_limit_mb {
        Some(0) => refuse(
            Code::EgressBadLimit,
            "the limit on network traffic must be at least 1 MiB; for no network, leave the allow list empty",
        ),
        _ if egress.is_empty() => Ok(0),
        Some(mib) => Ok(u64::from(mib) << 20),
        None if base.egress_bytes > 0 => Ok(base.egress_bytes),
        None => Ok(Limits::EGRESS_BYTES_DEFAULT),
    }
}

pub(super) fn stream_bytes(settings: &Settings, base: u64) -> Answer<u64> {
    let bytes = settings.stream_limit_mb.map_or(base, |mib| u64::from(mib) << 20);
    match bytes <= Limits::STREAM_BYTES_MAX {
        true => Ok(bytes),
        false => refuse(Code::FunctionBadStreamLimit, "a run streams at most 16384 MiB"),
    }
}

pub(super) fn concurrency(settings: &Settings) -> Answer<Option<u32>> {
    match settings.concurrency {
        Some(concurrency) if !(1..=CONCURRENCY_MAX).contains(&concurrency) => refuse(
            Code::FunctionBadConcurrency,
            "the concurrency must be between 1 and 1000",
        ),
        concurrency => Ok(concurrency),
    }
}

/// What is asked for, if anything is: a backend, or `None` for whatever takes the code.
pub(super) fn sandbox(settings: &Settings) -> Answer<Option<Option<BackendName>>> {
    match settings.sandbox.as_deref() {
        None => Ok(None),
        Some("auto") => Ok(Some(None)),
        Some(name) => name.parse().map(|backend| Some(Some(backend))).map_err(rejected),
    }
}

pub(super) fn handler(handler: Option<String>) -> Answer<Option<String>> {
    let Some(text) = handler else { return Ok(None) };
    let (file, function) = text.split_once(':').unwrap_or((&text, "handler"));
    let clean_file = !file.is_empty()
        && !file.starts_with('/')
        && file
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..");
    let (function, contract) = match function.split_once('@') {
        Some((function, _)) => (function, Some(Contract::of(&text))),
        None => (function, None),
    };
    let is_known = contract.is_none_or(|contract| contract.is_some());
    let clean_name = !function.is_empty() && function.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '$');
    if clean_file && clean_name && is_known && text.len() <= 200 {
        return Ok(Some(text));
    }
    refuse(
        Code::FunctionBadHandler,
        "the handler must have the form `file` or `file:function`, like `main.py:handler`; a contract may follow, like `app.py:app@asgi`",
    )
}

/// Those of before with the changes; each that is set and all together within bounds.
pub(super) fn variables(
    mut variables: BTreeMap<String, String>,
    changes: Option<Changes>,
    field: &str,
) -> Answer<BTreeMap<String, String>> {
    for (name, value) in changes.into_iter().flatten() {
        match value {
            Some(value) => variables.insert(name, value),
            None => variables.remove(&name),
        };
    }
    let bad = |name: &str, message: &str| {
        let mut refusal = refusal(Code::FunctionBadEnv, message);
        refusal.field = Some(format!("{field}.{name}"));
        Err(refusal)
    };
    let bytes: usize = variables.iter().map(|(name, value)| name.len() + value.len()).sum();
    if variables.len() > ENV_VARIABLES_MAX || bytes > ENV_BYTES_MAX {
        return bad("*", "there may be at most 256 variables with 64 KiB in total");
    }
    for (name, value) in &variables {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !plain {
            return bad(
                name,
                "a variable's name must consist of letters, digits and _, and not begin with a digit",
            );
        }
        if value.contains('\0') {
            return bad(name, "a variable's value must not contain a zero byte");
        }
    }
    Ok(variables)
}

/// The uploaded bundle and its handler: the one that is given, else `old`, the version's before, where its file is there, else the
/// one that is found. `None` if neither code nor bundle was given.
pub(super) async fn bundle(
    language: Language,
    given: Option<String>,
    old: Option<&str>,
    (code, bundle): (Option<String>, Option<String>),
) -> Answer<Option<(Bundle, Option<String>)>> {
    if language == Language::Image {
        if given.is_some() {
            return refuse(Code::FunctionBadHandler, "an image has no handler");
        }
        return Ok(images::bundle(code, bundle).await?.map(|bundle| (bundle, None)));
    }
    let old = old.map(entry::without_contract);
    let bundle = match (code, bundle) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return refuse(Code::FunctionBadCode, "send exactly one of code and bundle"),
        (Some(code), None) if code.trim().is_empty() => return refuse(Code::FunctionBadCode, "the code is empty"),
        (Some(code), None) => {
            let named = given.as_deref().or(old).map(entry::file_of);
            let file = named.unwrap_or_else(|| entry::file_of_code(language, &code)).to_owned();
            Bundle::new([(file, Bytes::from(code))], &BundleLimits::UPLOAD).map_err(rejected)?
        }
        (None, Some(encoded)) => tokio::task::spawn_blocking(move || decode(encoded))
            .await
            .map_err(|error| failed("read a bundle", &error))??,
    };
    let kept = old.filter(|old| bundle.get(entry::file_of(old)).is_some());
    let handler = match given.or_else(|| kept.map(str::to_owned)) {
        Some(handler) if bundle.get(entry::file_of(&handler)).is_none() => {
            let file = entry::file_of(&handler);
            return refuse(
                Code::BundleNoEntry,
                format!("the bundle does not contain the handler's file `{file}`"),
            );
        }
        Some(handler) => Some(handler),
        None => match (entry::handler_in(language, &bundle), entry::only_site(&bundle)) {
            (Some(handler), _) => handler,
            (None, Some(site)) if language == Language::JavaScript => {
                return Ok(Some((site.map_err(rejected)?, None)));
            }
            (None, _) => {
                let message = format!("the bundle has none of {}", language.entry_files().join(", "));
                return Err(Refusal::new(Code::BundleNoEntry, message)
                    .hint("name the file with the handler: --handler FILE or FILE:FUNCTION")
                    .into());
            }
        },
    };
    let bundle = entry::typed(language, handler.as_deref(), bundle).map_err(rejected)?;
    Ok(Some((bundle, handler)))
}

pub(super) fn decode(encoded: String) -> Answer<Bundle> {
    let bytes = STANDARD
        .decode(&encoded)
        .map_err(|error| refusal(Code::BodyBadEncoding, format!("the bundle is not base64: {error}")))?;
    drop(encoded);
    Bundle::read(&bytes, &BundleLimits::UPLOAD).map_err(rejected)
}

/// Puts the JavaScript of TypeScript beside it, resolves the packages, and keeps the whole by its digest.
pub(super) async fn keep(
    functions: &Functions,
    (turn, log): (&Turn<'_>, &mut BuildLog),
    language: Language,
    (bundle, handler): (Bundle, Option<&str>),
) -> Answer<KeptCode> {
    let account = turn.account();
    if language == Language::Image {
        return keep_image(functions, account, bundle).await;
    }
    let bundle = match handler {
        Some(handler) if language == Language::JavaScript => {
            translated(functions, (turn, log), bundle, handler).await?
        }
        Some(_) | None => bundle,
    };
    let site = entry::site_in(&bundle);
    let (since, mut said) = (Instant::now(), String::new());
    let resolves = functions.packages.resolve(account, language, bundle.files(), &mut said);
    let resolved = turn.charged(resolves).await;
    log.quote(&said);
    let resolved = resolved
        .inspect_err(|_| log.say("packages: not resolved"))
        .map_err(unresolved)?;
    let (bundle, packages) = match resolved {
        None => (bundle, Vec::new()),
        Some(resolved) => {
            let (all, took) = (resolved.versions.join(", "), BuildLog::since(since));
            log.say(format_args!("packages: resolved in {took}: {all}"));
            let whole = bundle
                .with_folder(resolved.folder, resolved.files, &BundleLimits::RESOLVED)
                .map_err(rejected)?;
            (whole, resolved.versions)
        }
    };
    let packed = tokio::task::spawn_blocking(move || bundle.pack())
        .await
        .map_err(|error| failed("pack a bundle", &error))?;
    let hold = functions.bundles.hold(packed.digest).await;
    let digest = functions.ground.blobs.put(packed.tar).await.map_err(blobs)?;
    let size = functions.ground.blobs.size(&digest).await.map_err(blobs)?;
    let disk_bytes = size.map_or(0, |size| size.disk_bytes);
    Ok(KeptCode {
        digest,
        packages,
        disk_bytes,
        site,
        _hold: Holds::of(hold),
        image: None,
    })
}

/// The bundle of an image, whose parts are there.
async fn keep_image(functions: &Functions, account: AccountId, bundle: Bundle) -> Answer<KeptCode> {
    let named = images::named(functions, account, &bundle).await?;
    let packed = bundle.pack();
    let hold = functions.bundles.hold(packed.digest).await;
    let digest = functions.ground.blobs.put(packed.tar).await.map_err(blobs)?;
    let size = functions.ground.blobs.size(&digest).await.map_err(blobs)?;
    Ok(KeptCode {
        digest,
        packages: Vec::new(),
        disk_bytes: named.disk_bytes + size.map_or(0, |size| size.disk_bytes),
        site: Pages::None,
        _hold: Holds::of_image(functions, hold, named.holds),
        image: Some(named.name),
    })
}

/// With the JavaScript of its TypeScript files, where the handler is in one of them.
async fn translated(
    functions: &Functions,
    (turn, log): (&Turn<'_>, &mut BuildLog),
    bundle: Bundle,
    handler: &str,
) -> Answer<Bundle> {
    let entry = entry::file_of(handler);
    if !typescript::is_source(entry) {
        return Ok(bundle);
    }
    let _alone = turn.translates().await?;
    let since = Instant::now();
    let translates = functions.typescript.translate(turn.account(), bundle.files(), entry);
    match turn.charged(translates).await {
        Ok(None) => Ok(bundle),
        Ok(Some(made)) => {
            let (all, took) = (
                Vec::from_iter(made.keys().map(String::as_str)).join(", "),
                BuildLog::since(since),
            );
            log.say(format_args!("typescript: translated in {took}: {all}"));
            bundle.with_files(made, &BundleLimits::RESOLVED).map_err(rejected)
        }
        Err(TranslateError::Rejected(rejection)) => {
            log.say("typescript: not translated");
            Err(rejected(rejection))
        }
        Err(error @ (TranslateError::Sandbox(_) | TranslateError::Io { .. })) => {
            Err(failed("translate TypeScript", &error))
        }
    }
}

fn unresolved(error: ResolveError) -> Box<Refusal> {
    match error {
        ResolveError::Rejected(rejection) => rejected(rejection),
        ResolveError::Io { .. } | ResolveError::Jail(_) => failed("resolve packages", &error),
    }
}

/// The account's turn to have its code resolved and loaded. Nothing is counted for the operator, whose machine it is.
pub(super) async fn turn(functions: &Functions, account: AccountId, code_bytes: usize) -> Answer<Turn<'_>> {
    let is_own = account == functions.ground.operator;
    functions.checks.turn(account, code_bytes, is_own).await
}

pub(super) fn code_bytes(parts: [&Option<String>; 2]) -> usize {
    parts.into_iter().flatten().map(String::len).sum()
}

/// Loads the work in the sandbox that was asked for, in the jail where it is known to need that, or in the first that takes it.
async fn load_once(
    site: &Site<'_>,
    work: &Work,
    (asked_for, known): (Option<BackendName>, Option<&str>),
) -> Answer<(BackendName, BackendReason)> {
    match (asked_for, known) {
        (Some(backend), _) => {
            load_as_asked(site, work, backend).await?;
            Ok((backend, BackendReason::AskedFor))
        }
        (None, Some(reason)) => {
            load_as_asked(site, work, BackendName::Jail).await?;
            Ok((BackendName::Jail, BackendReason::Chosen(reason.to_owned())))
        }
        (None, None) => {
            let (backend, sentence) = load_where_it_goes(site, work).await?;
            Ok((backend, BackendReason::Chosen(sentence)))
        }
    }
}

/// Loads the draft in a sandbox; the one that was asked for, or the first of wasm and jail that takes it.
pub(super) async fn load(
    functions: &Functions,
    function: &Function,
    number: u32,
    draft: Draft,
    (turn, log): (&Turn<'_>, &mut BuildLog),
) -> Answer<(Version, Holds)> {
    let since = Instant::now();
    log.hide(functions::redacted_values(draft.secrets.clone()));
    log.say(format_args!(
        "code: {}, {} bytes on disk",
        draft.code.digest, draft.code.disk_bytes
    ));
    let mut env = draft.env.clone();
    env.extend(draft.secrets.clone());
    let mut work = Work {
        owner: Some(function.owner),
        function: function.id,
        version: number,
        name: function.name.to_string(),
        language: draft.language,
        code: draft.code.digest,
        handler: draft.handler.clone(),
        env,
        limits: draft.limits,
        egress: draft.egress.clone(),
        backend: BackendName::Wasm,
    };
    somebody_lets_reach(functions, &draft.egress)?;
    let developer = function.owner;
    let site = Site {
        functions,
        developer,
        weight: rates::limits(&functions.accounts, developer).await?.weight.unwrap_or(1),
        placement: &draft.placement,
        has_secrets: !draft.secrets.is_empty(),
        turn,
    };
    let known = fallback::known(&function.policy, work.code);
    let loaded = match load_once(&site, &work, (draft.sandbox, known)).await {
        Err(refusal) if entry::contract_of(&refusal).is_some() && work.contract().is_none() => {
            let found = entry::contract_of(&refusal).map(str::to_owned);
            work.handler = handler(found)?;
            load_once(&site, &work, (draft.sandbox, known)).await
        }
        loaded => loaded,
    };
    match &loaded {
        Ok((backend, reason)) => {
            log.say(format_args!(
                "check: loaded in {backend} in {}: {reason}",
                BuildLog::since(since)
            ));
        }
        Err(_) => log.say(format_args!("check: not loaded after {}", BuildLog::since(since))),
    }
    let (backend, reason) = loaded?;
    let version = Version {
        function: function.id,
        version: number,
        language: draft.language,
        code: draft.code.digest,
        handler: work.handler,
        limits: draft.limits,
        backend,
        backend_reason: reason,
        env: draft.env,
        sealed_secrets: seal_secrets(functions, function.id, &draft.secrets)?,
        secret_names: draft.secrets.into_keys().collect(),
        packages: draft.code.packages,
        strict: draft.strict,
        egress: draft.egress,
        placement: draft.placement,
        rerun_percent: draft.rerun_percent,
        stream_bytes: draft.stream_bytes,
        site: draft.code.site,
        bundle_bytes: draft.code.disk_bytes,
        image: draft.code.image,
        created_at_ms: now_ms(),
    };
    Ok((version, draft.code._hold))
}
