//! Locations on this machine, and the only place where the environment is read.

use std::{env, ffi::OsString, path::PathBuf};

use anyhow::{Context as _, Result};

/// Below which `up` keeps its state when no `--data` is given.
pub fn default_data_dir() -> Result<PathBuf> {
    Ok(base("XDG_DATA_HOME", ".local/share")?.join("piecework"))
}

/// Below which a role that runs on its own keeps its state when no `--data` is given.
pub fn default_role_dir(role: &str) -> Result<PathBuf> {
    Ok(base("XDG_DATA_HOME", ".local/share")?.join(format!("piecework-{role}")))
}

/// Below which packages and `service install` keep the state of this machine's services.
pub const SYSTEM_STATE_DIR: &str = "/var/lib/piecework";

/// Where a user's own systemd units lie.
pub fn user_units() -> Result<PathBuf> {
    Ok(base("XDG_CONFIG_HOME", ".config")?.join("systemd/user"))
}

/// This computer's name, as far as it can name an account.
pub fn host_name() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let letters = text.trim().to_lowercase();
    let name: String = letters
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' })
        .take(30)
        .collect();
    let name = name.trim_matches('-').to_owned();
    if name.is_empty() { "provider".to_owned() } else { name }
}

/// Where keys of requests lie whose outcome is not known yet.
pub fn pending_dir() -> Result<PathBuf> {
    Ok(base("XDG_STATE_HOME", ".local/state")?.join("piecework/pending"))
}

/// What `login` remembers.
pub fn login_file() -> Result<PathBuf> {
    Ok(base("XDG_CONFIG_HOME", ".config")?.join("piecework/login.json"))
}

/// Where `docker login` and its like leave user names and passwords of registries.
pub fn registry_logins() -> Option<PathBuf> {
    let named = env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let folder = named.or_else(|| Some(env::home_dir()?.join(".docker")))?;
    Some(folder.join("config.json"))
}

/// An absolute path from the variable, else a folder of the home directory.
fn base(variable: &str, below_home: &str) -> Result<PathBuf> {
    let named = env::var_os(variable)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    match named {
        Some(path) => Ok(path),
        None => Ok(env::home_dir().context("no home directory; set HOME")?.join(below_home)),
    }
}

/// `PIECEWORK_URL`, unless empty.
pub fn url_override() -> Option<String> {
    text("PIECEWORK_URL")
}

/// `PIECEWORK_TOKEN`, unless empty.
pub fn token_override() -> Option<String> {
    text("PIECEWORK_TOKEN")
}

fn text(variable: &str) -> Option<String> {
    env::var(variable).ok().filter(|text| !text.is_empty())
}

/// `PIECEWORK_RUNTIMES`: a folder with interpreters for the wasm sandbox, in place of those within this executable.
pub fn runtimes_override() -> Option<PathBuf> {
    env::var_os("PIECEWORK_RUNTIMES").map(PathBuf::from)
}

/// `runtimes/build` of the checkout that this executable was built in, if it lies in one.
pub fn runtimes_of_the_checkout() -> Option<PathBuf> {
    let folder = env::current_exe().ok()?.parent()?.join("../../runtimes/build");
    folder.is_dir().then_some(folder)
}

/// Where compiled components are kept for all data directories of this user.
pub fn compiled_cache() -> Result<PathBuf> {
    Ok(base("XDG_CACHE_HOME", ".cache")?.join("piecework/compiled"))
}

/// The Docker daemon's socket: what `DOCKER_HOST` names, where that is a Unix socket, else the usual one.
pub fn docker_socket() -> PathBuf {
    let named = text("DOCKER_HOST").and_then(|text| text.strip_prefix("unix://").map(PathBuf::from));
    named.unwrap_or_else(|| PathBuf::from("/var/run/docker.sock"))
}

/// For files of this process alone.
pub fn scratch() -> PathBuf {
    env::temp_dir()
}

/// Directories with interpreters.
pub fn search_path() -> OsString {
    env::var_os("PATH").unwrap_or_default()
}

/// How packages are resolved, with the way to the package index that this user has.
#[cfg(target_os = "linux")]
pub fn package_options() -> piecework_packages::Options {
    let passed = piecework_packages::ENV_PASSED;
    let found = passed
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), env::var(name).ok()?)));
    let mut options = piecework_packages::Options::default();
    options.env.extend(found);
    options
}

/// The machine's memory as Linux tells it; 2 GiB where it does not.
pub fn memory_bytes() -> u64 {
    const UNKNOWN: u64 = 2 << 30;
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok());
    kib.map_or(UNKNOWN, |kib| kib * 1_024)
}

/// `PIECEWORK_PRETEND_VERSION`: for tests of networks in which old and new programs run together. With 1 this program acts as
/// one from before the ledger's rules had numbers: a peer takes part in blocks by rules 1 alone. Not in the help.
pub fn rules_known() -> u32 {
    let pretended = text("PIECEWORK_PRETEND_VERSION").and_then(|text| text.parse().ok());
    pretended.unwrap_or(piecework_ledger::RULES)
}

/// What `RUST_LOG` asks for, else warnings; without the database's of a first start, which only say that it is one, and
/// without the engine's panics, which come back as failures with a code.
pub fn log_filter() -> String {
    const USUAL: &str = "warn,commonware_storage::qmdb=error,commonware_runtime::utils::handle=off";
    text("RUST_LOG").unwrap_or_else(|| USUAL.to_owned())
}
