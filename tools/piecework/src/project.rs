//! The project file `piecework.toml`: a project's functions with their settings, for `deploy` and `dev`.
//!
//! ```toml
//! timeout = "10s"                 # for all functions below
//!
//! [functions.hello]               # in the folder `hello`
//! network = ["api.example.com:443"]
//! secrets = ["API_KEY"]           # their names; the values stay out of the file
//! ```
//! Without `[functions]` the file is one function's, in its own folder.

use std::{
    collections::BTreeMap,
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::Context as _;
use piecework_api::cors::CorsBody;
use serde::Deserialize;

use crate::{
    commands::deploy::{Placement, Settings},
    failure::Failure,
    units,
};

pub const FILE: &str = "piecework.toml";

/// One function of a project.
#[derive(Debug)]
pub struct Declared {
    /// The folder's or file's name if absent.
    pub name: Option<String>,
    pub path: PathBuf,
    pub settings: Settings,
    /// Secrets that it needs.
    pub secrets: Vec<String>,
    /// Whether its variables are all that it has.
    pub has_env: bool,
}

/// What can be said of a function, or of all of them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Entry {
    path: Option<PathBuf>,
    language: Option<String>,
    handler: Option<String>,
    timeout: Option<String>,
    memory: Option<String>,
    processes: Option<u32>,
    disk: Option<String>,
    sandbox: Option<String>,
    env: Option<BTreeMap<String, String>>,
    secrets: Vec<String>,
    concurrency: Option<u32>,
    budget: Option<String>,
    public: Option<bool>,
    strict: Option<bool>,
    cors: Option<Cors>,
    network: Option<Vec<String>>,
    network_limit: Option<String>,
    stream_limit: Option<String>,
    region: Option<String>,
    labels: Option<Vec<String>>,
    trust: Option<String>,
    pin: Option<Vec<String>>,
    policy: Option<String>,
    price_cap: Option<String>,
    rerun: Option<u32>,
    results: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Cors {
    Origins(Vec<String>),
    Whole(CorsBody),
}

/// The project file of the folder, or of the nearest one above it.
pub fn find(folder: &Path) -> Option<PathBuf> {
    folder
        .ancestors()
        .map(|folder| folder.join(FILE))
        .find(|path| path.is_file())
}

/// The functions of a project file, by name. Blocks.
pub fn read(path: &Path) -> Result<Vec<Declared>, Failure> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    parse(&text, folder).map_err(|failure| Failure::usage(format!("{}: {failure}", path.display())))
}

fn parse(text: &str, folder: &Path) -> Result<Vec<Declared>, Failure> {
    let mut table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| Failure::usage(error.to_string()))?;
    let Some(functions) = table.remove("functions") else {
        let name = match table.remove("name") {
            Some(toml::Value::String(name)) => Some(name),
            Some(_) => return Err(Failure::usage("`name` must be a text")),
            None => None,
        };
        return Ok(vec![declared(name, entry(table)?, folder)?]);
    };
    let toml::Value::Table(functions) = functions else {
        return Err(Failure::usage("`functions` must be tables, like [functions.hello]"));
    };
    if functions.is_empty() {
        return Err(Failure::usage("`functions` names no function"));
    }
    // Of all, also where each says something else.
    entry(table.clone())?;
    let of = |(name, own): (String, toml::Value)| {
        let at = |failure: Failure| Failure::usage(format!("functions.{name}: {failure}"));
        let toml::Value::Table(own) = own else {
            return Err(at(Failure::usage("not a table")));
        };
        let mut whole = table.clone();
        whole.extend(own);
        let mut entry = entry(whole).map_err(at)?;
        entry.path = Some(entry.path.unwrap_or_else(|| PathBuf::from(&name)));
        declared(Some(name.clone()), entry, folder).map_err(at)
    };
    functions.into_iter().map(of).collect()
}

fn entry(table: toml::Table) -> Result<Entry, Failure> {
    table
        .try_into()
        .map_err(|error: toml::de::Error| Failure::usage(error.to_string().trim_end().to_owned()))
}

/// A project file that came from elsewhere must not send other files than the project's.
fn inside<'a>(key: &str, path: &'a Path) -> Result<&'a Path, Failure> {
    let stays = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    match path.components().all(stays) {
        true => Ok(path),
        false => Err(Failure::usage(format!(
            "`{key}` is {}; it must lead into the project's own folder",
            path.display()
        ))),
    }
}

fn declared(name: Option<String>, entry: Entry, folder: &Path) -> Result<Declared, Failure> {
    let path = folder.join(inside("path", entry.path.as_deref().unwrap_or(Path::new(".")))?);
    if !path.exists() {
        return Err(Failure::usage(format!(
            "there is no {}; say where it is with `path`",
            path.display()
        )));
    }
    let has_env = entry.env.is_some();
    Ok(Declared {
        name,
        path,
        secrets: entry.secrets.clone(),
        has_env,
        settings: settings(entry, folder)?,
    })
}

