//! Where a language's component comes from, and its machine code, which is made once and kept.

use std::{
    borrow::Cow,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use piecework_model::{Digest, Language};
use wasmtime::Engine;

use crate::{WasmError, engine::engine_for};

/// A component as `runtimes/build.sh` makes it.
#[derive(Clone)]
pub enum Component {
    /// A file with the component.
    File(PathBuf),
    /// A component inside this executable, compressed with zstd.
    Packed(&'static [u8]),
}

/// Is told what takes time: a sentence each.
pub type Tell = Arc<dyn Fn(&str) + Send + Sync>;

/// How often a compilation says that it goes on.
const TELL_EVERY: Duration = Duration::from_secs(5);

impl std::fmt::Debug for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({})", path.display()),
            Self::Packed(bytes) => write!(f, "Packed({} bytes)", bytes.len()),
        }
    }
}

impl From<PathBuf> for Component {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl Component {
    pub(crate) fn is_there(&self) -> bool {
        match self {
            Self::File(path) => path.is_file(),
            Self::Packed(_) => true,
        }
    }

    /// The bytes as they are kept; their digest names what is compiled from them.
    fn kept(&self) -> Result<Cow<'static, [u8]>, WasmError> {
        match self {
            Self::File(path) => match fs::read(path) {
                Ok(bytes) => Ok(Cow::Owned(bytes)),
                Err(source) => Err(WasmError::Read {
                    path: path.clone(),
                    source,
                }),
            },
            Self::Packed(bytes) => Ok(Cow::Borrowed(bytes)),
        }
    }

    fn plain<'a>(&self, kept: Cow<'a, [u8]>) -> Result<Cow<'a, [u8]>, WasmError> {
        match self {
            Self::File(_) => Ok(kept),
            Self::Packed(_) => zstd::decode_all(&*kept).map(Cow::Owned).map_err(WasmError::Unpack),
        }
    }
}

/// The component, compiled: from `cache` if it was compiled before, else now, which takes seconds and is told.
///
/// The cache must be writable by this user only: what lies there runs as native code. A file of another version or another
/// configuration has another name; a damaged one is refused when it is mapped.
pub(crate) fn compiled(
    language: Language,
    component: &Component,
    cache: &Path,
    tell: Option<&Tell>,
) -> Result<fs::File, WasmError> {
    let kept = component.kept()?;
    let engine = engine_for(language, 1).map_err(WasmError::Engine)?;
    let compiled = cache.join(cached_name(&engine, language, &kept));
    let failed = |source| WasmError::Cache {
        path: compiled.clone(),
        source,
    };
    create_private(cache).map_err(failed)?;
    check_own(cache)?;
    if !compiled.is_file() {
        // Held until the file is there: several providers that start at once on one machine compile it once.
        let _turn = turn(&compiled).map_err(failed)?;
        if !compiled.is_file() {
            let plain = component.plain(kept)?;
            let compile = || engine.precompile_component(&plain).map_err(WasmError::Compile);
            let code = match tell {
                Some(tell) => told(language, tell, compile)?,
                None => compile()?,
            };
            store(&compiled, &code).map_err(failed)?;
        }
    }
    let file = fs::File::open(&compiled).map_err(failed)?;
    check_own_file(&compiled, &file.metadata().map_err(failed)?)?;
    Ok(file)
}

/// Refuses what another user could have put something into: root and this user alone.
fn check_own(path: &Path) -> Result<(), WasmError> {
    let metadata = fs::metadata(path).map_err(|source| WasmError::Cache {
        path: path.to_owned(),
        source,
    })?;
    check_own_file(path, &metadata)
}

fn check_own_file(path: &Path, metadata: &fs::Metadata) -> Result<(), WasmError> {
    let is_ours = metadata.uid() == 0 || metadata.uid() == rustix::process::geteuid().as_raw();
    match is_ours && metadata.mode() & 0o022 == 0 {
        true => Ok(()),
        false => Err(WasmError::SharedCache { path: path.to_owned() }),
    }
}

/// Runs `compile`, and says now and then that it is at work.
fn told<T>(language: Language, tell: &Tell, compile: impl FnOnce() -> Result<T, WasmError>) -> Result<T, WasmError> {
    let begun = Instant::now();
    tell(&format!(
        "compiling the {language} interpreter for this machine; only the first start does this"
    ));
    let (done, waits) = mpsc::channel::<()>();
    let tells = Arc::clone(tell);
    let ticker = std::thread::Builder::new().name("wasm-compile".into()).spawn(move || {
        while waits.recv_timeout(TELL_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
            tells(&format!(
                "still compiling the {language} interpreter ({} s)",
                begun.elapsed().as_secs()
            ));
        }
    });
    let made = compile();
    drop(done);
    // Without the thread nothing is said meanwhile, and that is all.
    if let Ok(ticker) = ticker {
        let _ = ticker.join();
    }
    if made.is_ok() {
        tell(&format!(
            "compiled the {language} interpreter in {:.0} s",
            begun.elapsed().as_secs_f64().max(1.0)
        ));
    }
    made
}

