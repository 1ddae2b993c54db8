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
use piecework_chain::{Chain, SubmitError};
use piecework_chain_simplex::{Options, start};
use piecework_ledger::SignedTransaction;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{mpsc, oneshot},
};

use super::signed;

/// The hidden command that is such a process.
pub const COMMAND: &str = "ledger-peer";
const AGAIN: [&str; 2] = ["mempool.full", "transaction.future_nonce"];
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
}

#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
enum Answer {
    /// The head, or the block of the last transaction.
    Height(u64),
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
    let answers = write_answers();
    let (asks, mut asked) = mpsc::channel(WAITING_MAX);
    std::thread::spawn(move || read_asks(&asks));
    loop {
        tokio::select! {
            next = asked.recv() => {
                let Some((number, ask)) = next else { break };
                let (chain, answers) = (chain.clone(), answers.clone());
                tokio::spawn(async move {
                    let _ = answers.send((number, answer(&*chain, ask).await));
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

async fn answer(chain: &dyn Chain, ask: Ask) -> Answer {
    let done = match ask {
        Ask::Height => return Answer::Height(chain.status().height),
        Ask::One(transaction) => finish(chain, *transaction).await,
        Ask::Many(transactions) => finish_all(chain, transactions).await,
    };
    done.map_or_else(|error| Answer::Refused(error.to_string()), Answer::Height)
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
        SubmitError::Rejected(rejection) if AGAIN.contains(&&*rejection.code) => {
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
        self.ask(Ask::Height).await
    }

    /// The height at which it became final.
    pub async fn one(&self, transaction: SignedTransaction) -> Result<u64> {
        self.ask(Ask::One(Box::new(transaction))).await
    }

    /// The height at which the last became final.
    pub async fn many(&self, transactions: Vec<SignedTransaction>) -> Result<u64> {
        self.ask(Ask::Many(transactions)).await
    }

    async fn ask(&self, ask: Ask) -> Result<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let bytes = frame(&(number, ask))?;
        let (sender, answer) = oneshot::channel();
        lock(&self.waiting).insert(number, sender);
        self.input.lock().await.write_all(&bytes).await?;
        match answer.await.context("the peer has gone")? {
            Answer::Height(height) => Ok(height),
            Answer::Refused(reason) => bail!("{reason}"),
        }
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
