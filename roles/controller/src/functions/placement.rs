//! Where a function's jobs may run: the developer's rules, translated for the scheduler.

use std::collections::BTreeSet;

use piecework_api::functions::{PlacementBody, PriceCap};
use piecework_ledger::{Key, Value};
use piecework_model::{AccountId, Code, EgressList};
use piecework_scheduler::{Pin, Pinned, Placement, PriceCaps, Trust};

use crate::{
    Answer, accounts,
    failure::{Refusal, chain, rejected},
    functions::Functions,
};

/// The developer's own machines, in a list of providers.
const OWN: &str = "own";
/// The community's policy, and what the code itself asks for.
const DEFAULT: &str = "default";
/// Providers of any trust class.
const ANY: &str = "any";
const WORD_LENGTH_MAX: usize = 64;
/// As many as a provider may have.
const LABELS_MAX: usize = 32;
/// More is not a choice of machines any more; a label says it shorter.
const PINNED_MAX: usize = 100;

/// `before` with the parts that are given. Refuses with `placement.bad_region`, `.bad_label`, `.bad_trust`, `.bad_pin`,
/// `.bad_policy` or `.unknown_provider`.
pub(crate) async fn changed(
    functions: &Functions,
    before: Placement,
    body: Option<PlacementBody>,
) -> Answer<Placement> {
    let Some(body) = body else { return Ok(before) };
    let mut placement = before;
    if let Some(region) = body.region {
        placement.region = region_of(region)?;
    }
    if let Some(labels) = body.labels {
        placement.labels = labels_of(labels)?;
    }
    if let Some(trust) = body.trust {
        (placement.trust, placement.any_trust) = trust_of(&trust)?;
    }
    if let Some(cap) = body.price_cap {
        placement.price_caps = caps(cap);
    }
    if let Some(pin) = body.pin {
        placement.pin = pin_of(functions, pin).await?;
    }
    if let Some(policy) = body.policy.filter(|policy| !policy.is_empty()) {
        placement.policy = match policy.as_str() {
            DEFAULT => None,
            named => {
                let parsed = named.parse();
                Some(parsed.map_err(|bad: piecework_model::Rejection| rejected(bad.field("placement.policy")))?)
            }
        };
    }
    Ok(placement)
}

/// Refuses with `placement.bad_rerun`.
pub(crate) fn rerun_percent(asked: Option<u32>, before: u32) -> Answer<u32> {
    match asked {
        Some(percent) if percent > 100 => Err(Refusal::new(
            Code::PlacementBadRerun,
            "the share must be between 1 and 100 percent, or 0 for none",
        )
        .field("rerun_percent")
        .into()),
        asked => Ok(asked.unwrap_or(before)),
    }
}

fn refused<T>(code: Code, field: &str, message: &str) -> Answer<T> {
    Err(Refusal::new(code, message).field(format!("placement.{field}")).into())
}

fn region_of(region: String) -> Answer<Option<String>> {
    if region.chars().count() > WORD_LENGTH_MAX {
        return refused(
            Code::PlacementBadRegion,
            "region",
            "the region has more than 64 characters",
        );
    }
    Ok(Some(region).filter(|region| !region.is_empty()))
}

fn labels_of(labels: Vec<String>) -> Answer<BTreeSet<String>> {
    let is_word = |label: &String| !label.is_empty() && label.chars().count() <= WORD_LENGTH_MAX;
    if labels.len() > LABELS_MAX || !labels.iter().all(is_word) {
        let message = "there may be at most 32 labels of 1 to 64 characters";
        return refused(Code::PlacementBadLabel, "labels", message);
    }
    Ok(labels.into_iter().collect())
}

/// The least trust, and whether any will do. Nothing asks for the default.
fn trust_of(text: &str) -> Answer<(Trust, bool)> {
    if text.is_empty() || text == DEFAULT {
        return Ok((Trust::New, false));
    }
    if text == ANY {
        return Ok((Trust::New, true));
    }
    let parsed: Result<Trust, piecework_model::Rejection> = text.parse();
    let trust = parsed.map_err(|bad| rejected(bad.field("placement.trust")))?;
    Ok((trust, trust == Trust::New))
}

fn caps(cap: PriceCap) -> PriceCaps {
    PriceCaps {
        start_ucr: cap.start_ucr,
        cpu_ucr_per_s: cap.cpu_ucr_per_s,
        memory_ucr_per_gib_s: cap.memory_ucr_per_gib_s,
        egress_ucr_per_mib: cap.egress_ucr_per_mib,
    }
}

async fn pin_of(functions: &Functions, names: Vec<String>) -> Answer<Option<Pin>> {
    if names.len() > PINNED_MAX {
        return refused(
            Code::PlacementBadPin,
            "pin",
            "a function can be pinned to at most 100 providers",
        );
    }
    let mut pin = Pin::default();
    for name in &names {
        if name == OWN {
            pin.own = true;
        } else {
            pin.providers.insert(provider_named(functions, name).await?);
        }
    }
    Ok(Some(pin).filter(|_| !names.is_empty()))
}

