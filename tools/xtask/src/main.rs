//! `cargo run --release -p xtask -- tidy | openapi [--check [BINARY]] | dist [DIR]`

use std::{path::Path, process::ExitCode};

use anyhow::{Result, bail};
use xtask::{dist, openapi, root, tidy};

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["tidy"] => {
            let report = tidy::run(&root())?;
            println!("{report}");
            Ok(if report.is_tidy() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        ["openapi"] => openapi::write(&root(), None).map(|()| ExitCode::SUCCESS),
        ["openapi", "--binary", binary] => openapi::write(&root(), Some(Path::new(binary))).map(|()| ExitCode::SUCCESS),
        ["openapi", "--check"] => openapi::check(&root(), None).map(|()| ExitCode::SUCCESS),
        ["openapi", "--check", binary] => openapi::check(&root(), Some(Path::new(binary))).map(|()| ExitCode::SUCCESS),
        ["dist"] => dist::run(&root(), &root().join("target/dist")).map(|()| ExitCode::SUCCESS),
        ["dist", out] => dist::run(&root(), Path::new(out)).map(|()| ExitCode::SUCCESS),
        _ => bail!("usage: xtask tidy | openapi [--check [BINARY] | --binary BINARY] | dist [DIR]"),
    }
}
