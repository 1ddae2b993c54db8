//! What every adapter of the port must do. Each function takes a store of any content and works under accounts of its own.

mod accounts;
mod audit;
mod build_logs;
mod catalog;
mod jobs;
mod keeping;
pub mod metrics;
mod results;
pub mod samples;

use piecework_store::Store;

/// Runs the whole suite on one store. Panics at the first thing that is not as it must be.
pub async fn all(store: &dyn Store) {
    accounts::users_are_unique_by_name_and_account(store).await;
    accounts::tokens_are_found_by_hash_and_deleted_by_their_owner(store).await;
    audit::changes_are_listed_newest_first_to_who_is_concerned(store).await;
    accounts::a_token_goes_with_the_one_it_was_made_with(store).await;
    accounts::values_are_taken_once(store).await;
    accounts::values_are_replaced_together_and_crowded_spaces_are_found(store).await;
    audit::of_too_many_entries_the_oldest_go_and_the_record_says_so(store).await;
    accounts::sealed_bytes_open_only_in_their_context(store).await;
    catalog::a_name_is_free_again_after_deletion(store).await;
    catalog::a_deleted_function_comes_back_while_its_name_is_free(store).await;
    catalog::a_policy_is_read_back_whole(store).await;
    catalog::versions_count_up_and_any_can_be_live(store).await;
    catalog::functions_are_listed_in_pages(store).await;
    build_logs::a_build_log_is_its_versions_and_goes_with_it(store).await;
    build_logs::the_last_failed_deploys_are_kept_for_each_name_and_account(store).await;
    build_logs::build_logs_count_as_logs_and_take_a_quarter_of_them(store).await;
    jobs::a_finished_job_is_read_back_whole(store).await;
    jobs::the_first_outcome_counts(store).await;
    jobs::an_accepted_job_is_unfinished_until_it_ends(store).await;
    jobs::cancelling_ends_a_job_once(store).await;
    jobs::a_key_gives_the_same_job_or_a_conflict(store).await;
    jobs::a_released_key_is_free(store).await;
    jobs::jobs_are_listed_newest_first_in_pages(store).await;
    jobs::a_job_is_unsettled_until_it_is_paid(store).await;
    jobs::the_first_height_of_a_step_stands(store).await;
    jobs::a_block_is_written_with_its_place(store).await;
    jobs::pruning_keeps_what_is_unsettled(store).await;
    jobs::sequences_never_go_back(store).await;
    results::the_first_note_of_a_job_counts_and_is_read_at_once(store).await;
    results::what_is_owed_is_due_when_its_time_comes_and_a_function_can_be_left_out(store).await;
    results::a_delivered_output_leaves_the_job_and_nothing_else_does(store).await;
    results::what_is_kept_or_was_given_up_on_expires(store).await;
    keeping::what_is_stored_is_counted_until_it_is_gone(store).await;
    keeping::inputs_count_until_their_jobs_end(store).await;
    keeping::the_oldest_outputs_go_first_and_their_jobs_say_so(store).await;
    keeping::the_oldest_records_go_but_none_that_is_unpaid(store).await;
    keeping::functions_versions_and_bundles_have_an_end(store).await;
    keeping::a_function_keeps_so_many_versions_and_what_was_deleted_goes(store).await;
    metrics::rollups_equal_the_raw_sums(store).await;
    metrics::each_version_has_its_own_rollups(store).await;
    metrics::minutes_go_after_a_month_and_days_stay(store).await;
}
