//! Transfers with a key: each moves its credits once, whatever happens to the caller, the ledger or this process meanwhile.
//!
//! ```text
//! taken (request) --> signed (transaction) --> final (answer)
//!    `--refused--------`---> forgotten: the key is free again
//! ```
//! What was signed is kept before it is sent. A request that is repeated sends the same bytes, and the ledger executes them once.
//! A caller is told within seconds that the transfer waits; it goes on without the caller.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use piecework_api::{errors::Refusal, ledger::TransferView};
use piecework_chain::Final;
use piecework_ledger::{Action, CoverDebt, SignedTransaction, Transfer};
use piecework_model::{AccountId, Code, Credits, Digest};
use piecework_store::{Idempotency, Put};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;

use super::{Accounts, Sent, audit, on_ledger, own_key, send_kept};
use crate::{
    Answer,
    clock::now_ms,
    codecs,
    failure::{chain, failed, refuse, store, submit},
};

/// Memos by transaction. They are this controller's, not the ledger's.
pub(crate) const MEMOS: &str = "memo";
/// Bookings by transaction: what a transfer was for.
pub(crate) const BOOKED: &str = "booked";

/// By transaction id: space and key of the request that signed it. Two requests that send the same amount to the same account with
/// the same nonce sign identical bytes: without this, one execution would count for both.
const CLAIMS: &str = "transfer_claim";

/// Transfers under way: each holds a task while the ledger does not answer.
const SENDING_MAX: usize = 1_024;
/// Of one account.
const SENDING_OF_ACCOUNT_MAX: usize = 32;

/// How the spaces of transfers with keys begin, one for each account.
const KEYS: &str = "transfer/";
/// How long a key is remembered after its transfer was final.
const KEYS_KEPT_MS: u64 = 7 * 86_400_000;
/// Where nobody could say what became of the transfer.
const UNANSWERED_KEPT_MS: u64 = 60 * 86_400_000;
/// Of one account: more than a day of transfers at the rate that an account may make changes. The oldest go first.
const KEYS_MAX: usize = 100_000;
/// Read and removed at once.
const PAGE: u32 = 1_000;

/// What is to be moved.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) from: AccountId,
    pub(crate) from_name: String,
    pub(crate) to: AccountId,
    pub(crate) amount: Credits,
    pub(crate) purpose: Purpose,
}

/// What it is moved for.
#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    /// With a memo.
    Transfer(Option<String>),
    /// Pays of what the receiver owes out of what the sender lent it.
    Cover,
    /// In or out of the community, or back, by this actor.
    Booking { actor: AccountId, booking: Booking },
}

/// A movement against something outside of the ledger: a bank transfer, an invoice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Booking {
    pub(crate) kind: BookingKind,
    /// Whose credits they become or were.
    pub(crate) account: AccountId,
    pub(crate) amount: Credits,
    /// Of what is outside; of a withdrawal, what its owner wrote.
    pub(crate) reference: String,
    pub(crate) by: AccountId,
    pub(crate) at_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BookingKind {
    Deposit,
    Withdrawal,
    WithdrawalReturned,
}

impl BookingKind {
    /// As in a statement.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Deposit => "deposit",
            Self::Withdrawal => "withdrawal",
            Self::WithdrawalReturned => "withdrawal_returned",
        }
    }

    fn done(self) -> (&'static str, &'static str) {
        match self {
            Self::Deposit => ("deposit", "booked"),
            Self::Withdrawal => ("withdrawal", "requested"),
            Self::WithdrawalReturned => ("withdrawal", "returned"),
        }
    }
}

/// What is remembered of a transfer with a key.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    request: Digest,
    pub(super) answer: Option<TransferView>,
    /// In hex, from before it was sent.
    #[serde(default)]
    signed: Option<String>,
    /// The ledger's height before it was signed: whatever has its nonce is in a later block. `None` in what was written before it
    /// was noted.
    #[serde(default)]
    signed_above: Option<u64>,
    /// When this was written; 0 in what was written before it was noted.
    #[serde(default)]
    at_ms: u64,
    #[serde(default)]
    pub(super) booking: Option<Booking>,
}

