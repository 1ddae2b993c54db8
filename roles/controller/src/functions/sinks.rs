//! Where a function's results go: checked, sealed and shown without secrets.

use piecework_api::results::{ResultsView, SetResults, SinkBody, SinkView};
use piecework_model::{Code, FunctionId};
use piecework_sink::Sink;
use piecework_store::{Function, ResultPolicy};

use crate::{
    Answer,
    accounts::{audit, auth::Caller},
    codecs,
    failure::{failed, refuse, rejected, store},
    functions::{self, Functions},
};

fn context(function: FunctionId) -> String {
    format!("sink of {function}")
}

pub(crate) fn open(functions: &Functions, function: FunctionId, policy: Option<&ResultPolicy>) -> Answer<Option<Sink>> {
    let Some(sealed) = policy.and_then(|policy| policy.sealed_sink.as_ref()) else {
        return Ok(None);
    };
    let sealed = hex::decode(sealed).map_err(|error| failed("read a sink", &error))?;
    let bytes = functions
        .ground
        .store
        .open_sealed(&context(function), &sealed)
        .map_err(store)?;
    codecs::from_json(&bytes).map(Some)
}

/// What a request asks for, checked and ready to be kept; `None` where results stay as usual. Refuses with `result.bad_sink`,
/// `result.private_address` and `result.bad_ttl`.
pub(crate) fn policy(functions: &Functions, function: FunctionId, body: &SetResults) -> Answer<Option<ResultPolicy>> {
    let longest_s = functions.ground.tuning.retention.as_secs();
    if body.ttl_s.is_some_and(|ttl_s| !(1..=longest_s).contains(&ttl_s)) {
        let message = format!("results are kept for 1 to {longest_s} seconds: no longer than their jobs");
        return refuse(Code::ResultBadTtl, message);
    }
    let sink = body.sink.clone().map(of_body);
    let sealed_sink = match &sink {
        None => None,
        Some(sink) => {
            functions.sinks.check(sink).map_err(rejected)?;
            let bytes = serde_json::to_vec(sink).map_err(|error| failed("encode a sink", &error))?;
            Some(hex::encode(
                functions.ground.store.seal(&context(function), &bytes).map_err(store)?,
            ))
        }
    };
    let policy = ResultPolicy {
        ttl_s: body.ttl_s,
        sealed_sink,
        hears_of_failures: matches!(sink, Some(Sink::Webhook { .. })),
    };
    Ok(Some(policy).filter(|policy| *policy != ResultPolicy::default()))
}

fn of_body(body: SinkBody) -> Sink {
    match body {
        SinkBody::Http { url, token } => Sink::Http { url, token },
        SinkBody::Webhook { url, secret } => Sink::Webhook { url, secret },
        SinkBody::S3 {
            endpoint,
            bucket,
            region,
            prefix,
            access_key,
            secret_key,
            session_token,
            expires_at,
        } => Sink::S3 {
            endpoint,
            bucket,
            region,
            prefix: prefix.unwrap_or_default(),
            access_key,
            secret_key,
            session_token,
            expires_at_ms: expires_at.map(|at| u64::try_from(at.as_millisecond()).unwrap_or(0)),
        },
    }
}

/// `PUT /functions/{id}/results`: the whole of it anew.
pub(crate) async fn set(functions: &Functions, caller: &Caller, function: &Function, body: &SetResults) -> Answer<()> {
    let policy = policy(functions, function.id, body)?;
    let detail = shown(functions, function.id, policy.as_ref())?;
    functions::change_policy(functions, function.id, |kept, _| {
        kept.results = policy;
        true
    })
    .await?;
    let detail = serde_json::to_value(detail).unwrap_or_default();
    audit::own(
        &functions.accounts,
        caller.account,
        ("results", "set"),
        function.name.as_str(),
        detail,
    )
    .await
}

/// Where a function's results go, without secrets.
pub(crate) fn shown(
    functions: &Functions,
    function: FunctionId,
    policy: Option<&ResultPolicy>,
) -> Answer<Option<ResultsView>> {
    let Some(policy) = policy else { return Ok(None) };
    let sink = open(functions, function, Some(policy))?;
    Ok(Some(ResultsView {
        ttl_s: policy.ttl_s,
        sink: sink.map(|sink| SinkView {
            kind: format!("{:?}", sink.kind()).to_lowercase(),
            to: sink.shown(),
        }),
    }))
}
