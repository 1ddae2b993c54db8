//! Budgets and lanes: what a developer may still spend, and which ticket comes next for which provider.
//!
//! A lease's money on the ledger is what is held; here is what has been promised of it. A job reserves the most that it
//! can cost before it runs and commits what it did cost after; nothing runs that the lease could not pay.

use std::sync::Arc;

use dashmap::DashMap;
use parking_lot::Mutex;
use piecework_ledger::{Action, Key, LeaseState, OpenLease, SignedTransaction, Subject, TopUp, Transaction, Value};
use piecework_model::{AccountId, AnyCode, Code, Credits, Digest, Domain, LeaseId, Seal};
use piecework_queue::ProviderLink;
use piecework_store::Put;

use crate::{
    Answer, accounts, codecs,
    failure::{Refusal, chain, refusal, rejected, store, submit},
    money::{Money, closing, lane::LaneState},
};

#[derive(Default)]
pub(crate) struct Leases {
    /// Those that new jobs are paid from.
    books: DashMap<AccountId, Arc<Book>>,
    /// Also of leases that drain, or that another controller pays from by now: what ran is still sealed and settled.
    by_lease: DashMap<LeaseId, Arc<Book>>,
    /// One opening or topping up at a time for each developer.
    opening: DashMap<AccountId, Arc<tokio::sync::Mutex<()>>>,
}

/// A developer's lease as this controller spends it.
pub(crate) struct Book {
    pub(crate) lease: LeaseId,
    pub(crate) exposure_ucr: u64,
    funds: Mutex<Funds>,
    lanes: DashMap<AccountId, Arc<Lane>>,
}

#[derive(Clone, Copy, Debug)]
struct Funds {
    budget: i128,
    /// Paid, or owed to a receipt.
    committed: i128,
    /// The most that running jobs can cost.
    reserved: i128,
}

impl Funds {
    fn available(&self) -> i128 {
        self.budget - self.committed - self.reserved
    }
}

/// The most that one running job can cost, taken out of what is available until it ends.
pub(crate) struct Reservation {
    book: Arc<Book>,
    amount: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.book.funds.lock().reserved -= i128::from(self.amount);
    }
}

impl Reservation {
    /// The job cost this much: from now on it is owed.
    pub(crate) fn commit(self, price_ucr: u64) {
        self.book.funds.lock().committed += i128::from(price_ucr);
    }

    pub(crate) fn book(&self) -> &Arc<Book> {
        &self.book
    }
}

/// Tickets of one lease to one provider.
pub(crate) struct Lane {
    numbers: tokio::sync::Mutex<()>,
    state: Mutex<LaneState>,
}

/// Sequences reserved at a time: one sync of the disk for so many jobs, and the gap that a crash may leave.
const SEQUENCES_STEP: u64 = 10_000;

impl Leases {
    pub(crate) fn books(&self) -> Vec<Arc<Book>> {
        self.by_lease.iter().map(|entry| entry.value().clone()).collect()
    }

    pub(crate) fn book(&self, lease: LeaseId) -> Option<Arc<Book>> {
        self.by_lease.get(&lease).map(|book| book.value().clone())
    }

    /// What is promised and not yet in a settlement, told at start for jobs of an earlier run.
    pub(crate) fn commit_earlier(&self, lease: LeaseId, price_ucr: u64) {
        if let Some(book) = self.book(lease) {
            book.funds.lock().committed += i128::from(price_ucr);
        }
    }

    /// What was owed is not.
    pub(crate) fn forgive(&self, lease: LeaseId, price_ucr: u64) {
        if let Some(book) = self.book(lease) {
            book.funds.lock().committed -= i128::from(price_ucr);
        }
    }

    /// Nothing new is ordered from this lease; what ran is still settled.
    pub(crate) fn end(&self, developer: AccountId, lease: LeaseId) {
        self.books.remove_if(&developer, |_, book| book.lease == lease);
    }

    /// Nothing is settled from this lease any more.
    pub(crate) fn forget(&self, lease: LeaseId) {
        self.by_lease.remove(&lease);
        self.books.retain(|_, book| book.lease != lease);
    }
}

