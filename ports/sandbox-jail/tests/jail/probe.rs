//! The probe looks from inside, and nothing outlives the backend.
use piecework_model::Language;
use piecework_sandbox::Backend;

use crate::subject;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_probe_sees_its_own_walls() {
    let jail = subject::jail(false);
    let probe = jail.probe().await;
    assert!(probe.works, "{probe:?}");
    let due: Vec<Language> = jail.languages().into_iter().chain([Language::Image]).collect();
    assert_eq!(probe.languages, due, "{probe:?}");
    assert!(probe.cold_us.is_some() && probe.warm_us.is_some(), "{probe:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_root_the_probe_says_what_is_weaker() {
    let probe = subject::jail(true).probe().await;
    assert!(probe.works && probe.languages.contains(&Language::Image), "{probe:?}");
    assert!(
        probe.weaker.iter().any(|text| text.contains("no control groups")),
        "{probe:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executable_that_is_no_launcher_is_told() {
    let jail = piecework_sandbox_jail::Jail::new(piecework_sandbox_jail::Options::new("/bin/true")).unwrap();
    let probe = jail.probe().await;
    assert!(!probe.works && probe.detail.contains("launcher"), "{probe:?}");
}
