//! Who takes part: four peers, three providers, a controller and its developer.

use piecework_ledger::{Genesis, GenesisPeer, Grant, Params, Roles};
use piecework_model::{Credits, Limits, Prices, SecretKey};

use crate::Consensus;

pub const PEERS: u8 = 4;
pub const PROVIDERS: u8 = 3;
pub const CORES: u32 = 2;
/// Blocks of 150 ms: some twelve seconds, longer than anybody is away who comes back. The engine's come at once where there is
/// something to put into them.
const WINDOW_BLOCKS: u32 = 80;
const WINDOW_BLOCKS_OF_THE_ENGINE: u32 = 160;
pub const GRANT: Credits = Credits(1_000 * Credits::ONE.0);
pub const EXPOSURE_UCR: u64 = 4_000;

pub const PRICES: Prices = Prices {
    start_ucr: 2,
    cpu_ucr_per_s: 1_000,
    memory_ucr_per_gib_s: 35,
    egress_ucr_per_mib: 10,
};
pub const LIMITS: Limits = Limits {
    timeout_ms: 500,
    ..Limits::DEFAULT
};

pub fn peer_key(number: u8) -> SecretKey {
    SecretKey::from_seed([10 + number; 32])
}

pub fn provider_key(number: u8) -> SecretKey {
    SecretKey::from_seed([30 + number; 32])
}

pub fn developer_key() -> SecretKey {
    SecretKey::from_seed([50; 32])
}

pub fn controller_key() -> SecretKey {
    SecretKey::from_seed([60; 32])
}

pub fn genesis(consensus: Consensus) -> Genesis {
    let grant = |name: String, key: SecretKey| Grant {
        name: name.parse().expect("a name of letters, digits and dashes"),
        key: key.public(),
        roles: Roles::default(),
        amount: GRANT,
    };
    let providers = (0..PROVIDERS).map(|number| grant(format!("provider-{number}"), provider_key(number)));
    let mut grants: Vec<Grant> = providers.collect();
    grants.push(grant("developer".into(), developer_key()));
    grants.push(grant("controller".into(), controller_key()));
    Genesis {
        network_name: "simulated".into(),
        created_at_ms: 0,
        params: Params {
            commission_ppm: 30_000,
            offer_deposit: Credits::ONE,
            window_blocks: match consensus {
                Consensus::Engine => WINDOW_BLOCKS_OF_THE_ENGINE,
                Consensus::Model => WINDOW_BLOCKS,
            },
            jobs_per_settlement_max: 1_000,
            transactions_per_block_max: 100,
            lane_intervals_max: 1_000,
            epoch_blocks: 20,
        },
        peers: (0..PEERS)
            .map(|number| GenesisPeer {
                key: peer_key(number).public(),
                owner: format!("provider-{}", number % PROVIDERS)
                    .parse()
                    .expect("granted above"),
                address: format!("peer-{number}:7000"),
            })
            .collect(),
        grants,
    }
}
