//! Answers a request with a file of `public/`, without a run.
//!
//! ```text
//! /a/b -> a/b | a/b/index.html -> the file                       200, 206, 304, 416
//!         no file, and there is a function -> 200.html for a page that a browser opens, else the function is asked
//!         no file, and there is none       -> 404.html with 404, or else 200.html or index.html for a page that a browser opens
//! ```

use std::{ops::Range, sync::Arc, time::Instant};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use piecework_model::Code;
use piecework_store::Site as Kind;

use super::{HttpError, HttpResult};
use crate::{
    Controller,
    failure::{failed, refusal},
    functions::{
        Live,
        pages::{self, Page, Site},
    },
};

const INDEX: &str = "index.html";
/// Of an application that shows a page of its own for each path.
const ANY_PAGE: &str = "200.html";
const NO_PAGE: &str = "404.html";

/// What a request is answered with.
enum Found<'a> {
    Page(&'a Page, StatusCode),
    /// A folder was asked for as if it were a file: its links would lead elsewhere.
    Folder,
    Nothing,
}

/// The answer where there is one; `None` where the function is to be asked. `is_bare`: the URL ends with the function's name, without a
/// slash.
pub(super) async fn respond(
    controller: &Arc<Controller>,
    live: &Live,
    parts: &Parts,
    (raw_path, is_bare): (&str, bool),
) -> HttpResult<Option<Response>> {
    let is_alone = live.version.site == Kind::Alone;
    if live.version.site == Kind::None {
        return Ok(None);
    }
    live.check_takes_calls()?;
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return match is_alone {
            true => Err(refusal(Code::MethodNotAllowed, "a site answers GET and HEAD").into()),
            false => Ok(None),
        };
    }
    let owner = live.function.owner;
    let site = pages::of_bundle(&controller.functions, owner, live.version.code).await?;
    let (page, status) = match find(&site, raw_path, (is_alone, opens_a_page(&parts.headers))) {
        Found::Folder => return Ok(Some(to_folder(raw_path, parts.uri.query()))),
        Found::Page(..) if is_bare => return Ok(Some(to_folder(parts.uri.path(), parts.uri.query()))),
        Found::Page(page, status) => (page, status),
        Found::Nothing if is_alone => return Err(refusal(Code::PathNotFound, "the site has no such file").into()),
        Found::Nothing => return Ok(None),
    };
    if takes_gzip(&parts.headers) && page.can_be_zipped() && page.known_zipped().is_none() {
        let (site, raw_path) = (site.clone(), raw_path.to_owned());
        let asks = (is_alone, opens_a_page(&parts.headers));
        let zips = tokio::task::spawn_blocking(move || match find(&site, &raw_path, asks) {
            Found::Page(page, _) => drop(page.zipped()),
            Found::Folder | Found::Nothing => {}
        });
        let since = Instant::now();
        zips.await.map_err(|error| failed("compress a file", &error))?;
        pages::charge(&controller.functions, owner, since.elapsed());
    }
    let mut response = answer(page, status, &parts.headers);
    let headers = response.headers_mut();
    let cache = match live.function.public {
        true => "public, max-age=0, must-revalidate",
        false => "private, max-age=0, must-revalidate",
    };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if parts.method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    Ok(Some(response))
}

fn find<'a>(site: &'a Site, raw_path: &str, (is_alone, opens_a_page): (bool, bool)) -> Found<'a> {
    if let Some(path) = decoded(raw_path) {
        let index = |folder: &str| site.get(&format!("{folder}{INDEX}"));
        let named = match path.is_empty() || path.ends_with('/') {
            true => index(&path),
            false => site.get(&path),
        };
        if let Some(page) = named {
            return Found::Page(page, StatusCode::OK);
        }
        if !path.is_empty() && !path.ends_with('/') && index(&format!("{path}/")).is_some() {
            return Found::Folder;
        }
    }
    let page = |name, status| site.get(name).map(|page| Found::Page(page, status));
    let any = || opens_a_page.then(|| page(ANY_PAGE, StatusCode::OK))?;
    let found = match is_alone {
        false => any(),
        true => page(NO_PAGE, StatusCode::NOT_FOUND)
            .or_else(any)
            .or_else(|| opens_a_page.then(|| page(INDEX, StatusCode::OK))?),
    };
    found.unwrap_or(Found::Nothing)
}

/// The path of a file, without a slash before it; `None` for what cannot be one. A slash that was encoded separates nothing.
fn decoded(raw_path: &str) -> Option<String> {
    let mut path = String::new();
    for (at, part) in raw_path.strip_prefix('/')?.split('/').enumerate() {
        let part = percent_decode_str(part).decode_utf8().ok()?;
        if part.contains(['/', '\\', '\0']) || part == "." || part == ".." {
            return None;
        }
        if at > 0 {
            path.push('/');
        }
        path.push_str(&part);
    }
    Some(path)
}