/// A value as the option of the same kind takes it.
fn read_as<T>(key: &str, text: Option<String>, read: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, Failure> {
    let value = text.as_deref().map(read).transpose();
    value.map_err(|error| Failure::usage(format!("`{key}`: {error}")))
}

/// An empty list is said as `none`.
fn list(given: Option<Vec<String>>) -> Vec<String> {
    match given {
        Some(list) if list.is_empty() => vec!["none".to_owned()],
        Some(list) => list,
        None => Vec::new(),
    }
}

fn settings(entry: Entry, folder: &Path) -> Result<Settings, Failure> {
    let results = match &entry.results {
        Some(path) => Some(folder.join(inside("results", path)?).display().to_string()),
        None => None,
    };
    let (cors, cors_whole) = match entry.cors {
        Some(Cors::Origins(origins)) => (list(Some(origins)), None),
        Some(Cors::Whole(body)) => (Vec::new(), Some(body)),
        None => (Vec::new(), None),
    };
    Ok(Settings {
        language: read_as("language", entry.language, units::noun)?,
        timeout: read_as("timeout", entry.timeout, units::timeout_ms)?,
        memory: read_as("memory", entry.memory, units::memory_mb)?,
        processes: entry.processes,
        disk: read_as("disk", entry.disk, units::memory_mb)?,
        sandbox: entry.sandbox,
        handler: entry.handler,
        env: entry.env.into_iter().flatten().collect(),
        concurrency: entry.concurrency,
        budget: read_as("budget", entry.budget, units::budget_ucr)?,
        strict: entry.strict == Some(true),
        no_strict: entry.strict == Some(false),
        public: entry.public == Some(true),
        private: entry.public == Some(false),
        cors,
        cors_whole,
        allow: list(entry.network),
        egress_limit: read_as("network_limit", entry.network_limit, units::memory_mb)?,
        stream_limit: read_as("stream_limit", entry.stream_limit, units::stream_mb)?,
        results: read_as("results", results, units::results)?,
        rerun: entry.rerun,
        placement: Placement {
            region: entry.region,
            label: list(entry.labels),
            trust: entry.trust,
            price_cap: read_as("price_cap", entry.price_cap, units::price_cap)?,
            pin: list(entry.pin),
            policy: entry.policy,
        },
        ..Settings::default()
    })
}

#[cfg(test)]
mod tests {
    use piecework_model::Language;

    use super::*;

    fn project(text: &str) -> Result<Vec<Declared>, Failure> {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["hello", "other"] {
            fs::create_dir(folder.path().join(name)).expect("made");
        }
        fs::write(folder.path().join(FILE), text).expect("written");
        read(&find(&folder.path().join("hello")).expect("above"))
    }

    #[test]
    fn a_file_of_one_function_is_its_folders() {
        let one = project("name = 'greet'\nlanguage = 'python'\ntimeout = '2m'\npublic = false\nnetwork = []\n")
            .expect("read");
        let [one] = &one[..] else { panic!("{one:?}") };
        assert_eq!(
            (one.name.as_deref(), one.settings.language),
            (Some("greet"), Some(Language::Python))
        );
        assert_eq!(
            (one.settings.timeout, one.settings.private, one.has_env),
            (Some(120_000), true, false)
        );
        assert_eq!(one.settings.allow, ["none"]);
    }

    #[test]
    fn each_function_has_what_is_said_of_all_and_its_own() {
        let text = "timeout = '1s'\nenv = { A = '1' }\n\
                    [functions.hello]\nsecrets = ['KEY']\ncors = ['https://a.example']\n\
                    [functions.mail]\npath = 'other'\ntimeout = '3s'\n[functions.mail.cors]\norigins = ['*']\nmax_age_s = 5\n";
        let all = project(text).expect("read");
        let [hello, mail] = &all[..] else { panic!("{all:?}") };
        assert_eq!(
            (hello.settings.timeout, mail.settings.timeout),
            (Some(1_000), Some(3_000))
        );
        assert_eq!((&hello.secrets[..], hello.has_env), (&["KEY".to_owned()][..], true));
        assert!(hello.path.ends_with("hello") && mail.path.ends_with("other"));
        assert_eq!(hello.settings.cors, ["https://a.example"]);
        assert_eq!(
            mail.settings.cors_whole.as_ref().and_then(|cors| cors.max_age_s),
            Some(5)
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, says) in [
            ("timeot = '1s'", "timeot"),
            ("timeout = '1'", "`timeout`"),
            ("[functions]", "names no function"),
            ("functions = 1", "[functions.hello]"),
            ("[functions.nowhere]", "functions.nowhere"),
            ("[functions.hello]\nsecrets = { KEY = 'x' }", "functions.hello"),
            ("name = 1", "`name`"),
            ("path = '../..'", "`path`"),
            ("path = '/etc'", "`path`"),
            ("[functions.hello]\npath = 'hello/../..'", "`path`"),
            ("results = '../token'", "`results`"),
        ] {
            let said = project(text).expect_err(text).to_string();
            assert!(said.contains(says) && said.contains(FILE), "{text}: {said}");
        }
    }
}