impl Book {
    /// The lane to a provider; the first time in a run, after all numbers that were given out in it.
    pub(crate) async fn lane(&self, money: &Money, provider: AccountId) -> Answer<Arc<Lane>> {
        let known = self.lanes.get(&provider).map(|lane| lane.value().clone());
        if let Some(lane) = known {
            return Ok(lane);
        }
        let start = first_sequence(money, (self.lease, provider)).await?;
        let new = || {
            Arc::new(Lane {
                numbers: tokio::sync::Mutex::default(),
                state: Mutex::new(LaneState::from(start)),
            })
        };
        Ok(self.lanes.entry(provider).or_insert_with(new).value().clone())
    }

    /// The lane to a provider, where this run has ordered from it.
    pub(crate) fn known_lane(&self, provider: AccountId) -> Option<Arc<Lane>> {
        self.lanes.get(&provider).map(|lane| lane.value().clone())
    }

    /// To receipts, and what is kept for running jobs.
    #[cfg(test)]
    pub(crate) fn owed(&self) -> (i128, i128) {
        let funds = self.funds.lock();
        (funds.committed, funds.reserved)
    }

    fn reserve(self: &Arc<Self>, amount: u64) -> Option<Reservation> {
        let mut funds = self.funds.lock();
        if funds.available() < i128::from(amount) {
            return None;
        }
        funds.reserved += i128::from(amount);
        Some(Reservation {
            book: self.clone(),
            amount,
        })
    }

    fn set_budget(&self, budget: Credits) {
        let mut funds = self.funds.lock();
        funds.budget = funds.budget.max(budget.0);
    }
}

/// Where this controller has given out none and the ledger knows some, they were another controller's: so far beyond what
/// is settled it may have given out more.
const SEQUENCES_OF_ANOTHER: u64 = 1_000_000;

async fn first_sequence(money: &Money, key: (LeaseId, AccountId)) -> Answer<u64> {
    let own = money.ground.store.sequence_high_water(key.0, key.1);
    let lane = money.ground.chain.get(&Key::Lane(key.0, key.1)).await.map_err(chain)?;
    let taken = match lane {
        Some(Value::Lane(lane)) => lane.taken.last().map_or(0, |(_, end)| *end),
        Some(_) | None => 0,
    };
    Ok(match taken > own {
        true => taken.saturating_add(SEQUENCES_OF_ANOTHER),
        false => own,
    })
}

impl Lane {
    /// The next sequence; waits for the store once in ten thousand.
    pub(crate) async fn next_sequence(&self, money: &Money, key: (LeaseId, AccountId)) -> Answer<u64> {
        loop {
            if let Some(sequence) = self.state.lock().take() {
                return Ok(sequence);
            }
            let _one_at_a_time = self.numbers.lock().await;
            let exhausted_at = self.state.lock().exhausted_at();
            if let Some(reserved_to) = exhausted_at {
                let up_to = reserved_to + SEQUENCES_STEP;
                money
                    .ground
                    .store
                    .reserve_sequences(key.0, key.1, up_to)
                    .await
                    .map_err(store)?;
                self.state.lock().reserve_to(up_to);
            }
        }
    }

    /// See [`LaneState::stake`].
    pub(crate) fn stake(&self, sequence: u64, leaf: Digest, price_max_ucr: u64, exposure_ucr: u64) -> bool {
        self.state.lock().stake(sequence, leaf, price_max_ucr, exposure_ucr)
    }

    /// See [`LaneState::ran`].
    pub(crate) fn ran(&self, sequence: u64, price_ucr: u64) {
        self.state.lock().ran(sequence, price_ucr);
    }

    /// See [`LaneState::refused`].
    pub(crate) fn refused(&self, sequence: u64) {
        self.state.lock().refused(sequence);
    }

