//! Checks proofs in a browser: `core/proof` as WebAssembly.
//!
//! `portal/build.sh` builds it for `wasm32-unknown-unknown` as a module without imports: it reads nothing, calls nobody, and knows no time.
//! [`exports`] are its four functions; what they carry is text in JSON, which [`check`] takes and gives.

pub mod exports;

use piecework_ledger::{Account, Genesis};
use piecework_model::{AccountId, JobId, NetworkId};
use piecework_proof::{Anchor, Invalid, JobProof, Proof, ProvenJob, ValueProof};
use serde::{Deserialize, Serialize};

/// What is to be checked.
#[derive(Debug, Deserialize)]
struct Question<'a> {
    /// As a server shows it, or as a file has it: in hex.
    proof: &'a str,
    /// The text of the genesis file.
    genesis: String,
    /// The id of the job, or the name or id of the account, that it has to be of.
    of: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Verdict {
    verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(flatten)]
    found: Option<Found>,
}

/// What a good proof says.
#[derive(Debug, Serialize)]
struct Found {
    network: NetworkId,
    /// Changes of the peers since the genesis, each approved by those before it.
    changes: usize,
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<Proven>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<Balance>,
}

#[derive(Debug, Serialize)]
struct Proven {
    id: JobId,
    #[serde(flatten)]
    proven: ProvenJob,
    /// Of each entry with a payment: price and commission in ucr, as text.
    paid: Vec<Option<[String; 2]>>,
}

#[derive(Debug, Serialize)]
struct Balance {
    id: AccountId,
    height: u64,
    state: Account,
}

/// Answers one question, both in JSON.
pub fn check(question: &str) -> String {
    let verdict = match answer(question) {
        Ok(found) => Verdict {
            verified: true,
            code: None,
            message: None,
            found: Some(found),
        },
        Err(invalid) => Verdict {
            verified: false,
            code: Some(invalid.code().to_string()),
            message: Some(invalid.to_string()),
            found: None,
        },
    };
    serde_json::to_string(&verdict).expect("a verdict has no maps with odd keys")
}

fn answer(question: &str) -> Result<Found, Invalid> {
    let question: Question<'_> =
        serde_json::from_str(question).map_err(|_| Invalid::Malformed("the question cannot be read"))?;
    let genesis: Genesis =
        serde_json::from_str(&question.genesis).map_err(|error| Invalid::Genesis(error.to_string()))?;
    genesis
        .state()
        .map_err(|rejection| Invalid::Genesis(rejection.message))?;
    let bytes = hex::decode(question.proof.trim()).map_err(|_| Invalid::Malformed("it is not in hex"))?;
    let anchor = Anchor::genesis(&genesis);
    let (network, length) = (genesis.network_id(), bytes.len());
    let found = |changes, job, account| Found {
        network,
        changes,
        bytes: length,
        job,
        account,
    };
    match Proof::from_bytes(&bytes)? {
        Proof::Job(proof) => Ok(found(
            proof.changes.len(),
            Some(job(&proof, anchor, question.of)?),
            None,
        )),
        Proof::Value(proof) => Ok(found(
            proof.changes.len(),
            None,
            Some(account(&proof, anchor, question.of)?),
        )),
    }
}

fn job(proof: &JobProof, anchor: Anchor, of: Option<&str>) -> Result<Proven, Invalid> {
    let own = proof.job().ok_or(Invalid::Malformed("the proof is not for a job"))?;
    let id = match of {
        Some(text) => text.parse().map_err(|_| other(own, text))?,
        None => own,
    };
    let proven = proof.verify(anchor, id)?;
    let paid = |amounts: (u64, u64)| [amounts.0.to_string(), amounts.1.to_string()];
    let paid = proven.entries.iter().map(|one| one.entry.paid().map(paid)).collect();
    Ok(Proven { id, proven, paid })
}

fn account(proof: &ValueProof, anchor: Anchor, of: Option<&str>) -> Result<Balance, Invalid> {
    proof.verify(anchor)?;
    let (id, state) = proof
        .account()
        .ok_or(Invalid::Malformed("the proof is not for an account"))?;
    match of {
        Some(text) if state.name.to_string() != text && id.to_string() != text => Err(other(&state.name, text)),
        Some(_) | None => Ok(Balance {
            id,
            height: proof.block.height,
            state: state.clone(),
        }),
    }
}

fn other(found: impl ToString, expected: &str) -> Invalid {
    Invalid::Other {
        found: found.to_string(),
        expected: expected.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use piecework_model::Code;

    use super::*;

    fn code(question: &str) -> String {
        let verdict: serde_json::Value = serde_json::from_str(&check(question)).expect("JSON");
        assert_eq!(verdict["verified"], false);
        verdict["code"].as_str().expect("a code").to_owned()
    }

    #[test]
    fn what_is_no_proof_or_no_genesis_is_refused_with_a_code() {
        assert_eq!(code(""), Code::ProofMalformed.as_str());
        assert_eq!(
            code(r#"{"proof": "00", "genesis": "{}"}"#),
            Code::ProofBadGenesis.as_str()
        );
        assert_eq!(code(r#"{"proof": 1, "genesis": "{}"}"#), Code::ProofMalformed.as_str());
    }

    #[test]
    fn a_question_and_its_answer_go_through_the_exports() {
        exports::clear();
        for byte in br#"{"proof": "00", "genesis": "[]"}"# {
            exports::give(u32::from(*byte));
        }
        let length = exports::check();
        let bytes: Vec<u8> = (0..length).map(|at| exports::take(at) as u8).collect();
        let text = String::from_utf8(bytes).expect("text");
        assert!(text.contains(Code::ProofBadGenesis.as_str()), "{text}");
        assert_eq!(exports::take(length), 0, "beyond the end there is nothing");
    }
}
