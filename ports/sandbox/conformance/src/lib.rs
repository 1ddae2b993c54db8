//! What every backend must pass: a table of named cases, each an attack or a promise, in both languages.
//!
//! A backend's `tests/` says `piecework_sandbox_conformance::conformance_tests!(subject)`, where `subject` is an async function that
//! makes the [`Subject`]; that gives one `#[tokio::test]` for each case. What a backend cannot hold it declares as an
//! [`Exemption`] with a reason, and the suite then holds it to the weaker promise.

mod answers;
mod bench;
mod bodies;
mod forgeries;
mod freezing;
#[cfg(target_os = "linux")]
mod images;
mod limits;
mod loading;
mod outside;
mod readers;
mod streams;
mod walls;

use std::{future::Future, pin::Pin, sync::Arc};

pub use bench::Kind;
use bench::{Bench, Check};
#[cfg(target_os = "linux")]
pub use images::{ImageSuite, check_images};
use piecework_model::Language;

use piecework_sandbox::Backend;

/// The backend under test and what it asks to be excused from.
#[derive(Clone)]
pub struct Subject {
    pub backend: Arc<dyn Backend>,
    /// Languages that this machine can run; cases of others are reported as skipped.
    pub languages: Vec<Language>,
    pub exemptions: Vec<Exemption>,
}

/// A promise that a backend does not hold, and what it promises instead.
#[derive(Clone, Copy, Debug)]
pub struct Exemption {
    pub case: &'static str,
    /// `None`: both languages.
    pub language: Option<Language>,
    pub reason: &'static str,
    pub instead: Instead,
}

#[derive(Clone, Copy, Debug)]
pub enum Instead {
    /// The case does not apply at all.
    Skip,
    /// The attack must still fail, but may end in one of these ways too.
    Accept(&'static [Kind]),
    /// Its program is for another sandbox: it does not load here, or its run ends where it touches this.
    Elsewhere(&'static str),
}

/// Whether a case failed because its program is for another sandbox.
fn is_for_another(reason: &str) -> bool {
    ["FellShort(", "it does not have ", "does not exist in WebAssembly"]
        .iter()
        .any(|sign| reason.contains(sign))
}

/// What one case said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    /// Not run, with the reason.
    Skipped(String),
    Failed(String),
}

type Running = Pin<Box<dyn Future<Output = Check> + Send>>;

/// One promise in one language.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub language: Language,
    run: fn(Bench) -> Running,
}

impl Case {
    pub async fn run(&self, subject: &Subject) -> Verdict {
        if !subject.languages.contains(&self.language) {
            return Verdict::Skipped(format!("no {} here", self.language));
        }
        let exemption = subject.exemptions.iter().find(|exemption| {
            exemption.case == self.name && exemption.language.is_none_or(|language| language == self.language)
        });
        let accepted: &[Kind] = match exemption {
            None => &[],
            Some(exemption) => match exemption.instead {
                Instead::Skip => return Verdict::Skipped(exemption.reason.to_owned()),
                Instead::Accept(kinds) => kinds,
                Instead::Elsewhere(_) => &[],
            },
        };
        let touches = exemption.and_then(|exemption| match exemption.instead {
            Instead::Elsewhere(what) => Some(what),
            Instead::Skip | Instead::Accept(_) => None,
        });
        let bench = Bench::new(subject.backend.clone(), self.language, accepted);
        match (self.run)(bench).await {
            Ok(()) if touches.is_some() => Verdict::Failed("it needs no exemption".to_owned()),
            Ok(()) => Verdict::Passed,
            Err(reason) if touches.is_some_and(|what| is_for_another(&reason) && reason.contains(what)) => {
                Verdict::Passed
            }
            Err(reason) => Verdict::Failed(reason),
        }
    }
}

/// Runs one case by name and panics with its reason if it fails: the body of a generated test.
pub async fn check(name: &str, language: Language, subject: &Subject) {
    let case = cases()
        .into_iter()
        .find(|case| case.name == name && case.language == language)
        .expect("the macro and the table are made from one list");
    match case.run(subject).await {
        Verdict::Passed => {}
        Verdict::Skipped(reason) => eprintln!("SKIPPED: {language}::{name}: {reason}"),
        Verdict::Failed(reason) => panic!("{language}::{name}: {reason}"),
    }
}

macro_rules! table {
    ($dollar:tt $($module:ident :: $name:ident,)*) => {
        /// Every case, Python's before JavaScript's.
        pub fn cases() -> Vec<Case> {
            Language::ALL
                .into_iter()
                .flat_map(|language| {
                    [$(Case { name: stringify!($name), language, run: |bench| Box::pin($module::$name(bench)) }),*]
                })
                .collect()
        }

        /// One test for each case over the [`Subject`](Subject) that an async function makes.
        #[macro_export]
        macro_rules! conformance_tests {
            ($dollar subject:path) => {
                mod python {
                    $($crate::conformance_tests!(@one $name, Python, $dollar subject);)*
                }
                mod javascript {
                    $($crate::conformance_tests!(@one $name, JavaScript, $dollar subject);)*
                }
            };
            (@one $dollar name:ident, $dollar language:ident, $dollar subject:path) => {
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $dollar name() {
                    let subject = $dollar subject().await;
                    let language = $crate::Tongue::$dollar language;
                    $crate::check(stringify!($dollar name), language, &subject).await;
                }
            };
        }
    };
}

