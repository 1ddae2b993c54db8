//! The peers' votes on the number of the rules.

use piecework_model::Code;

use super::{committee::*, world::*};
use crate::*;

const EPOCH: u64 = 20;

pub fn switch(rules: u32, from_height: u64) -> Change {
    Change::SetRules(SetRules { rules, from_height })
}

impl World {
    fn rules(&self) -> Rules {
        rules(&self.state)
    }
}

#[test]
pub fn rules_switch_at_their_height_and_are_announced_a_whole_epoch_ahead() {
    let mut world = four_peers();
    assert_eq!(world.rules().at(u64::MAX), FIRST_RULES, "nothing says otherwise");
    let change = switch(2, 2 * EPOCH + 3);
    world.carry(&change, 1).unwrap();
    assert_eq!(
        world.state.get(&Key::Rules),
        None,
        "two of four are not enough, and leave no trace"
    );
    let told = world.act(Who::Provider, vote(Who::Controller, &change)).unwrap();
    let expected = Event::RulesChanged {
        from_height: 43,
        rules: 2,
    };
    assert_eq!(told.last(), Some(&expected));
    let rules = world.rules();
    assert_eq!([rules.at(42), rules.at(43), rules.at(u64::MAX)], [1, 2, 2]);
    let next = NextRules {
        from_height: 43,
        rules: 2,
    };
    assert_eq!((rules.pending(42), rules.pending(43)), (Some(next), None));
}

#[test]
pub fn a_switch_too_near_is_refused_however_late_the_last_vote_comes() {
    let mut world = four_peers();
    refused(
        world.act(Who::Controller, propose(&switch(2, 2 * EPOCH - 1))),
        Code::RulesTooSoon,
    );
    let change = switch(2, 2 * EPOCH);
    world.carry(&change, 1).unwrap();
    world.height = EPOCH - 1;
    refused(
        world.act(Who::Provider, vote(Who::Controller, &change)),
        Code::RulesTooSoon,
    );
    assert_eq!(world.rules(), Rules::default());
}

#[test]
pub fn rules_follow_one_another_and_a_switch_can_be_called_off_or_moved() {
    let mut world = World::new();
    let put = |world: &mut World, rules, from_height| world.act(Who::Controller, propose(&switch(rules, from_height)));
    for number in [0, 1, 3, u32::MAX] {
        refused(put(&mut world, number, 1_000), Code::RulesNotNext);
    }
    put(&mut world, 2, 1_000).unwrap();
    put(&mut world, 2, 2_000).unwrap();
    assert_eq!([world.rules().at(1_000), world.rules().at(2_000)], [1, 2], "moved");
    put(&mut world, 1, 3_000).unwrap();
    assert_eq!(world.rules().at(u64::MAX), 1, "called off");
    refused(put(&mut world, 1, 3_000), Code::RulesNotNext);
    put(&mut world, 2, 500).unwrap();
    world.height = 500;
    refused(put(&mut world, 2, 1_000), Code::RulesNotNext);
    refused(put(&mut world, 1, 1_000), Code::RulesNotNext);
    put(&mut world, 3, 1_000).unwrap();
    assert_eq!([world.rules().at(999), world.rules().at(1_000)], [2, 3]);
}

#[test]
fn under_rules_2_the_contracts_are_those_of_rules_1() {
    let play = |rules: u32| {
        let mut world = World::new();
        world.height = 100;
        let state = Rules { now: rules, next: None };
        world.state.insert(Key::Rules, Value::Rules(state));
        let lease = world.open_lease(1_000);
        world.settle(lease, &[job(0, 10), job(1, 20)]).unwrap();
        world.state.remove(&Key::Rules);
        world.state
    };
    assert_eq!(play(1), play(2));
}

#[test]
fn a_block_under_rules_that_this_build_does_not_know_is_not_executed() {
    let mut world = World::new();
    let state = Rules {
        now: RULES,
        next: Some(NextRules {
            from_height: 10,
            rules: RULES + 1,
        }),
    };
    world.state.insert(Key::Rules, Value::Rules(state));
    world.height = 8;
    world.block(&[]);
    let executed = std::panic::catch_unwind(move || world.block(&[]));
    executed.expect_err("it would be another state than the others'");
}
