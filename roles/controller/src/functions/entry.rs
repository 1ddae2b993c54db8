//! Which file of a bundle is called, and what is done with it before it is loaded: pure.

use bytes::Bytes;
use piecework_blobs::{Bundle, BundleLimits};
use piecework_model::{Code, Contract, Language, Rejection};
use piecework_sandbox::runner::CONTRACT_FIELD;
use piecework_store::Site;
use serde_json::{Map, Value, json};

use crate::failure::Refusal;

/// The file of a handler.
pub(super) fn file_of(handler: &str) -> &str {
    handler.split(':').next().unwrap_or(handler)
}

/// A handler as its developer wrote it, without the contract that was found for it.
pub(super) fn without_contract(handler: &str) -> &str {
    match Contract::of(handler) {
        Some(_) => handler.rsplit_once('@').map_or(handler, |(bare, _)| bare),
        None => handler,
    }
}

/// The handler that a request names, or the file of TypeScript that came without a name.
pub(super) fn given(handler: Option<String>, (language, is_code): (&str, bool)) -> Option<String> {
    let is_typescript = is_code && matches!(language, "typescript" | "ts");
    handler.or_else(|| is_typescript.then(|| "main.ts".to_owned()))
}

/// The file that code without a name becomes: Node tells modules from CommonJS by its ending.
pub(super) fn file_of_code(language: Language, code: &str) -> &'static str {
    match language {
        Language::JavaScript if !is_module(code) && is_common_js(code) => "main.cjs",
        Language::JavaScript | Language::Python | Language::Image => language.entry_file(),
    }
}

/// The handler of a bundle for which none was named: its first file of the usual names, where that is not the language's own.
/// `None` where there is no such file either.
pub(super) fn handler_in(language: Language, bundle: &Bundle) -> Option<Option<String>> {
    let usual = language.entry_files().iter().copied();
    let file = usual
        .chain(django(language, bundle))
        .find(|file| bundle.get(file).is_some())?;
    Some((file != language.entry_file()).then(|| file.to_owned()))
}

/// What Django's `startproject` makes: `manage.py`, and the project in a folder beside it.
fn django(language: Language, bundle: &Bundle) -> Option<&str> {
    let is_project = language == Language::Python && bundle.get("manage.py").is_some();
    let mut files = bundle.files().keys().filter(|_| is_project);
    let in_a_folder = |file: &&String| {
        file.strip_suffix("/wsgi.py")
            .is_some_and(|folder| !folder.contains('/'))
    };
    files.find(in_a_folder).map(String::as_str)
}

/// The folder whose files are served at the function's URL without a run.
pub(crate) const PUBLIC: &str = "public/";
/// Of a site: it is called where no URL leads, by `POST /execute`.
const NO_PAGE: &str = "export default () => ({ status: 404 });\n";

/// Whether a bundle has pages, and whether it has anything else.
pub(super) fn site_in(bundle: &Bundle) -> Site {
    let has_pages = bundle.files().keys().any(|path| path.starts_with(PUBLIC));
    let entry = bundle.get(Language::JavaScript.entry_file());
    match entry.is_some_and(|entry| entry == NO_PAGE) {
        _ if !has_pages => Site::None,
        true => Site::Alone,
        false => Site::Beside,
    }
}

/// A bundle with pages and no code, made one that can be loaded; `None` if it has code, or no pages.
pub(super) fn only_site(bundle: &Bundle) -> Option<Result<Bundle, Rejection>> {
    const CODE: [&str; 9] = ["py", "js", "mjs", "cjs", "ts", "mts", "cts", "tsx", "jsx"];
    let is_code = |path: &str| path.rsplit_once('.').is_some_and(|(_, ending)| CODE.contains(&ending));
    let mut others = bundle.files().keys().filter(|path| !path.starts_with(PUBLIC));
    if others.any(|path| is_code(path)) || site_in(bundle) == Site::None {
        return None;
    }
    let entry = Language::JavaScript.entry_file().to_owned();
    let entry = (entry, Bytes::from_static(NO_PAGE.as_bytes()));
    Some(bundle.clone().with_files([entry], &BundleLimits::UPLOAD))
}

/// A refusal that names the contract by which the code is to be loaded: its handler.
pub(super) fn contract_of(refusal: &Refusal) -> Option<&str> {
    let is_meant = refusal.code == Code::FunctionNoHandler;
    let handler = refusal.field.as_deref()?.strip_prefix(CONTRACT_FIELD)?;
    (is_meant && Contract::of(handler).is_some()).then_some(handler)
}

/// A `.js` file that is a module is one in Node only where `package.json` says so: it is made to, as Node does from version 22 on.
pub(super) fn typed(language: Language, handler: Option<&str>, bundle: Bundle) -> Result<Bundle, Rejection> {
    const PACKAGE: &str = "package.json";
    let entry = handler.map_or(language.entry_file(), file_of);
    let is_meant = language == Language::JavaScript
        && entry.ends_with(".js")
        && bundle
            .get(entry)
            .is_some_and(|code| is_module(&String::from_utf8_lossy(code)));
    if !is_meant {
        return Ok(bundle);
    }
    let said = bundle
        .get(PACKAGE)
        .map(|json| serde_json::from_slice::<Map<String, Value>>(json));
    let mut said = match said {
        None => Map::new(),
        Some(Ok(said)) if !said.contains_key("type") => said,
        // It says what it is, or is none: then that is told where the packages are resolved.
        Some(Ok(_) | Err(_)) => return Ok(bundle),
    };
    said.insert("type".to_owned(), json!("module"));
    let said = Bytes::from(Value::Object(said).to_string());
    bundle.with_files([(PACKAGE.to_owned(), said)], &BundleLimits::UPLOAD)
}

