//! Which peer to ask, and which one next.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use borsh::BorshDeserialize;
use piecework_api::{
    Client, ClientError, Refusal,
    ledger::{BlocksQuery, ValueQuery},
};
use piecework_ledger::Value;
use piecework_model::{Code, NetworkId, Rejection};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};

use piecework_chain::{ChainFailure, FinalBlock, Proven, SubmitError, wire};

/// One peer is given this long for an answer that it need not wait for.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Questions at one time: a peer serves each on a connection of its own, and bounds those of one caller.
const QUESTIONS_MAX: usize = 48;
/// Between rounds in which no peer has answered.
const ROUND_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

pub(super) struct Peers {
    all: Vec<Peer>,
    /// The one that answered last.
    current: AtomicUsize,
    patience: Duration,
    questions: Semaphore,
}

/// One peer's API.
#[derive(Clone)]
pub(super) struct Peer {
    client: Client,
    network: NetworkId,
}

/// Why one peer did not answer a request.
#[derive(Debug)]
pub(super) enum Trouble {
    /// No, and another would say the same.
    Refused(Box<Refusal>),
    /// It is of another network.
    Foreign(String),
    /// Another may answer.
    Other(String),
    /// It has too much to do: after a moment, or another at once.
    Busy(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => write!(f, "{refusal}"),
            Self::Foreign(url) => write!(f, "{url} belongs to another network"),
            Self::Other(reason) | Self::Busy(reason) => f.write_str(reason),
        }
    }
}

impl Trouble {
    pub(super) fn into_failure(self) -> ChainFailure {
        match self {
            Self::Foreign(url) => ChainFailure::OtherNetwork { url },
            other => ChainFailure::Unreachable {
                detail: other.to_string(),
            },
        }
    }

    pub(super) fn into_submit_error(self) -> SubmitError {
        match self {
            Self::Refused(refusal) => SubmitError::Rejected(Rejection {
                code: refusal.code,
                message: refusal.message,
                hint: refusal.hint,
                field: refusal.field,
            }),
            other => other.into_failure().into(),
        }
    }
}

/// Codes by which a peer says that it cannot answer now, or at all, where another might.
fn trouble_of(refusal: Box<Refusal>) -> Trouble {
    match refusal.code.known() {
        Some(Code::ServerBusy | Code::RateLimited) => Trouble::Busy(refusal.to_string()),
        Some(
            Code::ServerFailed
            | Code::ServerDiskFull
            | Code::LedgerBehind
            | Code::LedgerIndexing
            | Code::LedgerUnavailable
            | Code::BodyTooSlow
            | Code::PathNotFound
            | Code::MethodNotAllowed,
        ) => Trouble::Other(refusal.to_string()),
        Some(_) | None => Trouble::Refused(refusal),
    }
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused { refusal, .. } => trouble_of(refusal),
            other => Self::Other(other.to_string()),
        }
    }
}

impl Peers {
    pub(super) fn new(urls: &[String], network: NetworkId, patience: Duration) -> Result<Self, ChainFailure> {
        let open = |url: &String| {
            let client = Client::new(url, None).map_err(|error| ChainFailure::BadUrl {
                url: url.clone(),
                detail: error.to_string(),
            })?;
            Ok(Peer { client, network })
        };
        let all: Vec<Peer> = urls.iter().map(open).collect::<Result<_, ChainFailure>>()?;
        if all.is_empty() {
            return Err(ChainFailure::BadUrl {
                url: String::new(),
                detail: "at least one peer is needed".to_owned(),
            });
        }
        Ok(Self {
            all,
            current: AtomicUsize::new(0),
            patience,
            questions: Semaphore::new(QUESTIONS_MAX),
        })
    }

    pub(super) fn current(&self) -> (usize, &Peer) {
        let at = self.current.load(Ordering::Relaxed) % self.all.len();
        (at, &self.all[at])
    }

