//! Runs many cases of the conformance suite in one process: a keeper or a daemon is started once.

use std::sync::Arc;

use piecework_model::Language;
use piecework_sandbox::Backend;
use piecework_sandbox_conformance::{Case, Exemption, Subject, Verdict, cases};
use piecework_sandbox_oci::Containers;
use tokio::task::JoinSet;

/// Cases at once: most of them wait for a container.
const AT_ONCE: usize = 2;

/// All of the suite.
pub fn all(_: &Case) -> bool {
    true
}

/// Runs those cases of a language that `wanted` takes, and panics with what failed.
pub async fn holds(
    backend: Arc<Containers>,
    languages: &[Language],
    exemptions: Vec<Exemption>,
    wanted: impl Fn(&Case) -> bool,
) {
    let subject = Subject {
        languages: backend.languages().await,
        backend: backend as Arc<dyn Backend>,
        exemptions,
    };
    let mut waiting = cases()
        .into_iter()
        .filter(|case| languages.contains(&case.language) && wanted(case));
    let mut running = JoinSet::new();
    let (mut again, mut failed, mut passed) = (Vec::new(), Vec::new(), 0);
    loop {
        while running.len() < AT_ONCE
            && let Some(case) = waiting.next()
        {
            let subject = subject.clone();
            running.spawn(async move { (case, case.run(&subject).await) });
        }
        let Some(ended) = running.join_next().await else { break };
        let (case, verdict) = ended.expect("no case panics");
        match verdict {
            Verdict::Passed => passed += 1,
            Verdict::Skipped(reason) => println!("not asked of it: {}::{}: {reason}", case.language, case.name),
            Verdict::Failed(reason) => again.push((case, reason)),
        }
    }
    // Some look at moments, which cases beside them take longer. Alone they must hold.
    for (case, first) in again {
        match case.run(&subject).await {
            Verdict::Failed(reason) => failed.push(format!("{}::{}: {reason}", case.language, case.name)),
            Verdict::Passed | Verdict::Skipped(_) => {
                println!(
                    "held at the second try, alone: {}::{}: {first}",
                    case.language, case.name
                );
                passed += 1;
            }
        }
    }
    assert!(failed.is_empty(), "{passed} passed, and not:\n{}", failed.join("\n"));
    assert!(passed > 0, "no case ran");
}

/// Whether each name is one of the suite.
pub fn exist(names: &[&str]) {
    for name in names {
        assert!(
            cases().iter().any(|case| case.name == *name),
            "there is no case `{name}`"
        );
    }
}
