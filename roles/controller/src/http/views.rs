//! Converts records to API views.

use piecework_api::{
    accounts as api_accounts,
    functions::{BudgetView, FunctionStatus, FunctionView, ImageView, QuarantineView, SiteView, VersionView},
    jobs::JobView,
    metrics::MetricsPoint,
};
use piecework_model::{Credits, Salt};
use piecework_store::{Job, Point, Site, Token, Version};
use serde_json::value::RawValue;

use crate::{
    Answer, Controller,
    calls::logs,
    clock::timestamp,
    failure::{failed, store},
    functions::{Live, budget, fallback, placement, walls},
    http::origin::Origins,
    providers::reasons,
    shown,
};

pub(crate) fn token(token: &Token, account: &str) -> api_accounts::TokenView {
    api_accounts::TokenView {
        id: token.id.clone(),
        account: account.to_owned(),
        label: token.label.clone(),
        scopes: token.scopes.iter().copied().collect(),
        created_at: timestamp(token.created_at_ms),
        expires_at: token.expires_at_ms.map(timestamp),
        last_used_at: None,
    }
}

pub(crate) async fn function(controller: &Controller, live: &Live) -> Answer<FunctionView> {
    let (function, version) = (&live.function, &live.version);
    let quarantine = quarantine(live);
    let budget = budget(controller, live).await?;
    let results = crate::functions::sinks::shown(&controller.functions, function.id, function.policy.results.as_ref())?;
    Ok(FunctionView {
        id: function.id,
        name: function.name.to_string(),
        owner: function.owner_name.to_string(),
        version: version.version,
        deployed_version: None,
        language: version.language,
        status: match &quarantine {
            _ if function.policy.stopped => FunctionStatus::Stopped,
            Some(_) => FunctionStatus::Quarantined,
            None => FunctionStatus::Ready,
        },
        url: format!(
            "{}/fn/{}/{}",
            controller.ground.base_url, function.owner_name, function.name
        ),
        own_url: Origins::of(&controller.ground.base_url).url(&function.owner_name, &function.name),
        sandbox: version.backend.to_string(),
        sandbox_reason: walls::told(&controller.functions, live),
        handler: version.handler.clone(),
        contract: live.contract(),
        site: match version.site {
            Site::None => None,
            Site::Beside => Some(SiteView::Beside),
            Site::Alone => Some(SiteView::Alone),
        },
        timeout_ms: version.limits.timeout_ms,
        memory_limit_mb: mib(version.limits.memory_bytes),
        process_limit: version.limits.processes,
        disk_limit_mb: mib(version.limits.disk_bytes),
        env: version.env.clone(),
        secret_names: version.secret_names.clone(),
        packages: version.packages.clone(),
        image: image(version),
        public: function.public,
        cors: function.policy.cors.as_ref().map(crate::functions::cors::shown),
        concurrency: function.concurrency,
        strict: version.strict,
        egress: version.egress.clone().into(),
        egress_limit_mb: mib(version.limits.egress_bytes),
        stream_limit_mb: mib(version.stream_bytes),
        placement: placement::view(&controller.functions, &version.placement).await,
        confidential: live.request.confided_to.is_some(),
        rerun_percent: version.rerun_percent,
        code_digest: version.code,
        traffic: crate::functions::traffic::view(&controller.functions, function),
        quarantine,
        budget,
        results,
        created_at: timestamp(function.created_at_ms),
        updated_at: timestamp(function.updated_at_ms),
        deleted_at: None,
    })
}

fn quarantine(live: &Live) -> Option<QuarantineView> {
    let version = live.version.version;
    let why = live.function.policy.quarantined.get(&version)?;
    Some(QuarantineView {
        version,
        code: why.code.clone(),
        failures: why.failures,
        since: timestamp(why.at_ms),
    })
}

async fn budget(controller: &Controller, live: &Live) -> Answer<Option<BudgetView>> {
    let Some(budget_ucr) = live.function.policy.budget_ucr else {
        return Ok(None);
    };
    let spending = budget::spending(&controller.functions, live.function.id).await?;
    Ok(Some(BudgetView {
        budget_ucr: Credits::from(budget_ucr),
        spent_ucr: Credits::from(spending.spent_ucr),
        month_began_at: timestamp(spending.month_began_at_ms),
    }))
}

fn mib(bytes: u64) -> u32 {
    u32::try_from(bytes >> 20).unwrap_or(u32::MAX)
}

pub(crate) fn version(version: &Version, live: u32, code_bytes: u64) -> VersionView {
    VersionView {
        version: version.version,
        live: version.version == live,
        language: version.language,
        sandbox: version.backend.to_string(),
        sandbox_reason: version.backend_reason.to_string(),
        code_digest: version.code,
        code_bytes,
        timeout_ms: version.limits.timeout_ms,
        memory_limit_mb: mib(version.limits.memory_bytes),
        process_limit: version.limits.processes,
        disk_limit_mb: mib(version.limits.disk_bytes),
        packages: version.packages.clone(),
        image: image(version),
        egress: version.egress.clone().into(),
        created_at: timestamp(version.created_at_ms),
    }
}

