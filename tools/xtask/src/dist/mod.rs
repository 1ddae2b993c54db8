//! `xtask dist`: what a release consists of, below `target/dist`.
//!
//! ```text
//! cargo rustc (static) -> program --> archive, Debian package, container image
//!                            `------> manual pages, completions       cargo metadata -> bill of materials
//! ```

mod deb;
mod image;
mod sbom;
mod tree;

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tree::{FILE, PROGRAM, Tree};

const UNITS: [&str; 4] = [
    "piecework.service",
    "piecework-provide.service",
    "piecework-peer.service",
    "piecework-controller.service",
];
const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];
/// The C library goes into the program, and symbols go out of it; 3.7 MB of relocations become 40 KB.
const LINK_FLAGS: [&str; 6] = [
    "-C",
    "target-feature=+crt-static",
    "-C",
    "strip=symbols",
    "-C",
    "link-arg=-Wl,-z,pack-relative-relocs",
];

/// What is released.
pub struct Release {
    pub root: PathBuf,
    pub version: String,
    /// Like `x86_64-unknown-linux-gnu`.
    pub target: String,
    /// Seconds since 1970 of the commit: the time of every file in every archive.
    pub epoch: u64,
}

impl Release {
    fn of(root: &Path) -> Result<Self> {
        let manifest = fs::read_to_string(root.join("Cargo.toml")).context("read Cargo.toml")?;
        let manifest: toml::Value = toml::from_str(&manifest).context("read Cargo.toml")?;
        let version = manifest["workspace"]["package"]["version"]
            .as_str()
            .context("the workspace has a version")?
            .to_owned();
        let verbose = printed(Command::new("rustc").arg("-vV"))?;
        let target = verbose
            .lines()
            .find_map(|line| line.strip_prefix("host: "))
            .context("rustc says its host")?
            .to_owned();
        Ok(Self {
            root: root.to_owned(),
            version,
            target,
            epoch: epoch(root),
        })
    }

    fn debian_architecture(&self) -> &str {
        match self.target.split('-').next() {
            Some("aarch64") => "arm64",
            Some("x86_64") => "amd64",
            _ => "unknown",
        }
    }

    /// The epoch as RFC 3339.
    fn created(&self) -> String {
        let (days, seconds) = (self.epoch / 86_400, self.epoch % 86_400);
        // Days to a date: Howard Hinnant's `civil_from_days`, for days after 1970.
        let shifted = days + 719_468;
        let (era, of_era) = (shifted / 146_097, shifted % 146_097);
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = era * 400 + year + u64::from(month <= 2);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }

    fn name(&self) -> String {
        let architecture = self.target.split('-').next().unwrap_or("unknown");
        format!("piecework-{}-{architecture}-linux", self.version)
    }
}

/// Builds the program and writes everything into `out`, which is emptied first.
pub fn run(root: &Path, out: &Path) -> Result<()> {
    let release = Release::of(root)?;
    let program = build(&release)?;
    if out.exists() {
        fs::remove_dir_all(out).with_context(|| format!("empty {}", out.display()))?;
    }
    fs::create_dir_all(out).with_context(|| format!("create {}", out.display()))?;
    let documents = out.join("documents");
    write_documents(&program, &documents)?;
    let program = fs::read(&program).with_context(|| format!("read {}", program.display()))?;
    let debian = format!("piecework_{}_{}.deb", release.version, release.debian_architecture());
    let bill = serde_json::to_vec_pretty(&sbom::document(&release)?)?;
    let compose = fs::read(root.join("packaging/container/compose.yaml")).context("read compose.yaml")?;
    let files = [
        (
            format!("{}.tar.gz", release.name()),
            archive(&release, &program, &documents, &bill)?,
        ),
        (
            debian,
            deb::package(&release, &deb::files(&release, &program, &documents)?)?,
        ),
        (
            format!("{}-image.tar", release.name()),
            image::image(&release, &program)?,
        ),
        ("compose.yaml".to_owned(), compose),
        (format!("{}.cdx.json", release.name()), bill),
    ];
    fs::remove_dir_all(&documents).context("remove the documents")?;
    write_program(&out.join("piecework"), &program)?;
    let mut sums = String::new();
    for (name, content) in &files {
        fs::write(out.join(name), content).with_context(|| format!("write {name}"))?;
        sums += &format!("{}  {name}\n", image::hex(content));
        println!("{:>6.1} MB  {name}", content.len() as f64 / 1e6);
    }
    fs::write(out.join("SHA256SUMS"), sums).context("write SHA256SUMS")?;
    println!(
        "{:>6.1} MB  the program itself\nin {}",
        program.len() as f64 / 1e6,
        out.display()
    );
    Ok(())
}

