//! Names and languages of functions.

use std::{fmt, str::FromStr};

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::{Code, Rejection};

/// A language that functions are written in.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, BorshSerialize, BorshDeserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    Python,
    JavaScript,
}

impl Language {
    pub const ALL: [Self; 2] = [Self::Python, Self::JavaScript];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::JavaScript => "javascript",
        }
    }

    /// The file that holds the handler when none is named.
    pub fn entry_file(self) -> &'static str {
        match self {
            Self::Python => "main.py",
            Self::JavaScript => "main.mjs",
        }
    }
}

impl Language {
    /// Files that are looked for when no handler is named, the first that is there.
    pub fn entry_files(self) -> &'static [&'static str] {
        match self {
            Self::Python => &[
                "main.py",
                "app.py",
                "server.py",
                "asgi.py",
                "wsgi.py",
                "lambda_function.py",
                "handler.py",
            ],
            Self::JavaScript => &[
                "main.mjs",
                "main.js",
                "main.cjs",
                "index.mjs",
                "index.js",
                "index.cjs",
                "app.mjs",
                "app.js",
                "app.cjs",
                "server.mjs",
                "server.js",
                "server.cjs",
                "worker.mjs",
                "worker.js",
                "src/index.mjs",
                "src/index.js",
            ],
        }
    }
}

/// How a program is called that has no handler of an event and a context: by an adapter of this name in the runner. It stands
/// behind the handler, as in `app.py:app@asgi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contract {
    Asgi,
    Wsgi,
    /// `fetch(request, env, ctx)`.
    Fetch,
    /// `(req, res)` of Node.
    Node,
    /// AWS Lambda.
    Lambda,
    FunctionsFramework,
    Openfaas,
}

impl Contract {
    pub const ALL: [Self; 7] = [
        Self::Asgi,
        Self::Wsgi,
        Self::Fetch,
        Self::Node,
        Self::Lambda,
        Self::FunctionsFramework,
        Self::Openfaas,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asgi => "asgi",
            Self::Wsgi => "wsgi",
            Self::Fetch => "fetch",
            Self::Node => "node",
            Self::Lambda => "lambda",
            Self::FunctionsFramework => "functions-framework",
            Self::Openfaas => "openfaas",
        }
    }

    /// The contract that a handler names.
    pub fn of(handler: &str) -> Option<Self> {
        let (_, name) = handler.rsplit_once('@')?;
        Self::ALL.into_iter().find(|contract| contract.as_str() == name)
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Language {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Self, Rejection> {
        match text {
            "python" | "py" => Ok(Self::Python),
            "javascript" | "js" => Ok(Self::JavaScript),
            other => Err(Rejection::new(
                Code::FunctionUnknownLanguage,
                format!("`{other}` is not a supported language"),
            )
            .hint("use `python` or `javascript`")
            .field("language")),
        }
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $code:expr, $noun:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Long enough for people, short enough for a DNS label beside a prefix.
            pub const LENGTH_MAX: usize = 30;

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Rejection;

            fn from_str(text: &str) -> Result<Self, Rejection> {
                let fits = (1..=Self::LENGTH_MAX).contains(&text.len())
                    && text.starts_with(|c: char| c.is_ascii_lowercase())
                    && !text.ends_with('-')
                    && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
                if fits {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(Rejection::new($code, concat!("the name of ", $noun, " must be 1 to 30 characters from a-z, 0-9 and -, begin with a letter and not end with -"))
                        .field("name"))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = Rejection;

            fn try_from(text: String) -> Result<Self, Rejection> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A function's name, unique among its owner's.
    FunctionName, Code::FunctionBadName, "a function"
);
name!(
    /// An account's name, unique on the ledger.
    OwnerName, Code::AccountBadName, "an account"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contract_stands_behind_its_handler() {
        for contract in Contract::ALL {
            assert_eq!(
                Contract::of(&format!("app.py:app@{}", contract.as_str())),
                Some(contract)
            );
        }
        for none in ["app.py:app", "app.py", "app.py:app@other", "app.py:app@"] {
            assert_eq!(Contract::of(none), None, "{none}");
        }
    }

    #[test]
    fn the_starters_file_is_looked_for_first() {
        for language in Language::ALL {
            assert_eq!(language.entry_files()[0], language.entry_file());
        }
    }
}