/// One that has an offer on the ledger; it need not be here now.
async fn provider_named(functions: &Functions, name: &str) -> Answer<AccountId> {
    let account = match accounts::find(&functions.accounts, name).await {
        Ok(account) => Some(account),
        Err(refusal) if refusal.code == Code::AccountNotFound => None,
        Err(refusal) => return Err(refusal),
    };
    if let Some(account) = account
        && functions
            .ground
            .chain
            .get(&Key::Offer(account))
            .await
            .map_err(chain)?
            .is_some()
    {
        return Ok(account);
    }
    let message = format!("there is no provider named `{name}`");
    Err(Refusal::new(Code::PlacementUnknownProvider, message)
        .field("placement.pin")
        .hint("list providers with `piecework offers`; `own` means your own")
        .into())
}

/// The providers that a pin lets in, for the developer's functions.
pub(crate) async fn pinned(functions: &Functions, developer: AccountId, pin: &Pin) -> Answer<Pinned> {
    let owners = match pin.own {
        true => [developer, owner_of(functions, developer).await?].into(),
        false => BTreeSet::new(),
    };
    Ok(Pinned {
        providers: pin.providers.clone(),
        owners,
    })
}

/// Whether jobs go only to providers of which enough was checked: where they bring secrets, or reach the network in the
/// developer's name, and the developer has not said whom to trust, by a class or by naming computers.
pub(crate) fn is_confidential(placement: &Placement, has_secrets: bool, egress: &EgressList) -> bool {
    let is_said = placement.any_trust || placement.trust > Trust::New || placement.pin.is_some();
    !is_said && (has_secrets || !egress.is_empty())
}

/// Whose computers get the developer's confidential jobs, however little of them was checked: its own, and the operator's,
/// whose controller sees the secrets anyway.
pub(crate) async fn confided_to(functions: &Functions, developer: AccountId) -> Answer<BTreeSet<AccountId>> {
    let owner = owner_of(functions, developer).await?;
    Ok([developer, owner, functions.ground.operator].into())
}

/// Whose an account is: another's where the ledger says so, else its own.
pub(crate) async fn owner_of(functions: &Functions, account: AccountId) -> Answer<AccountId> {
    match functions
        .ground
        .chain
        .get(&Key::Account(account))
        .await
        .map_err(chain)?
    {
        Some(Value::Account(found)) => Ok(found.owner.unwrap_or(account)),
        Some(_) | None => Ok(account),
    }
}

/// As its owner sees it.
pub(crate) async fn view(functions: &Functions, placement: &Placement) -> PlacementBody {
    let mut pin = Vec::new();
    if let Some(pinned) = &placement.pin {
        pin.extend(pinned.own.then(|| OWN.to_owned()));
        for provider in &pinned.providers {
            pin.push(functions.ground.account_name(*provider).await);
        }
    }
    let caps = placement.price_caps;
    PlacementBody {
        region: placement.region.clone(),
        labels: (!placement.labels.is_empty()).then(|| placement.labels.iter().cloned().collect()),
        trust: match placement.any_trust {
            true => Some(ANY.to_owned()),
            false => (placement.trust != Trust::New).then(|| placement.trust.to_string()),
        },
        price_cap: (caps != PriceCaps::default()).then_some(PriceCap {
            start_ucr: caps.start_ucr,
            cpu_ucr_per_s: caps.cpu_ucr_per_s,
            memory_ucr_per_gib_s: caps.memory_ucr_per_gib_s,
            egress_ucr_per_mib: caps.egress_ucr_per_mib,
        }),
        pin: (!pin.is_empty()).then_some(pin),
        policy: placement.policy.map(|policy| policy.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use piecework_model::AnyCode;

    use super::*;

    fn code<T: std::fmt::Debug>(refused: Answer<T>) -> AnyCode {
        refused.expect_err("refused").code
    }

    #[test]
    fn code_with_secrets_or_a_network_is_confidential_unless_its_developer_says_whom_to_trust() {
        let list = EgressList::parse(&["api.example.com:443".to_owned()]).expect("a list");
        let none = EgressList::default();
        let said = |trust: &str| {
            let (trust, any_trust) = trust_of(trust).expect("a class");
            Placement {
                trust,
                any_trust,
                ..Placement::default()
            }
        };
        assert!(!is_confidential(&said(""), false, &none));
        for (has_secrets, egress) in [(true, &none), (false, &list)] {
            assert!(is_confidential(&said(""), has_secrets, egress));
            assert!(is_confidential(&said("default"), has_secrets, egress));
            for class in ["any", "new", "known", "trusted"] {
                assert!(!is_confidential(&said(class), has_secrets, egress), "{class}");
            }
            let named = Placement {
                pin: Some(Pin::default()),
                ..Placement::default()
            };
            assert!(!is_confidential(&named, has_secrets, egress));
        }
        assert_eq!(code(trust_of("blind")), Code::PlacementBadTrust);
        assert_eq!((said("known").trust, said("any").trust), (Trust::Known, Trust::New));
    }

    #[test]
    fn words_have_bounds() {
        assert_eq!(region_of(String::new()), Ok(None), "anywhere");
        assert_eq!(region_of("eu".into()), Ok(Some("eu".into())));
        assert_eq!(code(region_of("x".repeat(65))), Code::PlacementBadRegion);
        assert_eq!(
            labels_of(vec!["gpu".into(), "gpu".into()]),
            Ok(["gpu".to_owned()].into())
        );
        assert_eq!(code(labels_of(vec![String::new()])), Code::PlacementBadLabel);
        assert_eq!(code(labels_of(vec!["x".into(); 33])), Code::PlacementBadLabel);
    }
}
