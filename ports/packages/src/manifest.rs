//! Reads a `package.json` and keeps only dependencies on versions of named packages.

use std::collections::BTreeMap;

use piecework_model::Rejection;
use serde_json::{Map, Value, json};

use crate::{bad_requirement, shown};

const DEPENDENCIES_MAX: usize = 200;
/// Levels of overrides within overrides.
const OVERRIDES_DEPTH_MAX: usize = 8;
/// A larger lock file locks more than a bundle can hold.
const LOCK_BYTES_MAX: usize = 4 << 20;
const TEXT_BYTES_MAX: usize = 256 << 10;

/// A manifest with nothing but the dependencies and what overrides them, checked; `None` if there are none. Scripts and workspaces
/// are dropped.
pub(crate) fn read(text: &[u8]) -> Result<Option<String>, Rejection> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(bad(format!("it is longer than {TEXT_BYTES_MAX} bytes")));
    }
    let manifest: Map<String, Value> =
        serde_json::from_slice(text).map_err(|error| bad(format!("it is not a JSON object ({error})")))?;
    let dependencies = declared(&manifest, "dependencies")?;
    let optional = declared(&manifest, "optionalDependencies")?;
    if dependencies.len() + optional.len() > DEPENDENCIES_MAX {
        return Err(bad(format!("it has more than {DEPENDENCIES_MAX} dependencies")));
    }
    if dependencies.is_empty() && optional.is_empty() {
        return Ok(None);
    }
    let mut kept =
        json!({"name": "piecework-function", "version": "0.0.0", "private": true, "dependencies": dependencies});
    if !optional.is_empty() {
        kept["optionalDependencies"] = json!(optional);
    }
    if let Some(overrides) = manifest.get("overrides").filter(|overrides| !overrides.is_null()) {
        check_overrides(overrides, &mut { DEPENDENCIES_MAX }, OVERRIDES_DEPTH_MAX)?;
        kept["overrides"] = overrides.clone();
    }
    Ok(Some(kept.to_string()))
}

fn declared<'a>(manifest: &'a Map<String, Value>, field: &str) -> Result<BTreeMap<&'a str, &'a str>, Rejection> {
    match manifest.get(field) {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::Object(declared)) => declared.iter().map(dependency).collect(),
        Some(_) => Err(bad(format!("`{field}` is not an object"))),
    }
}

/// Versions by names, or by what they are found in: `{"ms": "2.1.3", "debug": {"ms": "$ms", ".": "4.3.4"}}`.
fn check_overrides(overrides: &Value, left: &mut usize, depth_left: usize) -> Result<(), Rejection> {
    let wrong = |what: &str| {
        bad(format!(
            "`{}` in `overrides` is not a version of a package",
            shown(what)
        ))
    };
    let overrides = overrides
        .as_object()
        .filter(|_| depth_left > 0)
        .ok_or_else(|| bad("`overrides` is not an object of names and versions".into()))?;
    for (key, value) in overrides {
        *left = left
            .checked_sub(1)
            .ok_or_else(|| bad("it has too many overrides".into()))?;
        // `name@range` too; a scope begins with the same sign.
        let name = match key.get(1..).unwrap_or("").split_once('@') {
            Some((_, range)) if is_range(range) => &key[..key.len() - range.len() - 1],
            Some(_) => return Err(wrong(key)),
            None => key,
        };
        if name != "." && !is_name(name) {
            return Err(wrong(key));
        }
        match value {
            Value::Object(_) => check_overrides(value, left, depth_left - 1)?,
            Value::String(range) if is_range(range.strip_prefix('$').unwrap_or(range)) => {}
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
                return Err(wrong(key));
            }
        }
    }
    Ok(())
}

/// What a `package-lock.json` of version 2 or 3 says of versions from the index, without any address: npm asks the index itself.
/// Packages that come from elsewhere are left out, so that npm finds their versions anew; `None` if nothing is left.
pub(crate) fn lock(text: &[u8]) -> Option<String> {
    if text.len() > LOCK_BYTES_MAX {
        return None;
    }
    let lock: Value = serde_json::from_slice(text).ok()?;
    let version = lock["lockfileVersion"]
        .as_u64()
        .filter(|version| matches!(version, 2 | 3))?;
    let locked = lock["packages"].as_object()?;
    let packages: Map<String, Value> = locked
        .iter()
        .filter_map(|(path, package)| Some((path.clone(), locked_package(path, package)?)))
        .collect();
    (!packages.is_empty()).then(|| {
        json!({"name": "piecework-function", "version": "0.0.0", "lockfileVersion": version, "requires": true,
            "packages": packages})
        .to_string()
    })
}

