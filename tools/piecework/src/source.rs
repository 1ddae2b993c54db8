//! The source of a deployment: a file, a folder or text, with its name and language if they can be inferred.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use piecework_blobs::{Bundle, BundleLimits};
use piecework_model::{Language, typescript};

use crate::{failure::Failure, pack, show};

/// A function's code, ready to send.
#[derive(Debug)]
pub struct Source {
    pub name: Option<String>,
    pub language: Language,
    pub code: Option<String>,
    /// A tar in base64.
    pub bundle: Option<String>,
    /// The file of a single piece of code, where its name says how it is called.
    pub handler: Option<String>,
    /// For people: what was read.
    pub summary: String,
}

/// More source in one file than anybody wrote by hand.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// How the names of archives end.
const ARCHIVES: [&str; 5] = [".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst"];

/// Reads a file, a folder, or with `-` standard input. Blocks.
pub fn read(path: &Path, language: Option<Language>) -> Result<Source, Failure> {
    if path == Path::new("-") {
        let mut text = String::new();
        let input = std::io::stdin()
            .lock()
            .take(FILE_BYTES_MAX + 1)
            .read_to_string(&mut text);
        input.context("standard input is not valid UTF-8")?;
        return inline(text, language);
    }
    let meta = fs::metadata(path).with_context(|| format!("cannot open {}", path.display()))?;
    match path.file_name().and_then(|name| name.to_str()).and_then(archived) {
        _ if meta.is_dir() => read_folder(path, language),
        Some(name) => read_archive(path, name, language),
        None => read_file(path, meta.len(), language),
    }
}

/// The name before an archive's ending.
fn archived(file: &str) -> Option<&str> {
    ARCHIVES.iter().find_map(|ending| file.strip_suffix(ending))
}

fn read_archive(path: &Path, name: &str, language: Option<Language>) -> Result<Source, Failure> {
    let cannot = || format!("cannot open {}", path.display());
    let mut bytes = Vec::new();
    let file = fs::File::open(path).with_context(cannot)?;
    let read = file.take(BundleLimits::UPLOAD.bytes + 1).read_to_end(&mut bytes);
    read.with_context(cannot)?;
    let bundle = Bundle::read(&bytes, &BundleLimits::UPLOAD)?;
    let language = match language {
        Some(language) => language,
        None => language_of(path, |name| {
            let below = |file: &String| file.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
            bundle.get(name).is_some() || bundle.files().keys().any(below)
        })?,
    };
    Ok(Source {
        name: name_of(Some(name)),
        language,
        code: None,
        summary: format!("{} files, {}", bundle.files().len(), show::bytes(bundle.bytes())),
        handler: None,
        bundle: Some(BASE64_STANDARD.encode(&bundle.pack().tar)),
    })
}

/// Code given as text needs its language said.
pub fn inline(code: String, language: Option<Language>) -> Result<Source, Failure> {
    let language =
        language.ok_or_else(|| Failure::usage("inline code needs a language: add --language python|javascript"))?;
    let summary = show::bytes(code.len() as u64);
    Ok(Source {
        name: None,
        language,
        code: Some(code),
        bundle: None,
        handler: None,
        summary,
    })
}

fn read_file(path: &Path, bytes: u64, language: Option<Language>) -> Result<Source, Failure> {
    if bytes > FILE_BYTES_MAX {
        return Err(Failure::usage(format!(
            "{} is over 4 MiB; deploy a folder instead",
            path.display()
        )));
    }
    let extension = path.extension().and_then(|extension| extension.to_str());
    let language = language.or(match extension {
        Some("py") => Some(Language::Python),
        Some("js" | "mjs" | "cjs" | "ts" | "mts" | "cts" | "tsx") => Some(Language::JavaScript),
        _ => None,
    });
    let language = language.ok_or_else(|| {
        Failure::usage(format!(
            "{} does not end in .py, .mjs, .js, .cjs or .ts; add --language python|javascript|typescript",
            path.display()
        ))
    })?;
    let code = read_text(path)?;
    let file = path.file_name().and_then(|name| name.to_str());
    let is_usual = |file: &&str| language.entry_files().contains(file) && *file != language.entry_file();
    // Its ending says that it has types.
    let handler = file
        .filter(|file| is_usual(file) || typescript::is_source(file))
        .map(str::to_owned);
    let name = name_of(path.file_stem().and_then(|stem| stem.to_str()));
    Ok(Source {
        name,
        language,
        code: Some(code),
        bundle: None,
        handler,
        summary: show::bytes(bytes),
    })
}

/// A file's text.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    let bytes = fs::read(path).with_context(|| format!("cannot open {}", path.display()))?;
    let text = String::from_utf8(bytes).with_context(|| format!("{} is not valid UTF-8", path.display()))?;
    Ok(text)
}

fn read_folder(path: &Path, language: Option<Language>) -> Result<Source, Failure> {
    let language = match language {
        Some(language) => language,
        None => language_of(path, |name| path.join(name).exists())?,
    };
    let (tar, files) = pack::folder(path)?;
    let real: PathBuf = path
        .canonicalize()
        .with_context(|| format!("cannot open {}", path.display()))?;
    Ok(Source {
        name: name_of(real.file_name().and_then(|name| name.to_str())),
        language,
        code: None,
        summary: format!("{files} files, {}", show::bytes(tar.len() as u64)),
        handler: None,
        bundle: Some(BASE64_STANDARD.encode(&tar)),
    })
}

