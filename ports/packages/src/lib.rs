//! Resolves the packages that a bundle declares, with pip and npm, in a jail.
//!
//! ```text
//! manifest: names and versions alone --> jail: resolver.py runs the tool --> archive --> all of it from the index? --> files
//! ```
//! A stranger writes the manifest and strangers write the packages. So the tools run as nobody in a sandbox of their own, on
//! a bounded disk, and reach the operator's index hosts and nothing else; what comes out is checked like any input.

mod collect;
#[cfg(test)]
mod fuzz;
mod index;
mod jailed;
mod manifest;
mod requirements;
mod turns;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use piecework_model::{AccountId, Code, Language, Rejection};
use piecework_sandbox::Backend;

pub use requirements::check as check_requirements;

/// How packages are resolved.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the tools see of the operator's environment: see [`ENV_PASSED`]. `PATH` must be in it.
    pub env: BTreeMap<String, String>,
    /// Wall time of one resolution; a deploying developer waits for it.
    pub timeout: Duration,
    /// All resolved files together.
    pub bytes_max: u64,
    pub files_max: usize,
}

/// Makes the jail of one resolution; `None` where none works here. It blocks for some 50 ms and is called within a tokio
/// runtime. Its egress may lead to any address: only the operator's index hosts are on a resolution's list.
pub type Jails = Arc<dyn Fn() -> Option<Arc<dyn Backend>> + Send + Sync>;

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

impl Default for Options {
    fn default() -> Self {
        Self {
            env: BTreeMap::from([("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())]),
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
    /// `packages.bad_requirement`, `packages.direct_reference`, `packages.unresolvable`, `packages.tool_missing`,
    /// `packages.no_jail`, `packages.timeout`, `packages.too_large`, `packages.busy`.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The jail failed, or what came out of it is not what the resolver writes.
    #[error("resolve packages in a jail: {0}")]
    Jail(String),
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

    pub(crate) fn jail(reason: impl Into<String>) -> Self {
        Self::Jail(reason.into())
    }
}

/// Resolves packages with the tools of this machine.
pub struct Packages {
    options: Options,
    jails: Jails,
    turns: turns::Turns,
}

impl Packages {
    pub fn new(options: Options, jails: Jails) -> Self {
        Self {
            options,
            jails,
            turns: turns::Turns::new(),
        }
    }

    /// The packages that `files` (a bundle's, by path) declare in `requirements.txt` or `package.json`; `None` if they
    /// declare none. Waits for the account's turn, then takes up to the timeout. Cancel safe: dropping it ends the jail.
    ///
    /// `said` gets what the tool said, line by line, also where it failed: at most 64 KiB, for the developer alone.
    pub async fn resolve(
        &self,
        account: AccountId,
        language: Language,
        files: &BTreeMap<String, Bytes>,
        said: &mut String,
    ) -> Result<Option<Resolved>, ResolveError> {
        let declared = match language {
            Language::Python => match (files.get("requirements.txt"), files.get("pyproject.toml")) {
                (Some(text), _) => requirements::read(text)?,
                (None, Some(project)) => requirements::none_in(project).map(|()| None)?,
                (None, None) => None,
            },
            Language::Image => None,
            Language::JavaScript => files
                .get("package.json")
                .map(|text| manifest::read(text))
                .transpose()?
                .flatten(),
        };
        let Some(manifest) = declared else { return Ok(None) };
        let _turn = self.turns.take(account).await?;
        let jails = self.jails.clone();
        let jail = blocking(move || jails()).await?.ok_or_else(no_jail)?;
        let lock = match language {
            Language::Python | Language::Image => None,
            Language::JavaScript => files.get("package-lock.json").and_then(|text| manifest::lock(text)),
        };
        let archive = jailed::run(&*jail, language, (&manifest, lock.as_deref(), said), &self.options).await?;
        let options = self.options.clone();
        blocking(move || collect::resolved(language, archive, &options))
            .await?
            .map(Some)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ResolveError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| ResolveError::io("resolve packages")(error.into()))
}

fn no_jail() -> Rejection {
    Rejection::new(
        Code::PackagesNoJail,
        "this function declares packages, and the server has no jail to resolve them in",
    )
    .hint("ask the operator to run `piecework doctor` on the server, or deploy with the packages in the bundle")
}

/// The one code for a manifest that asks for more than names and versions.
pub(crate) fn bad_requirement(message: String, field: &str) -> Rejection {
    let hint = match field {
        "package.json" => {
            "list packages of npm's registry with versions, like `\"ms\": \"^2.1.3\"`; git, paths, URLs and other names are not allowed"
        }
        _ => {
            "list packages from the package index with versions, like `requests==2.32.3`; options, URLs and paths are not allowed"
        }
    };
    Rejection::new(Code::PackagesBadRequirement, message)
        .hint(hint)
        .field(field)
}

/// Text of a manifest as far as it may be shown in a sentence.
pub(crate) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}