    /// Seals what has run and hands the seal over, if more than `above` ucr are at stake.
    pub(crate) async fn seal(
        &self,
        money: &Money,
        key: (LeaseId, AccountId),
        provider: &dyn ProviderLink,
        above_ucr: u64,
    ) -> Answer<()> {
        loop {
            let Some(batch) = UnderSeal::take(&self.state, above_ucr) else {
                return Ok(());
            };
            let (sequences, leaves): (Vec<u64>, Vec<Digest>) = batch.tickets.iter().copied().unzip();
            let seal = Seal::sign(&money.ground.key, Domain::Tickets, &money.ground.network, key, &leaves);
            match provider.accept_seal(seal, sequences.clone()).await {
                Ok(()) => batch.sealed(&sequences),
                // It has lost its memory of them: nothing of theirs is at stake there, and asking again changes nothing.
                Err(refused) if refused.code == Code::TicketBadSeal => {
                    tracing::warn!(provider = %key.1, %refused, "a provider does not have the tickets to be sealed");
                    batch.sealed(&sequences);
                }
                Err(refused) => return Err(rejected(refused)),
            }
        }
    }
}

/// Tickets on their way under a seal: sealed again, as they were, unless the provider says that it has the seal. So it is
/// also where nobody waits for its word any longer.
struct UnderSeal<'a> {
    state: &'a Mutex<LaneState>,
    tickets: Vec<(u64, Digest)>,
}

impl<'a> UnderSeal<'a> {
    fn take(state: &'a Mutex<LaneState>, above_ucr: u64) -> Option<Self> {
        let tickets = state.lock().take_finished(above_ucr);
        (!tickets.is_empty()).then_some(Self { state, tickets })
    }

    fn sealed(mut self, sequences: &[u64]) {
        self.tickets.clear();
        self.state.lock().sealed(sequences);
    }
}

impl Drop for UnderSeal<'_> {
    fn drop(&mut self) {
        if !self.tickets.is_empty() {
            self.state.lock().not_sealed(std::mem::take(&mut self.tickets));
        }
    }
}

/// Reserves `amount` in the developer's lease, opening or topping it up if need be.
///
/// Refuses with `account.insufficient_credits` where the account does not cover it: nothing has run then.
pub(crate) async fn reserve(money: &Money, developer: AccountId, amount: u64) -> Answer<Reservation> {
    if let Some(reservation) = money.leases.books.get(&developer).and_then(|book| book.reserve(amount)) {
        return Ok(reservation);
    }
    let opening = money.leases.opening.entry(developer).or_default().value().clone();
    let _one_at_a_time = opening.lock().await;
    let known = money.leases.books.get(&developer).map(|book| book.value().clone());
    let book = match known {
        Some(book) => book,
        None => match load(money, developer).await? {
            Some(book) => book,
            None => open(money, developer, amount).await?,
        },
    };
    if let Some(reservation) = book.reserve(amount) {
        return Ok(reservation);
    }
    match top_up(money, developer, &book, amount).await {
        // It was closed a moment ago.
        Err(refusal) if refusal.code.is_one_of(&ENDED) => {
            money.leases.end(developer, book.lease);
            let book = open(money, developer, amount).await?;
            return book.reserve(amount).map_or_else(|| Err(insufficient(amount)), Ok);
        }
        done => done?,
    }
    book.reserve(amount).map_or_else(|| Err(insufficient(amount)), Ok)
}

/// Whether the account has anything to pay a run with, before something is done for it that is not billed. Refuses with
/// `account.insufficient_credits`.
pub(crate) async fn check_any(money: &Money, developer: AccountId) -> Answer<()> {
    load_once(money, developer).await?;
    let is_held = money
        .leases
        .books
        .get(&developer)
        .is_some_and(|book| book.funds.lock().available() > 0);
    match is_held {
        true => Ok(()),
        false => step(money, developer, 1).await.map(drop),
    }
}

/// What is said of a lease that takes nothing new.
const ENDED: [Code; 2] = [Code::LeaseDraining, Code::LeaseClosed];

/// Whether something was refused because its lease takes nothing new, and the ledger says so too: the next try is on
/// another lease.
pub(crate) async fn has_ended(money: &Money, lease: LeaseId, code: &AnyCode) -> bool {
    if !code.is_one_of(&ENDED) {
        return false;
    }
    match money.ground.chain.get(&Key::Lease(lease)).await {
        Ok(Some(Value::Lease(record))) if record.state != LeaseState::Open => {
            money.leases.end(record.developer, lease);
            true
        }
        Ok(_) | Err(_) => false,
    }
}

