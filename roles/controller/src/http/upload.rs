//! Code as it is uploaded: a body in JSON, or a form as browsers and `curl -F` send it.

use std::collections::BTreeMap;

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::{executor::block_on, stream};
use multer::Multipart;
use piecework_api::{
    errors::parse_body,
    server::{read_as, read_body},
};
use piecework_model::{Code, Language, typescript};
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};

use super::{HttpError, HttpResult, UPLOAD_BYTES_MAX, refusal};
use crate::failure::refuse;

/// More than there are fields to give.
const FIELDS_MAX: usize = 64;
/// Fields that are text even where they look like something else. The others are JSON where they can be: `true`, `5000`, `{"A": "b"}`.
const TEXTS: [&str; 6] = ["name", "language", "code", "bundle", "handler", "sandbox"];
/// How the name of an uploaded file ends that is an archive.
const ARCHIVES: [&str; 6] = [".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst"];

/// A body of this form. In a form that is `multipart/form-data`, `code` is text or a file; a file that is an archive is the
/// bundle.
pub(super) async fn read<T: DeserializeOwned + Send + 'static>(headers: &HeaderMap, body: Body) -> HttpResult<T> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let Some(boundary) = kind.and_then(|kind| multer::parse_boundary(kind).ok()) else {
        return read_body(body, UPLOAD_BYTES_MAX).await;
    };
    let parse = |bytes| {
        // All of it is there: nothing is waited for.
        let object = object(block_on(fields(bytes, boundary))?)?;
        let text = serde_json::to_vec(&object).expect("texts and JSON are JSON");
        drop(object);
        parse_body(&text).map_err(|refusal| HttpError(Box::new(refusal)))
    };
    read_as(body, UPLOAD_BYTES_MAX, parse).await
}

/// JSON by field. None is made into values before its form is known, which has bounds.
type Object = BTreeMap<String, Box<RawValue>>;

fn text(text: &str) -> Box<RawValue> {
    to_raw_value(text).expect("a text is JSON")
}

struct Field {
    name: String,
    file: Option<String>,
    content: Bytes,
}

async fn fields(bytes: Bytes, boundary: String) -> HttpResult<Vec<Field>> {
    let malformed = |error: multer::Error| HttpError(refusal(Code::BodyMalformed, format!("the form: {error}")));
    let mut form = Multipart::new(stream::iter([Ok::<_, std::convert::Infallible>(bytes)]), boundary);
    let mut fields = Vec::new();
    while let Some(field) = form.next_field().await.map_err(malformed)? {
        if fields.len() == FIELDS_MAX {
            return Ok(refuse(
                Code::BodyMalformed,
                format!("the form has more than {FIELDS_MAX} fields"),
            )?);
        }
        let name = field.name().unwrap_or_default().to_owned();
        let file = field.file_name().map(str::to_owned);
        let content = field.bytes().await.map_err(malformed)?;
        fields.push(Field { name, file, content });
    }
    Ok(fields)
}

fn object(fields: Vec<Field>) -> HttpResult<Object> {
    let (mut object, mut named) = (Object::new(), (None, None));
    for field in fields {
        let is_archive = |file: &str| ARCHIVES.iter().any(|end| file.to_ascii_lowercase().ends_with(end));
        let name = match &field.file {
            Some(file) if field.name == "code" && is_archive(file) => "bundle".to_owned(),
            _ => field.name,
        };
        let value = match (&*name, &field.file) {
            ("bundle", Some(_)) => text(&STANDARD.encode(&field.content)),
            _ => value(&name, &field.content)?,
        };
        match &*name {
            "code" => named.0 = field.file,
            "language" => {
                named.1 = std::str::from_utf8(&field.content)
                    .ok()
                    .and_then(|text| text.parse().ok())
            }
            _ => {}
        }
        if object.insert(name.clone(), value).is_some() {
            let mut twice = refusal(Code::BodyMalformed, format!("the form has the field `{name}` twice"));
            twice.field = Some(name);
            return Err(HttpError(twice));
        }
    }
    if let (Some(file), Some(language)) = named {
        name_handler(&mut object, &file, language);
    }
    Ok(object)
}

