//! The typed client: one method per endpoint; refusals, lost connections and foreign answers told apart.

mod functions;
mod operating;

use std::time::Duration;

use http::{Method, StatusCode};
use piecework_model::{JobId, PublicKey};
use reqwest::Url;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};

use crate::{
    accounts::{
        AcceptInvite, AccountQuery, AccountView, ChallengeView, CreateAccount, CreateChallenge, CreateInvite,
        CreateSession, CreateToken, InviteCreated, OwnProvider, OwnerView, PayLoan, SetLoan, TokenCreated, TokenView,
    },
    audit::{AccountLimits, AuditQuery, AuditView, UsageView},
    errors::{ErrorBody, Refusal},
    execute::{Accepted, Execute, Executed, RunCode},
    held::{Decide, Decision, HeldView},
    jobs::{JobEvent, JobLogs, JobLogsQuery, JobQuery, JobView, JobsQuery},
    ledger::{
        AddPayer, BlockDetail, BlockView, BlocksQuery, CreateTransfer, HistoryQuery, JobProofQuery, JobProofView,
        LeaseTerms, LeaseView, LedgerStatus, OfferView, PeerView, ProviderView, StatementLine, StatementQuery,
        SubmitTransaction, TransactionAccepted, TransactionView, TransferView, ValueQuery,
    },
    metrics::{Health, MetricsQuery, MetricsView},
    page::{List, PageQuery},
    routes::{self, fill},
};

/// Longer than the longest function may run, with room for its queue.
const TIMEOUT: Duration = Duration::from_secs(960);
/// A controller that is there answers a connect at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A page of blocks ends with the one that fills it: 4 MiB, and one block of up to 8.
const RAW_BYTES_MAX: usize = 16 << 20;

/// Why a request got no response of the expected type.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server refused the request.
    #[error("{refusal}")]
    Refused {
        status: u16,
        refusal: Box<Refusal>,
        retry_after: Option<Duration>,
    },
    /// No connection, or it broke: whether the request was carried out is unknown.
    #[error("cannot connect to {url}: {reason}")]
    Connection { url: String, reason: String },
    /// Something answered, but not a Piecework server.
    #[error("{url} answered {status}, but not as a Piecework server: {reason}")]
    Foreign { url: String, status: u16, reason: String },
    /// The URL cannot be used.
    #[error("`{url}` is not an http or https URL")]
    BadUrl { url: String },
    /// The client could not be made: no certificates, no entropy.
    #[error("cannot create an HTTP client: {0}")]
    Setup(String),
}

/// How a function answered.
#[derive(Debug)]
pub enum Execution {
    Whole(Executed),
    /// A body that breaks off is a job that failed: [`Client::job`] says how.
    Stream {
        job: JobId,
        response: reqwest::Response,
    },
}