fn language_of(folder: &Path, is_there: impl Fn(&str) -> bool) -> Result<Language, Failure> {
    let has = |language: Language| {
        let files = language.entry_files().iter();
        let django = (language == Language::Python).then_some("manage.py");
        files.copied().chain(django).find(|file| is_there(file))
    };
    match (has(Language::Python), has(Language::JavaScript)) {
        (Some(_), None) => Ok(Language::Python),
        (None, Some(_)) => Ok(Language::JavaScript),
        (Some(one), Some(other)) => Err(Failure::usage(format!(
            "{} has both {one} and {other}; add --language python|javascript",
            folder.display()
        ))),
        // A site without a function.
        (None, None) if is_there("public") => Ok(Language::JavaScript),
        (None, None) => Err(Failure::usage(format!(
            "{} has neither main.py nor main.mjs, nor another usual entry file; create a starter folder with `piecework new NAME --language python`, or add --language and --handler",
            folder.display()
        ))),
    }
}

/// A file's name as a function's: lower case, `_` and spaces become `-`. Entry files say nothing about the function.
pub fn name_of(stem: Option<&str>) -> Option<String> {
    let stem = stem?;
    let spelled: String = stem
        .chars()
        .map(|c| match c {
            '_' | ' ' | '.' => '-',
            c => c.to_ascii_lowercase(),
        })
        .collect();
    (stem != "main" && spelled.parse::<piecework_model::FunctionName>().is_ok()).then_some(spelled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_name_and_language() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("Say_Hello.py");
        fs::write(&file, "x = 1").expect("written");
        let source = read(&file, None).expect("read");
        assert_eq!(
            (source.name.as_deref(), source.language),
            (Some("say-hello"), Language::Python)
        );
        assert_eq!(source.code.as_deref(), Some("x = 1"));
        let main = dir.path().join("main.mjs");
        fs::write(&main, "").expect("written");
        let source = read(&main, None).expect("read");
        assert_eq!((source.name, source.language), (None, Language::JavaScript));
    }

    #[test]
    fn a_typescript_file_is_its_handler_whatever_it_is_called() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("hello.ts");
        fs::write(&file, "export default () => 1;").expect("written");
        let source = read(&file, None).expect("read");
        assert_eq!(
            (source.name.as_deref(), source.language),
            (Some("hello"), Language::JavaScript)
        );
        assert_eq!(source.handler.as_deref(), Some("hello.ts"));
        fs::rename(&file, dir.path().join("index.ts")).expect("renamed");
        assert_eq!(read(dir.path(), None).expect("read").language, Language::JavaScript);
    }

    #[test]
    fn a_folder_of_pages_needs_no_code() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir(dir.path().join("public")).expect("made");
        fs::write(dir.path().join("public/index.html"), "").expect("written");
        assert_eq!(read(dir.path(), None).expect("read").language, Language::JavaScript);
    }

    #[test]
    fn a_folder_tells_its_language_by_its_entry_file() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(
            read(dir.path(), None)
                .expect_err("empty")
                .to_string()
                .contains("neither main.py nor main.mjs")
        );
        fs::write(dir.path().join("main.mjs"), "").expect("written");
        assert_eq!(read(dir.path(), None).expect("read").language, Language::JavaScript);
        fs::write(dir.path().join("main.py"), "").expect("written");
        assert!(
            read(dir.path(), None)
                .expect_err("both")
                .to_string()
                .contains("--language")
        );
        assert_eq!(
            read(dir.path(), Some(Language::Python)).expect("read").language,
            Language::Python
        );
    }

    #[test]
    fn an_archive_is_a_folder_with_its_name() {
        let dir = tempfile::tempdir().expect("a folder");
        let files = [("app.py".to_owned(), "x = 1".into())];
        let tar = Bundle::new(files, &BundleLimits::UPLOAD).expect("fine").pack().tar;
        let file = dir.path().join("My_App.tar");
        fs::write(&file, &tar).expect("written");
        let source = read(&file, None).expect("read");
        assert_eq!(
            (source.name.as_deref(), source.language),
            (Some("my-app"), Language::Python)
        );
        assert_eq!(source.bundle, Some(BASE64_STANDARD.encode(&tar)));
        fs::write(dir.path().join("bad.zip"), "PK").expect("written");
        assert!(read(&dir.path().join("bad.zip"), None).is_err());
    }

    #[test]
    fn text_that_is_not_utf8_and_unknown_endings_are_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("a.py"), [0xff]).expect("written");
        fs::write(dir.path().join("a.rb"), "").expect("written");
        assert!(read(&dir.path().join("a.py"), None).is_err());
        assert!(
            read(&dir.path().join("a.rb"), None)
                .expect_err("ruby")
                .to_string()
                .contains("--language")
        );
        assert!(read(&dir.path().join("missing.py"), None).is_err());
    }
}
