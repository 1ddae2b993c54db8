//! The tests can fail: with any one rule broken, something that must hold does not.

use super::{
    accounts, claims, committee, jobs, leases, lending, mismatches,
    properties::{HISTORIES, play_histories},
    rules, settlement,
};
use crate::mutant::Mutant;

/// What the histories do not play: rules of which one scene tells all.
const SCENES: [fn(); 30] = [
    accounts::the_sponsor_cannot_spend_what_it_lent,
    accounts::a_sponsor_is_bound_by_what_it_signed,
    accounts::an_owner_signs_for_its_accounts,
    accounts::a_key_that_one_does_not_hold_cannot_be_rotated_to,
    jobs::an_open_job_reserves_its_maximum_until_it_is_paid,
    jobs::what_was_opened_and_came_to_nothing_is_free_again_after_its_window,
    claims::what_a_provider_claims_is_not_released,
    leases::only_the_developer_tops_up_delegates_and_closes,
    settlement::between_accounts_of_one_owner_there_is_no_commission,
    claims::taking_the_payer_away_takes_no_finished_work_with_it,
    claims::a_job_that_was_done_and_paid_elsewhere_is_not_paid_to_who_did_not_deliver_it,
    claims::a_replacement_is_the_same_work_under_another_ticket,
    committee::a_new_peer_makes_blocks_from_the_epoch_after_the_next,
    committee::one_change_of_the_peers_waits_at_a_time,
    committee::parameters_are_in_force_at_once_and_within_their_bounds,
    claims::a_claim_stays_within_ticket_caps_and_budget,
    claims::a_job_is_paid_once_however_it_is_claimed_and_settled,
    claims::an_old_settlement_sent_again_does_not_cut_a_claims_window_short,
    claims::cheat_15_closing_before_the_claim_the_original_succeeds_ours_drains_and_pays,
    claims::what_nobody_else_signed_refutes_nothing,
    committee::a_change_is_carried_by_more_than_two_thirds,
    committee::only_owners_of_present_peers_propose_and_vote_and_each_once,
    committee::peers_are_added_by_who_holds_their_key,
    committee::the_peers_pool_goes_to_their_owners_to_the_last_ucr_that_divides,
    lending::a_sponsor_lends_more_or_less_of_its_own,
    lending::a_sponsor_covers_the_debt_out_of_what_it_holds_for_it,
    mismatches::a_contradiction_is_recorded_and_counted_once,
    rules::a_switch_too_near_is_refused_however_late_the_last_vote_comes,
    rules::rules_follow_one_another_and_a_switch_can_be_called_off_or_moved,
    mismatches::only_two_sealed_receipts_that_differ_contradict,
];

fn is_noticed(mutant: Mutant) -> bool {
    let scene_fails = |scene: &fn()| mutant.during(scene).is_err();
    SCENES.iter().any(scene_fails) || !matches!(mutant.during(|| play_histories(HISTORIES, 0)), Ok(Ok(())))
}

#[test]
fn every_broken_rule_is_noticed() {
    let missed: Vec<Mutant> = Mutant::ALL.into_iter().filter(|mutant| !is_noticed(*mutant)).collect();
    assert_eq!(missed, [], "these broken rules were not noticed");
}
