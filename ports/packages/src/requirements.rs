//! Reads a `requirements.txt` and lets only names, versions, markers and hashes through.

use piecework_model::Rejection;

use crate::{bad_requirement, shown};

/// More than any function needs; each costs the resolver time.
const REQUIREMENTS_MAX: usize = 200;
const TEXT_BYTES_MAX: usize = 256 << 10;

/// The requirements, checked and one per line; `None` if there are none.
pub(crate) fn read(text: &[u8]) -> Result<Option<String>, Rejection> {
    let text = std::str::from_utf8(text).map_err(|_| bad("it is not valid UTF-8".into()))?;
    check(text).map(|lines| {
        if lines.is_empty() {
            None
        } else {
            Some(lines.join("\n") + "\n")
        }
    })
}

/// Rejects a `pyproject.toml` that lists dependencies where there is no `requirements.txt`: they would be missing when it runs.
pub(crate) fn none_in(project: &[u8]) -> Result<(), Rejection> {
    let text = String::from_utf8_lossy(project);
    let lists = |line: &str| {
        let list = line
            .trim()
            .strip_prefix("dependencies")
            .and_then(|rest| rest.trim().strip_prefix('='));
        list.is_some_and(|list| list.split_whitespace().collect::<String>() != "[]")
    };
    match text.lines().any(lists) {
        false => Ok(()),
        true => Err(bad_requirement(
            "the dependencies in pyproject.toml are not read: list them in a requirements.txt beside it".to_owned(),
            "pyproject.toml",
        )),
    }
}

/// The requirements of a `requirements.txt`; rejects with `packages.bad_requirement`.
pub fn check(text: &str) -> Result<Vec<String>, Rejection> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(bad(format!("it is longer than {TEXT_BYTES_MAX} bytes")));
    }
    // A backslash at a line's end joins it to the next, as pip does.
    let text = text
        .trim_start_matches('\u{feff}')
        .replace("\\\r\n", " ")
        .replace("\\\n", " ");
    let lines: Vec<String> = text
        .lines()
        .map(|line| without_comment(line).trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    if lines.len() > REQUIREMENTS_MAX {
        return Err(bad(format!("it has more than {REQUIREMENTS_MAX} requirements")));
    }
    lines.iter().try_for_each(|line| check_line(line))?;
    Ok(lines)
}

/// A `#` begins a comment at a line's start or after a space.
fn without_comment(line: &str) -> &str {
    let start = line
        .match_indices('#')
        .map(|(at, _)| at)
        .find(|at| line[..*at].chars().next_back().is_none_or(char::is_whitespace));
    &line[..start.unwrap_or(line.len())]
}

fn check_line(line: &str) -> Result<(), Rejection> {
    let (requirement, hashes) = match line.find(" --hash") {
        Some(at) => line.split_at(at),
        None => (line, ""),
    };
    let fine_hash = |word: &str| {
        word.strip_prefix("--hash=sha256:")
            .is_some_and(|digits| digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    if !hashes.split_whitespace().all(fine_hash) || !is_requirement(requirement.trim()) {
        return Err(bad(format!("`{}` is not a package name with versions", shown(line))));
    }
    Ok(())
}

/// `name[extra,...] versions ; marker`, by an allow list of characters: no `/`, `:`, `@`, `$`, so no path, no URL and
/// no variable.
fn is_requirement(text: &str) -> bool {
    let (named, marker) = text.split_once(';').unwrap_or((text, ""));
    let name_end = named
        .find(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c)))
        .unwrap_or(named.len());
    let (name, rest) = named.split_at(name_end);
    let fine = |c: char, more: &str| c.is_ascii_alphanumeric() || c == ' ' || c == '\t' || more.contains(c);
    let archive = [".whl", ".zip", ".gz", ".bz2", ".xz", ".tar", ".tgz"];
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
        && !archive.iter().any(|suffix| name.to_ascii_lowercase().ends_with(suffix))
        && rest.chars().all(|c| fine(c, "[],.<>=!~*+()_-"))
        // A second word that is no version would be an option or another name.
        && (rest.trim().is_empty() || rest.trim_start().starts_with(['[', '<', '>', '=', '!', '~', '(']))
        // A dash stands inside a version, never before a word.
        && ![" -", "\t-", "--"].iter().any(|dash| rest.contains(dash))
        && marker.chars().all(|c| fine(c, "\"'<>=!~.,()_-*+"))
        && !marker.contains("--")
}

fn bad(reason: String) -> Rejection {
    bad_requirement(format!("requirements.txt is invalid: {reason}"), "requirements.txt")
}

#[cfg(test)]
mod tests {
    use piecework_model::Code;

    use super::*;

    #[test]
    fn dependencies_of_a_project_are_named_where_they_would_be_missing() {
        let listed = none_in(b"[project]\nname = 'x'\ndependencies = ['six']\n").expect_err("listed");
        assert_eq!(listed.code, piecework_model::Code::PackagesBadRequirement);
        assert!(listed.message.contains("requirements.txt"));
        for fine in [
            "[project]\nname = 'x'\n",
            "dependencies = [ ]",
            "[tool.x]\ndependencies-of = 1",
        ] {
            assert_eq!(none_in(fine.as_bytes()), Ok(()), "{fine}");
        }
    }

    #[test]
    fn names_versions_extras_markers_comments_and_hashes_are_taken() {
        let hash = format!(
            "attrs==25.3.0 --hash=sha256:{} \\\n  --hash=sha256:{}\n",
            "a".repeat(64),
            "0".repeat(64)
        );
        let text = format!(
            "# comment\n\nrequests\nidna==3.10  # pinned\nurllib3[socks] >=1.26,<3\nzope.interface~=7.0\r\n\
             tomli>=2; python_version < '3.11'\nsix (>=1.16)\n{hash}"
        );
        let lines = check(&text).expect("taken");
        assert_eq!(lines.len(), 7);
        assert_eq!(lines[..3], ["requests", "idna==3.10", "urllib3[socks] >=1.26,<3"]);
        assert_eq!(read(b"\n # nothing\n"), Ok(None));
    }

    #[test]
    fn options_urls_paths_and_variables_are_refused() {
        for line in [
            "-r other.txt",
            "--index-url https://example.org/simple",
            "-e .",
            ".",
            "..",
            "./pkg",
            "/etc/passwd",
            "../up",
            "pkg/sub",
            "https://example.org/a.whl",
            "git+https://example.org/a.git",
            "file:///etc/passwd",
            "name @ https://example.org/a.whl",
            "name@file:///a",
            "${HOME}",
            "name==${SECRET}",
            "a.whl",
            "a-1.tar.gz",
            "name --global-option=x",
            "name==1 --config-settings=x",
            "name==1 -r x",
            "name; --index-url=x",
            "two words",
            "name==1 --hash=md5:00",
            "C:\\x",
            "-",
            "name==1\\",
            "naïve",
        ] {
            let rejection = check(line).expect_err(line);
            assert_eq!(rejection.code, Code::PackagesBadRequirement, "{line}");
        }
        assert!(read(&[0xff, 0xfe]).is_err());
        assert!(check(&"a\n".repeat(201)).is_err());
        assert!(check(&" ".repeat(TEXT_BYTES_MAX + 1)).is_err());
    }
}
