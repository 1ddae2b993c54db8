//! Which pages of other sites may call a function, as its owner asks for it.

use piecework_api::cors::CorsBody;
use piecework_model::Code;
use piecework_store::Cors;

use crate::{Answer, failure::refuse};

const ORIGINS_MAX: usize = 32;
const WORDS_MAX: usize = 64;
const WORD_LENGTH_MAX: usize = 100;
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
const MAX_AGE_S_DEFAULT: u32 = 600;
const MAX_AGE_S_MAX: u32 = 86_400;

fn bad<T>(message: impl Into<String>) -> Answer<T> {
    refuse(Code::FunctionBadCors, message)
}

/// `None` where no origin is named: the function answers for itself. Refuses with `function.bad_cors`.
pub(crate) fn policy(body: &CorsBody) -> Answer<Option<Cors>> {
    if body.origins.is_empty() {
        return Ok(None);
    }
    if body.origins.len() > ORIGINS_MAX {
        return bad(format!("name at most {ORIGINS_MAX} origins"));
    }
    if let Some(origin) = body.origins.iter().find(|origin| !is_origin(origin)) {
        return bad(format!(
            "`{origin}` is not an origin: use the form https://app.example.com, without a path, or *"
        ));
    }
    if body.credentials && body.origins.iter().any(|origin| origin == "*") {
        return bad("browsers send no credentials where all origins are allowed: name the origins");
    }
    let methods = body.methods.clone().unwrap_or_else(|| METHODS.map(String::from).into());
    let headers = body.headers.iter().flatten();
    let mut words = methods.iter().chain(headers).chain(&body.expose);
    if let Some(word) = words.find(|word| !is_token(word)) {
        return bad(format!("`{word}` is not the name of a method or header"));
    }
    if [
        methods.len(),
        body.headers.as_ref().map_or(0, Vec::len),
        body.expose.len(),
    ]
    .iter()
    .any(|count| *count > WORDS_MAX)
    {
        return bad(format!("name at most {WORDS_MAX} methods and headers"));
    }
    let max_age_s = body.max_age_s.unwrap_or(MAX_AGE_S_DEFAULT);
    if max_age_s > MAX_AGE_S_MAX {
        return bad("max_age_s must be 0 to 86400");
    }
    Ok(Some(Cors {
        origins: body.origins.iter().map(|origin| origin.to_ascii_lowercase()).collect(),
        methods,
        headers: body.headers.clone(),
        expose: body.expose.clone(),
        credentials: body.credentials,
        max_age_s,
    }))
}

/// The setting as its owner sees it.
pub(crate) fn shown(cors: &Cors) -> CorsBody {
    CorsBody {
        origins: cors.origins.clone(),
        methods: Some(cors.methods.clone()),
        headers: cors.headers.clone(),
        expose: cors.expose.clone(),
        credentials: cors.credentials,
        max_age_s: Some(cors.max_age_s),
    }
}

fn is_origin(text: &str) -> bool {
    let host = |rest: &str| {
        !rest.is_empty()
            && rest.len() <= WORD_LENGTH_MAX
            && rest
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte))
    };
    text == "*"
        || text == "null"
        || text
            .split_once("://")
            .is_some_and(|(scheme, rest)| is_token(scheme) && host(rest))
}

fn is_token(word: &str) -> bool {
    (1..=WORD_LENGTH_MAX).contains(&word.len())
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(origins: &[&str]) -> CorsBody {
        CorsBody {
            origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
            ..CorsBody::default()
        }
    }

    #[test]
    fn origins_are_checked() {
        assert_eq!(policy(&body(&[])).expect("none"), None);
        for good in [
            "*",
            "https://a.example",
            "http://localhost:3000",
            "http://[::1]:8080",
            "null",
            "app://local",
        ] {
            assert!(policy(&body(&[good])).expect(good).is_some());
        }
        for bad in [
            "",
            "a.example",
            "https://a.example/",
            "https://",
            "https://a b",
            "https://*.a/x",
        ] {
            let refused = policy(&body(&[bad])).expect_err(bad);
            assert_eq!(refused.code, Code::FunctionBadCors);
        }
        let everybody = CorsBody {
            credentials: true,
            ..body(&["*"])
        };
        assert_eq!(policy(&everybody).expect_err("both").code, Code::FunctionBadCors);
        let methods = CorsBody {
            methods: Some(vec!["GET, PUT".into()]),
            ..body(&["*"])
        };
        assert_eq!(policy(&methods).expect_err("two in one").code, Code::FunctionBadCors);
    }
}