/// Where it is remembered.
#[derive(Clone)]
pub(super) struct Keeper {
    pub(super) space: String,
    pub(super) key: String,
    pub(super) request: Digest,
    /// What it is, for the lists of such.
    pub(super) booking: Option<Booking>,
}

/// By account and key, each with what ends when it does.
type All = Arc<Mutex<HashMap<(AccountId, String), watch::Receiver<()>>>>;

/// The transfers under way.
#[derive(Default)]
pub(crate) struct Sending(All);

/// One of them; leaves when it is dropped.
struct Underway {
    name: (AccountId, String),
    among: All,
    _ends: watch::Sender<()>,
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.among.lock().remove(&self.name);
    }
}

enum Entry {
    First(Underway),
    /// The same is under way: resolves when it has ended.
    Second(watch::Receiver<()>),
}

impl Sending {
    /// Refuses with `server.busy`.
    fn enter(&self, account: AccountId, keeper: &Keeper) -> Answer<Entry> {
        let mut all = self.0.lock();
        let name = (account, format!("{}/{}", keeper.space, keeper.key));
        if let Some(ends) = all.get(&name) {
            return Ok(Entry::Second(ends.clone()));
        }
        let own = all.keys().filter(|(of, _)| *of == account).count();
        if all.len() >= SENDING_MAX || own >= SENDING_OF_ACCOUNT_MAX {
            return refuse(Code::ServerBusy, "too many transfers wait for the ledger");
        }
        let (ends, ended) = watch::channel(());
        all.insert(name.clone(), ended);
        Ok(Entry::First(Underway {
            name,
            among: Arc::clone(&self.0),
            _ends: ends,
        }))
    }
}

/// Moves the credits once for this key, and answers when they have moved; after a while with `transfer.queued`, while the
/// transfer goes on. Cancel safe: it goes on then, too.
///
/// Refuses with `idempotency.conflict`, `server.busy`, and what the ledger says of a transfer.
pub(crate) async fn once(accounts: &Arc<Accounts>, order: Order, key: Idempotency) -> Answer<TransferView> {
    let keeper = Keeper {
        space: format!("{KEYS}{}", order.from),
        key: key.key,
        request: key.request,
        booking: None,
    };
    once_for(accounts, order, keeper).await
}

/// The same with a place of its own to be remembered in.
pub(super) async fn once_for(accounts: &Arc<Accounts>, order: Order, keeper: Keeper) -> Answer<TransferView> {
    let within = accounts.ground.tuning.transfer_within;
    let answer = match accounts.sending.enter(order.from, &keeper)? {
        Entry::First(underway) => {
            let accounts = Arc::clone(accounts);
            let task = tokio::spawn(async move {
                let _underway = underway;
                carry_out(&accounts, &order, &keeper).await
            });
            let ended = tokio::time::timeout(within, task).await;
            ended.map(|joined| joined.unwrap_or_else(|panic| Err(failed("transfer", &panic))))
        }
        Entry::Second(mut ended) => {
            // It ends by the sender's end.
            let ended = tokio::time::timeout(within, async { while ended.changed().await.is_ok() {} }).await;
            match ended {
                Ok(()) => Ok(earlier(accounts, &keeper).await),
                Err(late) => Err(late),
            }
        }
    };
    answer.unwrap_or_else(|_| Err(queued(accounts)))
}

