//! `piecework new`: a starter function in a folder of its own.

use std::{fs, io, path::PathBuf, str::FromStr};

use anyhow::Context as _;
use piecework_model::{Code, FunctionName, Language, Rejection};

use crate::{failure::Failure, units};

/// Create a folder with a starter function
#[derive(Debug, clap::Args)]
pub struct New {
    /// Name of the function: 1 to 30 characters from a-z, 0-9 and -
    #[arg(value_parser = units::noun::<FunctionName>)]
    name: FunctionName,
    /// python, javascript or typescript
    #[arg(long, value_parser = units::noun::<Starter>)]
    language: Starter,
    /// Directory in which to create the folder
    #[arg(long, value_name = "DIR", default_value = ".")]
    into: PathBuf,
}

impl New {
    pub fn run(self) -> Result<(), Failure> {
        let folder = self.into.join(self.name.as_str());
        fs::create_dir(&folder).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Failure::usage(format!("{} already exists", folder.display())),
            _ => anyhow::Error::new(error)
                .context(format!("cannot make {}", folder.display()))
                .into(),
        })?;
        for (file, text) in starter(self.language) {
            fs::write(folder.join(file), text).with_context(|| format!("cannot write {file}"))?;
        }
        eprintln!("created {0}; deploy it with `piecework deploy {0}`", folder.display());
        Ok(())
    }
}

/// What a function is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Starter {
    Python,
    JavaScript,
    TypeScript,
}

impl FromStr for Starter {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Self, Rejection> {
        match (text, text.parse()?) {
            ("typescript" | "ts", _) => Ok(Self::TypeScript),
            (_, Language::Python) => Ok(Self::Python),
            (_, Language::JavaScript) => Ok(Self::JavaScript),
            (_, Language::Image) => Err(Rejection::new(
                Code::FunctionUnknownLanguage,
                "there is no starter for an image",
            )
            .hint("use `python`, `javascript` or `typescript`; deploy an image with `piecework deploy --image`")),
        }
    }
}

fn starter(language: Starter) -> [(&'static str, &'static str); 2] {
    match language {
        Starter::Python => [
            ("main.py", include_str!("templates/main.py")),
            ("requirements.txt", include_str!("templates/requirements.txt")),
        ],
        Starter::JavaScript => [
            ("main.mjs", include_str!("templates/main.mjs")),
            ("package.json", include_str!("templates/package.json")),
        ],
        Starter::TypeScript => [
            ("main.ts", include_str!("templates/main.ts")),
            ("package.json", include_str!("templates/package.json")),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_starter_can_be_deployed_as_it_is_and_nothing_is_overwritten() {
        for (language, read) in [
            (Starter::Python, Language::Python),
            (Starter::JavaScript, Language::JavaScript),
            (Starter::TypeScript, Language::JavaScript),
        ] {
            let dir = tempfile::tempdir().expect("a folder");
            let new = || New {
                name: "hello".parse().expect("a name"),
                language,
                into: dir.path().to_owned(),
            };
            new().run().expect("made");
            let source = crate::source::read(&dir.path().join("hello"), None).expect("a function");
            assert_eq!((source.language, source.name.as_deref()), (read, Some("hello")));
            assert!(matches!(new().run(), Err(Failure::Usage(_))));
        }
    }
}
