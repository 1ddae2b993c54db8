//! Resolves the packages a bundle declares with pip and npm, running none of their code.
//!
//! Only wheels are taken from pip and no npm script runs; both tools work in a temporary directory with an environment
//! of their own. The manifest is untrusted: only names and version ranges of the operator's package index get through.

mod collect;
mod manifest;
mod requirements;
mod tool;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use piecework_model::{Language, Rejection};
use tokio::{process::Command, sync::Semaphore};

pub use requirements::check as check_requirements;

/// How packages are resolved.
#[derive(Clone, Debug)]
pub struct Options {
    /// A Python that has pip. Wheels with compiled code are chosen for its version.
    pub python: PathBuf,
    pub npm: PathBuf,
    /// What the tools see besides a home of their own: see [`ENV_PASSED`]. `PATH` must be in it.
    pub env: BTreeMap<String, String>,
    /// Where downloads are kept between deployments; without it nothing is.
    pub cache: Option<PathBuf>,
    /// Wall time of one resolution; a deploying developer waits for it.
    pub timeout: Duration,
    /// All resolved files together.
    pub bytes_max: u64,
    pub files_max: usize,
}

/// The variables worth handing from the operator's environment to the tools: the way to the package index.
pub const ENV_PASSED: [&str; 20] = [
    "PATH",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_NO_INDEX",
    "NPM_CONFIG_REGISTRY",
    "NPM_CONFIG_CAFILE",
    "npm_config_registry",
    "npm_config_cafile",
];

/// Two tools at once leave a small machine room to serve.
const RESOLUTIONS_AT_ONCE: usize = 2;

impl Default for Options {
    fn default() -> Self {
        Self {
            python: "python3".into(),
            npm: "npm".into(),
            env: BTreeMap::from([("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())]),
            cache: None,
            timeout: Duration::from_secs(120),
            bytes_max: 192 << 20,
            files_max: 25_000,
        }
    }
}

/// The packages of one bundle, ready to be merged into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The bundle's folder that holds them: `packages` or `node_modules`.
    pub folder: &'static str,
    /// Their files by path in the bundle; each path begins with the folder.
    pub files: BTreeMap<String, Bytes>,
    /// `name==version` of each, sorted.
    pub versions: Vec<String>,
    /// Whether any holds compiled code, so that it runs on this kind of machine alone and not in wasm.
    pub native: bool,
}

/// Why packages were not resolved.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// `packages.bad_requirement`, `packages.unresolvable`, `packages.tool_missing`, `packages.timeout`,
    /// `packages.too_large`.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    #[error("{operation}: {source}")]
    Io {
        operation: &'static str,
        #[source]
        source: std::io::Error,
    },
}

impl ResolveError {
    pub(crate) fn io(operation: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { operation, source }
    }
}

/// Resolves packages with the tools of this machine.
#[derive(Debug)]
pub struct Packages {
    options: Options,
    turns: Semaphore,
}

impl Packages {
    pub fn new(options: Options) -> Self {
        Self {
            options,
            turns: Semaphore::new(RESOLUTIONS_AT_ONCE),
        }
    }

    /// The packages that `files` (a bundle's, by path) declare in `requirements.txt` or `package.json`; `None` if they
    /// declare none. Takes up to the timeout. Cancel safe: dropping it kills the tool and deletes what it wrote.
    pub async fn resolve(
        &self,
        language: Language,
        files: &BTreeMap<String, Bytes>,
    ) -> Result<Option<Resolved>, ResolveError> {
        let declared = match language {
            Language::Python => files
                .get("requirements.txt")
                .map(|text| requirements::read(text))
                .transpose()?
                .flatten(),
            Language::JavaScript => files
                .get("package.json")
                .map(|text| manifest::read(text))
                .transpose()?
                .flatten(),
        };
        let Some(declared) = declared else { return Ok(None) };
        let _turn = self.turns.acquire().await.expect("the semaphore is never closed");
        let work = tempfile::Builder::new()
            .prefix("piecework-packages-")
            .tempdir()
            .map_err(ResolveError::io("make a directory for packages"))?;
        match language {
            Language::Python => self.pip(&declared, work.path()).await.map(Some),
            Language::JavaScript => self.npm(&declared, work.path()).await.map(Some),
        }
    }

    async fn pip(&self, requirements: &str, work: &Path) -> Result<Resolved, ResolveError> {
        write(work, "requirements.txt", requirements).await?;
        let mut command = Command::new(&self.options.python);
        command.args([
            "-I",
            "-m",
            "pip",
            "install",
            "--only-binary=:all:",
            "--target",
            "packages",
            "--no-compile",
        ]);
        command.args([
            "--no-input",
            "--no-color",
            "--disable-pip-version-check",
            "--no-warn-script-location",
        ]);
        command.args(["--root-user-action=ignore", "--requirement", "requirements.txt"]);
        match &self.options.cache {
            Some(cache) => command.arg("--cache-dir").arg(cache.join("pip")),
            None => command.arg("--no-cache-dir"),
        };
        tool::run(command, "pip", &self.options, work).await?;
        collect::python(work, &self.options).await
    }

    async fn npm(&self, manifest: &str, work: &Path) -> Result<Resolved, ResolveError> {
        write(work, "package.json", manifest).await?;
        let mut command = Command::new(&self.options.npm);
        command.args([
            "install",
            "--ignore-scripts",
            "--omit=dev",
            "--no-audit",
            "--no-fund",
            "--no-bin-links",
        ]);
        command.args([
            "--no-update-notifier",
            "--no-progress",
            "--color=false",
            "--loglevel=error",
        ]);
        match &self.options.cache {
            Some(cache) => command.arg("--cache").arg(cache.join("npm")),
            None => command.arg("--cache").arg(work.join("npm-cache")),
        };
        tool::run(command, "npm", &self.options, work).await?;
        collect::javascript(work, &self.options).await
    }
}

async fn write(work: &Path, name: &str, text: &str) -> Result<(), ResolveError> {
    tokio::fs::write(work.join(name), text)
        .await
        .map_err(ResolveError::io("write the list of packages"))
}

/// The one code for a manifest that asks for more than names and versions.
pub(crate) fn bad_requirement(message: String, field: &str) -> Rejection {
    Rejection::new("packages.bad_requirement", message)
        .hint("list packages from the package index with versions, like `requests==2.32.3`; options, URLs and paths are not allowed")
        .field(field)
}

/// Text of a manifest as far as it may be shown in a sentence.
pub(crate) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}
