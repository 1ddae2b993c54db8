//! The conformance suite: all of it over crun, what is an engine's own to hold over gVisor, runc and Docker.
//!
//! What a runner says over its channel is the same in every container. A start takes gVisor and Docker half a second.

use std::sync::Arc;

use piecework_model::Language;
use piecework_sandbox::{Backend, BackendName};
use piecework_sandbox_conformance::{Case, Exemption, ImageSuite, Instead, check_images};
use piecework_sandbox_oci::Kind;

use crate::{
    dockerd::Dockerd,
    subject,
    table::{all, exist, holds},
};

/// Walls, limits, meters and ends.
const OF_THE_ENGINE: [&str; 26] = [
    "an_event_comes_back",
    "an_exit_is_a_crash_of_itself",
    "prints_are_logs_and_never_output",
    "garbage_on_every_descriptor_changes_no_output",
    "module_state_stays_warm_and_fresh_is_fresh",
    "counters_are_measured",
    "a_busy_loop_is_timed_out_cold_and_warm",
    "a_stubborn_daemon_dies_with_the_timeout",
    "a_memory_bomb_hits_only_itself",
    "a_fork_bomb_is_bounded",
    "a_disk_fill_is_bounded",
    "many_files_are_bounded",
    "open_files_are_bounded",
    "eight_instances_run_at_once",
    "dropping_an_instance_kills_all_of_it",
    "dropping_a_call_kills_all_of_it",
    "a_stopped_call_tells_what_it_used",
    "a_frozen_call_goes_on_later_and_pays_for_none_of_it",
    "what_runs_after_the_answer_stands_still_and_is_billed",
    "processes_left_behind_end_with_their_instance",
    "the_network_is_shut",
    "host_files_are_out_of_sight",
    "the_bundle_is_read_only",
    "scratch_is_never_shared",
    "dangerous_calls_are_refused",
    "a_generator_streams",
];

/// Of these, what is asked of Docker with JavaScript, too: each start takes it half a second.
const OF_DOCKER_TWICE: usize = 9;

/// What gVisor's own kernel keeps to itself.
const OF_GVISOR: [Exemption; 3] = [
    Exemption {
        case: "dropping_a_call_kills_all_of_it",
        language: None,
        reason: "processes inside are no processes of the host's, which the case looks for",
        instead: Instead::Skip,
    },
    Exemption {
        case: "processes_left_behind_end_with_their_instance",
        language: None,
        reason: "processes inside cannot be counted from outside: those left behind stand still between calls",
        instead: Instead::Skip,
    },
    Exemption {
        case: "many_files_are_bounded",
        language: None,
        reason: "its tmpfs has no limit of inodes: memory and time bound them",
        instead: Instead::Skip,
    },
];

async fn suite(kind: Kind, languages: &[Language], names: Option<&[&str]>, exemptions: Vec<Exemption>) {
    let backend = Arc::new(subject::containers(kind));
    if !subject::complete(&backend.languages().await, "the runtime") {
        return;
    }
    match names {
        None => holds(backend, languages, exemptions, all).await,
        Some(names) => {
            exist(names);
            holds(backend, languages, exemptions, |case| names.contains(&case.name)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crun_holds_all_of_it_with_python() {
    suite(Kind::Crun, &[Language::Python], None, Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crun_holds_all_of_it_with_javascript() {
    suite(Kind::Crun, &[Language::JavaScript], None, Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runc_holds_what_is_a_runtimes_own() {
    suite(Kind::Runc, &Language::ALL, Some(&OF_THE_ENGINE[..9]), Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gvisor_holds_what_is_an_engines_own() {
    suite(Kind::Runsc, &Language::ALL, Some(&OF_THE_ENGINE), OF_GVISOR.to_vec()).await;
}

/// Of images, what a runtime does in a way of its own.
const OF_THE_RUNTIME: ImageSuite = ImageSuite {
    unpacked_by: None,
    only: Some(&[
        "a_server_answers_and_stays",
        "an_exit_code_is_told",
        "memory_is_limited",
        "nothing_is_left_behind",
        "walls_stand",
    ]),
};

async fn images(kind: Kind, suite: ImageSuite) {
    let backend = Arc::new(subject::containers(kind));
    if subject::complete(&backend.languages().await, "the runtime") {
        check_images(backend, suite).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crun_holds_images() {
    images(Kind::Crun, ImageSuite::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_start_where_the_agents_directory_is_closed_to_others() {
    let scratch = tempfile::tempdir().unwrap();
    let backend = Arc::new(subject::hidden(Kind::Crun, scratch.path()));
    if subject::complete(&backend.languages().await, "the runtime") {
        let suite = ImageSuite {
            only: Some(&["a_server_answers_and_stays", "nothing_is_left_behind"]),
            ..ImageSuite::default()
        };
        check_images(backend, suite).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runc_holds_images() {
    images(Kind::Runc, OF_THE_RUNTIME).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gvisor_holds_images() {
    images(Kind::Runsc, ImageSuite::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_holds_what_is_an_engines_own() {
    let Some(daemon) = Dockerd::start() else {
        subject::complete(&[], "dockerd");
        return;
    };
    let backend = Arc::new(subject::docker(&daemon));
    let probe = backend.probe().await;
    assert!(probe.works, "{probe:?}");
    assert_eq!(
        (probe.backend, probe.languages.len()),
        (BackendName::Docker, 3),
        "{probe:?}"
    );
    exist(&OF_THE_ENGINE);
    let wanted = |case: &Case| match case.language {
        Language::Python => OF_THE_ENGINE.contains(&case.name),
        Language::JavaScript => OF_THE_ENGINE[..OF_DOCKER_TWICE].contains(&case.name),
        Language::Image => false,
    };
    holds(backend.clone(), &Language::ALL, Vec::new(), wanted).await;
    check_images(backend, ImageSuite::default()).await;
}
