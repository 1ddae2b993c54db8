//! A JavaScript bundle's modules: what an import means, and the source that the engine gets for it.
//!
//! Resolution follows Node's for ES modules, with the leniency of bundlers: endings may be left out. What was found is kept,
//! so that an instance's start touches no disk; what a program makes up and does not find is not. The files are read from the
//! unpacked bundle and nowhere else.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use serde_json::Value;

use crate::commonjs;

/// A larger module is no source code.
const SOURCE_BYTES_MAX: u64 = 32 << 20;
/// A longer name of a module is none: no file system has longer paths.
pub(crate) const NAME_BYTES_MAX: usize = 4 << 10;
/// Answers and sources that are kept for a program; others are found again each time. More than large applications import.
const KEPT_MAX: usize = 4_096;
/// Bytes of the sources that are kept for a program.
const KEPT_BYTES_MAX: u64 = 64 << 20;
const ENDINGS: [&str; 4] = ["", ".mjs", ".js", ".json"];
const INDEXES: [&str; 2] = ["/index.mjs", "/index.js"];
/// The conditions of `exports` that are true here, in Node's order of preference.
const CONDITIONS: [&str; 4] = ["import", "module", "browser", "default"];

/// The modules that Node has itself, also by these names alone.
const NODES: [&str; 42] = [
    "assert",
    "async_hooks",
    "buffer",
    "child_process",
    "cluster",
    "console",
    "constants",
    "crypto",
    "dgram",
    "diagnostics_channel",
    "dns",
    "domain",
    "events",
    "fs",
    "http",
    "http2",
    "https",
    "inspector",
    "module",
    "net",
    "os",
    "path",
    "perf_hooks",
    "process",
    "punycode",
    "querystring",
    "readline",
    "repl",
    "stream",
    "string_decoder",
    "sys",
    "timers",
    "tls",
    "trace_events",
    "tty",
    "url",
    "util",
    "v8",
    "vm",
    "wasi",
    "worker_threads",
    "zlib",
];

/// Whether Node has a module of this name, or a part of one.
pub(crate) fn is_nodes(name: &str) -> bool {
    let root = name.split('/').next().unwrap_or(name);
    name.starts_with("node:") || NODES.contains(&root)
}

/// Paths are absolute inside the bundle: `/lib/text.mjs`.
pub(crate) struct Modules {
    root: PathBuf,
    resolved: Mutex<HashMap<(String, String), String>>,
    sources: Mutex<Sources>,
}

#[derive(Default)]
struct Sources {
    kept: HashMap<String, String>,
    bytes: u64,
}

impl Modules {
    pub(crate) fn new(root: &Path) -> std::io::Result<Self> {
        Ok(Self {
            root: root.canonicalize()?,
            resolved: Mutex::default(),
            sources: Mutex::default(),
        })
    }