/// Whether a browser asks for something to show in a window of its own.
fn opens_a_page(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    text("sec-fetch-mode").is_none_or(|mode| mode == "navigate")
        && text("accept").is_some_and(|kinds| kinds.contains("text/html"))
}

/// Relative, because a proxy may have put something before the path.
fn to_folder(path: &str, query: Option<&str>) -> Response {
    let name = path.rsplit('/').next().unwrap_or_default();
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    let location = HeaderValue::try_from(format!("./{name}/{query}"));
    match location {
        Ok(location) => (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, location)]).into_response(),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

fn answer(page: &Page, status: StatusCode, asked: &HeaderMap) -> Response {
    let is_whole = status != StatusCode::OK || asked.get(header::RANGE).is_none();
    let zipped = (is_whole && takes_gzip(asked) && page.can_be_zipped())
        .then(|| page.zipped())
        .flatten();
    let tag = match zipped {
        Some(_) => format!("\"{}-gzip\"", page.tag),
        None => format!("\"{}\"", page.tag),
    };
    let mut response = if status == StatusCode::OK && is_known(asked, &page.tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        match range(asked, &tag, page.content.len()).filter(|_| !is_whole) {
            None => body(status, zipped.clone().unwrap_or_else(|| page.content.clone()), page),
            Some(Ok(range)) => partial(page, range),
            Some(Err(())) => return unsatisfiable(page.content.len()),
        }
    };
    let headers = response.headers_mut();
    if zipped.is_some() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if page.can_be_zipped() {
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    headers.insert(header::ETAG, HeaderValue::try_from(tag).expect("hex digits in quotes"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    response
}

fn body(status: StatusCode, content: Bytes, page: &Page) -> Response {
    let length = HeaderValue::from(content.len());
    let kind = HeaderValue::try_from(&page.kind).expect("types are ASCII");
    let headers = [(header::CONTENT_TYPE, kind), (header::CONTENT_LENGTH, length)];
    (status, headers, Body::from(content)).into_response()
}

fn partial(page: &Page, range: Range<usize>) -> Response {
    let place = format!("bytes {}-{}/{}", range.start, range.end - 1, page.content.len());
    let mut response = body(StatusCode::PARTIAL_CONTENT, page.content.slice(range), page);
    let place = HeaderValue::try_from(place).expect("digits");
    response.headers_mut().insert(header::CONTENT_RANGE, place);
    response
}

fn unsatisfiable(length: usize) -> Response {
    let message = format!("the file has {length} bytes, and the range lies outside of it");
    let mut response = HttpError(refusal(Code::SiteBadRange, message)).into_response();
    let place = HeaderValue::try_from(format!("bytes */{length}")).expect("digits");
    response.headers_mut().insert(header::CONTENT_RANGE, place);
    response
}

/// Whether `If-None-Match` names the file, compressed or not.
fn is_known(asked: &HeaderMap, tag: &str) -> bool {
    let named = asked.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    named.is_some_and(|tags| {
        tags.split(',').map(str::trim).any(|named| {
            let named = named.trim_start_matches("W/").trim_matches('"');
            named == "*" || named.strip_suffix("-gzip").unwrap_or(named) == tag
        })
    })
}

/// The one range that is asked for; `None` for all of it, and for what is no range that this server gives.
fn range(asked: &HeaderMap, tag: &str, length: usize) -> Option<Result<Range<usize>, ()>> {
    let text = |name| asked.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if asked.contains_key(header::IF_RANGE) && text(header::IF_RANGE) != Some(tag) {
        return None;
    }
    let (first, last) = text(header::RANGE)?.strip_prefix("bytes=")?.trim().split_once('-')?;
    let number = |text: &str| {
        (text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse::<usize>().unwrap_or(usize::MAX))
    };
    let range = match (first.is_empty(), last.is_empty()) {
        (true, true) => return None,
        (true, false) => length.saturating_sub(number(last)?)..length,
        (false, true) => number(first)?..length,
        (false, false) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            first..last.saturating_add(1).min(length)
        }
    };
    Some(if range.start < range.end { Ok(range) } else { Err(()) })
}

fn takes_gzip(asked: &HeaderMap) -> bool {
    let values = asked
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut codings = values.flat_map(|value| value.split(','));
    codings.any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let is_refused = parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)));
        is_gzip && !is_refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(paths: &[&str]) -> Site {
        Site::new(
            paths
                .iter()
                .map(|path| (format!("public/{path}"), Bytes::copy_from_slice(path.as_bytes()))),
        )
    }

    /// What is shown for a path, and with which status.
    fn shown(site: &Site, path: &str, asks: (bool, bool)) -> String {
        match find(site, path, asks) {
            Found::Page(page, status) => format!("{} {}", status.as_u16(), String::from_utf8_lossy(&page.content)),
            Found::Folder => "folder".to_owned(),
            Found::Nothing => "nothing".to_owned(),
        }
    }

    #[test]
    fn a_path_names_a_file_of_the_site_and_no_other() {
        let site = site(&["index.html", "a.css", "docs/index.html", "a b.txt", "é.txt"]);
        for (path, due) in [
            ("/", "200 index.html"),
            ("/a.css", "200 a.css"),
            ("/docs/", "200 docs/index.html"),
            ("/docs", "folder"),
            ("/a%20b.txt", "200 a b.txt"),
            ("/%C3%A9.txt", "200 é.txt"),
            ("/docs%2Findex.html", "nothing"),
            ("/docs/../a.css", "nothing"),
            ("/%2e%2e/main.mjs", "nothing"),
            ("/..%2fmain.mjs", "nothing"),
            ("/..%5cmain.mjs", "nothing"),
            ("/docs\\index.html", "nothing"),
            ("//a.css", "nothing"),
            ("/a.css/", "nothing"),
            ("/%ff", "nothing"),
            ("/a.css%00", "nothing"),
        ] {
            assert_eq!(shown(&site, path, (false, false)), due, "{path}");
        }
    }

    #[test]
    fn what_names_no_file_is_the_functions_or_a_page_of_the_application() {
        let (alone, beside) = ((true, true), (false, true));
        let app = site(&["index.html"]);
        assert_eq!(shown(&app, "/users/7", alone), "200 index.html");
        assert_eq!(
            shown(&app, "/users/7", (true, false)),
            "nothing",
            "a script or a picture"
        );
        assert_eq!(shown(&app, "/users/7", beside), "nothing", "the function is asked");
        let with_page = site(&["index.html", "200.html"]);
        assert_eq!(shown(&with_page, "/users/7", alone), "200 200.html");
        assert_eq!(shown(&with_page, "/users/7", beside), "200 200.html");
        assert_eq!(shown(&with_page, "/api", (false, false)), "nothing");
        let documents = site(&["index.html", "404.html"]);
        assert_eq!(shown(&documents, "/users/7", alone), "404 404.html");
        assert_eq!(shown(&documents, "/x.png", (true, false)), "404 404.html");
        assert_eq!(shown(&documents, "/users/7", beside), "nothing");
    }

    #[test]
    fn one_range_is_given_and_what_lies_outside_is_refused() {
        let asked = |range: &str, if_range: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, range.parse().expect("ASCII"));
            if let Some(tag) = if_range {
                headers.insert(header::IF_RANGE, tag.parse().expect("ASCII"));
            }
            super::range(&headers, "\"t\"", 10)
        };
        for (range, due) in [
            ("bytes=0-3", Some(Ok(0..4))),
            ("bytes=8-99999999999999999999999", Some(Ok(8..10))),
            ("bytes=4-", Some(Ok(4..10))),
            ("bytes=-3", Some(Ok(7..10))),
            ("bytes=-30", Some(Ok(0..10))),
            ("bytes=10-", Some(Err(()))),
            ("bytes=-0", Some(Err(()))),
            ("bytes=99999999999999999999999-", Some(Err(()))),
            ("bytes=4-2", None),
            ("bytes=0-1,4-5", None),
            ("lines=0-1", None),
            ("bytes=-", None),
            ("bytes=+1-2", None),
        ] {
            assert_eq!(asked(range, None), due, "{range}");
        }
        assert_eq!(asked("bytes=0-3", Some("\"t\"")), Some(Ok(0..4)));
        assert_eq!(asked("bytes=0-3", Some("\"u\"")), None);
        let response = unsatisfiable(10);
        assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(response.headers()[header::CONTENT_RANGE], "bytes */10");
    }

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        for (said, due) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("br", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, said.parse().expect("ASCII"))]);
            assert_eq!(takes_gzip(&headers), due, "{said}");
        }
    }

    #[test]
    fn a_file_that_is_known_is_not_sent_again() {
        let site = Site::new([("public/a.html".to_owned(), Bytes::from("x".repeat(5_000)))]);
        let page = site.get("a.html").expect("there");
        let mut asked = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"))]);
        let first = answer(page, StatusCode::OK, &asked);
        assert_eq!(first.headers()[header::CONTENT_ENCODING], "gzip");
        assert_eq!(first.headers()[header::VARY], "accept-encoding");
        asked.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
        let again = answer(page, StatusCode::OK, &asked);
        assert_eq!(
            (again.status(), &again.headers()[header::ETAG]),
            (StatusCode::NOT_MODIFIED, &first.headers()[header::ETAG])
        );
        asked.insert(header::IF_NONE_MATCH, HeaderValue::from_static("\"other\""));
        asked.insert(header::RANGE, HeaderValue::from_static("bytes=0-9"));
        let part = answer(page, StatusCode::OK, &asked);
        assert_eq!(
            (part.status(), &part.headers()[header::CONTENT_RANGE]),
            (StatusCode::PARTIAL_CONTENT, &HeaderValue::from_static("bytes 0-9/5000"))
        );
        assert!(!part.headers().contains_key(header::CONTENT_ENCODING));
    }
}
