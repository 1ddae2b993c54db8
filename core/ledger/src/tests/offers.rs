//! Offers and their deposit.

use piecework_model::Code;

use super::world::*;
use crate::*;

pub fn offer(expires_at_height: u64) -> PutOffer {
    PutOffer {
        prices: CAPS,
        resources: Resources::default(),
        backends: vec!["wasm".into(), "jail".into()],
        region: "lab".into(),
        labels: vec!["gpu=no".into()],
        expires_at_height,
    }
}

#[test]
fn the_deposit_is_held_once_and_comes_back() {
    let mut world = World::new();
    world.act(Who::Provider, Action::PutOffer(offer(50))).unwrap();
    assert_eq!(world.held(Who::Provider), DEPOSIT.0);
    world.act(Who::Provider, Action::PutOffer(offer(90))).unwrap();
    assert_eq!(world.held(Who::Provider), DEPOSIT.0);
    world.act(Who::Provider, Action::DropOffer(DropOffer {})).unwrap();
    assert_eq!(world.held(Who::Provider), 0);
    assert_eq!(world.posted(Who::Provider), GRANT.0);
    refused(
        world.act(Who::Provider, Action::DropOffer(DropOffer {})),
        Code::OfferUnknown,
    );
}

#[test]
fn an_offer_that_has_expired_already_is_refused() {
    let mut world = World::new();
    world.pass_blocks(20);
    for height in [0, 20, 21] {
        refused(
            world.act(Who::Provider, Action::PutOffer(offer(height))),
            Code::OfferExpired,
        );
        world.height = 20;
    }
    world.act(Who::Provider, Action::PutOffer(offer(22))).unwrap();
}

#[test]
fn an_offer_is_bounded_in_every_list_and_text() {
    let mut world = World::new();
    let text = "x".repeat(OFFER_TEXT_BYTES_MAX + 1);
    let longer = |change: &dyn Fn(&mut PutOffer)| {
        let mut put = offer(50);
        change(&mut put);
        Action::PutOffer(put)
    };
    for put in [
        longer(&|put| put.backends = vec!["wasm".into(); OFFER_BACKENDS_MAX + 1]),
        longer(&|put| put.labels = vec!["a".into(); OFFER_LABELS_MAX + 1]),
        longer(&|put| put.region = text.clone()),
        longer(&|put| put.backends = vec![text.clone()]),
        longer(&|put| put.labels = vec![text.clone()]),
    ] {
        refused(world.act(Who::Provider, put), Code::TransactionTooLarge);
    }
}
