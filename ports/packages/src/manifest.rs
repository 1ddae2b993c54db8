//! Reads a `package.json` and keeps only dependencies on versions of named packages.

use std::collections::BTreeMap;

use piecework_model::Rejection;
use serde_json::{Map, Value, json};

use crate::{bad_requirement, shown};

const DEPENDENCIES_MAX: usize = 200;
const TEXT_BYTES_MAX: usize = 256 << 10;

/// A manifest with nothing but the dependencies, checked; `None` if there are none. Scripts, workspaces, overrides and
/// lock files are dropped: a lock file may name any URL.
pub(crate) fn read(text: &[u8]) -> Result<Option<String>, Rejection> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(bad(format!("it is longer than {TEXT_BYTES_MAX} bytes")));
    }
    let manifest: Map<String, Value> =
        serde_json::from_slice(text).map_err(|error| bad(format!("it is not a JSON object ({error})")))?;
    let declared = match manifest.get("dependencies") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(declared)) => declared,
        Some(_) => return Err(bad("`dependencies` is not an object".into())),
    };
    if declared.len() > DEPENDENCIES_MAX {
        return Err(bad(format!("it has more than {DEPENDENCIES_MAX} dependencies")));
    }
    let dependencies: BTreeMap<&str, &str> = declared.iter().map(dependency).collect::<Result<_, _>>()?;
    if dependencies.is_empty() {
        return Ok(None);
    }
    let manifest =
        json!({"name": "piecework-function", "version": "0.0.0", "private": true, "dependencies": dependencies});
    Ok(Some(manifest.to_string()))
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