/// The static program. Only `main.rs` is compiled for it, with the flags that others would have to be built anew for.
fn build(release: &Release) -> Result<PathBuf> {
    for (path, recipe) in [
        ("runtimes/build/python.wasm", "runtimes/build.sh"),
        ("runtimes/build/javascript.wasm", "runtimes/build.sh"),
        ("runtimes/build/typescript.mjs", "runtimes/build.sh"),
        ("portal/build/files.txt", "portal/build.sh"),
        ("portal/build/packages", "portal/build.sh"),
        ("runtimes/build/javascript.packages", "runtimes/build.sh"),
        ("runtimes/build/typescript.packages", "runtimes/build.sh"),
    ] {
        ensure!(
            release.root.join(path).is_file(),
            "{path} is missing: run {recipe} first"
        );
    }
    let mut command = Command::new(cargo());
    command
        .args(["rustc", "--release", "--package", "piecework", "--bin", "piecework"])
        .args(["--message-format", "json-render-diagnostics", "--"])
        .args(LINK_FLAGS)
        .current_dir(&release.root);
    let messages = printed(&mut command)?;
    let executable = messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_program = message["reason"] == "compiler-artifact" && message["target"]["name"] == "piecework";
        is_program.then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    executable.context("cargo names the program that it has built")
}

fn write_documents(program: &Path, documents: &Path) -> Result<()> {
    printed(Command::new(program).arg("man").arg(documents.join("man")))?;
    let completions = documents.join("completions");
    fs::create_dir_all(&completions).context("create a folder for completions")?;
    for shell in SHELLS {
        let script = printed(Command::new(program).args(["completions", shell]))?;
        fs::write(completions.join(shell), script).context("write a completion script")?;
    }
    Ok(())
}

fn write_program(path: &Path, program: &[u8]) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, program)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(PROGRAM)))
        .context("write the program")
}

/// A folder to unpack anywhere.
fn archive(release: &Release, program: &[u8], documents: &Path, bill: &[u8]) -> Result<Vec<u8>> {
    let root = &release.root;
    let mut files = Tree::default();
    files.put("piecework", PROGRAM, program);
    files.copy(root, "LICENSE", "LICENSE", FILE)?;
    files.copy(root, "README.md", "README.md", FILE)?;
    files.copy(root, "docs/installing.md", "installing.md", FILE)?;
    files.put("piecework.cdx.json", FILE, bill);
    for unit in UNITS {
        files.copy(
            root,
            &format!("packaging/systemd/{unit}"),
            format!("systemd/{unit}"),
            FILE,
        )?;
    }
    files.copy_all(&documents.join("man"), "man/man1", false)?;
    files.copy_all(&documents.join("completions"), "completions", false)?;
    tree::gzip(
        &files.tar(&format!("{}/", release.name()), release.epoch)?,
        release.epoch,
    )
}

/// `SOURCE_DATE_EPOCH`, else the time of the last commit, else a fixed one: never the present.
fn epoch(root: &Path) -> u64 {
    let stated = std::env::var("SOURCE_DATE_EPOCH").ok();
    let committed = || {
        printed(
            Command::new("git")
                .args(["log", "-1", "--format=%ct"])
                .current_dir(root),
        )
        .ok()
    };
    let text = stated.or_else(committed).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// What a command prints, if it succeeds.
fn printed(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("run {:?}", command.get_program()))?;
    ensure!(
        output.status.success(),
        "{:?} failed: {}",
        command.get_program(),
        output.status
    );
    String::from_utf8(output.stdout).context("its output is text")
}
