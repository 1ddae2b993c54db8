//! Names and languages of functions.

use std::{fmt, str::FromStr};

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::{Code, Rejection, Workload};

/// What a function is made of: code in a language, or a container image.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, BorshSerialize, BorshDeserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    Python,
    JavaScript,
    /// A container image: whatever is in it, it is no code of ours that reads it.
    Image,
}

impl Language {
    /// Those that code is written in.
    pub const ALL: [Self; 2] = [Self::Python, Self::JavaScript];

    pub fn workload(self) -> Workload {
        match self {
            Self::Python | Self::JavaScript => Workload::Function,
            Self::Image => Workload::Image,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::JavaScript => "javascript",
            Self::Image => "image",
        }
    }

    /// The file that holds the handler when none is named.
    pub fn entry_file(self) -> &'static str {
        match self {
            Self::Python => "main.py",
            Self::JavaScript => "main.mjs",
            Self::Image => "image.json",
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
                "main.ts",
                "main.mts",
                "index.ts",
                "index.mts",
                "index.tsx",
                "app.ts",
                "app.tsx",
                "server.ts",
                "worker.ts",
                "handler.ts",
                "src/index.ts",
                "src/index.tsx",
            ],
            Self::Image => &["image.json"],
        }
    }
}

/// TypeScript files, which no sandbox reads: at deploy, the JavaScript of `x.ts` is put beside it, as `x.ts.mjs`.
pub mod typescript {
    use std::borrow::Cow;

    const ENDINGS: [&str; 4] = [".ts", ".mts", ".cts", ".tsx"];
    /// What a deploy puts behind the name of a file.
    const MADE: [&str; 2] = [".mjs", ".cjs"];

    /// Whether the file is TypeScript with code, not only declarations.
    pub fn is_source(file: &str) -> bool {
        let stem = ENDINGS.iter().find_map(|ending| file.strip_suffix(ending));
        stem.is_some_and(|stem| !stem.ends_with(".d") && !stem.is_empty() && !stem.ends_with('/'))
    }

    /// The file that a sandbox loads: of TypeScript the JavaScript beside it.
    pub fn loaded(file: &str) -> Cow<'_, str> {
        match is_source(file) {
            true => Cow::Owned(format!("{file}{}", MADE[0])),
            false => Cow::Borrowed(file),
        }
    }

    /// The TypeScript file that this one is made of, if its name says so.
    pub fn made_of(file: &str) -> Option<&str> {
        let source = MADE.iter().find_map(|made| file.strip_suffix(made));
        source.filter(|source| is_source(source))
    }

    /// A text that names made files, with the names as they were deployed.
    pub fn as_deployed(text: &str) -> Cow<'_, str> {
        if !MADE.iter().any(|made| text.contains(made)) {
            return Cow::Borrowed(text);
        }
        let mut shown = text.to_owned();
        for ending in ENDINGS {
            for made in MADE {
                shown = shown.replace(&format!("{ending}{made}"), ending);
            }
        }
        Cow::Owned(shown)
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
            // Its types are removed at deploy.
            "javascript" | "js" | "typescript" | "ts" => Ok(Self::JavaScript),
            "image" => Ok(Self::Image),
            other => Err(Rejection::new(
                Code::FunctionUnknownLanguage,
                format!("`{other}` is not a supported language"),
            )
            .hint("use `python`, `javascript`, `typescript` or `image`")
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
    fn the_javascript_of_a_typescript_file_lies_beside_it() {
        for (file, loaded) in [
            ("main.ts", "main.ts.mjs"),
            ("src/app.tsx", "src/app.tsx.mjs"),
            ("a.mts", "a.mts.mjs"),
            ("main.mjs", "main.mjs"),
            ("types.d.ts", "types.d.ts"),
            (".ts", ".ts"),
            ("src/.ts", "src/.ts"),
        ] {
            assert_eq!(typescript::loaded(file), loaded);
        }
        assert_eq!(typescript::made_of("src/a.ts.mjs"), Some("src/a.ts"));
        assert_eq!(typescript::made_of("src/a.cts.cjs"), Some("src/a.cts"));
        assert_eq!(typescript::made_of("src/a.mjs"), None);
        let stack = "at f (file:///function/lib/a.ts.mjs:3:9)\n at main.mts.mjs:1";
        assert_eq!(
            typescript::as_deployed(stack),
            "at f (file:///function/lib/a.ts:3:9)\n at main.mts:1"
        );
    }

    #[test]
    fn languages_are_the_same_on_links_and_in_records() {
        let all = [Language::Python, Language::JavaScript, Language::Image];
        for (place, language) in (0u8..).zip(all) {
            assert_eq!(borsh::to_vec(&language).expect("a byte"), [place]);
            assert_eq!(serde_json::to_value(language).expect("JSON"), language.as_str());
            assert_eq!(language.as_str().parse(), Ok(language));
        }
    }

    #[test]
    fn the_starters_file_is_looked_for_first() {
        for language in Language::ALL {
            assert_eq!(language.entry_files()[0], language.entry_file());
        }
    }
}