fn locked_package(path: &str, package: &Value) -> Option<Value> {
    let names: Vec<&str> = path.strip_prefix("node_modules/")?.split("/node_modules/").collect();
    let version = package["version"].as_str().filter(|version| is_range(version))?;
    if !names.iter().all(|name| is_name(name)) || package.get("name").is_some() || package["link"] == Value::Bool(true)
    {
        return None;
    }
    let mut kept = json!({ "version": version });
    let is_digest =
        |text: &&str| text.len() <= 200 && text.chars().all(|c| c.is_ascii_alphanumeric() || "+/=-".contains(c));
    if let Some(integrity) = package["integrity"].as_str().filter(is_digest) {
        kept["integrity"] = integrity.into();
    }
    for flag in ["dev", "optional", "devOptional", "peer"] {
        if package[flag] == Value::Bool(true) {
            kept[flag] = true.into();
        }
    }
    for field in ["dependencies", "optionalDependencies", "peerDependencies"] {
        let Some(wanted) = package[field].as_object() else {
            continue;
        };
        let wanted: BTreeMap<&str, &str> = wanted.iter().map(dependency).collect::<Result<_, _>>().ok()?;
        kept[field] = json!(wanted);
    }
    Some(kept)
}

fn dependency<'a>((name, range): (&'a String, &'a Value)) -> Result<(&'a str, &'a str), Rejection> {
    let range = range
        .as_str()
        .ok_or_else(|| bad(format!("the version of `{}` is not a string", shown(name))))?;
    if !is_name(name) {
        return Err(bad(format!("`{}` is not a package name", shown(name))));
    }
    if !is_range(range) {
        return Err(bad(format!(
            "`{}` of `{}` is not a version range",
            shown(range),
            shown(name)
        )));
    }
    Ok((name, range))
}

/// `name` or `@scope/name`.
fn is_name(name: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    let fits = (1..=214).contains(&name.len()) && name != "node_modules";
    fits && match name.strip_prefix('@') {
        Some(scoped) => scoped
            .split_once('/')
            .is_some_and(|(scope, name)| part(scope) && part(name)),
        None => part(name),
    }
}

/// Versions, ranges and tags. No `/` and no `:`: no path, no URL, no `user/repository`, no `file:`.
pub(crate) fn is_range(range: &str) -> bool {
    let path_like = range.starts_with('.')
        || range.starts_with("~.")
        || range.to_ascii_lowercase().ends_with(".tgz")
        || range.to_ascii_lowercase().ends_with(".tar.gz")
        || range.to_ascii_lowercase().ends_with(".tar");
    range.len() <= 200
        && !path_like
        && range
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || " .^~<>=|*+-_".contains(c))
}

fn bad(reason: String) -> Rejection {
    bad_requirement(format!("package.json is invalid: {reason}"), "package.json")
}

#[cfg(test)]
mod tests {
    use piecework_model::Code;

    use super::*;

