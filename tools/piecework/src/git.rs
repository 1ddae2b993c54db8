//! Code that lies in a git repository: fetched with the user's own git, so with their keys and their proxies.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use tempfile::TempDir;

use crate::failure::Failure;

/// How a repository's address begins; `me@host:path` and local folders that end in `.git` are addresses too.
const SCHEMES: [&str; 5] = ["https://", "http://", "ssh://", "git://", "file://"];

/// A repository, and what of it is meant: `URL[#REVISION[:FOLDER]]`.
#[derive(Debug, PartialEq, Eq)]
struct Address<'a> {
    url: &'a str,
    /// A branch, a tag or a commit; the repository's own branch if it is empty.
    revision: &'a str,
    folder: &'a str,
}

/// What was fetched; deleted when dropped.
#[derive(Debug)]
pub struct Checkout {
    _directory: TempDir,
    /// The folder to deploy.
    pub path: PathBuf,
    /// In short, as git shows it.
    pub commit: String,
}

/// Whether this names a repository, and not a path.
pub fn is_address(text: &str) -> bool {
    let url = text.split('#').next().unwrap_or(text);
    let scheme = text.starts_with("git+") || SCHEMES.iter().any(|scheme| url.starts_with(scheme));
    let is_scp = || {
        let host = url.split_once(':').map_or("", |(host, _)| host);
        host.contains('@') && !host.contains('/')
    };
    scheme || url.ends_with(".git") || is_scp()
}

fn address(text: &str) -> Result<Address<'_>, Failure> {
    let text = text.strip_prefix("git+").unwrap_or(text);
    let (url, rest) = text.split_once('#').unwrap_or((text, ""));
    let (revision, folder) = rest.split_once(':').unwrap_or((rest, ""));
    let leaves = Path::new(folder)
        .components()
        .any(|part| !matches!(part, std::path::Component::Normal(_)));
    // Git would take them for options.
    if url.starts_with('-') || revision.starts_with('-') || leaves {
        return Err(Failure::usage(format!(
            "`{text}` is not a repository's address: use URL, URL#REVISION or URL#REVISION:FOLDER"
        )));
    }
    Ok(Address { url, revision, folder })
}

/// Fetches one commit without its history. Blocks; git may ask for a password.
pub fn fetch(text: &str) -> Result<Checkout, Failure> {
    let Address { url, revision, folder } = address(text)?;
    let directory = tempfile::tempdir().context("cannot make a temporary folder")?;
    // Its name becomes the function's.
    let name = url.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default();
    let name = name.strip_suffix(".git").unwrap_or(name);
    let is_plain = !name.is_empty() && !name.starts_with('.');
    let root = directory.path().join(if is_plain { name } else { "repository" });
    std::fs::create_dir_all(&root).context("cannot make a temporary folder")?;
    let revision = if revision.is_empty() { "HEAD" } else { revision };
    git(&root, &["init", "--quiet"])?;
    git(&root, &["fetch", "--quiet", "--depth", "1", "--", url, revision])?;
    git(&root, &["checkout", "--quiet", "FETCH_HEAD"])?;
    let commit = git(&root, &["rev-parse", "--short", "HEAD"])?.trim().to_owned();
    let real = |path: PathBuf| path.canonicalize().ok();
    // A link in the repository may lead out of it.
    let path = real(root.join(folder))
        .zip(real(root))
        .filter(|(path, root)| path.starts_with(root));
    let Some((path, _)) = path else {
        return Err(Failure::usage(format!("commit {commit} of {url} has no `{folder}`")));
    };
    Ok(Checkout {
        _directory: directory,
        path,
        commit,
    })
}

fn git(root: &Path, arguments: &[&str]) -> Result<String, Failure> {
    let mut command = Command::new("git");
    // Nothing of a repository around this one, nor of the environment of a git hook.
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(name);
    }
    let done = command.arg("-C").arg(root).args(arguments).output().map_err(|error| {
        Failure::usage(match error.kind() {
            std::io::ErrorKind::NotFound => "git is not installed: install it, or deploy a folder".to_owned(),
            _ => format!("git cannot be run: {error}"),
        })
    })?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        return Err(Failure::usage(format!("git {} failed: {}", arguments[0], said.trim())));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn addresses_are_told_from_paths() {
        for text in [
            "https://example.org/me/hello.git",
            "https://example.org/me/hello#main:functions/a",
            "git@example.org:me/hello",
            "git+file:///srv/hello",
            "../hello.git#v1",
        ] {
            assert!(is_address(text), "{text}");
        }
        for text in ["hello.py", "./https", "a/b@c:d", "-", "C:folder", "hello#1"] {
            assert!(!is_address(text), "{text}");
        }
        let parsed = address("git+ssh://host/x#v1.2:a/b").expect("fine");
        assert_eq!(
            (parsed.url, parsed.revision, parsed.folder),
            ("ssh://host/x", "v1.2", "a/b")
        );
        for bad in [
            "--upload-pack=x.git",
            "https://h/x#-x",
            "https://h/x#main:../..",
            "https://h/x#main:/etc",
        ] {
            address(bad).expect_err(bad);
        }
    }

    #[test]
    fn a_branch_a_tag_and_a_commit_are_fetched_and_what_is_missing_is_named() {
        let directory = tempfile::tempdir().expect("a folder");
        let root = directory.path().join("hello.git");
        fs::create_dir_all(root.join("sub")).expect("made");
        let run = |arguments: &[&str]| git(&root, arguments).expect("git works");
        let save = |text: &str| {
            fs::write(root.join("sub/main.py"), text).expect("written");
            run(&["add", "."]);
            run(&[
                "-c",
                "user.name=a",
                "-c",
                "user.email=a@example.org",
                "commit",
                "--quiet",
                "-m",
                "a change",
            ]);
        };
        run(&["init", "--quiet", "--initial-branch", "main"]);
        save("x = 1");
        run(&["tag", "v1"]);
        save("x = 2");
        let url = root.to_str().expect("text");
        let text = |revision: &str| {
            let fetched = fetch(&format!("{url}#{revision}:sub")).expect("fetched");
            assert!(fetched.path.ends_with("hello/sub"), "{}", fetched.path.display());
            fs::read_to_string(fetched.path.join("main.py")).expect("there")
        };
        assert_eq!(
            (text("v1"), text("main"), text("")),
            ("x = 1".into(), "x = 2".into(), "x = 2".into())
        );
        let commit = run(&["rev-parse", "v1"]);
        assert_eq!(text(commit.trim()), "x = 1");
        std::os::unix::fs::symlink("/etc", root.join("away")).expect("linked");
        save("x = 3");
        fetch(&format!("{url}#main:away")).expect_err("it leads out of the repository");
        let odd = directory.path().join("...git");
        fs::rename(&root, &odd).expect("renamed");
        let fetched = fetch(odd.to_str().expect("text")).expect("fetched");
        assert!(fetched.path.ends_with("repository"), "{}", fetched.path.display());
        fs::rename(&odd, &root).expect("renamed");
        let missing = fetch(&format!("{url}#v1:other")).expect_err("missing").to_string();
        assert!(missing.contains("has no `other`"), "{missing}");
        let unknown = fetch(&format!("{url}#v9")).expect_err("unknown").to_string();
        assert!(unknown.contains("v9"), "{unknown}");
    }
}
