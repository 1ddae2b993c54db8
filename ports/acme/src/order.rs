//! One order: an account, a proof for each name, a certificate.

use std::{
    error::Error as _,
    time::{Duration, SystemTime},
};

use instant_acme::{
    Account, AuthorizationHandle, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::{
    Proof, Served, Wanted,
    http::Client,
    kept::{self, KeptAccount},
};

/// The longest wait for the authority in each of the two places where it works by itself.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .timeout(Duration::from_secs(90));
/// Of the authority's sentences in a log line and an alert.
const SAID_CHARS_MAX: usize = 500;

/// Why there is no certificate this time.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    #[error("the authority refused: {0}")]
    Refused(String),
    /// The authority has given one, and counts it.
    #[error("the certificate that came cannot be used: {0}")]
    Unusable(String),
    #[error("{0}")]
    Failed(String),
}

impl OrderError {
    /// Whether the authority has judged, and counts it.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Unusable(_) => true,
            Self::Failed(_) => false,
        }
    }
}

impl From<Error> for OrderError {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(problem) => Self::Refused(sentence(&problem)),
            Error::Other(error) => {
                let mut at: &dyn std::error::Error = &*error;
                while let Some(source) = at.source() {
                    at = source;
                }
                Self::Failed(bounded(&at.to_string()))
            }
            error => Self::Failed(bounded(&error.to_string())),
        }
    }
}