fn insufficient(amount: u64) -> Box<Refusal> {
    let mut refusal = refusal(
        Code::AccountInsufficientCredits,
        format!("a run can cost up to {amount} ucr and the account does not cover that; nothing ran"),
    );
    refusal.hint =
        Some("get credits (`piecework account` shows yours), or lower the timeout or the memory limit".into());
    refusal
}

/// Makes sure that the developer's book is known, if there is one.
pub(crate) async fn load_once(money: &Money, developer: AccountId) -> Answer<()> {
    if !money.leases.books.contains_key(&developer) {
        load(money, developer).await?;
    }
    Ok(())
}

/// The books of all developers whose lease is remembered: what providers have earned is counted over them.
pub(crate) async fn load_all(money: Arc<Money>) {
    let developers = match codecs::with_leases(&money.ground).await {
        Ok(developers) => developers,
        Err(refusal) => {
            tracing::warn!(%refusal, "the leases of earlier runs could not be read; each is with its developer's next call");
            return;
        }
    };
    for developer in developers {
        if money.ground.shutdown.is_cancelled() {
            return;
        }
        if let Err(refusal) = load_once(&money, developer).await {
            tracing::warn!(%developer, %refusal, "a lease of an earlier run could not be read; it is with the developer's next call");
        }
    }
}

/// The developer's book from the ledger, if there is an open lease.
async fn load(money: &Money, developer: AccountId) -> Answer<Option<Arc<Book>>> {
    let Some(id) = codecs::remembered_lease(&money.ground, developer).await? else {
        return Ok(None);
    };
    let Some(Value::Lease(lease)) = money.ground.chain.get(&Key::Lease(id)).await.map_err(chain)? else {
        return Ok(None);
    };
    if lease.state != LeaseState::Open || !lease.payer_keys.contains(&money.ground.payer) {
        return Ok(None);
    }
    let funds = Funds {
        budget: lease.budget.0,
        committed: lease.used.0,
        reserved: 0,
    };
    Ok(Some(enter(money, developer, id, lease.exposure_ucr, funds)))
}

fn enter(money: &Money, developer: AccountId, lease: LeaseId, exposure_ucr: u64, funds: Funds) -> Arc<Book> {
    let book = Arc::new(Book {
        lease,
        exposure_ucr,
        funds: Mutex::new(funds),
        lanes: DashMap::new(),
    });
    money.leases.by_lease.insert(lease, book.clone());
    money.leases.books.insert(developer, book.clone());
    book
}

/// The same, with what a closing lease still holds.
async fn insufficient_now(money: &Money, developer: AccountId, amount: u64) -> Box<Refusal> {
    let mut refusal = insufficient(amount);
    let closing = closing::of(money, developer).await.unwrap_or_default();
    if let Some(closing) = closing.first() {
        refusal.hint = Some(format!(
            "your lease {} is closing; what it holds is free again after block {} (`piecework leases`)",
            closing.lease, closing.until_height
        ));
    }
    refusal
}

/// How much to hold: the usual step as far as the account covers it, at least `amount`.
async fn step(money: &Money, developer: AccountId, amount: u64) -> Answer<Credits> {
    let Some(Value::Account(account)) = money.ground.chain.get(&Key::Account(developer)).await.map_err(chain)? else {
        return Err(insufficient(amount));
    };
    let wanted = i128::from(money.ground.tuning.budget_step_ucr.max(amount));
    let budget = wanted.min(account.available().0);
    if budget < i128::from(amount) || budget <= 0 {
        return Err(insufficient_now(money, developer, amount).await);
    }
    Ok(Credits(budget))
}