/// For a change that is the same when it is made twice: goes on without the caller, who is told after a while with
/// `transaction.queued`. At most as many as transfers.
pub(super) async fn waiting<T: Send + 'static>(
    accounts: &Arc<Accounts>,
    (account, name): (AccountId, String),
    change: impl Future<Output = Answer<T>> + Send + 'static,
) -> Answer<T> {
    let keeper = Keeper {
        space: "change".to_owned(),
        key: name,
        request: Digest::default(),
        booking: None,
    };
    let within = accounts.ground.tuning.transfer_within;
    let underway = loop {
        match accounts.sending.enter(account, &keeper)? {
            Entry::First(underway) => break underway,
            Entry::Second(mut ended) => {
                let ended = tokio::time::timeout(within, async { while ended.changed().await.is_ok() {} });
                ended.await.map_err(|_| change_queued(accounts))?;
            }
        }
    };
    let task = tokio::spawn(async move {
        let _underway = underway;
        change.await
    });
    match tokio::time::timeout(within, task).await {
        Ok(joined) => joined.unwrap_or_else(|panic| Err(failed("change", &panic))),
        Err(_) => Err(change_queued(accounts)),
    }
}

fn change_queued(accounts: &Accounts) -> Box<Refusal> {
    let message = format!("the change is queued; {}", final_when(accounts));
    let hint = "repeat the request to see whether it is final; it is made once";
    Refusal::new(Code::TransactionQueued, message).hint(hint).into()
}

fn final_when(accounts: &Accounts) -> String {
    let peers = accounts.ground.chain.status().peers;
    let needed = peers * 2 / 3 + 1;
    format!("it is final when {needed} of {peers} peers answer")
}

/// While the ledger does not answer: what the caller waits for.
fn queued(accounts: &Accounts) -> Box<Refusal> {
    let message = format!("the transfer is queued; {}", final_when(accounts));
    let hint = "repeat the request with the same idempotency key to see whether it is final; the credits move once";
    Refusal::new(Code::TransferQueued, message).hint(hint).into()
}

async fn carry_out(accounts: &Accounts, order: &Order, keeper: &Keeper) -> Answer<TransferView> {
    let kept = match keeper.read(accounts).await? {
        Some(kept) => kept,
        None => keeper.write(accounts, None, None).await?,
    };
    if kept.request != keeper.request {
        return conflict();
    }
    if let Some(answer) = kept.answer {
        return Ok(answer);
    }
    let before = match kept.signed.as_deref().and_then(codecs::from_hex) {
        Some(signed) => again(accounts, keeper, signed, kept.signed_above).await,
        None => Ok(None),
    };
    let sent = match before {
        Ok(Some(sent)) => Ok(sent),
        Ok(None) => first(accounts, order, keeper).await,
        Err(refused) => Err(refused),
    };
    match sent {
        Ok(sent) => {
            let view = finish(accounts, order, &sent).await?;
            keeper.write(accounts, None, Some(view.clone())).await?;
            unclaim(accounts, &sent.done.id.0.to_string()).await?;
            Ok(view)
        }
        Err(refused) => {
            // Refused is not moved; where the ledger did not answer nobody knows, and the key stays taken.
            if !refused.code.is_one_of(&[Code::LedgerUnavailable, Code::ServerBusy]) {
                let signed = keeper.read(accounts).await?.and_then(|kept| kept.signed);
                let taken = accounts.ground.store.take_value(&keeper.space, &keeper.key).await;
                taken.map_err(store)?;
                if let Some(signed) = signed.as_deref().and_then(codecs::from_hex::<SignedTransaction>) {
                    unclaim(accounts, &signed.id().0.to_string()).await?;
                }
            }
            Err(refused)
        }
    }
}

async fn first(accounts: &Accounts, order: &Order, keeper: &Keeper) -> Answer<Sent> {
    let command = match order.purpose {
        Purpose::Transfer(_) | Purpose::Booking { .. } => "transfer NAME AMOUNT --key FILE",
        Purpose::Cover => "lend NAME --cover AMOUNT --key FILE",
    };
    let key = own_key(accounts, order.from, command).await?;
    let (to, amount) = (order.to, order.amount);
    let action = match order.purpose {
        Purpose::Transfer(_) | Purpose::Booking { .. } => Action::Transfer(Transfer { to, amount }),
        Purpose::Cover => Action::CoverDebt(CoverDebt { account: to, amount }),
    };
    send_kept(accounts, order.from, &key, action, Some(keeper)).await
}

