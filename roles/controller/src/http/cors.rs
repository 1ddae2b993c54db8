//! What a browser is told of whose pages may call a function. Preflight requests are answered here: they are no jobs.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use piecework_store::Cors;

/// Of request headers that a preflight asks for, where all are allowed.
const ASKED_LENGTH_MAX: usize = 2_048;

/// The origin of a browser's request, if it may call.
fn allowed<'a>(cors: &Cors, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    let text = origin.to_str().ok()?;
    let is_named = |named: &String| named == "*" || named.eq_ignore_ascii_case(text);
    cors.origins.iter().any(is_named).then_some(origin)
}

/// Whether a browser asks what it may do, before it does it.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a preflight: without the headers that allow, a browser goes no further.
pub(super) fn preflight(cors: &Cors, asked: &HeaderMap) -> (StatusCode, HeaderMap) {
    let mut answer = HeaderMap::new();
    let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
    answer.insert(header::VARY, HeaderValue::from_static(vary));
    if allowed(cors, asked).is_none() {
        return (StatusCode::NO_CONTENT, answer);
    }
    allow_origin(cors, asked, &mut answer);
    put(
        &mut answer,
        header::ACCESS_CONTROL_ALLOW_METHODS,
        cors.methods.join(", "),
    );
    let wanted = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
    let wanted = wanted.filter(|wanted| wanted.len() <= ASKED_LENGTH_MAX);
    match (&cors.headers, wanted) {
        (Some(named), _) => put(&mut answer, header::ACCESS_CONTROL_ALLOW_HEADERS, named.join(", ")),
        (None, Some(wanted)) => drop(answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone())),
        (None, None) => {}
    }
    put(&mut answer, header::ACCESS_CONTROL_MAX_AGE, cors.max_age_s.to_string());
    (StatusCode::NO_CONTENT, answer)
}

/// The answer to a preflight where there is no function, or a private one: a browser sends it without a token, so both get the
/// same. Any page may then send its call, with a token or without, and reads an answer only where the function's own settings
/// let it.
pub(super) fn anyones_preflight(asked: &HeaderMap) -> (StatusCode, HeaderMap) {
    let mut answer = HeaderMap::new();
    answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    for (wanted, allowed) in [
        (
            header::ACCESS_CONTROL_REQUEST_METHOD,
            header::ACCESS_CONTROL_ALLOW_METHODS,
        ),
        (
            header::ACCESS_CONTROL_REQUEST_HEADERS,
            header::ACCESS_CONTROL_ALLOW_HEADERS,
        ),
    ] {
        let wanted = asked.get(wanted).filter(|wanted| wanted.len() <= ASKED_LENGTH_MAX);
        if let Some(wanted) = wanted {
            answer.insert(allowed, wanted.clone());
        }
    }
    (StatusCode::NO_CONTENT, answer)
}

/// Says on an answer whose pages may read it. What the function says of it itself gives way.
pub(super) fn permit(cors: &Cors, asked: &HeaderMap, answer: &mut HeaderMap) {
    for name in [
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
    ] {
        answer.remove(name);
    }
    answer.append(header::VARY, HeaderValue::from_static("Origin"));
    if allowed(cors, asked).is_none() {
        return;
    }
    allow_origin(cors, asked, answer);
    let own = [piecework_api::routes::JOB_ID_HEADER];
    let exposed: Vec<&str> = own.into_iter().chain(cors.expose.iter().map(String::as_str)).collect();
    put(answer, header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed.join(", "));
}

fn allow_origin(cors: &Cors, asked: &HeaderMap, answer: &mut HeaderMap) {
    let is_anyones = cors.origins.iter().any(|origin| origin == "*");
    match asked.get(header::ORIGIN).filter(|_| !is_anyones) {
        Some(origin) => drop(answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone())),
        None => drop(answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"))),
    }
    if cors.credentials {
        answer.insert(
            header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
            HeaderValue::from_static("true"),
        );
    }
}

fn put(answer: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value)
        && !value.is_empty()
    {
        answer.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use piecework_api::cors::CorsBody;

    use super::*;
    use crate::functions::cors;

    fn body(origins: &[&str]) -> CorsBody {
        CorsBody {
            origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
            ..CorsBody::default()
        }
    }

    fn asked(origin: &'static str) -> HeaderMap {
        HeaderMap::from_iter([
            (header::ORIGIN, HeaderValue::from_static(origin)),
            (header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("PUT")),
            (
                header::ACCESS_CONTROL_REQUEST_HEADERS,
                HeaderValue::from_static("x-a, authorization"),
            ),
        ])
    }

    #[test]
    fn only_named_origins_are_allowed() {
        let cors = CorsBody {
            credentials: true,
            expose: vec!["x-total".into()],
            ..body(&["https://A.example"])
        };
        let cors = cors::policy(&cors).expect("good").expect("some");
        let (status, headers) = preflight(&cors, &asked("https://a.example"));
        assert_eq!(status, StatusCode::NO_CONTENT);
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        assert_eq!(text(header::ACCESS_CONTROL_ALLOW_ORIGIN), Some("https://a.example"));
        assert_eq!(text(header::ACCESS_CONTROL_ALLOW_CREDENTIALS), Some("true"));
        assert_eq!(text(header::ACCESS_CONTROL_ALLOW_HEADERS), Some("x-a, authorization"));
        assert_eq!(text(header::ACCESS_CONTROL_MAX_AGE), Some("600"));
        let (_, headers) = preflight(&cors, &asked("https://evil.example"));
        assert!(!headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));

        let mut answer = HeaderMap::from_iter([(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"))]);
        permit(&cors, &asked("https://evil.example"), &mut answer);
        assert!(
            !answer.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN),
            "the setting is the function's owner's"
        );
        permit(&cors, &asked("https://a.example"), &mut answer);
        assert_eq!(answer[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://a.example");
        assert_eq!(answer[header::ACCESS_CONTROL_EXPOSE_HEADERS], "x-job-id, x-total");
    }
}