    /// Bytes that the kept sources hold.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.sources.lock().bytes
    }

    /// The module that `name` means in the module `from`, or a sentence.
    pub(crate) fn resolve(&self, from: &str, name: &str) -> Result<String, String> {
        if from.len().max(name.len()) > NAME_BYTES_MAX {
            return Err(format!("the name of a module has at most {NAME_BYTES_MAX} bytes"));
        }
        let key = (from.to_owned(), name.to_owned());
        if let Some(known) = self.resolved.lock().get(&key) {
            return Ok(known.clone());
        }
        let found = self.find(from, name)?;
        let mut resolved = self.resolved.lock();
        if resolved.len() < KEPT_MAX {
            resolved.insert(key, found.clone());
        }
        Ok(found)
    }

    /// The source of a resolved module, as an ES module.
    pub(crate) fn source(&self, path: &str) -> Result<String, String> {
        if let Some(known) = self.sources.lock().kept.get(path) {
            return Ok(known.clone());
        }
        let source = self.read_module(path)?;
        let mut sources = self.sources.lock();
        let bytes = sources.bytes + source.len() as u64;
        if sources.kept.len() < KEPT_MAX && bytes <= KEPT_BYTES_MAX {
            let before = sources.kept.insert(path.to_owned(), source.clone());
            sources.bytes = bytes - before.map_or(0, |before| before.len() as u64);
        }
        Ok(source)
    }

    fn find(&self, from: &str, name: &str) -> Result<String, String> {
        let missing = || format!("the module `{name}` is not in the bundle");
        if name.starts_with("./") || name.starts_with("../") || name == "." || name == ".." {
            let directory = from.rsplit_once('/').map_or("", |(directory, _)| directory);
            return self
                .file(&join(directory, name).ok_or_else(missing)?)
                .ok_or_else(missing);
        }
        if let Some(path) = name.strip_prefix('/') {
            return self.file(&join("", path).ok_or_else(missing)?).ok_or_else(missing);
        }
        if name.starts_with("node:") {
            return Err(format!("`{name}` belongs to Node and does not exist in WebAssembly"));
        }
        self.package(from, name).ok_or_else(missing)
    }

    /// The file at `path`, with an ending or an index file added if it needs one.
    fn file(&self, path: &str) -> Option<String> {
        let candidates = ENDINGS.iter().chain(&INDEXES).map(|ending| format!("{path}{ending}"));
        candidates
            .into_iter()
            .find(|candidate| self.inside(candidate).is_some_and(|path| path.is_file()))
    }

    /// The path on this machine, unless it leads out of the bundle, through a link for instance.
    fn inside(&self, path: &str) -> Option<PathBuf> {
        let real = self.root.join(path.trim_start_matches('/')).canonicalize().ok()?;
        real.starts_with(&self.root).then_some(real)
    }

    /// A bare name: the nearest `node_modules` upwards that has it.
    fn package(&self, from: &str, name: &str) -> Option<String> {
        let parts = if name.starts_with('@') { 2 } else { 1 };
        let end = name.match_indices('/').nth(parts - 1).map_or(name.len(), |(at, _)| at);
        let (package, inner) = name.split_at(end);
        let mut directory = from;
        while let Some((parent, _)) = directory.rsplit_once('/') {
            let home = join(parent, &format!("node_modules/{package}"))?;
            if self.inside(&home).is_some_and(|path| path.is_dir()) {
                return self.entry_of(&home, inner.trim_start_matches('/'));
            }
            directory = parent;
        }
        None
    }

    fn entry_of(&self, home: &str, inner: &str) -> Option<String> {
        let manifest = self.manifest(home);
        if let Some(exports) = manifest.get("exports") {
            let key = if inner.is_empty() {
                ".".to_owned()
            } else {
                format!("./{inner}")
            };
            let target = exported(exports, &key)?;
            return self.file(&join(home, &target)?);
        }
        if !inner.is_empty() {
            return self.file(&join(home, inner)?);
        }
        let named = ["module", "main"]
            .iter()
            .find_map(|field| manifest.get(field)?.as_str());
        named
            .and_then(|main| self.file(&join(home, main)?))
            .or_else(|| self.file(&format!("{home}/index")))
    }

    fn manifest(&self, directory: &str) -> Value {
        let text = self
            .inside(&format!("{directory}/package.json"))
            .and_then(|path| std::fs::read(path).ok());
        text.and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or(Value::Null)
    }

    fn read_module(&self, path: &str) -> Result<String, String> {
        let unreadable = || format!("`{path}` cannot be read");
        let real = self.inside(path).ok_or_else(unreadable)?;
        let length = real.metadata().map_err(|_| unreadable())?.len();
        if length > SOURCE_BYTES_MAX {
            return Err(format!(
                "`{path}` has {length} bytes; a module may have {SOURCE_BYTES_MAX}"
            ));
        }
        let source = std::fs::read_to_string(real).map_err(|_| format!("`{path}` is not UTF-8 text"))?;
        if path.ends_with(".json") {
            return Ok(format!("export default {source};"));
        }
        let source = with_meta(path, source);
        if path.ends_with(".mjs") {
            return Ok(source);
        }
        let commonjs = path.ends_with(".cjs") || (!self.is_esm(path) && commonjs::looks_like(&source));
        Ok(if commonjs {
            commonjs::wrap(path, &source)
        } else {
            source
        })
    }

    /// Whether the nearest package.json says that `.js` means an ES module.
    fn is_esm(&self, path: &str) -> bool {
        let mut directory = path;
        while let Some((parent, _)) = directory.rsplit_once('/') {
            if let Some(kind) = self.manifest(parent).get("type") {
                return kind == "module";
            }
            if parent.ends_with("/node_modules") {
                return false;
            }
            directory = parent;
        }
        false
    }
}

