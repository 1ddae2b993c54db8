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
