//! A block of the ledger is one commit here, or none.

use std::time::Duration;

use piecework_ledger::{Action, Transfer};
use piecework_model::Credits;
use piecework_store::Jobs as _;

use super::{Clock as _, DEVELOPER, PROVIDER, World, account, signed};

const TRANSFERS: u64 = 2_000;

fn transfers(world: &World) -> u64 {
    let transfer = |ahead| {
        let action = Action::Transfer(Transfer {
            to: account(PROVIDER),
            amount: Credits(1),
        });
        signed(&world.ledger, DEVELOPER, ahead, action)
    };
    let block = world.ledger.block((0..TRANSFERS).map(transfer).collect());
    assert!(block.outcomes.iter().all(|outcome| outcome.result.is_ok()));
    block.height
}

async fn reached(world: &World, height: u64) {
    while world.store.projected_height().await.expect("read") < height {
        world.store.written().await;
    }
}

#[tokio::test]
async fn two_thousand_transfers_are_one_commit_of_the_follower() {
    let world = World::start(1).await;
    let before = world.store.commits();
    reached(&world, transfers(&world)).await;
    assert_eq!(world.store.commits() - before, 1);
    assert_eq!(world.store.values_in("statement/"), 2 * TRANSFERS as usize);
}

#[tokio::test]
async fn a_block_that_cannot_be_written_leaves_nothing_and_is_read_again() {
    let world = World::start(1).await;
    let place = world.store.projected_height().await.expect("read");
    world.store.set_full(true);
    let height = transfers(&world);
    world.clock.sleep(Duration::from_secs(10)).await;
    assert_eq!(world.store.values_in("statement/"), 0);
    assert_eq!(world.store.projected_height().await.expect("read"), place);
    world.store.set_full(false);
    reached(&world, height).await;
    assert_eq!(world.store.values_in("statement/"), 2 * TRANSFERS as usize);
}
