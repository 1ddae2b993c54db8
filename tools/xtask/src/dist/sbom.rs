//! A bill of materials in CycloneDX 1.5: every crate that is linked into the program, the interpreters it carries, and the npm
//! packages that these and the portal have code of.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Release;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Clone, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
    repository: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

/// The document for the program of this checkout.
pub fn document(release: &Release) -> Result<Value> {
    let metadata = metadata(release)?;
    let linked = linked(&metadata)?;
    let components = linked.values().map(|package| component(package));
    let dependencies = metadata.resolve.nodes.iter().filter_map(|node| {
        let package = linked.get(node.id.as_str())?;
        let on: BTreeSet<String> = normal(node)
            .filter_map(|id| linked.get(id).map(|package| purl(package)))
            .collect();
        Some(json!({ "ref": purl(package), "dependsOn": on }))
    });
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": release.created(),
            "component": {
                "type": "application",
                "bom-ref": format!("pkg:cargo/piecework@{}", release.version),
                "name": "piecework",
                "version": release.version,
                "licenses": [{ "expression": "Apache-2.0" }],
            },
            "tools": { "components": [{ "type": "application", "name": "xtask dist", "version": release.version }] },
        },
        "components": components.chain(interpreters(release)?).chain(npm(&release.root)?).collect::<Vec<_>>(),
        "dependencies": dependencies.collect::<Vec<_>>(),
    }))
}

fn metadata(release: &Release) -> Result<Metadata> {
    let printed = Command::new(super::cargo())
        .args([
            "metadata",
            "--format-version",
            "1",
            "--offline",
            "--filter-platform",
            &release.target,
        ])
        .current_dir(&release.root)
        .output()
        .context("run cargo metadata")?;
    ensure!(
        printed.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&printed.stderr)
    );
    serde_json::from_slice(&printed.stdout).context("read cargo metadata")
}

/// What the binary is linked from: neither tests nor build scripts.
fn linked(metadata: &Metadata) -> Result<BTreeMap<&str, &Package>> {
    let packages: BTreeMap<&str, &Package> = metadata
        .packages
        .iter()
        .map(|package| (package.id.as_str(), package))
        .collect();
    let nodes: BTreeMap<&str, &Node> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| (node.id.as_str(), node))
        .collect();
    let root = metadata
        .packages
        .iter()
        .find(|package| package.name == "piecework" && package.source.is_none())
        .context("the workspace has the crate `piecework`")?;
    let (mut found, mut open) = (BTreeMap::new(), vec![root.id.as_str()]);
    while let Some(id) = open.pop() {
        let package = packages.get(id).context("every node is a package")?;
        if found.insert(id, *package).is_none() {
            open.extend(nodes.get(id).into_iter().flat_map(|node| normal(node)));
        }
    }
    Ok(found)
}

fn normal(node: &Node) -> impl Iterator<Item = &str> {
    node.deps
        .iter()
        .filter(|dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none()))
        .map(|dependency| dependency.pkg.as_str())
}

fn component(package: &Package) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": purl(package),
        "name": package.name,
        "version": package.version,
        "purl": purl(package),
    });
    if let Some(license) = &package.license {
        // The old way to write a choice.
        component["licenses"] = json!([{ "expression": license.replace('/', " OR ") }]);
    }
    if let Some(repository) = &package.repository {
        component["externalReferences"] = json!([{ "type": "vcs", "url": repository }]);
    }
    component
}

fn purl(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version)
}

/// Pinned by the recipes in runtimes/; their licences are those of CPython, QuickJS and sucrase.
fn interpreters(release: &Release) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for (file, name, license) in [
        ("python.wasm", "CPython", "PSF-2.0"),
        ("javascript.wasm", "QuickJS", "MIT"),
        ("typescript.mjs", "sucrase", "MIT"),
    ] {
        let path = release.root.join("runtimes/build").join(file);
        if !path.is_file() {
            continue;
        }
        let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        found.push(json!({
            "type": "application",
            "bom-ref": format!("piecework-{}", file.replace('.', "-")),
            "name": name,
            "description": format!("{file}, made by runtimes/build.sh, packed into the program"),
            "licenses": [{ "license": { "id": license } }],
            "hashes": [{ "alg": "SHA-256", "content": super::image::hex(&bytes) }],
        }));
    }
    Ok(found)
}

/// Lists of what bundles contain, written when they are built by `runtimes/shipped.mjs`.
const BUNDLES: [&str; 3] = [
    "runtimes/build/javascript.packages",
    "runtimes/build/typescript.packages",
    "portal/build/packages",
];

/// The npm packages in them, each once.
fn npm(root: &Path) -> Result<Vec<Value>> {
    let mut found = BTreeMap::new();
    for bundle in BUNDLES {
        let path = root.join(bundle);
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        for line in text.lines() {
            let parts: Vec<&str> = line.split('\t').collect();
            let [name, version, license] = parts[..] else {
                bail!("{bundle} has the line {line:?}");
            };
            // A scope's sign is escaped in the name of a package's URL.
            let purl = format!("pkg:npm/{}@{version}", name.replace('@', "%40"));
            found.entry(purl.clone()).or_insert_with(|| {
                json!({
                    "type": "library",
                    "bom-ref": purl,
                    "name": name,
                    "version": version,
                    "purl": purl,
                    "licenses": [{ "expression": license }],
                })
            });
        }
    }
    Ok(found.into_values().collect())
}
