//! A peer as a process of its own: this binary runs itself, and takes transactions over its standard input.
//!
//! ```text
//! parent -- (number, Ask) --> child -- (number, Answer), as it comes --> parent
//! ```
//! Frames are borsh values behind their length. The end of the input ends the peer.

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use borsh::{BorshDeserialize, BorshSerialize};
use piecework_chain::{Chain, PeerChanges, SubmitError, account_proof, job_proof};
use piecework_chain_node::{Options, start};
use piecework_ledger::SignedTransaction;
use piecework_model::{AccountId, Code, JobId};
use piecework_proof::Proof;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{mpsc, oneshot},
};

use super::signed;

/// The hidden command that is such a process.
pub const COMMAND: &str = "ledger-peer";
const AGAIN: [Code; 2] = [Code::MempoolFull, Code::TransactionFutureNonce];
const AGAIN_AFTER: Duration = Duration::from_millis(5);
/// Transactions that wait for an answer of the peer's, in its process.
const WAITING_MAX: usize = 4_096;

/// What a process is told.
#[derive(Clone, Debug, clap::Args)]
pub struct PeerArgs {
    directory: PathBuf,
    number: usize,
    /// Of all peers, this one's among them.
    addresses: Vec<SocketAddr>,
}

#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
enum Ask {
    Height,
    /// One transaction, to be final.
    One(Box<SignedTransaction>),
    /// In this order, as fast as the peer takes them; all to be final.
    Many(Vec<SignedTransaction>),
    /// How many there are in a block.
    Transactions {
        height: u64,
    },
    /// Of what the block at `height` did to it.
    JobProof {
        job: JobId,
        height: u64,
    },
    AccountProof(AccountId),
}

#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
enum Answer {
    /// The head, the block of the last transaction, or how many.
    Number(u64),
    Proof(Vec<u8>),
    Refused(String),
}

// The child.

/// Runs a peer until the input ends.
pub fn run(args: PeerArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(serve(args))
}

async fn serve(args: PeerArgs) -> Result<()> {
    let genesis = signed::genesis(&args.addresses)?;
    let listen = args.addresses[args.number];
    let mut options = Options::new(args.directory, genesis, signed::peer_key(args.number), listen);
    options.worker_threads = 1;
    let node = start(options).await?;
    let chain = node.chain();
    let changes = Arc::new(PeerChanges::default());
    let answers = write_answers();
    let (asks, mut asked) = mpsc::channel(WAITING_MAX);
    std::thread::spawn(move || read_asks(&asks));
    loop {
        tokio::select! {
            next = asked.recv() => {
                let Some((number, ask)) = next else { break };
                let (chain, changes, answers) = (chain.clone(), changes.clone(), answers.clone());
                tokio::spawn(async move {
                    let _ = answers.send((number, answer(&*chain, &changes, ask).await));
                });
            }
            failure = node.failed() => return Err(failure.into()),
        }
    }
    Ok(node.shutdown().await?)
}

fn read_asks(asks: &mpsc::Sender<(u32, Ask)>) {
    let mut input = std::io::stdin().lock();
    loop {
        let mut length = [0; 4];
        if input.read_exact(&mut length).is_err() {
            return;
        }
        let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
        let read = input.read_exact(&mut bytes).map_err(anyhow::Error::from);
        let Ok(ask) = read.and_then(|()| Ok(borsh::from_slice(&bytes)?)) else {
            return;
        };
        if asks.blocking_send(ask).is_err() {
            return;
        }
    }
}

fn write_answers() -> mpsc::UnboundedSender<(u32, Answer)> {
    let (answers, mut answered) = mpsc::unbounded_channel::<(u32, Answer)>();
    std::thread::spawn(move || {
        let mut out = std::io::stdout().lock();
        while let Some(answer) = answered.blocking_recv() {
            let written = frame(&answer).and_then(|bytes| {
                out.write_all(&bytes)?;
                Ok(out.flush()?)
            });
            if written.is_err() {
                return;
            }
        }
    });
    answers
}

async fn answer(chain: &dyn Chain, changes: &PeerChanges, ask: Ask) -> Answer {
    let answered = match ask {
        Ask::Height => Ok(Answer::Number(chain.status().height)),
        Ask::One(transaction) => finish(chain, *transaction).await.map(Answer::Number),
        Ask::Many(transactions) => finish_all(chain, transactions).await.map(Answer::Number),
        Ask::Transactions { height } => transactions(chain, height).await.map(Answer::Number),
        Ask::JobProof { job, height } => job_proof(chain, job, &[height], changes)
            .await
            .map(|proof| proven(proof.map(Proof::Job)))
            .map_err(SubmitError::Failed),
        Ask::AccountProof(account) => account_proof(chain, account, changes)
            .await
            .map(|proof| proven(proof.map(|proof| Proof::Value(Box::new(proof)))))
            .map_err(SubmitError::Failed),
    };
    answered.unwrap_or_else(|error| Answer::Refused(error.to_string()))
}

fn proven(proof: Option<Proof>) -> Answer {
    match proof {
        Some(proof) => Answer::Proof(proof.to_bytes()),
        None => Answer::Refused("there is no proof of that".to_owned()),
    }
}