async fn unclaim(accounts: &Accounts, id: &str) -> Answer<()> {
    let taken = accounts.ground.store.take_value(CLAIMS, id).await;
    taken.map(drop).map_err(store)
}

/// Whether this transaction belongs to another request: one that signed the same bytes earlier and has no outcome yet. The caller
/// must hold the sender's turn.
pub(super) async fn is_anothers(
    accounts: &Accounts,
    signed: &SignedTransaction,
    keeper: Option<&Keeper>,
) -> Answer<bool> {
    let values = &accounts.ground.store;
    let claim = values.value(CLAIMS, &signed.id().0.to_string()).await.map_err(store)?;
    let Some(claim) = claim else { return Ok(false) };
    let (space, key): (String, String) = codecs::from_json(&claim)?;
    if keeper.is_some_and(|keeper| (&keeper.space, &keeper.key) == (&space, &key)) {
        return Ok(false);
    }
    let other = values.value(&space, &key).await.map_err(store)?;
    let other: Option<Kept> = other.map(|bytes| codecs::from_json(&bytes)).transpose()?;
    Ok(other.is_some_and(|kept| kept.answer.is_none() && kept.signed == Some(in_hex(signed))))
}

fn in_hex(signed: &SignedTransaction) -> String {
    hex::encode(borsh::to_vec(signed).expect("a vector accepts every byte"))
}

/// The same bytes: executed once, however often they are sent. `None` where they never can be: another transaction of the account
/// has their nonce.
async fn again(
    accounts: &Accounts,
    keeper: &Keeper,
    signed: SignedTransaction,
    above: Option<u64>,
) -> Answer<Option<Sent>> {
    let nonce = signed.transaction.nonce;
    let refused = match accounts.ground.chain.submit_and_wait(signed.clone()).await {
        Ok(done) => return Ok(Some(Sent { nonce, done })),
        Err(error) => submit(error),
    };
    if refused.code != Code::TransactionStaleNonce {
        return Err(refused);
    }
    // Executed so long ago that no peer remembers where, or never.
    match with_nonce(accounts, &signed, above).await? {
        Looked::Used(done) if done.id == signed.id() => Ok(Some(Sent { nonce, done })),
        Looked::Used(_) => Ok(None),
        Looked::Nowhere(below) => {
            // No repetition reads the same blocks again.
            if below > above {
                keeper
                    .write(accounts, below.map(|below| (in_hex(&signed), below)), None)
                    .await?;
            }
            refuse(
                Code::ServerBusy,
                "the outcome of the first transfer with this key is not known; check the statement",
            )
        }
    }
}

/// What came of a search for the transaction that used a nonce.
#[derive(Debug)]
enum Looked {
    Used(Final),
    /// None of the blocks up to this height has it; `None` where it is not known where to look.
    Nowhere(Option<u64>),
}

/// How many blocks are read at a time to find what became of a transaction; the next repetition reads on behind them.
const BLOCKS_READ_MAX: u64 = 10_000;
/// The peer that told the height may be some blocks ahead of the one that told the nonce.
const PEERS_APART: u64 = 64;

