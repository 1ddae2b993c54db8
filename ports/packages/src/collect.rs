//! Reads what the resolver handed out, and checks that all of it came from the index.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Cursor, Read as _},
};

use bytes::Bytes;
use piecework_model::{Code, Language, Rejection};
use serde_json::Value;

use crate::{Options, ResolveError, Resolved, index, manifest, shown};

const NPM_LOCK: &str = "package-lock.json";

/// The packages in the archive. Rejects with `packages.too_large`, `packages.direct_reference` or `packages.bad_requirement`.
pub(crate) fn resolved(language: Language, archive: Bytes, options: &Options) -> Result<Resolved, ResolveError> {
    let mut files = read(archive, options)?;
    match language {
        Language::Python => python(files),
        Language::Image => unreachable!("an image declares no packages"),
        Language::JavaScript => {
            let lock = files.remove(NPM_LOCK);
            javascript(files, lock.as_deref(), options)
        }
    }
}

/// The versions by the metadata directories that pip leaves. Beside them lies `direct_url.json` (PEP 610) where a package came
/// from anywhere but an index.
fn python(files: BTreeMap<String, Bytes>) -> Result<Resolved, ResolveError> {
    within(&files, "packages/")?;
    if let Some(path) = files.keys().find(|path| path.ends_with(".dist-info/direct_url.json")) {
        let name = path.split('/').nth(1).unwrap_or_default();
        return Err(direct(name.split(".dist-info").next().unwrap_or(name), None).into());
    }
    let versions: BTreeSet<String> = files
        .iter()
        .filter(|(path, _)| path.ends_with(".dist-info/METADATA"))
        .filter_map(|(_, text)| dist(text))
        .collect();
    let native = files.keys().any(|path| is_native_python(path));
    Ok(Resolved {
        folder: "packages",
        versions: versions.into_iter().collect(),
        native,
        files,
    })
}

/// The versions by npm's lock file, which also says where each package came from.
fn javascript(
    mut files: BTreeMap<String, Bytes>,
    lock: Option<&[u8]>,
    options: &Options,
) -> Result<Resolved, ResolveError> {
    within(&files, "node_modules/")?;
    files.remove("node_modules/.package-lock.json");
    let lock: Value =
        serde_json::from_slice(lock.unwrap_or(b"{}")).map_err(|_| ResolveError::jail("npm's lock file is not JSON"))?;
    let locked = lock["packages"].as_object().into_iter().flatten();
    let mut versions = BTreeSet::new();
    for (path, package) in locked {
        // The manifest itself has no name here.
        let Some((_, name)) = path.rsplit_once("node_modules/") else {
            if path.is_empty() {
                continue;
            }
            return Err(direct(path, None).into());
        };
        if let Some(wanted) = specifiers(package).find(|(_, range)| !is_from_index(range)) {
            return Err(direct(&format!("{}@{}", wanted.0, wanted.1), Some(name)).into());
        }
        let elsewhere = package["resolved"]
            .as_str()
            .is_some_and(|url| !index::is_on_registry(&options.env, url));
        if elsewhere || package["link"] == Value::Bool(true) {
            return Err(direct(name, None).into());
        }
        versions.extend(package["version"].as_str().map(|version| format!("{name}=={version}")));
    }
    let native = files.keys().any(|path| path.ends_with(".node"));
    Ok(Resolved {
        folder: "node_modules",
        versions: versions.into_iter().collect(),
        native,
        files,
    })
}

/// What a locked package asks for, by name.
fn specifiers(package: &Value) -> impl Iterator<Item = (&str, &str)> {
    ["dependencies", "optionalDependencies", "peerDependencies"]
        .into_iter()
        .filter_map(|kind| package[kind].as_object())
        .flatten()
        .filter_map(|(name, range)| Some((name.as_str(), range.as_str()?)))
}

/// A range of versions, also under another name (`npm:name@range`).
fn is_from_index(range: &str) -> bool {
    match range.strip_prefix("npm:") {
        Some(alias) => alias
            .rsplit_once('@')
            .is_none_or(|(_, range)| manifest::is_range(range)),
        None => manifest::is_range(range),
    }
}

/// Of what comes from elsewhere, and which package asks for it.
pub(crate) fn direct(what: &str, by: Option<&str>) -> Rejection {
    let what = shown(what);
    let by = by.map_or_else(String::new, |by| format!(", as `{}` asks", shown(by)));
    Rejection::new(
        Code::PackagesDirectReference,
        format!("`{what}` comes from a URL, a repository or a path instead of the package index{by}"),
    )
    .hint("use packages whose dependencies are all on the index, or put the package into the bundle")
}

/// Regular files of an archive that a sandbox wrote: nothing about it is believed.
fn read(archive: Bytes, options: &Options) -> Result<BTreeMap<String, Bytes>, ResolveError> {
    let mut files = BTreeMap::new();
    let mut bytes = 0_u64;
    let mut entries = tar::Archive::new(Cursor::new(archive.clone()));
    for entry in entries.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        if !entry.header().entry_type().is_file() {
            return Err(ResolveError::jail("the archive holds more than files"));
        }
        let path = String::from_utf8(entry.path_bytes().into_owned()).map_err(broken)?;
        bytes = bytes.saturating_add(entry.size());
        if bytes > options.bytes_max || files.len() >= options.files_max {
            return Err(too_large(options).into());
        }
        // A slice of the archive where the entry is whole, so that the packages lie in memory once.
        let start = usize::try_from(entry.raw_file_position()).map_err(broken)?;
        let end = start.saturating_add(usize::try_from(entry.size()).map_err(broken)?);
        let content = match archive.get(start..end) {
            Some(_) => archive.slice(start..end),
            None => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).map_err(broken)?;
                content.into()
            }
        };
        files.insert(path, content);
    }
    Ok(files)
}