async fn transactions(chain: &dyn Chain, height: u64) -> Result<u64, SubmitError> {
    let block = chain.block(height).await.map_err(SubmitError::Failed)?;
    Ok(block.map_or(0, |block| block.transactions.len() as u64))
}

async fn finish(chain: &dyn Chain, transaction: SignedTransaction) -> Result<u64, SubmitError> {
    loop {
        match chain.submit_and_wait(transaction.clone()).await {
            Ok(done) => return Ok(done.height),
            Err(error) => again(error).await?,
        }
    }
}

async fn finish_all(chain: &dyn Chain, mut transactions: Vec<SignedTransaction>) -> Result<u64, SubmitError> {
    let last = transactions.pop();
    for transaction in transactions {
        while let Err(error) = chain.submit(transaction.clone()).await {
            again(error).await?;
        }
    }
    match last {
        Some(last) => finish(chain, last).await,
        None => Ok(0),
    }
}

/// Waits where the peer asks for it: its mempool is full, or the sender's transaction before is still being checked.
async fn again(error: SubmitError) -> Result<(), SubmitError> {
    match &error {
        SubmitError::Rejected(rejection) if rejection.code.is_one_of(&AGAIN) => {
            tokio::time::sleep(AGAIN_AFTER).await;
            Ok(())
        }
        SubmitError::Rejected(_) | SubmitError::Failed(_) => Err(error),
    }
}

// The parent.

fn frame(value: &impl BorshSerialize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    value.serialize(&mut bytes)?;
    let length = u32::try_from(bytes.len() - 4)?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

type Waiting = Arc<Mutex<HashMap<u32, oneshot::Sender<Answer>>>>;

/// A peer's process; dropping it kills it.
pub struct Peer {
    child: Child,
    input: tokio::sync::Mutex<ChildStdin>,
    waiting: Waiting,
    next: AtomicU32,
}

impl Peer {
    /// Starts the process; its first answer shows that it runs.
    pub fn start(directory: &Path, number: usize, addresses: &[SocketAddr]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(COMMAND)
            .arg(directory)
            .arg(number.to_string())
            .args(addresses.iter().map(ToString::to_string))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start a peer's process")?;
        let waiting = Waiting::default();
        let output = child.stdout.take().context("the child's output is a pipe")?;
        tokio::spawn(read_answers(output, waiting.clone()));
        Ok(Self {
            input: tokio::sync::Mutex::new(child.stdin.take().context("the child's input is a pipe")?),
            child,
            waiting,
            next: AtomicU32::new(0),
        })
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    pub async fn height(&self) -> Result<u64> {
        self.number(Ask::Height).await
    }

    /// The height at which it became final.
    pub async fn one(&self, transaction: SignedTransaction) -> Result<u64> {
        self.number(Ask::One(Box::new(transaction))).await
    }

    /// The height at which the last became final.
    pub async fn many(&self, transactions: Vec<SignedTransaction>) -> Result<u64> {
        self.number(Ask::Many(transactions)).await
    }

    pub async fn transactions(&self, height: u64) -> Result<u64> {
        self.number(Ask::Transactions { height }).await
    }

    pub async fn job_proof(&self, job: JobId, height: u64) -> Result<Vec<u8>> {
        self.proof(Ask::JobProof { job, height }).await
    }

    pub async fn account_proof(&self, account: AccountId) -> Result<Vec<u8>> {
        self.proof(Ask::AccountProof(account)).await
    }

    async fn number(&self, ask: Ask) -> Result<u64> {
        match self.ask(ask).await? {
            Answer::Number(number) => Ok(number),
            Answer::Refused(reason) => bail!("{reason}"),
            Answer::Proof(_) => bail!("a proof where a number was asked for"),
        }
    }

    async fn proof(&self, ask: Ask) -> Result<Vec<u8>> {
        match self.ask(ask).await? {
            Answer::Proof(bytes) => Ok(bytes),
            Answer::Refused(reason) => bail!("{reason}"),
            Answer::Number(_) => bail!("a number where a proof was asked for"),
        }
    }

    async fn ask(&self, ask: Ask) -> Result<Answer> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let bytes = frame(&(number, ask))?;
        let (sender, answer) = oneshot::channel();
        lock(&self.waiting).insert(number, sender);
        self.input.lock().await.write_all(&bytes).await?;
        answer.await.context("the peer has gone")
    }

    /// Ends its input and waits for a clean end.
    pub async fn stop(mut self) -> Result<()> {
        drop(self.input);
        let status = self.child.wait().await?;
        ensure!(status.success(), "a peer ended with {status}");
        Ok(())
    }
}

async fn read_answers(mut output: ChildStdout, waiting: Waiting) {
    while let Ok(length) = output.read_u32_le().await {
        let mut bytes = vec![0; length as usize];
        if output.read_exact(&mut bytes).await.is_err() {
            break;
        }
        let Ok((number, answer)) = borsh::from_slice::<(u32, Answer)>(&bytes) else {
            break;
        };
        if let Some(waiter) = lock(&waiting).remove(&number) {
            let _ = waiter.send(answer);
        }
    }
    lock(&waiting).clear();
}

fn lock(waiting: &Waiting) -> std::sync::MutexGuard<'_, HashMap<u32, oneshot::Sender<Answer>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
