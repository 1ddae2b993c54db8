//! The checked-in OpenAPI document is what the binary serves.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Writes `docs/openapi.json`.
pub fn write(root: &Path, binary: Option<&Path>) -> Result<()> {
    let path = path(root);
    let text = serde_json::to_string_pretty(&document(root, binary)?).context("write JSON")? + "\n";
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

/// Fails if `docs/openapi.json` is not what the binary says. The order of keys does not matter.
pub fn check(root: &Path, binary: Option<&Path>) -> Result<()> {
    let path = path(root);
    let kept = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let kept: Value = serde_json::from_slice(&kept).with_context(|| format!("{} is not JSON", path.display()))?;
    ensure!(
        kept == document(root, binary)?,
        "docs/openapi.json is out of step; `cargo run --release -p xtask -- openapi` writes it anew"
    );
    Ok(())
}

fn path(root: &Path) -> PathBuf {
    root.join("docs/openapi.json")
}

/// What `piecework openapi` prints, from `binary` or, without one, from the binary built now.
fn document(root: &Path, binary: Option<&Path>) -> Result<Value> {
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
    serde_json::from_slice(&printed.stdout).context("`piecework openapi` is not JSON")
}