    /// Whether there is another to turn to.
    pub(super) fn turn_from(&self, at: usize) -> bool {
        let next = (at + 1) % self.all.len();
        // Somebody else may have turned already.
        let turned = self
            .current
            .compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
        turned.is_ok() && next != at
    }

    /// Asks the peer that answered last, then the others, in rounds until the patience ends. Must be safe to repeat.
    pub(super) async fn ask<T, F>(&self, question: impl Fn(Peer) -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Trouble>>,
    {
        let _place = self.questions.acquire().await.expect("never closed");
        let (deadline, mut pause) = (Instant::now() + self.patience, ROUND_PAUSE.0);
        loop {
            let mut worst = Trouble::Other("nobody was asked".to_owned());
            let mut all_foreign = true;
            for _ in 0..self.all.len() {
                let (at, peer) = self.current();
                let answer = timeout(ANSWER_WITHIN, question(peer.clone())).await;
                let trouble = match answer {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(Trouble::Refused(refusal))) => return Err(Trouble::Refused(refusal)),
                    Ok(Err(trouble)) => trouble,
                    Err(_) => Trouble::Other(format!("{} does not answer", peer.client.base())),
                };
                tracing::debug!(peer = peer.client.base(), %trouble, "a peer did not answer");
                self.turn_from(at);
                all_foreign &= matches!(trouble, Trouble::Foreign(_));
                worst = trouble;
            }
            if all_foreign || Instant::now() + pause >= deadline {
                return Err(worst);
            }
            sleep(pause).await;
            pause = (pause * 2).min(ROUND_PAUSE.1);
        }
    }
}

impl Peer {
    pub(super) fn url(&self) -> &str {
        self.client.base()
    }

    fn decode<T: BorshDeserialize>(&self, bytes: &[u8]) -> Result<T, Trouble> {
        borsh::from_slice(bytes).map_err(|_| Trouble::Other(format!("{} answers in an unknown format", self.url())))
    }

    fn check_network(&self, network: NetworkId) -> Result<(), Trouble> {
        if network == self.network {
            Ok(())
        } else {
            Err(Trouble::Foreign(self.url().to_owned()))
        }
    }

    pub(super) async fn page(&self, query: &BlocksQuery) -> Result<wire::Page, Trouble> {
        let page: wire::Page = self.decode(&self.client.raw_blocks(query).await?)?;
        self.check_network(page.head.network)?;
        Ok(page)
    }

    pub(super) async fn block(&self, which: &str) -> Result<Option<Arc<FinalBlock>>, Trouble> {
        match self.client.raw_block(which).await {
            Ok(bytes) => {
                let block: wire::Block = self.decode(&bytes)?;
                let opened = block.open().map_err(|tampered| Trouble::Other(tampered.to_string()))?;
                Ok(Some(Arc::new(opened)))
            }
            Err(ClientError::Refused { refusal, .. }) if refusal.code == Code::BlockNotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn value(&self, key: &str, query: &ValueQuery) -> Result<Option<Value>, Trouble> {
        let answer: wire::StateValue = self.decode(&self.client.raw_value(key, query).await?)?;
        self.check_network(answer.network)?;
        Ok(answer.value)
    }

    pub(super) async fn prove(&self, keys: &str) -> Result<Proven, Trouble> {
        let answer: wire::ProvenValues = self.decode(&self.client.raw_proofs(keys).await?)?;
        self.check_network(answer.network)?;
        Ok(Proven {
            height: answer.height,
            values: answer.values,
        })
    }

    pub(super) async fn submit(&self, encoded: String) -> Result<Option<u64>, Trouble> {
        let accepted = self.client.submit_transaction(encoded).await?;
        self.check_network(accepted.network)?;
        Ok(accepted.height)
    }

    pub(super) async fn transaction(&self, id: &str) -> Result<Option<(u64, u32)>, Trouble> {
        match self.client.transaction(id).await {
            Ok(view) => Ok(Some((view.height, view.index))),
            Err(ClientError::Refused { refusal, .. }) if refusal.code == Code::TransactionNotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
