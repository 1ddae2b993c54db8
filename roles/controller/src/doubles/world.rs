//! Who there is in a world of doubles, and the ledger that they begin with.

use piecework_ledger::{
    Action, Genesis, GenesisPeer, Grant, Key, Params, PutOffer, Resources, Roles, SignedTransaction, Transaction, Value,
};
use piecework_model::{AccountId, Credits, PublicKey, SecretKey};
use piecework_queue::Profile;

use super::ledger::Ledger;

pub(crate) const CONTROLLER: u8 = 1;
pub(crate) const DEVELOPER: u8 = 2;
/// And above.
pub(crate) const PROVIDER: u8 = 10;

pub(crate) fn key(of: u8) -> SecretKey {
    SecretKey::from_seed([of; 32])
}

pub(crate) fn account(of: u8) -> AccountId {
    AccountId::of(&key(of).public())
}

/// With these names, each of whom has all that it may need.
pub(crate) fn genesis(everybody: &[(u8, String)]) -> Genesis {
    let grant = |(who, name): &(u8, String)| Grant {
        name: name.parse().expect("a name"),
        key: key(*who).public(),
        roles: Roles::default(),
        amount: Credits(1 << 60),
    };
    Genesis {
        network_name: "test".into(),
        created_at_ms: 1,
        params: Params {
            commission_ppm: 30_000,
            offer_deposit: Credits(500),
            window_blocks: 1_000,
            jobs_per_settlement_max: 1_000,
            transactions_per_block_max: 2_000,
            lane_intervals_max: 4_096,
            epoch_blocks: 240,
        },
        peers: vec![GenesisPeer {
            key: PublicKey([9; 32]),
            owner: everybody[0].1.parse().expect("a name"),
            address: "localhost:1".into(),
        }],
        grants: everybody.iter().map(grant).collect(),
    }
}

/// By the account's next nonce but for `ahead`.
pub(crate) fn signed(ledger: &Ledger, who: u8, ahead: u64, action: Action) -> SignedTransaction {
    let sender = account(who);
    let nonce = match ledger.value(&Key::Account(sender)) {
        Some(Value::Account(account)) => account.nonce + ahead,
        _ => panic!("no account {who}"),
    };
    SignedTransaction::sign(Transaction { sender, nonce, action }, &key(who), &ledger.network_id())
}

/// The provider's offer stands on the ledger.
pub(crate) fn offer(ledger: &Ledger, who: u8, profile: &Profile) {
    let offer = PutOffer {
        prices: profile.prices,
        resources: Resources {
            cores: profile.cores,
            memory_bytes: profile.memory_bytes,
            disk_bytes: 1 << 30,
            slots: profile.slots,
        },
        backends: vec!["wasm".into()],
        region: profile.region.clone(),
        labels: profile.labels.clone(),
        expires_at_height: 1 << 40,
    };
    let block = ledger.block(vec![signed(ledger, who, 0, Action::PutOffer(offer))]);
    assert!(block.outcomes[0].result.is_ok(), "{:?}", block.outcomes);
}
