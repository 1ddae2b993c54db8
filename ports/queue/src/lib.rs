//! Carries a controller's orders to one provider, and its deliveries back.
//!
//! Each provider has a queue of its own that only it and the controller can use. Inside one process an order is a call of
//! [`ProviderLink`]; between machines it travels over a [`link`] that the provider opens. Whatever carries it, a provider trusts nothing but what it verifies in the
//! [`Order`], and a controller nothing but what it verifies in the [`Delivery`].
//!
//! Tickets are sealed in batches: a provider may begin a job whose ticket is not yet under a seal as long as what it has
//! at stake stays within the lease's exposure; past that it answers [`Refusal`] `ticket.unsealed` until a seal comes.

pub mod link;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use piecework_model::{
    AccountId, Code, Contract, Digest, EgressList, EgressPolicy, FunctionId, Language, LeaseId, Limits, Prices,
    PublicKey, Receipt, Rejection, Salt, Seal, Ticket,
};
use piecework_sandbox::{BackendName, Finished, Inlet, LoadError, Outlet, Probe};
use tokio_util::sync::CancellationToken;

/// One version of a function as a provider needs it. Never logged: `env` holds secrets.
#[derive(Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Work {
    /// The developer's account, where the controller is in this process; over a link the lease stands for it.
    #[borsh(skip)]
    pub owner: Option<AccountId>,
    pub function: FunctionId,
    pub version: u32,
    pub name: String,
    pub language: Language,
    pub code: Digest,
    pub handler: Option<String>,
    pub env: BTreeMap<String, String>,
    pub limits: Limits,
    /// What it may reach on the network; empty: nothing.
    pub egress: EgressList,
    pub backend: BackendName,
}

impl Work {
    /// What its handler is called by, where that is not with an event and a context.
    pub fn contract(&self) -> Option<Contract> {
        self.handler.as_deref().and_then(Contract::of)
    }
}

/// What a controller asks of a provider: one job.
#[derive(Clone)]
pub struct Order {
    pub ticket: Ticket,
    /// The key that will seal the ticket's batch; must be one that the provider knows as the lease's payer.
    pub payer: PublicKey,
    pub exposure_ucr: u64,
    /// The payer's seal over this one ticket, where it may not wait for a batch.
    pub seal: Option<Seal>,
    pub work: Arc<Work>,
    /// The event as JSON text; its digest is in the ticket.
    pub event: Bytes,
    pub parameters: Bytes,
    /// What the ticket's input digest is salted with, and the receipt's output digest is to be; none for a provider whose
    /// program does not know of salts.
    pub salt: Option<Salt>,
    /// Ends the run early; what it has used until then is billed.
    pub cancel: CancellationToken,
    /// Whether another sandbox is tried where this one falls short: then the run is given up as if it had not begun, unless
    /// something of its answer went out.
    pub is_tentative: bool,
    /// The rest of the request, where it is not all in the event. Not under the ticket's input digest.
    pub body: Option<Inlet>,
    /// Where the answer of a function that streams goes; the receipt's output digest covers all chunks in order.
    pub outlet: Outlet,
}

/// What a provider sends back: what came of the job and its claim to be paid.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub receipt: Receipt,
    /// The provider's own mark on the receipt, by which it knows it again when asked to seal it, even after a restart.
    pub mark: [u8; 32],
    pub finished: Finished,
    pub cold: bool,
    /// Time to fetch and unpack the bundle and to start the instance: never billed.
    pub pull_us: u64,
    /// Parts of the streamed answer, or of the request's body, were lost with a session of the link: the outlet has not had all
    /// that the receipt covers, and will not. The reader of the answer has to be told that it broke off. Whether a receipt that
    /// cannot be checked is paid is the controller's decision (today it is not: decision 021).
    pub is_cut: bool,
}

/// A provider's refusal to begin: the job did not run and nothing is owed. Also of a run that was given up because its sandbox
/// fell short: see [`Order::is_tentative`] and [`gave_up`].
pub type Refusal = Rejection;