/// The job as its owner sees it; names instead of account ids where they are known.
pub(crate) async fn job(controller: &Controller, job: &Job) -> Answer<JobView> {
    let developer = controller.ground.account_name(job.developer).await;
    let provider = controller.ground.name_of(job.provider).await;
    let output = job.output.as_ref().map(|output| raw(output)).transpose()?;
    let error = job
        .error
        .as_ref()
        .map(|error| crate::codecs::from_json(error.as_bytes()))
        .transpose()?;
    // A rerun has the salt of the job that it was compared with.
    let salted = job.settlement.as_ref().map(|_| job.rerun_of.unwrap_or(job.id));
    let salt = salted.map(|salted| Salt::of_job(&controller.ground.key, salted));
    Ok(JobView {
        id: job.id,
        function: job.function_name.to_string(),
        function_id: job.function,
        version: job.version,
        code_digest: job.settlement.as_ref().map(|settlement| settlement.code),
        developer,
        provider,
        sandbox: job.backend.map(|backend| backend.to_string()),
        sandbox_reason: None,
        state: job.state,
        // Only a run names its backend.
        cold: job.backend.map(|_| job.cold),
        created_at: timestamp(job.created_at_ms),
        queued_ms: shown::ms(job.queued_us),
        pull_ms: shown::ms(job.pull_us),
        duration_ms: shown::ms(job.duration_us),
        cpu_us: job.counters.cpu_us,
        memory_byte_ms: job.counters.memory_byte_ms,
        memory_peak_bytes: job.memory_peak_bytes,
        egress_bytes: job.counters.egress_bytes,
        price_ucr: Credits::from(job.price_ucr),
        commission_ucr: job.commission_ucr.map(Credits::from),
        received: job.received,
        paid: job.paid,
        paid_height: job.paid_height,
        output,
        error,
        result: None,
        replaces: job.replaces,
        rerun_of: job.rerun_of,
        digest_salt: salt.map(|salt| salt.to_string()),
        held: None,
        passed_over: None,
    })
}

/// The job with why other providers did not get it: some names to look up, so not for lists.
pub(crate) async fn whole_job(controller: &Controller, record: &Job) -> Answer<JobView> {
    let mut view = job(controller, record).await?;
    view.sandbox_reason = sandbox_reason(controller, record).await?;
    if !record.paid {
        view.held = crate::money::withheld::of(&controller.money, record.id).await?;
    }
    if let Some(text) = &record.passed_over {
        view.passed_over =
            Some(reasons::passed_over(&controller.providers, &crate::codecs::from_json(text.as_bytes())?).await);
    }
    Ok(view)
}

/// Why the job ran in its sandbox: what was noted about this one, else why its version runs there.
async fn sandbox_reason(controller: &Controller, record: &Job) -> Answer<Option<String>> {
    if let Some(note) = logs::note(&record.logs) {
        return Ok(Some(note.to_owned()));
    }
    let Some(backend) = record.backend else { return Ok(None) };
    let kept = &controller.ground.store;
    let (Some(mut version), Some(function)) = (
        kept.version(record.function, record.version).await.map_err(store)?,
        kept.function(record.function).await.map_err(store)?,
    ) else {
        return Ok(None);
    };
    fallback::settle(&mut version, &function.policy);
    // It may have moved since.
    Ok((version.backend == backend).then(|| version.backend_reason.to_string()))
}

fn raw(output: &[u8]) -> Answer<Box<RawValue>> {
    let text = String::from_utf8(output.to_vec()).map_err(|error| failed("read an output", &error))?;
    RawValue::from_string(text).map_err(|error| failed("read an output", &error))
}

pub(crate) fn point(point: &Point) -> MetricsPoint {
    MetricsPoint {
        at: timestamp(point.start_ms),
        count: point.count,
        errors: point.errors,
        cold: point.cold,
        cold_ratio: if point.count == 0 {
            0.0
        } else {
            point.cold as f64 / point.count as f64
        },
        p50_ms: shown::ms(point.p50_us),
        p95_ms: shown::ms(point.p95_us),
        p99_ms: shown::ms(point.p99_us),
        cpu_us: point.cpu_us,
        memory_peak_bytes: point.memory_peak_bytes,
        price_ucr: Credits::from(point.price_ucr),
    }
}

fn image(version: &Version) -> Option<ImageView> {
    version.image.as_ref().map(|image| ImageView {
        reference: image.reference.clone(),
        digest: image.digest.clone(),
        platform: image.platform.clone(),
    })
}
