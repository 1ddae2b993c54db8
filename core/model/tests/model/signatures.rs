//! What a signature covers, and what it does not pass for.
use piecework_model::*;

const NETWORK: NetworkId = NetworkId([1; 32]);
const OTHER_NETWORK: NetworkId = NetworkId([2; 32]);
const DOMAINS: [Domain; 8] = [
    Domain::Transaction,
    Domain::Tickets,
    Domain::Receipts,
    Domain::Acks,
    Domain::Login,
    Domain::Owner,
    Domain::Sponsor,
    Domain::Request,
];

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

#[test]
fn a_signature_of_one_domain_never_verifies_in_another() {
    let value = (AccountId([3; 20]), 5u64);
    for signed in DOMAINS {
        let signature = key(1).sign(signed, &NETWORK, &value);
        for asked in DOMAINS {
            let verdict = key(1).public().verify(asked, &NETWORK, &value, &signature);
            assert_eq!(verdict.is_ok(), signed == asked, "{signed:?} as {asked:?}");
        }
    }
}

#[test]
fn a_signature_is_for_one_network_one_key_and_one_value() {
    let signature = key(1).sign(Domain::Owner, &NETWORK, &5u64);
    let verify =
        |who: u8, network: &NetworkId, value: u64| key(who).public().verify(Domain::Owner, network, &value, &signature);
    assert_eq!(verify(1, &NETWORK, 5), Ok(()));
    assert_eq!(verify(1, &OTHER_NETWORK, 5), Err(SignatureInvalid));
    assert_eq!(verify(2, &NETWORK, 5), Err(SignatureInvalid));
    assert_eq!(verify(1, &NETWORK, 6), Err(SignatureInvalid));
}

#[test]
fn every_flipped_bit_of_a_signature_is_noticed() {
    let signature = key(1).sign(Domain::Owner, &NETWORK, &5u64);
    for bit in 0..512 {
        let mut flipped = signature;
        flipped.0[bit / 8] ^= 1 << (bit % 8);
        let verdict = key(1).public().verify(Domain::Owner, &NETWORK, &5u64, &flipped);
        assert_eq!(verdict, Err(SignatureInvalid), "bit {bit}");
    }
}

/// With the neutral point as key, R neutral and s zero a lax verifier accepts every message.
#[test]
fn a_key_of_small_order_verifies_nothing() {
    let mut neutral = [0u8; 32];
    neutral[0] = 1;
    let mut signature = [0u8; 64];
    signature[0] = 1;
    let verdict = PublicKey(neutral).verify(Domain::Owner, &NETWORK, &5u64, &Signature(signature));
    assert_eq!(verdict, Err(SignatureInvalid));
}

/// Adding the group's order to s gives a second signature of the same message where s is not checked.
#[test]
fn a_signature_cannot_be_changed_into_another_valid_one() {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut signature = key(1).sign(Domain::Owner, &NETWORK, &5u64);
    let mut carry = 0u16;
    for (digit, add) in signature.0[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*digit) + u16::from(add) + carry;
        *digit = sum as u8;
        carry = sum >> 8;
    }
    let verdict = key(1).public().verify(Domain::Owner, &NETWORK, &5u64, &signature);
    assert_eq!(verdict, Err(SignatureInvalid));
}

#[test]
fn bytes_that_are_no_key_verify_nothing() {
    let signature = key(1).sign(Domain::Owner, &NETWORK, &5u64);
    for bytes in [[0; 32], [0xff; 32], [2; 32]] {
        assert!(
            PublicKey(bytes)
                .verify(Domain::Owner, &NETWORK, &5u64, &signature)
                .is_err()
        );
    }
}

#[test]
fn verify_all_names_the_first_that_fails() {
    let sign = |seed: u8| (key(seed).public(), seed, key(seed).sign(Domain::Acks, &NETWORK, &seed));
    let mut signed = vec![sign(1), sign(2), sign(3)];
    assert_eq!(verify_all(Domain::Acks, &NETWORK, &signed), Ok(()));
    signed[1].1 = 9;
    assert_eq!(verify_all(Domain::Acks, &NETWORK, &signed), Err(1));
}

#[test]
fn a_seal_covers_its_leaves_their_order_their_number_and_the_lane() {
    let leaves: Vec<Digest> = (0u8..5).map(|nth| leaf(&nth)).collect();
    let lane = (LeaseId([1; 20]), AccountId([2; 20]));
    let seal = Seal::sign(&key(1), Domain::Receipts, &NETWORK, lane, &leaves);
    let holds = |seal: &Seal, leaves: &[Digest]| {
        seal.verify(&key(1).public(), Domain::Receipts, &NETWORK, leaves)
            .is_ok()
    };
    assert!(holds(&seal, &leaves));
    assert!(!holds(&seal, &leaves[..4]));
    let mut swapped = leaves.clone();
    swapped.swap(0, 1);
    assert!(!holds(&seal, &swapped));
    let change: [fn(&mut Seal); 4] = [
        |seal| seal.lease.0[0] ^= 1,
        |seal| seal.provider.0[0] ^= 1,
        |seal| seal.count += 1,
        |seal| seal.root.0[0] ^= 1,
    ];
    for change in change {
        let mut altered = seal.clone();
        change(&mut altered);
        assert!(!holds(&altered, &leaves));
        assert!(
            altered
                .verify_root(&key(1).public(), Domain::Receipts, &NETWORK)
                .is_err()
        );
    }
}