fn broken(error: impl std::fmt::Display) -> ResolveError {
    ResolveError::jail(format!("the archive of the packages cannot be read: {error}"))
}

/// Paths that the bundle takes; it checks each of them again.
fn within(files: &BTreeMap<String, Bytes>, folder: &str) -> Result<(), ResolveError> {
    let fits = |path: &String| path.starts_with(folder) && !path.split('/').any(|part| matches!(part, "" | "." | ".."));
    match files.keys().find(|path| !fits(path)) {
        None => Ok(()),
        Some(path) => Err(ResolveError::jail(format!("the archive names `{}`", shown(path)))),
    }
}

/// `lib.so`, `lib.so.6`: code for this kind of machine.
fn is_native_python(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.ends_with(".so") || name.contains(".so.")
}

fn dist(metadata: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(metadata);
    let field = |name: &str| {
        text.lines()
            .take_while(|line| !line.is_empty())
            .find_map(|line| line.strip_prefix(name))
    };
    Some(format!("{}=={}", field("Name: ")?.trim(), field("Version: ")?.trim()))
}

pub(crate) fn too_large(options: &Options) -> Rejection {
    let (bytes, files) = (options.bytes_max >> 20, options.files_max);
    Rejection::new(
        Code::PackagesTooLarge,
        format!("the packages take more than {bytes} MiB or {files} files"),
    )
    .hint("use fewer or smaller packages")
}

#[cfg(test)]
mod tests {
    use piecework_model::AnyCode;

    use super::*;

    fn archive(files: &[(&str, &str)]) -> Bytes {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            // By hand: the library refuses to write `..`.
            header.as_gnu_mut().expect("a GNU header").name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            tar.append(&header, content.as_bytes()).expect("appends");
        }
        tar.into_inner().expect("ends").into()
    }

    fn code(language: Language, files: &[(&str, &str)]) -> AnyCode {
        match resolved(language, archive(files), &Options::default()).expect_err("refused") {
            ResolveError::Rejected(rejection) => rejection.code,
            ResolveError::Jail(reason) => panic!("{reason}"),
            ResolveError::Io { operation, source } => panic!("{operation}: {source}"),
        }
    }

    #[test]
    fn a_wheel_that_was_not_taken_from_the_index_is_refused_by_name() {
        let files = [
            ("packages/evil/__init__.py", ""),
            (
                "packages/evil-1.0.dist-info/direct_url.json",
                "{\"url\":\"http://127.0.0.1/\"}",
            ),
        ];
        assert_eq!(code(Language::Python, &files), Code::PackagesDirectReference);
    }

    #[test]
    fn an_npm_package_from_a_repository_a_path_or_another_host_is_refused() {
        for place in [
            "git+ssh://git@example.org/x.git#1",
            "file:../etc",
            "https://example.org/x.tgz",
        ] {
            let lock =
                serde_json::json!({"packages": {"": {}, "node_modules/x": {"version": "1.0.0", "resolved": place}}});
            let files = [("package-lock.json", &*lock.to_string())];
            assert_eq!(
                code(Language::JavaScript, &files),
                Code::PackagesDirectReference,
                "{place}"
            );
        }
        let asked = serde_json::json!({"packages": {"": {}, "node_modules/x": {"version": "1.0.0",
            "dependencies": {"fine": "^1.0.0", "other": "npm:fine@^1", "inner": "http://127.0.0.1/inner.tgz"}}}});
        let files = [("package-lock.json", &*asked.to_string())];
        assert_eq!(code(Language::JavaScript, &files), Code::PackagesDirectReference);
        let linked = serde_json::json!({"packages": {"": {}, "../etc": {}, "node_modules/etc": {"link": true}}});
        let files = [("package-lock.json", &*linked.to_string())];
        assert_eq!(code(Language::JavaScript, &files), Code::PackagesDirectReference);
    }

    #[test]
    fn an_archive_with_paths_elsewhere_is_not_believed() {
        for path in ["../x", "packages/../../x", "/etc/passwd", "node_modules/x"] {
            let refused = resolved(Language::Python, archive(&[(path, "")]), &Options::default());
            let told = matches!(&refused, Err(ResolveError::Jail(why)) if why.starts_with("the archive names"));
            assert!(told, "{path}: {refused:?}");
        }
    }

    #[test]
    fn content_is_what_the_archive_says() {
        let files = [
            ("packages/a.py", "A = 1\n"),
            ("packages/a-1.dist-info/METADATA", "Name: a\nVersion: 1\n\n"),
        ];
        let resolved = resolved(Language::Python, archive(&files), &Options::default()).expect("fine");
        assert_eq!(resolved.versions, ["a==1"]);
        assert_eq!(resolved.files["packages/a.py"], "A = 1\n");
        let small = Options {
            bytes_max: 5,
            ..Options::default()
        };
        assert!(matches!(super::resolved(Language::Python, archive(&files), &small),
            Err(ResolveError::Rejected(rejection)) if rejection.code == Code::PackagesTooLarge));
    }
}
