//! The dependency rule: which shelf may name which.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::Finding;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shelf {
    Core,
    Ports,
    Roles,
    Tools,
}

/// One line of a manifest: `from` depends on `to`.
#[derive(Clone, Debug)]
pub struct Edge {
    pub from: String,
    pub from_shelf: Shelf,
    pub to: String,
    /// None for a crate from a registry.
    pub to_shelf: Option<Shelf>,
    /// Only tests see it: a test may compose what the crate itself may not name.
    pub is_dev: bool,
}

/// Crates that neither read nor write anything: all that `core` may use.
const PURE: [&str; 12] = [
    "base64",
    "blake3",
    "borsh",
    "bytes",
    "curve25519-dalek",
    "ed25519-dalek",
    "hex",
    "serde",
    "serde_json",
    "sha2",
    "thiserror",
    "zeroize",
];
/// What `core`'s tests may use besides.
const PURE_IN_TESTS: [&str; 4] = ["insta", "proptest", "rand", "serde_json"];
/// The edges between ports; each is a contract that the other implements or stores.
const BETWEEN_PORTS: [(&str, &str); 18] = [
    // What a contract asks of everybody who implements it.
    ("piecework-chain-conformance", "piecework-chain"),
    ("piecework-sandbox-conformance", "piecework-sandbox"),
    // It speaks the peers' HTTP interface.
    ("piecework-chain-http", "piecework-api"),
    ("piecework-chain-http", "piecework-chain"),
    // The engine where it is compiled, and what it is made of.
    ("piecework-chain-node", "piecework-chain"),
    ("piecework-chain-node", "piecework-chain-simplex"),
    ("piecework-chain-simplex", "piecework-chain"),
    // It counts into the meter of a call.
    ("piecework-egress", "piecework-sandbox"),
    // Layers are kept in parts, and an image is described by a bundle.
    ("piecework-image", "piecework-blobs"),
    // pip and npm are run as a program of a sandbox.
    ("piecework-packages", "piecework-sandbox"),
    // Its frames carry calls and how they ended, in the sandbox contract's words.
    ("piecework-queue", "piecework-sandbox"),
    ("piecework-sandbox-jail", "piecework-egress"),
    ("piecework-sandbox-jail", "piecework-sandbox"),
    ("piecework-sandbox-oci", "piecework-sandbox"),
    // Its containers have the same interpreters, runners and control groups.
    ("piecework-sandbox-oci", "piecework-sandbox-jail"),
    ("piecework-sandbox-wasm", "piecework-sandbox"),
    // Its workers stand behind walls of the same make.
    ("piecework-sandbox-wasm", "piecework-sandbox-jail"),
    // The translator is run as a program of a sandbox.
    ("piecework-typescript", "piecework-sandbox"),
];
/// Adapters that only the composition root may name.
const CONCRETE: [&str; 5] = [
    "piecework-chain-node",
    "piecework-chain-simplex",
    "piecework-sandbox-jail",
    "piecework-sandbox-oci",
    "piecework-sandbox-wasm",
];
/// An engine (by the beginning of its crates' names) and the only crates that may name it.
const ENGINES: [(&str, &[&str]); 5] = [
    // What is made of it, and where that is compiled.
    ("commonware-", &["piecework-chain-simplex", "piecework-chain-node"]),
    ("sqlx", &["piecework-store"]),
    ("wasmtime", &["piecework-sandbox-wasm"]),
    ("landlock", &["piecework-sandbox-jail"]),
    (
        "seccompiler",
        &["piecework-image", "piecework-sandbox-jail", "piecework-sandbox-wasm"],
    ),
];

/// It checks what the others do, so nothing that they get wrong may be wrong in it too.
const APART: &str = "piecework-verifier";

/// Tools for the tests of whatever reads foreign bytes, or names its address before it listens.
const FOR_TESTS: [&str; 2] = ["piecework-fuzz", "piecework-loopback"];