    #[test]
    fn only_the_dependencies_are_kept() {
        let text = br#"{"name": "x", "scripts": {"install": "rm -rf /"}, "workspaces": ["../.."],
            "dependencies": {"nanoid": "^5.0.0", "@scope/name": ">=1 <3 || 4.x"}, "devDependencies": {"jest": "1"}}"#;
        let kept: Value = serde_json::from_str(&read(text).expect("taken").expect("some")).expect("JSON");
        assert_eq!(
            kept["dependencies"],
            json!({"nanoid": "^5.0.0", "@scope/name": ">=1 <3 || 4.x"})
        );
        assert!(kept.get("scripts").is_none() && kept.get("workspaces").is_none());
        assert!(kept.get("devDependencies").is_none());
    }

    #[test]
    fn overrides_and_optional_packages_are_kept() {
        let text = br#"{"dependencies": {"debug": "4.3.4"}, "optionalDependencies": {"ms": "2.1.3"},
            "overrides": {"ms": "2.1.3", "debug@4": {".": "4.3.4", "@a/b": "$ms"}}}"#;
        let kept: Value = serde_json::from_str(&read(text).expect("taken").expect("some")).expect("JSON");
        assert_eq!(kept["optionalDependencies"], json!({"ms": "2.1.3"}));
        assert_eq!(kept["overrides"]["debug@4"]["@a/b"], json!("$ms"));
        for overrides in [
            r#""x""#,
            r#"{"ms": "file:../x"}"#,
            r#"{"ms": {"x": "user/repository"}}"#,
            r#"{"../x": "1"}"#,
            r#"{"ms": 1}"#,
        ] {
            let text = format!(r#"{{"dependencies": {{"ms": "1"}}, "overrides": {overrides}}}"#);
            let refused = read(text.as_bytes()).expect_err(overrides);
            assert_eq!(refused.code, Code::PackagesBadRequirement, "{overrides}");
            assert!(refused.hint.is_some_and(|hint| hint.contains("npm")), "{overrides}");
        }
    }

    #[test]
    fn a_lock_keeps_versions_and_no_address() {
        let text = br#"{"lockfileVersion": 3, "packages": {
            "": {"dependencies": {"ms": "^2.0.0"}},
            "node_modules/ms": {"version": "2.0.0", "resolved": "https://evil.example/ms.tgz", "integrity": "sha512-AA==", "dev": true,
                "hasInstallScript": true, "dependencies": {"@a/b": "^1"}},
            "node_modules/ms/node_modules/@a/b": {"version": "1.0.0"},
            "node_modules/git": {"version": "git+ssh://x/y"},
            "node_modules/away": {"version": "1.0.0", "dependencies": {"z": "file:../z"}},
            "../outside": {"version": "1.0.0"},
            "node_modules/linked": {"version": "1.0.0", "link": true}}}"#;
        let kept: Value = serde_json::from_str(&lock(text).expect("some")).expect("JSON");
        assert_eq!(
            kept["packages"],
            json!({"node_modules/ms": {"version": "2.0.0", "integrity": "sha512-AA==", "dev": true, "dependencies": {"@a/b": "^1"}},
                "node_modules/ms/node_modules/@a/b": {"version": "1.0.0"}})
        );
        for none in [
            "",
            "[]",
            r#"{"lockfileVersion": 1, "dependencies": {}}"#,
            r#"{"lockfileVersion": 3, "packages": {"": {}}}"#,
        ] {
            assert_eq!(lock(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn no_dependencies_are_none() {
        for text in [
            "{}",
            r#"{"type": "module"}"#,
            r#"{"dependencies": {}}"#,
            r#"{"dependencies": null}"#,
        ] {
            assert_eq!(read(text.as_bytes()), Ok(None));
        }
    }

    #[test]
    fn urls_paths_and_repositories_are_refused() {
        for range in [
            "file:../secret",
            "https://example.org/a.tgz",
            "git+ssh://git@example.org/a.git",
            "user/repo",
            "github:user/repo",
            "npm:other@1",
            "../up",
            "./a",
            "/etc",
            "~/a",
            "link:..",
            "workspace:*",
            ".",
            "..",
            "a.tgz",
            "C:\\x",
        ] {
            let text = json!({"dependencies": {"name": range}}).to_string();
            assert_eq!(
                read(text.as_bytes()).expect_err(range).code,
                Code::PackagesBadRequirement,
                "{range}"
            );
        }
        for name in [
            "",
            "../up",
            ".hidden",
            "a/b",
            "@a",
            "@a/b/c",
            "a b",
            "node_modules",
            "--flag",
            "a:b",
        ] {
            let text = json!({"dependencies": {name: "1"}}).to_string();
            assert_eq!(
                read(text.as_bytes()).expect_err(name).code,
                Code::PackagesBadRequirement,
                "{name}"
            );
        }
        for text in [
            "",
            "[]",
            "{\"dependencies\": []}",
            "{\"dependencies\": {\"a\": 1}}",
            "not json",
        ] {
            assert_eq!(
                read(text.as_bytes()).expect_err(text).code,
                Code::PackagesBadRequirement,
                "{text}"
            );
        }
    }
}
