//! Bytes from strangers as bodies of requests and answers: each is refused with a code and within the room that its length
//! allows, or read as one value that is written and read again the same.

use piecework_api::{
    ErrorBody, Refusal,
    accounts::{
        CreateAccount, CreateChallenge, CreateInvite, CreateSession, CreateToken, OwnProvider, PayLoan, SetLoan,
    },
    audit::AccountLimits,
    execute::{Execute, HttpAnswer},
    functions::{CreateFunction, Rollback, SetBudget, SetTraffic, UpdateFunction},
    held::Decide,
    ledger::{AddPayer, CreateTransfer, SubmitTransaction},
    parse_body,
    results::SetResults,
};
use piecework_fuzz::{PeakAlloc, attack, within};
use piecework_model::Code;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

#[global_allocator]
static PEAK: PeakAlloc = PeakAlloc;

/// A list of empty texts takes eight times its bytes, twice that while it grows, and the same again as it is written.
const READ_TIMES: usize = 64;

fn read<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> bool {
    let room = READ_TIMES * bytes.len() + (16 << 10);
    match within(&PEAK, room, || parse_body::<T>(bytes).map_err(Box::new)) {
        Ok(body) => {
            let written = serde_json::to_vec(&body).expect("JSON");
            let again: T = parse_body(&written).expect("what is written can be read");
            let rewritten = serde_json::to_vec(&again).expect("JSON");
            if rewritten != written {
                let [first, second] = [&written, &rewritten].map(|text| serde_json::from_slice(text).expect("JSON"));
                assert!(
                    is_same(&first, &second),
                    "one body has two meanings: {first} and {second}"
                );
            }
            true
        }
        Err(refusal) => {
            assert_eq!(
                (refusal.code.known(), refusal.status()),
                (Some(Code::BodyMalformed), 422)
            );
            false
        }
    }
}

/// Numbers with a fraction or an exponent are read to within some units in the last place, as serde_json reads them without
/// `float_roundtrip`. What passes between callers and functions is kept as text, and such numbers are in nothing else.
fn is_same(first: &Value, second: &Value) -> bool {
    match (first, second) {
        (Value::Number(one), Value::Number(other)) if one.is_f64() && other.is_f64() => {
            let (one, other) = (one.as_f64().expect("a float"), other.as_f64().expect("a float"));
            (one - other).abs() <= one.abs() * 8.0 * f64::EPSILON
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(name, value)| other.get(name).is_some_and(|same| is_same(value, same)))
        }
        (one, other) => one == other,
    }
}

fn attack_body<T: Serialize + DeserializeOwned>(valid: &serde_json::Value) {
    attack(&[valid.to_string().into_bytes()], read::<T>);
}

#[test]
fn any_body_of_a_call_is_read_once_or_refused() {
    attack_body::<Execute>(&json!({"input": {"a": [1, 2.50, "é", null, {"b": true}]}, "parameters": {"p": 1}}));
}

#[test]
fn any_body_that_deploys_is_read_once_or_refused() {
    let function = json!({"name": "f", "language": "python", "code": "x = 1\n", "timeout_ms": 5, "env": {"A": "1"},
        "secrets": {"S": "2"}, "egress": ["example.com:443"], "memory_limit_mb": 64, "strict": true});
    attack_body::<CreateFunction>(&function);
    attack_body::<UpdateFunction>(&json!({"code": "x = 2\n", "env": {}, "public": true, "concurrency": 3}));
}

#[test]
fn any_small_body_is_read_once_or_refused() {
    let key = "01".repeat(32);
    attack_body::<CreateAccount>(
        &json!({"name": "ada", "password": "correct horse", "public_key": key, "invite": "inv_x"}),
    );
    attack_body::<CreateSession>(&json!({"name": "ada", "password": "correct horse"}));
    attack_body::<CreateToken>(&json!({"scopes": ["invoke"], "label": "ci", "expires_in_s": 60}));
    attack_body::<CreateTransfer>(&json!({"to": "ada", "amount_ucr": 5, "memo": "for lunch"}));
    attack_body::<SubmitTransaction>(&json!({"transaction": "00ff"}));
}

/// Whether any of the other bodies takes these bytes: they have a field or two each.
#[test]
fn any_body_of_a_few_fields_is_read_once_or_refused() {
    let valid = [
        json!({}),
        json!({"name": "ada"}),
        json!({"version": 3}),
        json!({"weights": {"1": 90, "2": 10}}),
        json!({"requests_per_s": 5, "burst": 10, "weight": 2}),
        json!({"key": "01".repeat(32)}),
    ];
    let valid = valid.map(|body| body.to_string().into_bytes());
    attack(&valid, |bytes| {
        let each = [
            read::<CreateChallenge>,
            read::<CreateInvite>,
            read::<OwnProvider>,
            read::<PayLoan>,
            read::<SetLoan>,
            read::<AccountLimits>,
            read::<Rollback>,
            read::<SetBudget>,
            read::<SetTraffic>,
            read::<Decide>,
            read::<AddPayer>,
            read::<SetResults>,
        ];
        each.iter().filter(|read| read(bytes)).count() > 0
    });
}

#[test]
fn any_answer_of_a_function_and_any_refusal_of_a_server_is_read_once_or_not_at_all() {
    let answer = json!({"status": 200, "headers": {"a": "1", "set-cookie": ["b=1", "c=2"]}, "header_list": [["x", "y"]], "body": {"k": [1]}});
    attack_body::<HttpAnswer>(&answer);
    let error = ErrorBody {
        error: Refusal::new(Code::FunctionRaised, "no")
            .hint("wait")
            .details(json!({"type": "E"})),
    };
    attack_body::<ErrorBody>(&json!(error));
}

#[test]
fn a_body_of_a_million_levels_is_refused_or_passed_on_as_text() {
    let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    for levels in [100, 127, 128, 1_000, 1_000_000] {
        let body = format!(r#"{{"input": {}}}"#, deep(levels));
        assert!(read::<Execute>(body.as_bytes()), "its text is the function's affair");
        assert!(!read::<Execute>(body.replace("]}", "}").as_bytes()));
        let body = format!(r#"{{"status": 200, "body": {}}}"#, deep(levels));
        assert_eq!(read::<HttpAnswer>(body.as_bytes()), levels < 127, "{levels}");
    }
}
