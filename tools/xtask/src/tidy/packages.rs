//! What the dependencies may be: licences and crates as deny.toml says, from the registry alone, built once.

use std::{collections::BTreeSet, ffi::OsString, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::Finding;

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The part of deny.toml that is checked here; `cargo deny check` reads all of it.
#[derive(Deserialize)]
pub struct Rules {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Denied>,
}

#[derive(Deserialize)]
struct Denied {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

impl Rules {
    pub fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).context("read deny.toml")
    }
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

/// A package of the graph.
#[derive(Clone, Debug, Deserialize)]
pub struct Package {
    pub name: String,
    /// Nothing: it lies in this tree.
    pub source: Option<String>,
    pub license: Option<String>,
}

/// What is wrong with the packages that the workspace at `root` is built from; and how many there are.
pub fn run(root: &Path) -> Result<(Vec<Finding>, usize)> {
    let rules = Rules::parse(&fs::read_to_string(root.join("deny.toml")).context("read deny.toml")?)?;
    let platform = ["--filter-platform", "x86_64-unknown-linux-gnu"];
    let printed = cargo(root, &[&["metadata", "--format-version", "1"], &platform[..]].concat())?;
    let metadata: Metadata = serde_json::from_slice(&printed).context("read cargo metadata")?;
    let mut broken: Vec<_> = metadata
        .packages
        .iter()
        .filter_map(|package| check(&rules, package))
        .collect();
    broken.extend(built_twice(root)?);
    Ok((broken, metadata.packages.len()))
}

/// What is wrong with a package, if anything.
pub fn check(rules: &Rules, package: &Package) -> Option<Finding> {
    let complain = |message: String| Some(Finding::new(&package.name, message));
    if let Some(denied) = rules.bans.deny.iter().find(|denied| denied.name == package.name) {
        return complain(format!("is not taken: {}", denied.reason));
    }
    match package.source.as_deref() {
        None | Some(REGISTRY) => {}
        Some(other) => return complain(format!("comes from {other}, not from the registry")),
    }
    let Some(license) = package.license.as_deref() else {
        return complain("says no licence".to_owned());
    };
    let allowed = |name: &str| rules.licenses.allow.contains(name);
    match Expression::is_allowed(license, &allowed) {
        Some(true) => None,
        Some(false) => complain(format!("the licence `{license}` is not among those of deny.toml")),
        None => complain(format!("the licence `{license}` cannot be read")),
    }
}

/// An SPDX expression that is being read: `AND` binds closer than `OR`; `/` is the old way to write `OR`.
struct Expression<'a> {
    words: std::iter::Peekable<std::vec::IntoIter<&'a str>>,
    allowed: &'a dyn Fn(&str) -> bool,
}

impl<'a> Expression<'a> {
    /// None: it is no expression.
    fn is_allowed(text: &str, allowed: &'a dyn Fn(&str) -> bool) -> Option<bool> {
        let spaced = text.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut expression = Expression {
            words: words.into_iter().peekable(),
            allowed,
        };
        let taken = expression.any()?;
        expression.words.next().is_none().then_some(taken)
    }

    fn any(&mut self) -> Option<bool> {
        let mut taken = self.all()?;
        while self.words.next_if_eq(&"OR").is_some() {
            taken |= self.all()?;
        }
        Some(taken)
    }

    fn all(&mut self) -> Option<bool> {
        let mut taken = self.one()?;
        while self.words.next_if_eq(&"AND").is_some() {
            taken &= self.one()?;
        }
        Some(taken)
    }

    fn one(&mut self) -> Option<bool> {
        match self.words.next()? {
            "(" => {
                let taken = self.any()?;
                self.words.next_if_eq(&")").map(|_| taken)
            }
            ")" | "OR" | "AND" | "WITH" => None,
            name if self.words.next_if_eq(&"WITH").is_some() => {
                let exception = self.words.next()?;
                Some((self.allowed)(&format!("{name} WITH {exception}")))
            }
            name => Some((self.allowed)(name)),
        }
    }
}

/// Packages that `./run` builds with other features than `./test` does: all that stands on them is built twice then.
fn built_twice(root: &Path) -> Result<Vec<Finding>> {
    let run = features(root, &["-p", "piecework", "-e", "normal,build"])?;
    let test = features(root, &["--workspace", "-e", "normal,build,dev"])?;
    let other = run.difference(&test);
    Ok(other
        .map(|line| {
            Finding::new(
                line,
                "./test builds it with other features: state them where it is depended on",
            )
        })
        .collect())
}

/// Each package of the registry with its features.
fn features(root: &Path, which: &[&str]) -> Result<BTreeSet<String>> {
    let shape = ["tree", "--prefix", "none", "--format", "{p} {f}"];
    let printed = cargo(root, &[&shape[..], which].concat())?;
    let text = String::from_utf8(printed).context("read cargo tree")?;
    let ours = |line: &&str| line.contains(" (/");
    let lines = text.lines().map(|line| line.trim_end_matches(" (*)").trim_end());
    Ok(lines.filter(|line| !ours(line)).map(str::to_owned).collect())
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let output = Command::new(cargo)
        .args(arguments)
        .args(["--offline", "--locked"])
        .current_dir(root)
        .output()
        .context("run cargo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo {arguments:?} failed: {said}");
    Ok(output.stdout)
}