/// The transaction that used up this one's nonce: this one, or another of its sender. Read from the blocks, so it does not depend
/// on what a peer remembers of transactions.
async fn with_nonce(accounts: &Accounts, wanted: &SignedTransaction, above: Option<u64>) -> Answer<Looked> {
    let Some(above) = above else {
        return Ok(Looked::Nowhere(None));
    };
    let ledger = &accounts.ground.chain;
    let first = above.saturating_sub(PEERS_APART) + 1;
    let last = ledger.status().height.min(above + BLOCKS_READ_MAX);
    let is_wanted = |other: &SignedTransaction| {
        (other.transaction.sender, other.transaction.nonce) == (wanted.transaction.sender, wanted.transaction.nonce)
    };
    let mut looked = above;
    for height in first..=last {
        let Some(block) = ledger.block(height).await.map_err(chain)? else {
            break;
        };
        let places = block
            .transactions
            .iter()
            .zip(0u32..)
            .filter(|(other, _)| is_wanted(other));
        // What was refused has used nothing.
        let mut executed = places.filter_map(|(_, index)| block.result_of(index)?.ok());
        if let Some(done) = executed.next() {
            return Ok(Looked::Used(done));
        }
        looked = looked.max(height);
    }
    Ok(Looked::Nowhere(Some(looked)))
}

async fn finish(accounts: &Accounts, order: &Order, sent: &Sent) -> Answer<TransferView> {
    let target = accounts.ground.account_name(order.to).await;
    let mut detail = json!({"amount_ucr": order.amount, "height": sent.done.height, "transaction": sent.done.id});
    match &order.purpose {
        Purpose::Transfer(_) => audit::own(accounts, order.from, ("transfer", "made"), target, detail).await?,
        Purpose::Cover => audit::own(accounts, order.from, ("loan", "covered"), target, detail).await?,
        Purpose::Booking { actor, booking } => {
            detail["reference"] = booking.reference.clone().into();
            let whose = (Some(*actor), booking.account);
            let target = accounts.ground.account_name(booking.account).await;
            audit::record(accounts, whose, booking.kind.done(), target, detail).await?;
        }
    }
    view(accounts, order, sent).await
}

/// What the caller sees of a transfer that is final; keeps its memo.
pub(crate) async fn view(accounts: &Accounts, order: &Order, sent: &Sent) -> Answer<TransferView> {
    if let Purpose::Transfer(Some(memo)) = &order.purpose
        && !memo.is_empty()
    {
        let place = sent.done.id.0.to_string();
        codecs::put_json(&accounts.ground, MEMOS, &place, memo).await?;
    }
    let account = on_ledger(accounts, order.from).await?;
    Ok(TransferView {
        transaction: sent.done.id.0,
        height: sent.done.height,
        from: order.from_name.clone(),
        to: accounts.ground.account_name(order.to).await,
        amount_ucr: order.amount,
        posted_ucr: account.posted,
    })
}

/// What became of the transfer that was under way when this request came.
async fn earlier(accounts: &Accounts, keeper: &Keeper) -> Answer<TransferView> {
    match keeper.read(accounts).await? {
        Some(kept) if kept.request != keeper.request => conflict(),
        Some(Kept { answer: Some(view), .. }) => Ok(view),
        Some(_) => Err(queued(accounts)),
        None => refuse(
            Code::ServerBusy,
            "the first transfer with this key was refused; repeat this one to see why",
        ),
    }
}