/// Whether the provider began, and gave the run up for another sandbox. A tentative order alone is refused in these words.
pub fn gave_up(refusal: &Refusal) -> bool {
    refusal
        .code
        .is_one_of(&[Code::SandboxFellShort, Code::FunctionCrashed, Code::FunctionOutOfMemory])
}

/// A receipt that waits for the provider's seal.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Unsealed {
    pub receipt: Receipt,
    pub mark: [u8; 32],
}

/// What a provider says of itself; its offer on the ledger says the same under its signature.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Profile {
    pub account: AccountId,
    pub name: String,
    pub prices: Prices,
    pub cores: u32,
    pub memory_bytes: u64,
    pub slots: u32,
    pub region: String,
    pub labels: Vec<String>,
    pub probes: Vec<Probe>,
    /// What functions with an allow list may reach from here; none: this provider runs no such function.
    pub egress: Option<EgressPolicy>,
    /// Whose jobs it runs for nothing: those of the person it belongs to.
    pub free_for: Option<AccountId>,
}

impl Profile {
    /// What it asks of this developer.
    pub fn prices_for(&self, developer: AccountId) -> Prices {
        match self.free_for == Some(developer) {
            true => Prices::default(),
            false => self.prices,
        }
    }
}

/// How busy a provider is at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Load {
    pub running: u32,
    pub instances: u32,
    pub instance_bytes: u64,
    pub draining: bool,
    /// Its owner's work comes first at this moment: it takes no new jobs, and what it runs may stand still.
    pub paused: bool,
}

/// One provider, seen from a controller.
#[async_trait]
pub trait ProviderLink: Send + Sync {
    fn profile(&self) -> &Profile;

    fn load(&self) -> Load;

    /// Whether an instance of this version is idle there.
    fn is_warm(&self, function: FunctionId, version: u32) -> bool;

    /// Loads the code in a sandbox of `work.backend` and finds its handler: what a deploy does before it says yes.
    async fn check(&self, work: Arc<Work>) -> Result<(), LoadError>;

    /// Runs one job. Dropping the future kills the instance that runs it.
    async fn run(&self, order: Order) -> Result<Delivery, Refusal>;

    /// Hands over the payer's seal on tickets that ran without one, in the order of their leaves.
    async fn accept_seal(&self, seal: Seal, sequences: Vec<u64>) -> Result<(), Refusal>;

    /// Asks for the provider's seal over receipts of one lane, in this order.
    async fn seal_receipts(&self, lane: (LeaseId, AccountId), receipts: Vec<Unsealed>) -> Result<Seal, Refusal>;

    /// Forgets whatever is warm of a version (it was deleted or replaced). Running jobs end by themselves.
    fn forget(&self, function: FunctionId, version: u32);

    /// Versions of which an idle instance waits there.
    fn warm(&self) -> Vec<(FunctionId, u32)> {
        Vec::new()
    }

    /// Whether its program streams. One that does not takes tickets without an allowance for streams alone.
    fn takes_streams(&self) -> bool {
        true
    }

    /// Whether its program salts digests. One that does not takes orders without a salt alone.
    fn takes_salts(&self) -> bool {
        true
    }

    /// Whether its program gives up what is tentative. One that does not takes all orders for final.
    fn takes_tentative(&self) -> bool {
        true
    }

    /// Whether a job can be sent to it at this moment.
    fn is_linked(&self) -> bool {
        true
    }

    /// Milliseconds since it was last heard of; 0 inside a process.
    fn silent_ms(&self) -> u64 {
        0
    }

    /// Resolves when its load has changed in a way that the controller should hear of at once.
    async fn changed(&self) {
        std::future::pending().await
    }

    /// How far the controller's clock is ahead of this machine's, as told over a link. Deadlines are the controller's.
    fn set_clock_offset(&self, _ahead_ms: i64) {}
}

/// What a ticket's `input` covers, before it is salted: the event and the parameters.
pub fn input_digest(event: &[u8], parameters: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("piecework 2026 input");
    hasher
        .update(&(event.len() as u64).to_le_bytes())
        .update(event)
        .update(parameters);
    Digest(*hasher.finalize().as_bytes())
}
