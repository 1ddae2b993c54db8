//! Text forms, arithmetic and trees of the shared nouns.
use borsh::BorshDeserialize;
use piecework_model::*;

#[test]
fn every_leaf_of_every_small_tree_has_a_path_to_the_root_and_no_other_has() {
    for size in 1..20usize {
        let leaves: Vec<Digest> = (0..size as u64).map(|nth| leaf(&nth)).collect();
        let root = merkle_root(&leaves);
        for index in 0..size {
            let proof = merkle_proof(&leaves, index).unwrap();
            assert_eq!(proof.root_from(leaves[index]), root);
            assert_ne!(proof.root_from(leaf(&u64::MAX)), root);
        }
        assert_eq!(merkle_proof(&leaves, size), None);
    }
}

#[test]
fn an_inner_node_does_not_pass_for_a_leaf() {
    let leaves: Vec<Digest> = (0u64..4).map(|nth| leaf(&nth)).collect();
    let inner = [merkle_root(&leaves[..2]), merkle_root(&leaves[2..])];
    assert_eq!(merkle_root(&inner), merkle_root(&leaves), "two levels fold to one root");
    assert_ne!(
        leaf(&(leaves[0], leaves[1])),
        inner[0],
        "but a value of the same bytes is another leaf"
    );
}

/// What another implementation must do: BLAKE3's key derivation with the tag as context, over the borsh encoding.
#[test]
fn a_tagged_digest_is_blake3_derive_key_of_the_encoding() {
    let expected = |tag: &str, bytes: &[u8]| Digest(blake3::derive_key(tag, bytes));
    for length in [0, 1, 63, 64, 1_023, 1_024, 100_000] {
        let value = vec![5u8; length];
        let bytes = borsh::to_vec(&value).unwrap();
        assert_eq!(Digest::of_value("a tag", &value), expected("a tag", &bytes));
        assert_eq!(leaf(&value), expected("piecework 2026 merkle leaf", &bytes));
    }
    let (left, right) = (leaf(&1u8), leaf(&2u8));
    let node = expected("piecework 2026 merkle node", &[left.0, right.0].concat());
    assert_eq!(merkle_root(&[left, right]), node);
}

#[test]
fn credits_are_exact_in_json_at_every_size() {
    for amount in [0, -1, (1 << 53) - 1, 1 << 53, -(1 << 53), i128::MAX, i128::MIN] {
        let bytes = borsh::to_vec(&Credits(amount)).unwrap();
        assert_eq!(Credits::try_from_slice(&bytes).unwrap(), Credits(amount));
        let text = serde_json::to_string(&Credits(amount)).unwrap();
        let is_number = amount.unsigned_abs() < 1 << 53;
        assert_eq!(
            text,
            if is_number {
                format!("{amount}")
            } else {
                format!("\"{amount}\"")
            }
        );
        assert_eq!(serde_json::from_str::<Credits>(&text).unwrap(), Credits(amount));
    }
}

#[test]
fn credits_that_are_no_whole_number_are_refused() {
    for text in [
        "1.5",
        "\"1.5\"",
        "\"\"",
        "null",
        "1e3",
        "\"170141183460469231731687303715884105728\"",
    ] {
        assert!(serde_json::from_str::<Credits>(text).is_err(), "{text}");
    }
}

#[test]
fn arithmetic_of_credits_stops_at_the_ends() {
    assert_eq!(Credits(i128::MAX).checked_add(Credits(1)), Err(CreditsOverflow));
    assert_eq!(Credits(i128::MIN).checked_sub(Credits(1)), Err(CreditsOverflow));
    assert_eq!(Credits(2).checked_sub(Credits(5)), Ok(Credits(-3)));
}

#[test]
fn ids_read_back_from_their_text_with_and_without_prefix() {
    let account = AccountId([0xab; 20]);
    let text = account.to_string();
    assert!(text.starts_with("acc_") && text.len() == 44);
    assert_eq!(text.parse::<AccountId>().unwrap(), account);
    assert_eq!(text[4..].parse::<AccountId>().unwrap(), account);
    for wrong in [
        "",
        "acc_",
        "acc_abc",
        "lease_abababababababababababababababababababab",
        "acc_é",
    ] {
        assert_eq!(
            wrong.parse::<AccountId>().unwrap_err().code,
            Code::IdMalformed,
            "{wrong}"
        );
    }
}

