//! The checked-in OpenAPI document is what the binary serves.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

/// Writes `docs/openapi.json`.
pub fn write(root: &Path, binary: Option<&Path>) -> Result<()> {
    let path = path(root);
    fs::write(&path, document(root, binary)?).with_context(|| format!("write {}", path.display()))
}

/// Fails if `docs/openapi.json` is not what the binary says.
pub fn check(root: &Path, binary: Option<&Path>) -> Result<()> {
    let path = path(root);
    let kept = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    ensure!(
        kept == document(root, binary)?,
        "docs/openapi.json is out of step; `cargo run --release -p xtask -- openapi` writes it anew"
    );
    Ok(())
}

fn path(root: &Path) -> PathBuf {
    root.join("docs/openapi.json")
}

/// What `piecework openapi` prints, with sorted keys and one value per line so that changes read well. Without a
/// `binary` it is built first.
fn document(root: &Path, binary: Option<&Path>) -> Result<String> {
    let mut command = match binary {
        Some(binary) => Command::new(binary),
        None => Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())),
    };
    if binary.is_none() {
        command.args(["run", "--release", "--quiet", "--package", "piecework", "--"]);
    }
    let printed = command
        .arg("openapi")
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .context("run `piecework openapi`")?;
    ensure!(
        printed.status.success(),
        "`piecework openapi` failed: {}",
        printed.status
    );
    let document: serde_json::Value =
        serde_json::from_slice(&printed.stdout).context("`piecework openapi` is not JSON")?;
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}