/// One controller, seen with one token. Cheap to clone; connections are kept.
///
/// No retries: a caller that wants one sends an idempotency key.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("base", &self.base.as_str())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Does not connect yet.
    pub fn new(base: &str, token: Option<String>) -> Result<Self, ClientError> {
        let bad = || ClientError::BadUrl { url: base.to_owned() };
        let mut base = Url::parse(base).map_err(|_| bad())?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(bad());
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let http = http_client(base.scheme() == "https")?;
        Ok(Self { http, base, token })
    }

    pub fn base(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    // Runs.

    /// Waits for the output. With an idempotency key a repetition gets the first answer again.
    pub async fn execute(&self, id: &str, body: &Execute, key: Option<&str>) -> Result<Executed, ClientError> {
        let request = self.execute_request(id, body, key);
        self.answer(request).await
    }

    /// Runs code once that is not deployed.
    pub async fn run_code(&self, body: &RunCode) -> Result<Executed, ClientError> {
        self.json(Method::POST, routes::RUN_CODE, Some(body)).await
    }

    /// What the function streams comes as it is streamed: the answer's body is to be read in chunks.
    pub async fn execute_as_it_comes(&self, id: &str, body: &Execute) -> Result<Execution, ClientError> {
        let request = self
            .execute_request(id, body, None)
            .header("prefer", routes::RESPOND_STREAM);
        let response = self.send(request).await?;
        let status = response.status().as_u16();
        if response.headers().get("preference-applied").is_some() {
            let job = response.headers().get(routes::JOB_ID_HEADER);
            let job = job.and_then(|job| job.to_str().ok()?.parse().ok());
            let job = job.ok_or_else(|| self.foreign(status, "a stream without a job".to_owned()))?;
            return Ok(Execution::Stream { job, response });
        }
        let body = response.bytes().await.map_err(|error| self.lost(&error))?;
        let done = serde_json::from_slice(&body).map_err(|error| self.foreign(status, error.to_string()))?;
        Ok(Execution::Whole(done))
    }

    /// Returns once the job is durable.
    pub async fn execute_async(&self, id: &str, body: &Execute, key: Option<&str>) -> Result<Accepted, ClientError> {
        let request = self
            .execute_request(id, body, key)
            .header("prefer", routes::RESPOND_ASYNC);
        self.answer(request).await
    }

    fn execute_request(&self, id: &str, body: &Execute, key: Option<&str>) -> reqwest::RequestBuilder {
        let request = self.request(Method::POST, &fill(routes::EXECUTE, &[id])).json(body);
        match key {
            Some(key) => request.header(routes::IDEMPOTENCY_KEY, key),
            None => request,
        }
    }

    pub async fn jobs(&self, query: &JobsQuery) -> Result<List<JobView>, ClientError> {
        self.get(routes::JOBS, query).await
    }

    /// With `wait`, the server waits for the job to finish, at most this long.
    pub async fn job(&self, id: JobId, wait: Option<Duration>) -> Result<JobView, ClientError> {
        let wait_ms = wait.map(|wait| u32::try_from(wait.as_millis()).unwrap_or(u32::MAX));
        self.get(&fill(routes::JOB, &[&id.to_string()]), &JobQuery { wait_ms })
            .await
    }

    pub async fn job_history(&self, id: JobId) -> Result<List<JobEvent>, ClientError> {
        self.get(&fill(routes::JOB_HISTORY, &[&id.to_string()]), &()).await
    }

    /// `blocks`: the heights that speak of it, where the peer may have forgotten them; else empty.
    pub async fn job_proof(&self, id: JobId, blocks: &[u64]) -> Result<JobProofView, ClientError> {
        let heights: Vec<String> = blocks.iter().map(u64::to_string).collect();
        let blocks = (!heights.is_empty()).then(|| heights.join(","));
        self.get(&fill(routes::JOB_PROOF, &[&id.to_string()]), &JobProofQuery { blocks })
            .await
    }

    pub async fn job_logs(&self, id: JobId, query: &JobLogsQuery) -> Result<JobLogs, ClientError> {
        self.get(&fill(routes::JOB_LOGS, &[&id.to_string()]), query).await
    }

    pub async fn cancel_job(&self, id: JobId) -> Result<(), ClientError> {
        self.nothing(Method::DELETE, &fill(routes::JOB, &[&id.to_string()]))
            .await
    }

    // Metrics.

    pub async fn function_metrics(&self, id: &str, query: &MetricsQuery) -> Result<MetricsView, ClientError> {
        self.get(&fill(routes::METRICS_FUNCTION, &[id]), query).await
    }

    pub async fn system_metrics(&self, query: &MetricsQuery) -> Result<MetricsView, ClientError> {
        self.get(routes::METRICS_SYSTEM, query).await
    }

    pub async fn health(&self) -> Result<Health, ClientError> {
        self.get(routes::HEALTHZ, &()).await
    }

    // Accounts.

    pub async fn create_account(&self, body: &CreateAccount) -> Result<AccountView, ClientError> {
        self.json(Method::POST, routes::ACCOUNTS, Some(body)).await
    }

    pub async fn account(&self, name: &str) -> Result<AccountView, ClientError> {
        self.get(&fill(routes::ACCOUNT, &[name]), &()).await
    }

    /// With the proof of its balances; from a controller or from a peer.
    pub async fn account_proof(&self, name: &str) -> Result<AccountView, ClientError> {
        self.get(&fill(routes::LEDGER_ACCOUNT, &[name]), &AccountQuery { proof: true })
            .await
    }

    pub async fn own_account(&self) -> Result<AccountView, ClientError> {
        self.get(routes::ACCOUNT_OWN, &()).await
    }

    /// Signs that the computer with this key belongs to the account, if the controller keeps the account's key.
    pub async fn own_provider(&self, public_key: PublicKey) -> Result<OwnerView, ClientError> {
        let body = OwnProvider { public_key };
        self.json(Method::POST, routes::ACCOUNT_PROVIDERS, Some(&body)).await
    }

    /// Where the controller keeps the key.
    pub async fn rotate_key(&self) -> Result<AccountView, ClientError> {
        self.json(Method::POST, routes::ACCOUNT_ROTATE_KEY, None::<&()>).await
    }

    pub async fn account_limits(&self, name: &str) -> Result<AccountLimits, ClientError> {
        self.get(&fill(routes::ACCOUNT_LIMITS, &[name]), &()).await
    }

    pub async fn account_usage(&self, name: &str) -> Result<UsageView, ClientError> {
        self.get(&fill(routes::ACCOUNT_USAGE, &[name]), &()).await
    }

    pub async fn set_account_limits(&self, name: &str, body: &AccountLimits) -> Result<AccountLimits, ClientError> {
        self.json(Method::PUT, &fill(routes::ACCOUNT_LIMITS, &[name]), Some(body))
            .await
    }

    pub async fn set_loan(&self, name: &str, body: &SetLoan) -> Result<AccountView, ClientError> {
        self.json(Method::PUT, &fill(routes::ACCOUNT_LOAN, &[name]), Some(body))
            .await
    }

    /// With an idempotency key a repetition pays nothing more.
    pub async fn pay_loan(&self, name: &str, body: &PayLoan, key: Option<&str>) -> Result<AccountView, ClientError> {
        self.post_once(&fill(routes::ACCOUNT_LOAN_PAYMENTS, &[name]), body, key)
            .await
    }

    pub async fn audit(&self, query: &AuditQuery) -> Result<List<AuditView>, ClientError> {
        self.get(routes::AUDIT, query).await
    }

    pub async fn held(&self, query: &PageQuery) -> Result<List<HeldView>, ClientError> {
        self.get(routes::HELD, query).await
    }

    pub async fn decide_held(&self, job: JobId, decision: Decision) -> Result<(), ClientError> {
        let path = fill(routes::HELD_JOB, &[&job.to_string()]);
        let request = self.request(Method::POST, &path).json(&Decide { decision });
        self.send(request).await.map(drop)
    }

    pub async fn challenge(&self, name: &str) -> Result<ChallengeView, ClientError> {
        let body = CreateChallenge { name: name.to_owned() };
        self.json(Method::POST, routes::SESSION_CHALLENGES, Some(&body)).await
    }

    pub async fn create_session(&self, body: &CreateSession) -> Result<TokenCreated, ClientError> {
        self.json(Method::POST, routes::SESSIONS, Some(body)).await
    }

    pub async fn create_token(&self, body: &CreateToken) -> Result<TokenCreated, ClientError> {
        self.json(Method::POST, routes::TOKENS, Some(body)).await
    }

    pub async fn tokens(&self, query: &PageQuery) -> Result<List<TokenView>, ClientError> {
        self.get(routes::TOKENS, query).await
    }

    pub async fn delete_token(&self, id: &str) -> Result<(), ClientError> {
        self.nothing(Method::DELETE, &fill(routes::TOKEN, &[id])).await
    }

    /// With an account that is registered already.
    pub async fn accept_invite(&self, code: &str) -> Result<AccountView, ClientError> {
        let body = AcceptInvite {
            invite: code.to_owned(),
        };
        self.json(Method::POST, routes::INVITES_ACCEPT, Some(&body)).await
    }

    /// With an idempotency key a repetition gets the same invite.
    pub async fn create_invite(&self, body: &CreateInvite, key: Option<&str>) -> Result<InviteCreated, ClientError> {
        self.post_once(routes::INVITES, body, key).await
    }

    // The ledger.

    pub async fn transfer(&self, body: &CreateTransfer, key: Option<&str>) -> Result<TransferView, ClientError> {
        self.post_once(routes::TRANSFERS, body, key).await
    }

    pub async fn statement(&self, query: &StatementQuery) -> Result<List<StatementLine>, ClientError> {
        self.get(routes::STATEMENT, query).await
    }

    pub async fn offers(&self, query: &PageQuery) -> Result<List<OfferView>, ClientError> {
        self.get(routes::OFFERS, query).await
    }

    pub async fn providers(&self, query: &PageQuery) -> Result<List<ProviderView>, ClientError> {
        self.get(routes::PROVIDERS, query).await
    }

    pub async fn leases(&self, query: &PageQuery) -> Result<List<LeaseView>, ClientError> {
        self.get(routes::LEASES, query).await
    }

    pub async fn ledger_lease(&self, id: &str) -> Result<LeaseView, ClientError> {
        self.get(&fill(routes::LEDGER_LEASE, &[id]), &()).await
    }

    pub async fn ledger_leases(&self, query: &HistoryQuery) -> Result<List<LeaseView>, ClientError> {
        self.get(routes::LEDGER_LEASES, query).await
    }

    pub async fn lease_terms(&self) -> Result<LeaseTerms, ClientError> {
        self.get(routes::LEASE_TERMS, &()).await
    }

    pub async fn close_lease(&self, id: &str) -> Result<LeaseView, ClientError> {
        self.json(Method::POST, &fill(routes::LEASE_CLOSE, &[id]), None::<&()>)
            .await
    }

    pub async fn add_payer(&self, id: &str, body: &AddPayer) -> Result<LeaseView, ClientError> {
        self.json(Method::POST, &fill(routes::LEASE_PAYERS, &[id]), Some(body))
            .await
    }

    pub async fn remove_payer(&self, id: &str, key: &str) -> Result<LeaseView, ClientError> {
        self.json(Method::DELETE, &fill(routes::LEASE_PAYER, &[id, key]), None::<&()>)
            .await
    }

    pub async fn ledger_status(&self) -> Result<LedgerStatus, ClientError> {
        self.get(routes::LEDGER_STATUS, &()).await
    }

    pub async fn blocks(&self, query: &PageQuery) -> Result<List<BlockView>, ClientError> {
        self.get(routes::LEDGER_BLOCKS, query).await
    }

    pub async fn block(&self, height: u64) -> Result<BlockDetail, ClientError> {
        self.get(&fill(routes::LEDGER_BLOCK, &[&height.to_string()]), &()).await
    }

    /// Returns once the transaction is final.
    pub async fn submit(&self, body: &SubmitTransaction) -> Result<TransactionView, ClientError> {
        self.json(Method::POST, routes::LEDGER_TRANSACTIONS, Some(body)).await
    }

    pub async fn transaction(&self, id: &str) -> Result<TransactionView, ClientError> {
        self.get(&fill(routes::LEDGER_TRANSACTION, &[id]), &()).await
    }

    pub async fn ledger_peers(&self) -> Result<List<PeerView>, ClientError> {
        self.get(routes::LEDGER_PEERS, &()).await
    }

    /// As they are: which rules there are is the ledger's affair.
    pub async fn ledger_params(&self) -> Result<Value, ClientError> {
        self.get(routes::LEDGER_PARAMS, &()).await
    }

    /// The file that the network began with, as this peer shows it.
    pub async fn ledger_genesis(&self) -> Result<Value, ClientError> {
        self.get(routes::LEDGER_GENESIS, &()).await
    }

    /// Blocks in the encoding of the wire.
    pub async fn raw_blocks(&self, query: &BlocksQuery) -> Result<Vec<u8>, ClientError> {
        self.raw(self.query_request(routes::LEDGER_RAW_BLOCKS, query)).await
    }

    /// One block in the encoding of the wire, by height or digest.
    pub async fn raw_block(&self, which: &str) -> Result<Vec<u8>, ClientError> {
        self.raw(self.query_request(&fill(routes::LEDGER_BLOCK_RAW, &[which]), &()))
            .await
    }

    /// A value of the state in the encoding of the wire; `key` is in hex.
    pub async fn raw_value(&self, key: &str, query: &ValueQuery) -> Result<Vec<u8>, ClientError> {
        self.raw(self.query_request(&fill(routes::LEDGER_RAW_VALUE, &[key]), query))
            .await
    }

    /// Values of the state with their proofs, in the encoding of the wire; `keys` is a list of keys in hex.
    pub async fn raw_proofs(&self, keys: &str) -> Result<Vec<u8>, ClientError> {
        self.raw(self.query_request(&fill(routes::LEDGER_RAW_PROOFS, &[keys]), &()))
            .await
    }

    /// The file that the network began with.
    pub async fn genesis(&self) -> Result<Box<RawValue>, ClientError> {
        self.get(routes::LEDGER_GENESIS, &()).await
    }

    /// Queues a signed transaction, in the ledger's encoding in hex; returns without waiting for a block.
    pub async fn submit_transaction(&self, transaction: String) -> Result<TransactionAccepted, ClientError> {
        let request = self
            .request(Method::POST, routes::LEDGER_TRANSACTIONS)
            .header("prefer", routes::RESPOND_ASYNC);
        self.answer(request.json(&SubmitTransaction { transaction })).await
    }

    /// The stream of `GET /events`: the answer's body is to be read in chunks.
    pub async fn events(&self) -> Result<reqwest::Response, ClientError> {
        let request = self
            .request(Method::GET, routes::EVENTS)
            .header("accept", "text/event-stream");
        self.send(request).await
    }

    // Underneath.

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let joined = format!("{}{path}", url.path().trim_end_matches('/'));
        url.set_path(&joined);
        url
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.request_to(method, self.url(path))
    }

    fn query_request<Q: Serialize>(&self, path: &str, query: &Q) -> reqwest::RequestBuilder {
        self.request_to(Method::GET, self.query_url(path, query))
    }

    fn query_url<Q: Serialize>(&self, path: &str, query: &Q) -> Url {
        let mut url = self.url(path);
        let query = serde_json::to_value(query).expect("queries are flat structs of plain values");
        for (name, value) in query.as_object().into_iter().flatten() {
            match value {
                Value::Null => {}
                Value::String(text) => drop(url.query_pairs_mut().append_pair(name, text)),
                other => drop(url.query_pairs_mut().append_pair(name, &other.to_string())),
            }
        }
        url
    }

    fn request_to(&self, method: Method, url: Url) -> reqwest::RequestBuilder {
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn post_once<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        key: Option<&str>,
    ) -> Result<T, ClientError> {
        let mut request = self.request(Method::POST, path).json(body);
        if let Some(key) = key {
            request = request.header(routes::IDEMPOTENCY_KEY, key);
        }
        self.answer(request).await
    }

    async fn get<Q: Serialize, T: DeserializeOwned>(&self, path: &str, query: &Q) -> Result<T, ClientError> {
        self.answer(self.query_request(path, query)).await
    }

    async fn json<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, ClientError> {
        let request = self.request(method, path);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        self.answer(request).await
    }

    async fn nothing(&self, method: Method, path: &str) -> Result<(), ClientError> {
        self.send(self.request(method, path)).await.map(drop)
    }

    async fn answer<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T, ClientError> {
        let response = self.send(request).await?;
        let status = response.status().as_u16();
        let body = response.bytes().await.map_err(|error| self.lost(&error))?;
        serde_json::from_slice(&body).map_err(|error| self.foreign(status, error.to_string()))
    }

    /// The bytes of an answer, as many as one may have.
    async fn raw(&self, request: reqwest::RequestBuilder) -> Result<Vec<u8>, ClientError> {
        let mut response = self.send(request).await?;
        let status = response.status().as_u16();
        let mut bytes = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|error| self.lost(&error))? {
            bytes.extend_from_slice(&part);
            if bytes.len() > RAW_BYTES_MAX {
                return Err(self.foreign(status, "the answer is too large".to_owned()));
            }
        }
        Ok(bytes)
    }

    /// The answer if it is 2xx, else its refusal.
    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, ClientError> {
        let response = request.send().await.map_err(|error| self.lost(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let retry_after = retry_after(&response);
        let body = response.bytes().await.map_err(|error| self.lost(&error))?;
        Err(self.refused(status, retry_after, &body))
    }

    fn refused(&self, status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> ClientError {
        match serde_json::from_slice::<ErrorBody>(body) {
            Ok(body) => ClientError::Refused {
                status: status.as_u16(),
                refusal: Box::new(body.error),
                retry_after,
            },
            Err(error) => self.foreign(status.as_u16(), error.to_string()),
        }
    }

    fn foreign(&self, status: u16, reason: String) -> ClientError {
        ClientError::Foreign {
            url: self.base().to_owned(),
            status,
            reason,
        }
    }

    fn lost(&self, error: &reqwest::Error) -> ClientError {
        ClientError::Connection {
            url: self.base().to_owned(),
            reason: innermost(error),
        }
    }
}

/// The deepest cause says what happened; those above only that a request failed.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let seconds = response.headers().get("retry-after")?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Certificates are only read where they are needed: a machine without any can still talk to itself.
fn http_client(tls: bool) -> Result<reqwest::Client, ClientError> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("piecework/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none());
    if tls {
        // An error only says that this process has a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
    } else {
        builder = builder.tls_backend_preconfigured(no_trust()?);
    }
    builder.build().map_err(|error| ClientError::Setup(innermost(&error)))
}

fn no_trust() -> Result<rustls::ClientConfig, ClientError> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::Setup(error.to_string()))?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Ok(config)
}