#[doc(hidden)]
pub use piecework_model::Language as Tongue;

table! { $
    answers::an_event_comes_back,
    answers::the_context_is_told,
    answers::parameters_are_told,
    answers::variables_are_set,
    answers::unicode_goes_in_and_out,
    answers::bytes_become_base64,
    answers::nothing_returned_is_null,
    answers::a_large_event_and_output_pass,
    answers::an_event_that_is_too_deep_is_an_error_and_ends_no_instance,
    answers::what_is_raised_is_told,
    answers::an_exit_is_a_crash_of_itself,
    answers::output_that_is_not_json_is_invalid,
    answers::a_functions_own_json_is_the_languages,
    answers::half_a_pair_of_surrogates_comes_back_as_an_escape,
    answers::a_callback_answers_and_one_that_never_comes_is_an_error,
    answers::what_is_thrown_and_no_error_is_told_by_its_fields,
    answers::output_over_the_limit_is_too_large,
    answers::prints_are_logs_and_never_output,
    answers::lines_of_logs_have_a_level_and_a_time,
    answers::a_flood_of_prints_is_cut_with_a_marker,
    answers::logs_that_are_not_utf8_stay_valid,
    answers::garbage_on_every_descriptor_changes_no_output,
    answers::a_forged_answer_is_never_the_next_output,
    answers::module_state_stays_warm_and_fresh_is_fresh,
    answers::counters_are_measured,
    limits::a_busy_loop_is_timed_out_cold_and_warm,
    limits::a_sleeper_is_timed_out_cold_and_warm,
    limits::a_stubborn_daemon_dies_with_the_timeout,
    limits::a_memory_bomb_hits_only_itself,
    limits::a_fork_bomb_is_bounded,
    limits::a_disk_fill_is_bounded,
    limits::many_files_are_bounded,
    limits::open_files_are_bounded,
    limits::eight_instances_run_at_once,
    limits::dropping_an_instance_kills_all_of_it,
    limits::dropping_a_call_kills_all_of_it,
    limits::a_stopped_call_tells_what_it_used,
    freezing::a_frozen_call_goes_on_later_and_pays_for_none_of_it,
    freezing::a_frozen_call_can_be_stopped,
    outside::what_runs_after_the_answer_stands_still_and_is_billed,
    outside::what_a_call_leaves_running_ends_its_instance_and_is_told,
    outside::processes_left_behind_end_with_their_instance,
    outside::importing_a_module_is_billed_to_the_first_call,
    walls::the_network_is_shut,
    walls::host_files_are_out_of_sight,
    walls::the_bundle_is_read_only,
    walls::variables_of_others_are_out_of_sight,
    walls::scratch_is_never_shared,
    walls::dangerous_calls_are_refused,
    streams::a_generator_streams,
    streams::an_asynchronous_generator_streams,
    streams::a_coroutine_may_return_what_streams,
    streams::other_things_to_iterate_over_stream,
    streams::a_streamed_answer_has_its_head,
    streams::a_head_with_a_status_comes_before_the_first_chunk,
    streams::a_bad_head_is_invalid,
    streams::an_error_before_the_first_chunk_is_only_an_error,
    streams::an_error_in_mid_stream_comes_after_what_was_sent,
    streams::a_chunk_without_a_form_is_invalid,
    streams::sixty_four_mebibytes_pass,
    streams::a_stream_is_bounded,
    readers::a_reader_that_goes_ends_a_call_that_writes,
    readers::a_reader_that_goes_ends_a_call_that_is_silent,
    readers::a_slow_reader_holds_the_writer_up,
    readers::a_reader_that_never_reads_costs_time_and_no_cpu,
    readers::a_frozen_stream_goes_on_later,
    bodies::a_body_goes_in,
    bodies::a_body_is_read_asynchronously,
    bodies::a_large_body_comes_back,
    bodies::a_body_that_is_left_disturbs_no_later_call,
    bodies::a_body_that_never_comes_is_timed_out,
    bodies::there_is_no_body_where_none_was_given,
    forgeries::a_forged_stream_is_no_answer,
    loading::a_syntax_error_is_told_with_its_line,
    loading::a_missing_handler_is_told,
    loading::a_missing_package_is_told,
    loading::a_failing_module_is_told,
    loading::an_endless_module_is_told,
    loading::a_named_handler_is_found,
    loading::several_files_are_one_program,
    loading::packages_beside_the_code_are_found,
}