/// Blocks while another process compiles the same.
fn turn(compiled: &Path) -> std::io::Result<fs::File> {
    let file = fs::File::create(compiled.with_extension("lock"))?;
    file.lock()?;
    Ok(file)
}

/// Named by what decides the machine code: the component, wasmtime's version and its settings.
fn cached_name(engine: &Engine, language: Language, kept: &[u8]) -> PathBuf {
    let mut settings = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut settings);
    let digest = Digest::of(kept).to_string();
    format!("{language}-{}-{:016x}.cwasm", &digest[..16], settings.finish()).into()
}

/// Whoever reads the file sees all of it or nothing.
fn store(path: &Path, code: &[u8]) -> std::io::Result<()> {
    let unfinished = path.with_extension(format!("{}.tmp", std::process::id()));
    // Whatever the umask is: what others can write is not read again.
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(&unfinished)?;
    file.write_all(code)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}

fn create_private(directory: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(directory)
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// The smallest component there is.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    fn packed() -> Component {
        let bytes = zstd::encode_all(EMPTY, 1).expect("compressed");
        Component::Packed(Box::leak(bytes.into_boxed_slice()))
    }

    fn heard() -> (Tell, Arc<Mutex<Vec<String>>>) {
        let said = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&said);
        (Arc::new(move |text: &str| into.lock().push(text.to_owned())), said)
    }

    #[test]
    fn a_packed_component_is_compiled_once_and_says_so() {
        let cache = tempfile::tempdir().expect("a folder");
        let (tell, said) = heard();
        let component = packed();
        assert!(component.is_there());
        for _ in 0..2 {
            compiled(Language::Python, &component, cache.path(), Some(&tell)).expect("compiled");
        }
        let said = said.lock();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("compiling the python interpreter"), "{said:?}");
        assert!(said[1].contains("compiled the python interpreter in"), "{said:?}");
    }

    #[test]
    fn a_file_and_a_packed_component_give_the_same_code() {
        let cache = tempfile::tempdir().expect("a folder");
        let path = cache.path().join("empty.wasm");
        fs::write(&path, EMPTY).expect("written");
        let code = |component: Component| {
            let mut file = compiled(Language::Python, &component, cache.path(), None).expect("compiled");
            let mut code = Vec::new();
            std::io::Read::read_to_end(&mut file, &mut code).expect("read");
            code
        };
        assert_eq!(code(Component::File(path)), code(packed()));
    }

    #[test]
    fn code_that_another_user_could_have_put_there_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let cache = tempfile::tempdir().expect("a folder");
        let component = packed();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
        };
        let tried = || compiled(Language::Python, &component, cache.path(), None).map(drop);
        tried().expect("its own");
        let file = fs::read_dir(cache.path())
            .expect("listed")
            .map(|entry| entry.expect("an entry").path())
            .find(|path| path.extension().is_some_and(|kind| kind == "cwasm"))
            .expect("compiled");
        for open in [0o777, 0o770, 0o722] {
            mode(cache.path(), open);
            let refused = tried().expect_err("anybody may write there");
            assert!(
                matches!(&refused, WasmError::SharedCache { path } if path == cache.path()),
                "{refused}"
            );
            assert!(refused.to_string().contains("chmod go-w"), "{refused}");
        }
        mode(cache.path(), 0o755);
        tried().expect("others may read it");
        mode(&file, 0o666);
        assert!(matches!(tried(), Err(WasmError::SharedCache { path }) if path == file));
    }

    #[test]
    fn what_is_damaged_or_missing_is_told_apart() {
        let cache = tempfile::tempdir().expect("a folder");
        let error = |component: Component| {
            compiled(Language::Python, &component, cache.path(), None).expect_err("nothing to compile")
        };
        assert!(matches!(error(Component::Packed(b"no frame")), WasmError::Unpack(_)));
        let missing = Component::File(cache.path().join("missing.wasm"));
        assert!(!missing.is_there());
        assert!(matches!(error(missing), WasmError::Read { .. }));
    }
}