/// Forgets keys whose time is over. Gives their number.
pub(super) async fn forget_old(accounts: &Accounts, now_ms: u64) -> Answer<usize> {
    let mut forgotten = 0;
    let spaces = accounts.ground.store.crowded_spaces(KEYS, 0).await.map_err(store)?;
    for (space, _) in spaces {
        let mut kept: Vec<(u64, String)> = Vec::new();
        let mut after = None::<String>;
        loop {
            let page = accounts.ground.store.list_values(&space, "", after.as_deref(), PAGE);
            let page = page.await.map_err(store)?;
            let old = sort_out(&space, page.items, now_ms, &mut kept)?;
            let replaced = accounts.ground.store.replace_values(&old.takes, &old.puts);
            replaced.await.map_err(store)?;
            forgotten += old.takes.len();
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        kept.sort_unstable();
        kept.truncate(kept.len().saturating_sub(KEYS_MAX));
        for oldest in kept.chunks(PAGE as usize) {
            let takes: Vec<_> = oldest.iter().map(|(_, key)| (space.clone(), key.clone())).collect();
            accounts.ground.store.replace_values(&takes, &[]).await.map_err(store)?;
            forgotten += takes.len();
        }
    }
    Ok(forgotten)
}

/// Of a page of keys.
struct Old {
    /// Those that are to go.
    takes: Vec<(String, String)>,
    /// Those of an earlier build, to which their time is added.
    puts: Vec<Put>,
}

/// Of the rest, what was answered is noted in `kept`.
fn sort_out(space: &str, page: Vec<(String, Vec<u8>)>, now_ms: u64, kept: &mut Vec<(u64, String)>) -> Answer<Old> {
    let (mut takes, mut puts) = (Vec::new(), Vec::new());
    for (key, bytes) in page {
        let mut known: Kept = codecs::from_json(&bytes)?;
        let is_answered = known.answer.is_some();
        let kept_ms = if is_answered { KEYS_KEPT_MS } else { UNANSWERED_KEPT_MS };
        if known.at_ms == 0 {
            known.at_ms = now_ms;
            puts.push(codecs::json(space, &key, &known)?);
        } else if known.at_ms.saturating_add(kept_ms) < now_ms {
            takes.push((space.to_owned(), key));
        } else if is_answered {
            kept.push((known.at_ms, key));
        }
    }
    Ok(Old { takes, puts })
}

fn conflict<T>() -> Answer<T> {
    refuse(
        Code::IdempotencyConflict,
        "the idempotency key was already used with a different request",
    )
}

impl Keeper {
    pub(super) async fn read(&self, accounts: &Accounts) -> Answer<Option<Kept>> {
        let bytes = accounts
            .ground
            .store
            .value(&self.space, &self.key)
            .await
            .map_err(store)?;
        bytes.map(|bytes| codecs::from_json(&bytes)).transpose()
    }

    /// Remembers the request, before anything is signed.
    pub(super) async fn begin(&self, accounts: &Accounts) -> Answer<()> {
        self.write(accounts, None, None).await.map(drop)
    }

    async fn write(
        &self,
        accounts: &Accounts,
        signed: Option<(String, u64)>,
        answer: Option<TransferView>,
    ) -> Answer<Kept> {
        let kept = self.kept(signed, answer);
        codecs::put_json(&accounts.ground, &self.space, &self.key, &kept).await?;
        Ok(kept)
    }

    /// `signed` with the ledger's height before.
    fn kept(&self, signed: Option<(String, u64)>, answer: Option<TransferView>) -> Kept {
        let (signed, signed_above) = signed.unzip();
        Kept {
            request: self.request,
            answer,
            signed,
            signed_above,
            at_ms: now_ms(),
            booking: self.booking.clone(),
        }
    }

    /// Keeps what is about to be sent, and what it is for: a statement knows it, whatever happens after.
    pub(super) async fn keep(&self, accounts: &Accounts, signed: &SignedTransaction, above: u64) -> Answer<()> {
        let id = signed.id().0.to_string();
        let kept = self.kept(Some((in_hex(signed), above)), None);
        // What was signed before and did not come to execution is claimed by nobody any more.
        let before = self.read(accounts).await?.and_then(|kept| kept.signed);
        let before = before.as_deref().and_then(codecs::from_hex::<SignedTransaction>);
        let before = before.map(|before| before.id().0.to_string());
        let takes: Vec<_> = before
            .filter(|before| *before != id)
            .map(|before| (CLAIMS.to_owned(), before))
            .into_iter()
            .collect();
        let mut puts = vec![
            codecs::json(&self.space, &self.key, &kept)?,
            codecs::json(CLAIMS, &id, &(&self.space, &self.key))?,
        ];
        if let Some(booking) = &self.booking {
            puts.push(codecs::json(BOOKED, &id, booking)?);
        }
        // All or nothing: who has signed is known whatever happens.
        let kept = accounts.ground.store.replace_values(&takes, &puts).await;
        kept.map_err(store)
    }
}
