//! What is to be deployed: a path, text, or the functions of a project, each with its settings and secrets.

use std::{
    collections::BTreeMap,
    io::IsTerminal as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use piecework_api::{
    Client,
    functions::{Changes, FunctionView},
};
use piecework_model::Code;

use crate::{
    commands::{
        deploy::{self, Settings},
        secrets,
    },
    failure::Failure,
    project::{self, Declared},
    source::{self, Source},
};

/// One function to deploy.
#[derive(Debug)]
pub struct Target {
    pub name: Option<String>,
    content: Content,
    pub settings: Settings,
    /// Secrets that it must have.
    needs: Vec<String>,
    /// Whether variables that the settings do not name go.
    has_env: bool,
}

#[derive(Debug)]
enum Content {
    Path(PathBuf),
    Text(String),
}

impl Target {
    pub fn text(code: String, name: Option<String>, settings: Settings) -> Result<Vec<Self>, Failure> {
        Ok(vec![Self {
            name,
            content: Content::Text(code),
            settings: settings.with_secrets(&[])?,
            needs: Vec::new(),
            has_env: false,
        }])
    }

    /// An image, whose source is at hand.
    pub fn image(name: String, settings: Settings) -> Result<Self, Failure> {
        Ok(Self {
            name: Some(name),
            content: Content::Text(String::new()),
            settings: settings.with_secrets(&[])?,
            needs: Vec::new(),
            has_env: false,
        })
    }

    /// What a path names. Without one, or where its folder has a project file, the functions of the project, or the one with
    /// this name. Options go before what the project file says.
    pub fn all(path: Option<&Path>, name: Option<String>, settings: Settings) -> Result<Vec<Self>, Failure> {
        let file = match path {
            Some(path) => Some(path.join(project::FILE)).filter(|file| file.is_file()),
            None => Some(here()?),
        };
        let Some(file) = file else {
            let path = path.expect("without a path there is a project file").to_owned();
            return Ok(vec![Self {
                name,
                content: Content::Path(path),
                settings: settings.with_secrets(&[])?,
                needs: Vec::new(),
                has_env: false,
            }]);
        };
        let declared = project::read(&file)?;
        let is_one = declared.len() == 1;
        let is_meant = |of: &Declared| name.is_none() || of.name == name || (is_one && of.name.is_none());
        let meant: Vec<Declared> = declared.into_iter().filter(is_meant).collect();
        if meant.is_empty() {
            let name = name.unwrap_or_default();
            return Err(Failure::usage(format!("{} names no function `{name}`", file.display())));
        }
        let needs: Vec<&str> = meant.iter().flat_map(|of| &of.secrets).map(String::as_str).collect();
        // Once: standard input can be read only once.
        let given = settings.with_secrets(&needs)?;
        Ok(meant
            .into_iter()
            .map(|of| Self::declared(of, &name, given.clone()))
            .collect())
    }

    fn declared(of: Declared, name: &Option<String>, mut given: Settings) -> Self {
        let is_for_it = |(key, _): &(String, String)| of.secrets.contains(key);
        let from_file = std::mem::take(&mut given.secrets_read);
        given.secret.extend(from_file.into_iter().filter(is_for_it));
        Self {
            name: of.name.or_else(|| name.clone()),
            content: Content::Path(of.path),
            settings: given.over(of.settings),
            needs: of.secrets,
            has_env: of.has_env,
        }
    }

    /// What is watched for changes.
    pub fn path(&self) -> Option<&Path> {
        match &self.content {
            Content::Path(path) => Some(path),
            Content::Text(_) => None,
        }
    }

    /// Reads it as it is now. Blocks.
    pub fn source(&self) -> Result<Source, Failure> {
        match &self.content {
            Content::Path(path) => source::read(path, self.settings.language()),
            Content::Text(code) => source::inline(code.clone(), self.settings.language()),
        }
    }

    /// A new function, or a new version of the one that is there. What it needs and has not is asked for at a terminal.
    pub async fn send(&self, client: &Client, name: &str, source: Source) -> Result<FunctionView, Failure> {
        let known = match client.function(name).await.map_err(Failure::from) {
            Ok(view) => Some(view),
            Err(failure) if failure.is_refusal(Code::FunctionNotFound) => None,
            // A token may deploy and not look.
            Err(failure) if failure.is_refusal(Code::AuthScope) => None,
            Err(failure) => return Err(failure),
        };
        let mut settings = self.settings.clone();
        for key in self.missing(known.as_ref()) {
            settings.secret.push((key.clone(), asked(name, key)?));
        }
        if let (true, Some(view)) = (self.has_env, &known) {
            let named: BTreeMap<_, _> = settings.env.iter().cloned().collect();
            let gone = view.env.keys().filter(|key| !named.contains_key(*key));
            settings.unset_env.extend(gone.cloned());
        }
        deploy::send(client, name, source, (&settings, known.is_some())).await
    }

    fn missing(&self, known: Option<&FunctionView>) -> Vec<&String> {
        let is_there = |key: &String| {
            let given = self.settings.secret.iter().any(|(name, _)| name == key);
            given || known.is_some_and(|view| view.secret_names.contains(key))
        };
        self.needs.iter().filter(|key| !is_there(key)).collect()
    }
}

fn here() -> Result<PathBuf, Failure> {
    let folder = std::env::current_dir().context("cannot tell the current folder")?;
    project::find(&folder).ok_or_else(|| {
        Failure::usage(format!(
            "no path given, and neither this folder nor one above it has a {}",
            project::FILE
        ))
    })
}

fn asked(function: &str, key: &str) -> Result<String, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(format!(
            "`{function}` needs the secret `{key}`: give a file with a line {key}=VALUE to --secrets-from"
        )));
    }
    secrets::value(key, None)
}

impl Settings {
    /// With the secrets of `--secrets-from`: those that are needed stay aside until it is known whose they are.
    fn with_secrets(mut self, needed: &[&str]) -> Result<Self, Failure> {
        let Some(path) = self.secrets_from.take() else {
            return Ok(self);
        };
        let read: Changes = secrets::assignments(&secrets::text(&path)?)?;
        for (key, value) in read.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            match needed.is_empty() {
                true => self.secret.push((key, value)),
                false if needed.contains(&&*key) => self.secrets_read.push((key, value)),
                false => {
                    let path = path.display();
                    return Err(Failure::usage(format!(
                        "{path}: no function of the project has a secret `{key}`"
                    )));
                }
            }
        }
        Ok(self)
    }
}
