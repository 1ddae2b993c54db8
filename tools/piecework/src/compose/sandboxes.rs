//! The sandboxes of this build.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use piecework_blobs::{Blobs, BlobsError};
use piecework_egress::Egress;
use piecework_image::{Layers, Unpacker};
use piecework_model::{EgressPolicy, Language};
use piecework_packages::Jails;
use piecework_sandbox::{Backend, Probe};
use piecework_sandbox_jail::Jail;
use piecework_sandbox_wasm::{Component, Wasm};
use piecework_typescript::TypeScript;
use tokio_util::task::AbortOnDropHandle;

use super::{
    containers::{Probing, containers},
    interpreters,
};
use crate::places;

/// Every backend that this build has, with what its probe saw. Must run within the runtime that will use them.
/// Functions with an allow list go where `egress` says.
pub async fn backends(egress: Option<EgressPolicy>, probing: Probing) -> Vec<(Arc<dyn Backend>, Probe)> {
    match probing {
        // One after the other, since the figures are shown.
        Probing::Anew => {
            let mut all = within_this_build(egress).await;
            all.extend(containers(probing).await);
            all
        }
        // A start waits for it: all at once.
        Probing::Remembered => {
            let (wasm, jail, others) = tokio::join!(probed(wasm), probed(move || jail(egress)), containers(probing));
            wasm.into_iter().chain(jail).chain(others).collect()
        }
    }
}

/// What needs nothing but interpreters.
async fn within_this_build(egress: Option<EgressPolicy>) -> Vec<(Arc<dyn Backend>, Probe)> {
    let wasm = probed(wasm).await;
    wasm.into_iter().chain(probed(|| jail(egress)).await).collect()
}

/// A backend with what its probe saw, if this build has it.
async fn probed(make: impl FnOnce() -> Option<Arc<dyn Backend>> + Send + 'static) -> Option<(Arc<dyn Backend>, Probe)> {
    // Making one looks for interpreters by running them.
    let probing = AbortOnDropHandle::new(tokio::spawn(async move {
        let backend = make()?;
        let probe = backend.probe().await;
        Some((backend, probe))
    }));
    // A probe that panicked has no result, and its backend runs nothing.
    probing.await.ok().flatten()
}

/// Instances of one owner alive at once, for each language: as many as a provider has slots for, and as many that rest.
const WASM_INSTANCES_MAX: u32 = 256;

/// Compiles the interpreters, unless that was done before. Blocks; a failure is told by whoever uses them.
pub fn precompile() {
    if let Some(wasm) = new_wasm()
        && let Err(error) = wasm.precompile()
    {
        tracing::debug!(%error, "cannot compile the interpreters ahead");
    }
}

fn wasm() -> Option<Arc<dyn Backend>> {
    new_wasm().map(|wasm| Arc::new(wasm) as Arc<dyn Backend>)
}

fn new_wasm() -> Option<Wasm> {
    for language in languages_without_wasm() {
        tracing::warn!(%language, "no wasm interpreter in this build: run runtimes/build.sh, then build again");
    }
    match Wasm::new(wasm_options()?) {
        Ok(wasm) => Some(wasm),
        Err(error) => {
            tracing::warn!(%error, "cannot start the wasm sandbox");
            None
        }
    }
}

fn wasm_options() -> Option<piecework_sandbox_wasm::Options> {
    Some(piecework_sandbox_wasm::Options {
        python: component(Language::Python),
        javascript: component(Language::JavaScript),
        cache: places::compiled_cache().ok()?,
        zygote: own_executable()?,
        instances_max: WASM_INSTANCES_MAX,
        cores: cores(),
        rootless: false,
        tell: Some(Arc::new(|what| eprintln!("          {what}"))),
    })
}

/// The interpreter of a language: from the folder that the user names, else from within this executable, else from the
/// checkout that it was built in.
fn component(language: Language) -> Option<Component> {
    let file = |folder: PathBuf| {
        let path = folder.join(format!("{language}.wasm"));
        path.is_file().then_some(Component::File(path))
    };
    if let Some(named) = places::runtimes_override() {
        return file(named);
    }
    let packed = match language {
        Language::Python => interpreters::PYTHON,
        Language::JavaScript => interpreters::JAVASCRIPT,
        Language::Image => None,
    };
    packed
        .map(Component::Packed)
        .or_else(|| places::runtimes_of_the_checkout().and_then(file))
}

/// The languages that the wasm sandbox of this build cannot run.
fn languages_without_wasm() -> Vec<Language> {
    let missing = |language: &Language| component(*language).is_none();
    Language::ALL.into_iter().filter(missing).collect()
}

fn jail(egress: Option<EgressPolicy>) -> Option<Arc<dyn Backend>> {
    let mut options = piecework_sandbox_jail::Options::new(own_executable()?);
    options.search = places::search_path();
    options.egress = egress.map(Egress::new);
    match Jail::new(options) {
        Ok(jail) => Some(Arc::new(jail)),
        Err(error) => {
            tracing::warn!(%error, "cannot start the jail");
            None
        }
    }
}

/// Where the layers of container images are unpacked, by this executable started again.
pub fn layers(directory: PathBuf, blobs: Arc<dyn Blobs>, quota_bytes: u64) -> Result<Option<Layers>, BlobsError> {
    let unpacker = own_executable().map(Unpacker::new);
    let open = |unpacker| Layers::open(directory, blobs, quota_bytes, unpacker);
    unpacker.map(open).transpose()
}

/// Jails in which packages are resolved, one for each resolution. They may reach any address, private ones too: a resolution's
/// list holds the operator's own index hosts alone.
pub fn package_jails() -> Jails {
    Arc::new(|| {
        let mut options = piecework_sandbox_jail::Options::new(own_executable()?);
        options.search = places::search_path();
        options.ahead = false;
        let everywhere = ["0.0.0.0/0", "::/0"].map(|network| network.parse().expect("a network"));
        options.egress = Some(Egress::new(EgressPolicy {
            private: everywhere.into(),
        }));
        match Jail::new(options) {
            Ok(jail) => Some(Arc::new(jail) as Arc<dyn Backend>),
            Err(error) => {
                tracing::warn!(%error, "no jail to resolve packages in");
                None
            }
        }
    })
}

/// What makes JavaScript of TypeScript at a deploy: each time with a sandbox of its own, so that none stands about between deploys.
pub fn typescript() -> TypeScript {
    let program = match places::runtimes_override() {
        Some(named) => std::fs::read(named.join(TRANSLATOR)).ok().map(Into::into),
        None => interpreters::TYPESCRIPT.map(Bytes::from_static).or_else(|| {
            let checkout = places::runtimes_of_the_checkout()?;
            std::fs::read(checkout.join(TRANSLATOR)).ok().map(Into::into)
        }),
    };
    let sandboxes = || {
        let options = wasm_options()?;
        let wasm = Wasm::new(piecework_sandbox_wasm::Options {
            python: None,
            instances_max: 1,
            ..options
        });
        match wasm {
            Ok(wasm) => Some(Arc::new(wasm) as Arc<dyn Backend>),
            Err(error) => {
                tracing::warn!(%error, "no sandbox to translate TypeScript in");
                None
            }
        }
    };
    TypeScript::new(program, Arc::new(sandboxes))
}

/// As `runtimes/build.sh` names it.
const TRANSLATOR: &str = "typescript.mjs";

pub(super) fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX))
}

pub(super) fn own_executable() -> Option<PathBuf> {
    std::env::current_exe().ok()
}
