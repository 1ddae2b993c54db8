//! Lanes are settled apart: what one provider does or does not do delays nobody else.

use std::time::Duration;

use piecework_ledger::{Key, Value};

use super::{Clock as _, SETTLE_EVERY, World};
use crate::doubles::provider::Answers::{After, AtOnce, Never, WithRefusal};

#[tokio::test]
async fn a_provider_that_never_answers_delays_nobody_else_and_is_paid_when_it_does() {
    let mut world = World::start(2).await;
    world.providers[0].set_answers(Never);
    let stuck = world.owe(0);
    for minute in 0..10 {
        world.owe(0);
        let job = world.owe(1);
        let took = world.paid_after(job).await;
        assert!(took <= SETTLE_EVERY, "minute {minute}: {took:?}");
        world.clock.sleep(Duration::from_secs(60)).await;
    }
    assert!(!world.is_paid(stuck).await);
    assert!(world.providers[0].asked() > 2, "it is asked again");
    world.providers[0].set_answers(AtOnce);
    let took = world.paid_after(stuck).await;
    // What is under way ends, and then it waits its longest.
    assert!(took <= Duration::from_secs(121), "{took:?}");
    let Some(Value::Lane(lane)) = world
        .ledger
        .value(&Key::Lane(world.lease, world.providers[0].account()))
    else {
        panic!("no lane on the ledger");
    };
    assert_eq!(lane.jobs, 11, "all that waited went with it, each once");
}

#[tokio::test]
async fn a_seal_that_takes_half_a_minute_is_taken_and_delays_nobody_else() {
    let mut world = World::start(2).await;
    world.providers[0].set_answers(After(Duration::from_secs(30)));
    let slow = world.owe(0);
    let quick = world.owe(1);
    let took = world.paid_after(quick).await;
    assert!(took <= SETTLE_EVERY, "{took:?}");
    let took = world.paid_after(slow).await;
    assert!(took <= Duration::from_secs(30) + SETTLE_EVERY, "{took:?}");
}

#[tokio::test]
async fn a_refusal_is_answered_by_patience_of_that_lane_alone() {
    let mut world = World::start(2).await;
    world.providers[0].set_answers(WithRefusal);
    world.owe(0);
    for _ in 0..100 {
        let job = world.owe(1);
        let took = world.paid_after(job).await;
        assert!(took <= SETTLE_EVERY, "{took:?}");
    }
    // After 1, 2, 4, 8, 16 s; some of 50 s.
    assert!(
        (4..=7).contains(&world.providers[0].asked()),
        "{}",
        world.providers[0].asked()
    );
}

#[tokio::test]
async fn a_lane_whose_provider_is_away_waits_for_it() {
    let mut world = World::start(1).await;
    world.providers[0].set_here(false);
    let job = world.owe(0);
    world.clock.sleep(Duration::from_secs(600)).await;
    assert_eq!(world.providers[0].asked(), 0);
    world.providers[0].set_here(true);
    let took = world.paid_after(job).await;
    assert!(took <= 2 * SETTLE_EVERY, "{took:?}");
}

#[tokio::test]
async fn a_full_batch_is_followed_by_the_rest_at_once() {
    let mut world = World::start(1).await;
    let jobs: Vec<_> = (0..1_234).map(|_| world.owe(0)).collect();
    let took = world.paid_after(jobs[1_233]).await;
    assert!(took <= SETTLE_EVERY, "{took:?}");
    for job in jobs {
        assert!(world.is_paid(job).await);
    }
    assert_eq!(world.providers[0].asked(), 3);
}

#[tokio::test]
async fn shutdown_settles_a_last_time_and_waits_for_no_stranger() {
    let mut world = World::start(3).await;
    world.providers[0].set_answers(Never);
    world.providers[1].set_answers(WithRefusal);
    world.owe(0);
    world.owe(1);
    // One is asked without an answer, one waits for its next try.
    world.clock.sleep(Duration::from_secs(200)).await;
    let last = world.owe(2);
    let took = world.stop().await;
    assert!(took <= Duration::from_secs(5), "{took:?}");
    let Some(Value::Lane(lane)) = world
        .ledger
        .value(&Key::Lane(world.lease, world.providers[2].account()))
    else {
        panic!("{last} is not on the ledger");
    };
    assert_eq!(lane.jobs, 1);
}

#[tokio::test]
async fn every_pause_hears_shutdown() {
    let mut world = World::start(2).await;
    world.providers[0].set_answers(WithRefusal);
    world.owe(0);
    world.clock.sleep(Duration::from_secs(200)).await;
    world.providers[1].set_here(false);
    world.owe(1);
    world.clock.sleep(Duration::from_millis(1)).await;
    assert_eq!(world.stop().await, Duration::ZERO);
}