/// What is wrong with an edge, if anything.
pub fn check(edge: &Edge) -> Option<Finding> {
    let complain = |message: &str| {
        Some(Finding::new(
            &edge.from,
            format!("may not depend on {}: {message}", edge.to),
        ))
    };
    if BANNED_NAMES
        .iter()
        .any(|name| edge.to.split(['-', '_']).any(|part| part == *name))
        && edge.to_shelf.is_some()
    {
        return complain("a crate of that name becomes everybody's attic");
    }
    if edge.from == APART && edge.to_shelf.is_some() && !edge.is_dev {
        return complain("it shares no code with what it checks");
    }
    let engine = ENGINES.iter().find(|(engine, _)| edge.to.starts_with(engine));
    if let Some((_, homes)) = engine.filter(|(_, homes)| !homes.contains(&edge.from.as_str())) {
        return complain(&format!("only {} names this engine", homes.join(" and ")));
    }
    if edge.is_dev && FOR_TESTS.contains(&edge.to.as_str()) {
        return None;
    }
    match (edge.from_shelf, edge.to_shelf) {
        (Shelf::Core, None) => {
            let pure = PURE.contains(&edge.to.as_str()) || (edge.is_dev && PURE_IN_TESTS.contains(&edge.to.as_str()));
            if pure {
                None
            } else {
                complain("core uses core and a short list of pure crates")
            }
        }
        (Shelf::Ports | Shelf::Roles | Shelf::Tools, None) | (_, Some(Shelf::Core)) | (Shelf::Tools, Some(_)) => None,
        (_, Some(Shelf::Tools)) => complain("nothing depends on a tool"),
        (Shelf::Core, Some(Shelf::Ports | Shelf::Roles)) => complain("core decides and touches nothing"),
        (Shelf::Ports, Some(Shelf::Roles)) => complain("a port does not know who uses it"),
        (Shelf::Roles, Some(Shelf::Roles)) => complain("roles never know one another"),
        (Shelf::Ports, Some(Shelf::Ports)) => {
            let stated = BETWEEN_PORTS.contains(&(edge.from.as_str(), edge.to.as_str()));
            if stated || edge.is_dev {
                None
            } else {
                complain("this edge between ports is not stated in xtask")
            }
        }
        (Shelf::Roles, Some(Shelf::Ports)) => {
            let concrete = CONCRETE.contains(&edge.to.as_str()) && !edge.is_dev;
            if concrete {
                complain("roles know ports by trait; only tools name a backend")
            } else {
                None
            }
        }
    }
}

/// Names of crates and modules that say nothing.
pub const BANNED_NAMES: [&str; 7] = ["common", "utils", "util", "shared", "helpers", "helper", "misc"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    path: Option<String>,
}

/// Each edge in the manifests of the workspace at `root`.
pub fn read(root: &Path) -> Result<Vec<Edge>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let printed = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root)
        .output()
        .context("run cargo metadata")?;
    ensure!(
        printed.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&printed.stderr)
    );
    let metadata: Metadata = serde_json::from_slice(&printed.stdout).context("read cargo metadata")?;
    let mut edges = Vec::new();
    for package in &metadata.packages {
        let from_shelf = shelf(root, &package.manifest_path)?;
        for dependency in &package.dependencies {
            edges.push(Edge {
                from: package.name.clone(),
                from_shelf,
                to: dependency.name.clone(),
                to_shelf: dependency.path.as_deref().map(|path| shelf(root, path)).transpose()?,
                is_dev: dependency.kind.as_deref() == Some("dev"),
            });
        }
    }
    Ok(edges)
}

fn shelf(root: &Path, path: &str) -> Result<Shelf> {
    let below = Path::new(path)
        .strip_prefix(root)
        .with_context(|| format!("{path} lies outside the workspace"))?;
    match below.iter().next().and_then(|first| first.to_str()) {
        Some("core") => Ok(Shelf::Core),
        Some("ports") => Ok(Shelf::Ports),
        Some("roles") => Ok(Shelf::Roles),
        Some("tools") => Ok(Shelf::Tools),
        _ => bail!("{path} lies on no shelf"),
    }
}