fn value(name: &str, content: &[u8]) -> HttpResult<Box<RawValue>> {
    let Ok(given) = std::str::from_utf8(content) else {
        let mut refusal = refusal(Code::BodyMalformed, format!("the field `{name}` is not valid UTF-8"));
        refusal.field = Some(name.to_owned());
        return Err(HttpError(refusal));
    };
    if TEXTS.contains(&name) {
        return Ok(text(given));
    }
    Ok(serde_json::from_str(given).unwrap_or_else(|_| text(given)))
}

/// A file's own name says how its code is called, where it is a usual one and nobody said otherwise.
fn name_handler(object: &mut Object, file: &str, language: Language) {
    let is_usual = language.entry_files().contains(&file) && file != language.entry_file();
    // The ending says that it has types.
    if is_usual || (language == Language::JavaScript && typescript::is_source(file)) {
        object.entry("handler".to_owned()).or_insert_with(|| text(file));
    }
}

#[cfg(test)]
mod tests {
    use piecework_api::functions::CreateFunction;

    use super::*;

    async fn sent(parts: &[(&str, &str)]) -> Result<CreateFunction, Code> {
        let part = |(head, content): &(&str, &str)| {
            format!("--xyz\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n")
        };
        let body: String = parts.iter().map(part).chain(["--xyz--\r\n".to_owned()]).collect();
        let mut headers = HeaderMap::new();
        let kind = "multipart/form-data; boundary=xyz".parse().expect("a value");
        headers.insert(header::CONTENT_TYPE, kind);
        let read = read(&headers, Body::from(body)).await;
        read.map_err(|HttpError(refusal)| refusal.code.known().expect("one of ours"))
    }

    const NAME: (&str, &str) = (r#"name="name""#, "hello");
    const PYTHON: (&str, &str) = (r#"name="language""#, "python");

    #[tokio::test]
    async fn a_form_gives_what_json_gives() {
        let form = [
            NAME,
            PYTHON,
            (r#"name="code"; filename="app.py""#, "x = 1"),
            (r#"name="timeout""#, "5s"),
            (r#"name="memory_limit_mb""#, "256"),
            (r#"name="public""#, "true"),
            (r#"name="env""#, r#"{"A": "1"}"#),
        ];
        let body = sent(&form).await.expect("read");
        assert_eq!((&*body.name, body.code.as_deref()), ("hello", Some("x = 1")));
        assert_eq!((body.timeout_ms, body.memory_limit_mb), (Some(5_000), Some(256)));
        assert_eq!((body.public, body.handler.as_deref()), (Some(true), Some("app.py")));
        assert_eq!(body.env.expect("variables")["A"], "1");
        let digits = [(r#"name="name""#, "7"), PYTHON, (r#"name="code""#, "5")];
        let body = sent(&digits).await.expect("read");
        assert_eq!(
            (&*body.name, body.code.as_deref(), body.handler),
            ("7", Some("5"), None)
        );
    }

    #[tokio::test]
    async fn an_archive_is_the_bundle_whatever_field_it_came_in() {
        for head in [r#"name="code"; filename="App.ZIP""#, r#"name="bundle"; filename="x""#] {
            let body = sent(&[NAME, PYTHON, (head, "PK")]).await.expect("read");
            assert_eq!((body.code, body.bundle.as_deref()), (None, Some("UEs=")));
        }
    }

    #[tokio::test]
    async fn what_does_not_fit_is_refused() {
        let twice = [NAME, NAME];
        let crowd: Vec<_> = (0..=1_000).map(|at| format!("\"{at}\":\"\"")).collect();
        let crowd = format!("{{{}}}", crowd.join(","));
        assert_eq!(
            sent(&[NAME, PYTHON, ("name=\"env\"", &crowd)]).await.err(),
            Some(Code::BodyMalformed)
        );
        let many: Vec<_> = (0..=FIELDS_MAX).map(|at| format!(r#"name="f{at}""#)).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|head| (&**head, "1")).collect();
        for bad in [
            &twice[..],
            &many,
            &[NAME, ("name=\"x\"", "1")],
            &[NAME, PYTHON, ("name=\"timeout\"", "soon")],
        ] {
            assert_eq!(sent(bad).await.map(|body| body.name), Err(Code::BodyMalformed));
        }
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            "multipart/form-data; boundary=xyz".parse().expect("a value"),
        );
        let cut = Body::from("--xyz\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nhel");
        assert!(read::<CreateFunction>(&headers, cut).await.is_err());
    }
}
