//! What is built to be tested: each crate links one executable of tests, and none that holds no test.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::Finding;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    targets: Vec<Target>,
}

/// Something that cargo builds of a crate.
#[derive(Clone, Debug, Deserialize)]
pub struct Target {
    pub name: String,
    pub kind: Vec<String>,
    pub src_path: String,
    /// Whether its unit tests are built.
    pub test: bool,
}

/// What is wrong with the targets of the workspace at `root`.
pub fn run(root: &Path) -> Result<Vec<Finding>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let printed = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root)
        .output()
        .context("run cargo metadata")?;
    ensure!(printed.status.success(), "cargo metadata failed");
    let metadata: Metadata = serde_json::from_slice(&printed.stdout).context("read cargo metadata")?;
    let mut broken = Vec::new();
    for package in &metadata.packages {
        broken.extend(check(&package.name, &package.targets));
        for target in package.targets.iter().filter(|target| !target.test && is_code(target)) {
            let folder = Path::new(&target.src_path)
                .parent()
                .context("a file lies in a folder")?;
            broken.extend(untested(folder)?.map(|path| {
                Finding::new(
                    path,
                    format!("a test in {}, which is built with `test = false`", target.name),
                )
            }));
        }
    }
    Ok(broken)
}

/// A conformance suite holds tests for others: its macro names the attribute.
fn is_code(target: &Target) -> bool {
    let is_suite = target.name.ends_with("conformance");
    !is_suite && target.kind.iter().any(|kind| kind == "lib" || kind == "bin")
}

/// What is wrong with a crate's targets, if anything.
pub fn check(package: &str, targets: &[Target]) -> Option<Finding> {
    let tests = targets
        .iter()
        .filter(|target| target.kind.iter().any(|kind| kind == "test"));
    (tests.count() > 1).then(|| {
        Finding::new(
            package,
            "several executables of tests: make them modules of one `tests/NAME/main.rs`, which is linked once",
        )
    })
}

/// A source below `folder` with a unit test in it.
fn untested(folder: &Path) -> Result<Option<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("list {}", folder.display()))?.path();
        if path.is_dir() {
            if let Some(found) = untested(&path)? {
                return Ok(Some(found));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            if holds_a_test(&text) {
                return Ok(Some(path.display().to_string()));
            }
        }
    }
    Ok(None)
}

/// Whether a source has an attribute of a test, at the beginning of a line.
pub fn holds_a_test(text: &str) -> bool {
    text.lines().map(str::trim_start).any(|line| {
        ["#[test]", "#[tokio::test", "#[cfg(test)]"]
            .iter()
            .any(|attribute| line.starts_with(attribute))
    })
}
