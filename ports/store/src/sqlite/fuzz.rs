//! Bytes in tables that something else has written to: each record is one record or refused.

use piecework_fuzz::{attack, within};
use piecework_model::Format;

use super::row::{decode_accepted, decode_job, decode_json, encode_accepted, encode_job, encode_json};
use crate::{
    PEAK, Policy,
    samples::{accepted, account, finished, function_id},
};

/// Texts and outputs are kept beside their bytes, and borsh gives each room of up to 1 MiB before it reads it.
fn room(bytes: &[u8]) -> usize {
    16 * bytes.len() + (1 << 20) + (64 << 10)
}

#[test]
fn any_record_of_a_job_is_one_job_or_refused() {
    attack(&[encode_job(&finished(9, function_id(1), account(1)))], |bytes| {
        let Ok(job) = within(&PEAK, room(bytes), || decode_job(bytes)) else {
            return false;
        };
        // Output and logs are left to a row of their own where they are large.
        let again = decode_job(&encode_job(&job)).expect("what is written can be read");
        assert_eq!(
            (again.id, again.error, again.settlement),
            (job.id, job.error, job.settlement)
        );
        true
    });
}

#[test]
fn any_record_of_an_accepted_job_is_one_job_or_refused() {
    attack(&[encode_accepted(&accepted(9, function_id(1), account(1)))], |bytes| {
        let Ok(job) = within(&PEAK, room(bytes), || decode_accepted(bytes)) else {
            return false;
        };
        assert!(
            bytes.ends_with(&encode_accepted(&job)[2..]),
            "one job has two spellings"
        );
        true
    });
}

#[test]
fn any_record_in_json_is_one_record_or_refused() {
    const POLICY: Format = Format::new("policy of a function", 1);
    let valid = [
        r#"{"format":1,"budget_ucr":7,"quarantined":{"1":{"code":"function.crashed","failures":3,"at_ms":5}}}"#,
        r#"{"stopped":true,"traffic":{"weights":{"1":9},"errors_permille_max":5,"calls_min":1,"since_ms":2}}"#,
    ];
    attack(&valid.map(|text| text.as_bytes().to_vec()), |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return false;
        };
        let read = |text: &str| decode_json::<Policy>(POLICY, text, "function");
        let Ok(policy) = within(&PEAK, room(bytes), || read(text)) else {
            return false;
        };
        let again = read(&encode_json(POLICY, &policy)).expect("what is written can be read");
        assert_eq!(again, policy);
        true
    });
}