impl From<rcgen::Error> for OrderError {
    fn from(error: rcgen::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

fn bounded(text: &str) -> String {
    let printable = text.chars().map(|char| if char.is_control() { ' ' } else { char });
    printable
        .take(SAID_CHARS_MAX)
        .collect::<String>()
        .trim_end_matches('.')
        .to_owned()
}

fn sentence(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    let kind = kind.rsplit(':').next().unwrap_or_default();
    let mut said = vec![problem.detail.clone().unwrap_or_default()];
    said.extend(problem.subproblems.iter().filter_map(|sub| sub.detail.clone()));
    said.retain(|sentence| !sentence.is_empty());
    bounded(&format!("{} ({kind})", said.join("; ")))
}

/// Obtains a certificate and puts it in force. Returns until when it is good.
pub async fn order(wanted: &Wanted, served: &dyn Served) -> Result<SystemTime, OrderError> {
    let ordered = prove_and_fetch(wanted, served).await;
    for domain in &wanted.domains {
        served.prove(domain, None);
    }
    let (key, chain) = ordered?;
    let until = kept::put(wanted, (&key, &chain), |file| served.try_out(file)).map_err(OrderError::Unusable)?;
    served.changed();
    match kept::rest(wanted, SystemTime::now()) {
        Some(_) => Ok(until),
        // The next order would follow at once, and so on.
        None => Err(OrderError::Unusable(
            "it is due for renewal already; is this machine's clock right?".to_owned(),
        )),
    }
}

/// The key and the chain.
async fn prove_and_fetch(wanted: &Wanted, served: &dyn Served) -> Result<(String, String), OrderError> {
    let names: Vec<Identifier> = wanted.domains.iter().cloned().map(Identifier::Dns).collect();
    let mut order = open(wanted, &NewOrder::new(&names)).await?;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        answer(authorization?, served).await?;
    }
    let status = order.poll_ready(&PATIENCE).await;
    if !matches!(status, Ok(OrderStatus::Ready)) {
        return Err(why(&mut order).await.unwrap_or_else(|| match status {
            Ok(status) => OrderError::Refused(format!("the order is {status:?}").to_lowercase()),
            Err(error) => error.into(),
        }));
    }
    let key = KeyPair::generate()?;
    let mut request = CertificateParams::new(wanted.domains.clone())?;
    request.distinguished_name = DistinguishedName::new();
    order.finalize_csr(request.serialize_request(&key)?.der()).await?;
    let chain = order.poll_certificate(&PATIENCE).await?;
    Ok((key.serialize_pem(), chain))
}

/// An order by the account that is kept, or, if the authority does not know that any more, by another one.
async fn open(wanted: &Wanted, new: &NewOrder<'_>) -> Result<Order, OrderError> {
    let account = account(wanted).await;
    let ordered = match account {
        Ok(account) => account.new_order(new).await,
        Err(OpenError::Acme(error)) => Err(error),
        Err(OpenError::Other(error)) => return Err(error),
    };
    match ordered {
        Err(Error::Api(problem)) if is_unknown_account(&problem) => {
            kept::forget_account(wanted).map_err(|error| OrderError::Failed(error.to_string()))?;
            let account = self::account(wanted).await.map_err(OpenError::into_order)?;
            Ok(account.new_order(new).await?)
        }
        ordered => Ok(ordered?),
    }
}

fn is_unknown_account(problem: &Problem) -> bool {
    problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:accountDoesNotExist")
}

enum OpenError {
    Acme(Error),
    Other(OrderError),
}

impl OpenError {
    fn into_order(self) -> OrderError {
        match self {
            Self::Acme(error) => error.into(),
            Self::Other(error) => error,
        }
    }
}

impl From<Error> for OpenError {
    fn from(error: Error) -> Self {
        Self::Acme(error)
    }
}

async fn account(wanted: &Wanted) -> Result<Account, OpenError> {
    let failed = |error: String| OpenError::Other(OrderError::Failed(error));
    let client = Client::new().map_err(|error| {
        let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        failed(format!("no client can be made: {cause}"))
    })?;
    let builder = Account::builder_with_http(Box::new(client));
    let contacts: Vec<String> = wanted.contacts.iter().map(|mail| format!("mailto:{mail}")).collect();
    let contact: Vec<&str> = contacts.iter().map(String::as_str).collect();
    let Some(mut kept) = kept::account(wanted) else {
        let new = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let (account, credentials) = builder.create(&new, wanted.directory.clone(), None).await?;
        let kept = KeptAccount {
            directory: wanted.directory.clone(),
            contacts: wanted.contacts.clone(),
            credentials,
        };
        kept::put_account(wanted, &kept).map_err(failed)?;
        return Ok(account);
    };
    let text = serde_json::to_value(&kept.credentials).map_err(Error::Json)?;
    let credentials = serde_json::from_value(text).map_err(Error::Json)?;
    let account = builder.from_credentials(credentials).await?;
    if kept.contacts != wanted.contacts {
        account.update_contacts(&contact).await?;
        kept.contacts.clone_from(&wanted.contacts);
        kept::put_account(wanted, &kept).map_err(failed)?;
    }
    Ok(account)
}

/// Shows the proof of one name, and asks the authority to look.
async fn answer(mut authorization: AuthorizationHandle<'_>, served: &dyn Served) -> Result<(), OrderError> {
    match authorization.status {
        AuthorizationStatus::Valid => return Ok(()),
        AuthorizationStatus::Pending => {}
        status => {
            return Err(OrderError::Refused(
                format!("the proof of a name is {status:?}").to_lowercase(),
            ));
        }
    }
    let domain = match authorization.identifier().identifier {
        Identifier::Dns(domain) => domain.clone(),
        other => return Err(OrderError::Failed(format!("the authority asks for {other:?}"))),
    };
    let no_way = || OrderError::Failed(format!("the authority does not prove {domain} by tls-alpn-01"));
    let mut challenge = authorization.challenge(ChallengeType::TlsAlpn01).ok_or_else(no_way)?;
    let proof = proof(&domain, challenge.key_authorization().digest().as_ref())?;
    served.prove(&domain, Some(proof));
    challenge.set_ready().await?;
    Ok(())
}

/// Signed by itself, with the digest that only the account's holder knows (RFC 8737, section 3).
fn proof(domain: &str, digest: &[u8]) -> Result<Proof, OrderError> {
    let key = KeyPair::generate()?;
    let mut shown = CertificateParams::new([domain.to_owned()])?;
    shown.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = shown.self_signed(&key)?.der().clone();
    Ok(Proof {
        certificate,
        key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
    })
}

/// What the authority said of the name that it refused.
async fn why(order: &mut Order) -> Option<OrderError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.ok()?;
        let state = authorization.refresh().await.ok()?;
        let problem = state.challenges.iter().find_map(|challenge| challenge.error.as_ref());
        if let Some(problem) = problem {
            let said = sentence(problem);
            return Some(OrderError::Refused(format!("{}: {said}", state.identifier())));
        }
    }
    None
}
