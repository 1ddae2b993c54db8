//! `piecework new`: a starter function in a folder of its own.

use std::{fs, io, path::PathBuf};

use anyhow::Context as _;
use piecework_model::{FunctionName, Language};

use crate::{failure::Failure, units};

/// Create a folder with a starter function
#[derive(Debug, clap::Args)]
pub struct New {
    /// Name of the function: 1 to 30 characters from a-z, 0-9 and -
    #[arg(value_parser = units::noun::<FunctionName>)]
    name: FunctionName,
    /// python or javascript
    #[arg(long, value_parser = units::noun::<Language>)]
    language: Language,
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

fn starter(language: Language) -> [(&'static str, &'static str); 2] {
    match language {
        Language::Python => [
            ("main.py", include_str!("templates/main.py")),
            ("requirements.txt", include_str!("templates/requirements.txt")),
        ],
        Language::JavaScript => [
            ("main.mjs", include_str!("templates/main.mjs")),
            ("package.json", include_str!("templates/package.json")),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_starter_can_be_deployed_as_it_is_and_nothing_is_overwritten() {
        for language in Language::ALL {
            let dir = tempfile::tempdir().expect("a folder");
            let new = || New {
                name: "hello".parse().expect("a name"),
                language,
                into: dir.path().to_owned(),
            };
            new().run().expect("made");
            let source = crate::source::read(&dir.path().join("hello"), None).expect("a function");
            assert_eq!((source.language, source.name.as_deref()), (language, Some("hello")));
            assert!(matches!(new().run(), Err(Failure::Usage(_))));
        }
    }
}