/// The engine leaves `import.meta` empty. On the first line, so that all lines keep their numbers.
fn with_meta(path: &str, source: String) -> String {
    if !source.contains("import.meta") {
        return source;
    }
    let url = serde_json::Value::from(format!("file://{path}")).to_string();
    format!("import.meta.url ??= {url};{source}")
}

/// `path` seen from `directory`, without dots; `None` if it leads above the root.
fn join(directory: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            _ => parts.push(part),
        }
    }
    Some(format!("/{}", parts.join("/")))
}

/// The target of `key` in a package's `exports`: a text, conditions, or a map of subpaths with at most one star.
fn exported(exports: &Value, key: &str) -> Option<String> {
    let subpaths = exports
        .as_object()
        .is_some_and(|map| map.keys().any(|key| key.starts_with('.')));
    if !subpaths {
        return (key == ".").then(|| target(exports))?;
    }
    let map = exports.as_object()?;
    if let Some(exact) = map.get(key) {
        return target(exact);
    }
    map.iter().find_map(|(pattern, value)| {
        let (before, after) = pattern.split_once('*')?;
        let middle = key.strip_prefix(before)?.strip_suffix(after)?;
        Some(target(value)?.replace('*', middle))
    })
}

fn target(value: &Value) -> Option<String> {
    match value {
        Value::String(path) => Some(path.clone()),
        Value::Array(choices) => choices.iter().find_map(target),
        Value::Object(map) => CONDITIONS.iter().find_map(|condition| target(map.get(*condition)?)),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_that_are_not_found_are_not_kept() {
        let bundle = tempfile::tempdir().expect("a directory");
        std::fs::write(bundle.path().join("here.mjs"), "export default 1;").expect("a file");
        let modules = Modules::new(bundle.path()).expect("a bundle");
        for name in ["./nowhere".to_owned(), format!("./{}", "a".repeat(NAME_BYTES_MAX))] {
            assert!(modules.resolve("/main.mjs", &name).is_err());
        }
        assert!(modules.source("/nowhere.mjs").is_err());
        assert_eq!(modules.memory_bytes(), 0);
        assert!(modules.resolved.lock().is_empty());
        let found = modules.resolve("/main.mjs", "./here").expect("it is there");
        modules.source(&found).expect("it is there");
        assert_eq!((modules.memory_bytes(), modules.resolved.lock().len()), (17, 1));
    }

    #[test]
    fn a_path_never_leads_above_the_bundle() {
        assert_eq!(join("/a/b", "../c.mjs").as_deref(), Some("/a/c.mjs"));
        assert_eq!(join("/a", "../../etc/passwd"), None);
    }

    #[test]
    fn exports_are_read_by_condition_and_pattern() {
        let exports = json!({".": {"require": "./a.cjs", "import": "./a.mjs"}, "./x/*": "./lib/*.js"});
        assert_eq!(exported(&exports, ".").as_deref(), Some("./a.mjs"));
        assert_eq!(exported(&exports, "./x/y").as_deref(), Some("./lib/y.js"));
        assert_eq!(exported(&exports, "./z"), None);
        assert_eq!(exported(&json!("./only.js"), ".").as_deref(), Some("./only.js"));
    }
}
