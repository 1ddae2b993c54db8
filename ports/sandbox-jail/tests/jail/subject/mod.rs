//! The jails under test.

use std::sync::Arc;

use piecework_model::Language;
use piecework_sandbox_conformance::Subject;
use piecework_sandbox_jail::{Jail, Options};

pub fn jail(rootless: bool) -> Jail {
    jail_that_reaches(rootless, None)
}

pub fn jail_that_reaches(rootless: bool, egress: Option<Arc<piecework_egress::Egress>>) -> Jail {
    let mut options = Options::new(env!("CARGO_BIN_EXE_jail-init"));
    options.rootless = rootless;
    options.egress = egress;
    options.search = std::env::var_os("PATH").unwrap_or_default();
    Jail::new(options).expect("a launcher")
}

fn subject(jail: Jail) -> Subject {
    let languages = jail.languages();
    let missing = Language::ALL.len() - languages.len();
    assert!(
        missing == 0 || std::env::var_os("CI").is_none(),
        "an interpreter is missing in CI"
    );
    Subject {
        backend: Arc::new(jail),
        languages,
        exemptions: Vec::new(),
    }
}

pub async fn full() -> Subject {
    subject(jail(false))
}

pub async fn rootless() -> Subject {
    subject(jail(true))
}