#[test]
fn job_ids_tell_their_time_and_sort_by_it() {
    let (early, late) = (JobId::new(1_000, [255; 10]), JobId::new(1_001, [0; 10]));
    assert!(early < late);
    assert_eq!(late.created_at_ms(), 1_001);
}

#[test]
fn names_are_checked_where_they_are_read() {
    for good in ["a", "ab-1", "a23456789012345678901234567890"] {
        assert_eq!(good.parse::<OwnerName>().unwrap().as_str(), good);
    }
    for bad in [
        "",
        "1a",
        "-a",
        "a-",
        "A",
        "a_b",
        "a b",
        "é",
        "a234567890123456789012345678901",
    ] {
        assert_eq!(
            bad.parse::<OwnerName>().unwrap_err().code,
            Code::AccountBadName,
            "{bad}"
        );
        assert!(serde_json::from_str::<OwnerName>(&format!("\"{bad}\"")).is_err());
    }
}

#[test]
fn a_secret_key_is_not_printed() {
    let key = SecretKey::from_seed([7; 32]);
    assert_eq!(format!("{key:?}"), "SecretKey(..)");
    assert_eq!(SecretKey::from_seed(key.to_seed()).public(), key.public());
}

#[test]
fn a_record_says_its_version_and_a_newer_one_is_refused_with_both_numbers() {
    const NOTE: Format = Format::new("note", 3);
    let record = [&NOTE.prefix()[..], b"body"].concat();
    assert_eq!(NOTE.split(&record), Ok((3, &b"body"[..])));
    assert_eq!(NOTE.split(&[MARK, 1]), Ok((1, &b""[..])));
    for unmarked in [&b""[..], b"{}", &[MARK]] {
        assert_eq!(NOTE.split(unmarked), Ok((0, unmarked)));
    }
    let refused = NOTE.split(&[MARK, 4]).unwrap_err();
    assert_eq!((refused.found, refused.newest), (4, 3));
    assert!(
        refused
            .to_string()
            .contains("note has version 4, this program reads up to 3")
    );
    assert!(std::str::from_utf8(&[MARK]).is_err(), "no text begins with it");
}

#[test]
fn parts_hash_like_the_whole() {
    let whole: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    let mut stream = DigestStream::default();
    assert_eq!(stream.digest(), Digest::of(b""));
    for part in whole.chunks(7_001) {
        stream.update(part);
    }
    assert_eq!(stream.digest(), Digest::of(&whole));
}

#[test]
fn what_a_ticket_lets_a_run_stream_is_what_it_adds_to_its_functions_limits() {
    let limits = Limits {
        egress_bytes: 5,
        ..Limits::DEFAULT
    };
    assert_eq!(limits.streamable(&limits.with_stream(7)), Some(7));
    assert_eq!(limits.streamable(&limits), Some(0));
    let other = Limits {
        timeout_ms: 1,
        ..limits.with_stream(7)
    };
    assert_eq!(limits.streamable(&other), None, "another limit differs");
    assert_eq!(limits.streamable(&Limits::DEFAULT), None, "less than the function has");
}

#[test]
fn any_text_is_refused_or_means_one_thing() {
    let valid = [
        "ada",
        "10.0.0.0/8",
        "fe80::1/10",
        "*.Example.org:443",
        "10.1.2.3:5432",
        "acc_0123456789abcdef0123456789abcdef01234567",
    ];
    piecework_fuzz::attack(&valid.map(|text| text.as_bytes().to_vec()), |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return false;
        };
        fn same<T: std::str::FromStr + ToString + PartialEq>(text: &str) -> bool {
            let Ok(value) = text.parse::<T>() else { return false };
            assert!(
                value.to_string().parse::<T>().is_ok_and(|again| again == value),
                "{text}"
            );
            true
        }
        let list = EgressList::parse(&[text.to_owned()]).map(|list| {
            let bytes = borsh::to_vec(&list).unwrap();
            assert_eq!(borsh::from_slice::<EgressList>(&bytes).unwrap(), list, "{text}");
        });
        [
            same::<OwnerName>(text),
            same::<FunctionName>(text),
            same::<Network>(text),
            same::<AccountId>(text),
            list.is_ok(),
        ]
        .contains(&true)
    });
}
