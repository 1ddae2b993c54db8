//! `piecework secrets`: values that only the function sees. They are read from a file or from standard input, because the
//! arguments of a command are seen by all users of a computer.

use std::{
    io::{IsTerminal as _, Read as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use piecework_api::functions::{Changes, FunctionView, UpdateFunction};

use crate::{failure::Failure, session, show, source};

/// Set, list and remove a function's secrets; a change is a new version with the same code
#[derive(Debug, clap::Args)]
pub struct Secrets {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Set a secret; its value is read from --file, else from a prompt or from standard input. The others stay as they are
    Set {
        /// Name or id of the function
        function: String,
        /// Name of the secret
        #[arg(value_name = "KEY", required_unless_present = "env_file")]
        key: Option<String>,
        /// File with the value; a line break at its end is not part of it
        #[arg(long, value_name = "FILE", requires = "key")]
        file: Option<PathBuf>,
        /// Set all secrets of a file with a line KEY=VALUE for each; - for standard input
        #[arg(long, value_name = "FILE", conflicts_with = "key")]
        env_file: Option<PathBuf>,
    },
    /// List the names of a function's secrets; their values are never shown
    List {
        /// Name or id of the function
        function: String,
    },
    /// Remove secrets
    Remove {
        /// Name or id of the function
        function: String,
        /// Names of the secrets
        #[arg(value_name = "KEY", required = true)]
        keys: Vec<String>,
    },
}

impl Secrets {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let client = session::connect()?;
        let (function, changes) = match self.action {
            Action::List { function } => {
                let view = client.function(&function).await?;
                return listed(&view, json);
            }
            Action::Set {
                function,
                key,
                file,
                env_file,
            } => {
                let changes = match (key, env_file) {
                    (Some(key), _) => Changes::from([(key.clone(), Some(value(&key, file.as_deref())?))]),
                    (None, Some(path)) => assignments(&text(&path)?)?,
                    (None, None) => return Err(Failure::usage("name a secret, or give --env-file")),
                };
                (function, changes)
            }
            Action::Remove { function, keys } => {
                let there = client.function(&function).await?.secret_names;
                if let Some(missing) = keys.iter().find(|key| !there.contains(key)) {
                    return Err(Failure::usage(format!("`{function}` has no secret `{missing}`")));
                }
                (function, keys.into_iter().map(|key| (key, None)).collect())
            }
        };
        let body = UpdateFunction {
            secrets: Some(changes),
            ..UpdateFunction::default()
        };
        let view = client.update_function(&function, &body).await?;
        if json {
            return show::json(&view);
        }
        let names = if view.secret_names.is_empty() {
            "none".into()
        } else {
            view.secret_names.join(" ")
        };
        show::text(&format!("{} version {}, secrets: {names}\n", view.name, view.version))
    }
}

fn listed(view: &FunctionView, json: bool) -> Result<(), Failure> {
    if json {
        return show::json(&view.secret_names);
    }
    if view.secret_names.is_empty() {
        return show::text(&format!("{} has no secrets\n", view.name));
    }
    show::text(&format!("{}\n", view.secret_names.join("\n")))
}

pub fn value(key: &str, file: Option<&Path>) -> Result<String, Failure> {
    let value = match file {
        Some(path) => source::read_text(path)?,
        None if std::io::stdin().is_terminal() => {
            eprint!("value of {key}: ");
            console::Term::stderr()
                .read_secure_line()
                .context("cannot read the value")?
        }
        None => text(Path::new("-"))?,
    };
    let value = value
        .strip_suffix('\n')
        .map_or(&*value, |line| line.strip_suffix('\r').unwrap_or(line));
    match value {
        "" => Err(Failure::usage(format!(
            "no value given for `{key}`; to remove it, use `piecework secrets remove`"
        ))),
        value => Ok(value.to_owned()),
    }
}

pub fn text(path: &Path) -> Result<String, Failure> {
    if path != Path::new("-") {
        return source::read_text(path);
    }
    let mut text = String::new();
    let read = std::io::stdin().lock().read_to_string(&mut text);
    read.context("standard input is not valid UTF-8")?;
    Ok(text)
}

/// Lines of KEY=VALUE; empty ones and those that begin with # are left out, quotes around a value are not part of it.
pub fn assignments(text: &str) -> Result<Changes, Failure> {
    let mut changes = Changes::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((key, value)) = line.split_once('=').filter(|(key, _)| !key.trim().is_empty()) else {
            // The line may be a secret: it is not repeated.
            return Err(Failure::usage(format!(
                "line {} does not have the form KEY=VALUE",
                number + 1
            )));
        };
        let quoted = ['"', '\'']
            .into_iter()
            .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
        changes.insert(key.trim().to_owned(), Some(quoted.unwrap_or(value).to_owned()));
    }
    if changes.is_empty() {
        return Err(Failure::usage("there is no line KEY=VALUE"));
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_assignments_is_read() {
        let read = assignments("# keys\n\nA=1\nexport B=\"two words\"\nC=x=y\n").expect("three");
        let due = [("A", "1"), ("B", "two words"), ("C", "x=y")];
        let due = due.map(|(key, value)| (key.to_owned(), Some(value.to_owned())));
        assert_eq!(read, Changes::from(due));
        let refused = assignments("A=1\nhush").expect_err("no form").to_string();
        assert!(refused.contains("line 2") && !refused.contains("hush"), "{refused}");
        assert!(assignments("# nothing\n").is_err());
    }

    #[test]
    fn a_value_of_a_file_is_what_is_before_its_last_line_break() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        for (text, due) in [("a\n", "a"), ("a\r\n", "a"), ("a\nb\n\n", "a\nb\n"), ("a", "a")] {
            std::fs::write(file.path(), text).expect("written");
            assert_eq!(value("K", Some(file.path())).expect("a value"), due);
        }
        std::fs::write(file.path(), "\n").expect("written");
        assert!(value("K", Some(file.path())).is_err(), "an empty one is a mistake");
    }
}