/// Whether a line begins as only modules have it.
fn is_module(code: &str) -> bool {
    code.lines().any(|line| {
        let line = line.trim_start();
        let follows = |word: &str| {
            let rest = line.strip_prefix(word)?;
            rest.chars().next()
        };
        match (follows("import"), follows("export")) {
            (Some(next), _) => matches!(next, ' ' | '{' | '"' | '\'' | '*'),
            (None, Some(next)) => matches!(next, ' ' | '{' | '*'),
            (None, None) => false,
        }
    })
}

fn is_common_js(code: &str) -> bool {
    ["module.exports", "exports.", "require("]
        .iter()
        .any(|part| code.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(files: &[(&str, &str)]) -> Bundle {
        let files = files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), Bytes::copy_from_slice(text.as_bytes())));
        Bundle::new(files, &BundleLimits::UPLOAD).expect("a bundle")
    }

    #[test]
    fn the_first_usual_file_is_the_entry() {
        let found = |language, files: &[&str]| {
            let files: Vec<_> = files.iter().map(|path| (*path, "x")).collect();
            handler_in(language, &bundle(&files))
        };
        let own = |file: &str| Some(Some(file.to_owned()));
        assert_eq!(found(Language::Python, &["main.py", "app.py"]), Some(None));
        assert_eq!(found(Language::Python, &["app.py", "server.py"]), own("app.py"));
        assert_eq!(found(Language::Python, &["tools.py"]), None);
        assert_eq!(found(Language::JavaScript, &["index.js", "app.js"]), own("index.js"));
        assert_eq!(found(Language::JavaScript, &["src/index.js"]), own("src/index.js"));
        let project = ["manage.py", "lib/deep/wsgi.py", "site/settings.py", "site/wsgi.py"];
        assert_eq!(found(Language::Python, &project), own("site/wsgi.py"));
        assert_eq!(found(Language::Python, &project[1..]), None);
    }

    #[test]
    fn a_bundle_with_pages_and_no_code_is_a_site() {
        let is_site = |files: &[&str]| {
            let files: Vec<_> = files.iter().map(|path| (*path, "x")).collect();
            only_site(&bundle(&files)).is_some()
        };
        assert!(is_site(&["public/index.html", "public/app.js", "README.md"]));
        let site = only_site(&bundle(&[("public/index.html", "x")]))
            .expect("pages")
            .expect("small");
        assert_eq!(site_in(&site), Site::Alone);
        assert_eq!(
            site_in(&bundle(&[("public/a.css", "x"), ("main.mjs", "y")])),
            Site::Beside
        );
        assert_eq!(site_in(&bundle(&[("main.mjs", NO_PAGE)])), Site::None);
        assert!(
            !is_site(&["public/index.html", "server/run.js"]),
            "its entry has another name"
        );
        assert!(!is_site(&["index.html"]) && !is_site(&["publication/a.html"]));
    }

    #[test]
    fn code_in_one_file_is_a_module_or_common_js() {
        for (code, due) in [
            ("export default () => 1;", "main.mjs"),
            ("exports.handler = () => 1;", "main.cjs"),
            ("const fs = require('fs');\nmodule.exports = () => 1;", "main.cjs"),
            ("import fs from 'fs';\nexports.x = 1;", "main.mjs"),
            ("// nothing", "main.mjs"),
        ] {
            assert_eq!(file_of_code(Language::JavaScript, code), due, "{code}");
        }
        assert_eq!(file_of_code(Language::Python, "exports.a = require(b)"), "main.py");
    }

    #[test]
    fn a_js_file_that_is_a_module_is_said_to_be_one() {
        let typed = |files: &[(&str, &str)]| {
            let bundle = typed(Language::JavaScript, Some("index.js"), bundle(files)).expect("a bundle");
            bundle
                .get("package.json")
                .map(|json| String::from_utf8_lossy(json).into_owned())
        };
        let module = ("index.js", "export default () => 1;\n");
        assert_eq!(typed(&[module]).as_deref(), Some(r#"{"type":"module"}"#));
        let named = ("package.json", r#"{"name":"x"}"#);
        assert_eq!(
            typed(&[module, named]).as_deref(),
            Some(r#"{"name":"x","type":"module"}"#)
        );
        let common = ("package.json", r#"{"type":"commonjs"}"#);
        assert_eq!(
            typed(&[module, common]).as_deref(),
            Some(common.1),
            "it says what it is"
        );
        assert_eq!(typed(&[("index.js", "exports.handler = 1;\n")]), None);
    }

    #[test]
    fn a_refusal_names_the_contract_to_load_by() {
        let refusal = |code, field: &str| Refusal::new(code, "").field(field);
        let named = refusal(Code::FunctionNoHandler, "contract:app.py:app@asgi");
        assert_eq!(contract_of(&named), Some("app.py:app@asgi"));
        for other in [
            refusal(Code::FunctionNoHandler, "contract:app.py:app"),
            refusal(Code::FunctionNoHandler, "handler"),
            refusal(Code::FunctionLoadFailed, "contract:app.py:app@asgi"),
        ] {
            assert_eq!(contract_of(&other), None);
        }
        assert_eq!(without_contract("app.py:app@asgi"), "app.py:app");
        assert_eq!(without_contract("app.py:app"), "app.py:app");
    }
}