async fn open(money: &Money, developer: AccountId, amount: u64) -> Answer<Arc<Book>> {
    let budget = step(money, developer, amount).await?;
    let Some(key) = accounts::custodial_key(&money.accounts, developer).await? else {
        let refused = Refusal::new(
            Code::LeaseNone,
            "no lease pays for your runs, and only you hold the account's key",
        );
        return Err(refused.hint("open one: `piecework leases open --key FILE`").into());
    };
    let tuning = &money.ground.tuning;
    let action = Action::OpenLease(OpenLease {
        subject: Subject::AnyFunction,
        provider: None,
        controller: money.ground.account,
        price_caps: tuning.price_caps,
        budget,
        payer_keys: vec![money.ground.payer],
        mailboxes: vec![money.ground.payer],
        exposure_ucr: tuning.exposure_ucr,
    });
    let sent = accounts::send(&money.accounts, developer, &key, action).await?;
    let lease = LeaseId::of(developer, sent.nonce);
    codecs::keep(&money.ground, &codecs::lease_of(developer, lease)?).await?;
    let funds = Funds {
        budget: budget.0,
        committed: 0,
        reserved: 0,
    };
    Ok(enter(money, developer, lease, tuning.exposure_ucr, funds))
}

/// Adds to a lease on which more was drawn than this controller knew of: by claims, or by jobs opened on the ledger that
/// came to nothing.
pub(crate) async fn feed(money: &Money, lease: LeaseId, amount: u64) -> Answer<()> {
    let found = {
        let mut books = money.leases.books.iter();
        books.find_map(|entry| (entry.lease == lease).then(|| (*entry.key(), entry.value().clone())))
    };
    let Some((developer, book)) = found else {
        return Ok(());
    };
    let opening = money.leases.opening.entry(developer).or_default().value().clone();
    let _one_at_a_time = opening.lock().await;
    top_up(money, developer, &book, amount).await?;
    book.funds.lock().committed += i128::from(amount);
    Ok(())
}

async fn top_up(money: &Money, developer: AccountId, book: &Book, amount: u64) -> Answer<()> {
    let amount = step(money, developer, amount).await?;
    let Some(key) = accounts::custodial_key(&money.accounts, developer).await? else {
        let refused = Refusal::new(
            Code::AccountInsufficientCredits,
            "the lease does not cover the run; nothing ran",
        );
        let hint = "hold more in it: `piecework leases top-up AMOUNT --key FILE`";
        return Err(refused.hint(hint).into());
    };
    accounts::send(
        &money.accounts,
        developer,
        &key,
        Action::TopUp(TopUp {
            lease: book.lease,
            amount,
        }),
    )
    .await?;
    if let Some(Value::Lease(lease)) = money.ground.chain.get(&Key::Lease(book.lease)).await.map_err(chain)? {
        book.set_budget(lease.budget);
    }
    Ok(())
}

/// A developer opened or fed a lease, or said who pays from it, by a transaction of their own. What is to be kept of it
/// comes back.
pub(crate) async fn noticed(money: &Money, developer: AccountId, id: LeaseId) -> Answer<Option<Put>> {
    let Some(Value::Lease(lease)) = money.ground.chain.get(&Key::Lease(id)).await.map_err(chain)? else {
        return Ok(None);
    };
    let is_ours = lease.payer_keys.contains(&money.ground.payer);
    let known = money.leases.books.get(&developer).map(|book| book.value().clone());
    match known {
        Some(book) if book.lease == id && is_ours => book.set_budget(lease.budget),
        Some(book) if book.lease == id => money.leases.end(developer, id),
        Some(_) => {}
        None if is_ours && lease.state == LeaseState::Open => return codecs::lease_of(developer, id).map(Some),
        None => {}
    }
    Ok(None)
}

/// The same where only the lease is named.
pub(crate) async fn changed(money: &Money, id: LeaseId) -> Answer<Option<Put>> {
    match money.ground.chain.get(&Key::Lease(id)).await.map_err(chain)? {
        Some(Value::Lease(lease)) => noticed(money, lease.developer, id).await,
        Some(_) | None => Ok(None),
    }
}

/// Signs with the payer key what needs no nonce.
pub(crate) fn payer_signed(money: &Money, action: Action) -> SignedTransaction {
    let transaction = Transaction {
        sender: money.ground.account,
        nonce: 0,
        action,
    };
    SignedTransaction::sign(transaction, &money.ground.key, &money.ground.network)
}

/// Submits a payer's transaction and waits for its block.
pub(crate) async fn submit_as_payer(money: &Money, action: Action) -> Answer<piecework_chain::Final> {
    money
        .ground
        .chain
        .submit_and_wait(payer_signed(money, action))
        .await
        .map_err(submit)
}
