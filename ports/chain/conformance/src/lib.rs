//! What every adapter of [`Chain`] must pass: named cases, each a promise of the contract.
//!
//! An adapter's `tests/` says `piecework_chain_conformance::conformance_tests!(subject)`, where `subject` is an async function that
//! makes a [`Subject`] on a fresh ledger; that gives one `#[tokio::test]` for each case.

use std::{any::Any, sync::Arc, time::Duration};

use futures::{StreamExt as _, future::join_all};
use piecework_ledger::{Action, Key, SignedTransaction, Transaction, TransactionId, Transfer, Value};
use piecework_model::{AccountId, AnyCode, Code, Credits, Digest, NetworkId, SecretKey};

use piecework_proof::{Anchor, Entry, EntryProof, Evidence};

use piecework_chain::{Chain, PeerChanges, SubmitError, account_proof, finality};

/// The adapter under test.
pub struct Subject {
    pub chain: Arc<dyn Chain>,
    /// Four accounts of the genesis, each with at least 1,000,000 ucr and no transaction yet.
    pub accounts: [SecretKey; 4],
    /// Whatever must live as long as the chain.
    pub keep: Box<dyn Any + Send>,
}

/// Longer than anything takes on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

impl Subject {
    fn transfer_on(&self, network: &NetworkId, from: usize, nonce: u64, to: usize, amount: i128) -> SignedTransaction {
        let key = &self.accounts[from];
        let transaction = Transaction {
            sender: AccountId::of(&key.public()),
            nonce,
            action: Action::Transfer(Transfer {
                to: AccountId::of(&self.accounts[to].public()),
                amount: Credits(amount),
            }),
        };
        SignedTransaction::sign(transaction, key, network)
    }

    fn transfer(&self, from: usize, nonce: u64, to: usize, amount: i128) -> SignedTransaction {
        self.transfer_on(&self.chain.network(), from, nonce, to, amount)
    }

    async fn posted(&self, account: usize) -> i128 {
        let key = Key::Account(AccountId::of(&self.accounts[account].public()));
        match self.chain.get(&key).await.expect("the state answers") {
            Some(Value::Account(account)) => account.posted.0,
            other => panic!("account {account} is {other:?}"),
        }
    }

    async fn refused(&self, transaction: SignedTransaction) -> AnyCode {
        match self.chain.submit_and_wait(transaction).await {
            Err(SubmitError::Rejected(rejection)) => {
                assert!(rejection.message.len() > 10, "{rejection:?}");
                rejection.code
            }
            other => panic!("it should be rejected: {other:?}"),
        }
    }
}

/// What is answered as final is in its block, in the state, and found by its id; the head is not below it.
pub async fn what_is_final_shows_everywhere(subject: Subject) {
    let (chain, before) = (&subject.chain, subject.posted(1).await);
    let sent = subject.transfer(0, 0, 1, 5);
    let done = chain.submit_and_wait(sent.clone()).await.expect("executed");
    assert_eq!(done.id, sent.id());
    assert!(chain.status().height >= done.height);
    assert_eq!(subject.posted(1).await, before + 5);
    let place = chain.transaction(done.id).await.expect("answered");
    assert_eq!(place, Some((done.height, done.index)));
    let block = chain.block(done.height).await.expect("answered").expect("it is final");
    assert_eq!(block.transactions[done.index as usize], sent);
    assert_eq!(block.result_of(done.index), Some(Ok(done)));
    let same = chain
        .block_by_digest(block.digest)
        .await
        .expect("answered")
        .expect("kept");
    assert_eq!((same.height, same.digest), (block.height, block.digest));
}

/// The same transaction again, before or after it is final, is executed once and answered alike.
pub async fn a_transaction_is_executed_once_however_often_it_is_sent(subject: Subject) {
    let before = subject.posted(1).await;
    let sent = subject.transfer(0, 0, 1, 5);
    let many = (0..8).map(|_| subject.chain.submit_and_wait(sent.clone()));
    let answers: Vec<_> = join_all(many)
        .await
        .into_iter()
        .map(|done| done.expect("executed"))
        .collect();
    assert!(answers.iter().all(|done| *done == answers[0]));
    let again = subject
        .chain
        .submit_and_wait(sent.clone())
        .await
        .expect("executed before");
    assert_eq!(again, answers[0]);
    assert_eq!(subject.chain.submit(sent.clone()).await.expect("no error"), sent.id());
    assert_eq!(subject.posted(1).await, before + 5);
}

/// What cannot be executed is rejected with its code, and changes nothing.
pub async fn a_bad_transaction_is_rejected_with_its_code(subject: Subject) {
    subject
        .chain
        .submit_and_wait(subject.transfer(0, 0, 1, 5))
        .await
        .expect("executed");
    let before = subject.posted(1).await;
    assert_eq!(
        subject.refused(subject.transfer(0, 0, 1, 6)).await,
        Code::TransactionStaleNonce
    );
    assert_eq!(
        subject.refused(subject.transfer(0, 9, 1, 6)).await,
        Code::TransactionFutureNonce
    );
    assert_eq!(
        subject.refused(subject.transfer(0, 1, 1, -6)).await,
        Code::TransferNotPositive
    );
    assert_eq!(
        subject.refused(subject.transfer(0, 1, 1, 1 << 90)).await,
        Code::TransferInsufficient
    );
    let elsewhere = subject.transfer_on(&NetworkId([9; 32]), 0, 1, 1, 6);
    assert_eq!(subject.refused(elsewhere).await, Code::TransactionBadSignature);
    let mut forged = subject.transfer(0, 1, 1, 6);
    forged.key = subject.accounts[2].public();
    assert_eq!(subject.refused(forged).await, Code::TransactionWrongKey);
    assert_eq!(subject.posted(1).await, before);
}

/// Submitting alone is enough; dropping who waits changes nothing.
pub async fn a_transaction_that_nobody_waits_for_is_executed(subject: Subject) {
    let before = subject.posted(1).await;
    let mut blocks = subject.chain.blocks_from(1);
    let first = subject.transfer(0, 0, 1, 5);
    subject.chain.submit(first.clone()).await.expect("queued");
    let second = subject.transfer(2, 0, 1, 5);
    // Polled once, so that it has begun; then dropped.
    let waiting = tokio::time::timeout(Duration::from_millis(1), subject.chain.submit_and_wait(second.clone()));
    let _ = waiting.await;
    subject.chain.submit(second.clone()).await.expect("queued");
    let mut due = vec![first.id(), second.id()];
    let seen = async {
        while !due.is_empty() {
            let block = blocks.next().await.expect("the ledger goes on");
            due.retain(|id| !block.outcomes.iter().any(|outcome| outcome.id == *id));
        }
    };
    tokio::time::timeout(WITHIN, seen).await.expect("both become final");
    assert_eq!(subject.posted(1).await, before + 10);
}

/// Transactions of one account that wait together keep their order.
pub async fn nonces_in_flight_are_executed_in_order(subject: Subject) {
    let before = subject.posted(1).await;
    for nonce in 0..20 {
        let sent = subject.transfer(0, nonce, 1, 1);
        subject.chain.submit(sent).await.expect("queued after those before it");
    }
    let last = subject.chain.submit_and_wait(subject.transfer(0, 20, 1, 1)).await;
    last.expect("executed after all before it");
    assert_eq!(subject.posted(1).await, before + 21);
}

/// Every block from 1 on, each once, each naming the one before: history, then what comes.
pub async fn blocks_come_in_order_without_gaps(subject: Subject) {
    for nonce in 0..3 {
        let sent = subject.transfer(0, nonce, 1, 1);
        subject.chain.submit_and_wait(sent).await.expect("executed");
    }
    let mut blocks = subject.chain.blocks_from(1);
    let (mut parent, mut due) = (None, 1);
    let last = subject.chain.submit_and_wait(subject.transfer(0, 3, 1, 1)).await;
    let last = last.expect("executed").height;
    while due <= last {
        let block = tokio::time::timeout(WITHIN, blocks.next()).await.expect("in time");
        let block = block.expect("the ledger goes on");
        assert_eq!(block.height, due);
        assert!(parent.is_none_or(|parent: Digest| parent == block.parent));
        assert_eq!(block.digest, block.header.digest());
        assert_eq!(block.transactions.len(), block.outcomes.len());
        (parent, due) = (Some(block.digest), due + 1);
    }
    // A reader that begins in the middle reads the same.
    let middle = subject.chain.blocks_from(last).next().await.expect("it is there");
    assert_eq!(Some(middle.digest), parent);
}

/// What is not there is nothing, not an error.
pub async fn what_is_not_there_is_nothing(subject: Subject) {
    let chain = &subject.chain;
    let nobody = Key::Account(AccountId([9; 20]));
    assert!(chain.get(&nobody).await.expect("answered").is_none());
    let above = chain.status().height + 1_000;
    assert!(chain.block(above).await.expect("answered").is_none());
    assert!(
        chain
            .block_by_digest(Digest([9; 32]))
            .await
            .expect("answered")
            .is_none()
    );
    let unknown = TransactionId(Digest([9; 32]));
    assert_eq!(chain.transaction(unknown).await.expect("answered"), None);
    if let Some(genesis) = chain.block(0).await.expect("answered") {
        assert!(genesis.transactions.is_empty());
    }
}

/// The head says the same as the block of its height.
pub async fn the_head_is_a_block(subject: Subject) {
    let done = subject.chain.submit_and_wait(subject.transfer(0, 0, 1, 1)).await;
    done.expect("executed");
    let status = subject.chain.status();
    assert_eq!(status.network, subject.chain.network());
    assert!(status.peers >= 1);
    let block = subject
        .chain
        .block(status.height)
        .await
        .expect("answered")
        .expect("final");
    assert_eq!((block.digest, block.state_root), (status.block, status.state_root));
    assert!(matches!(
        subject.chain.get(&Key::Params).await,
        Ok(Some(Value::Params(_)))
    ));
}

/// The peers of the ledger, as the state names them.
async fn anchor(chain: &dyn Chain) -> Anchor {
    match chain.get(&Key::Committee).await.expect("the state answers") {
        Some(Value::Committee(committee)) => {
            let keys = committee.peers.iter().map(|peer| peer.key).collect();
            Anchor::peers(chain.network(), keys)
        }
        other => panic!("the committee is {other:?}"),
    }
}

/// A value's proof holds against its block and its peers alone, and for no other value.
pub async fn a_value_is_proven_to_who_was_not_there(subject: Subject) {
    let (chain, anchor) = (&*subject.chain, anchor(&*subject.chain).await);
    for nonce in 0..40 {
        let sent = subject.transfer(0, nonce, 1, 7);
        chain.submit_and_wait(sent).await.expect("executed");
        let account = AccountId::of(&subject.accounts[usize::from(nonce % 2 == 0)].public());
        let proof = account_proof(chain, account, &PeerChanges::default())
            .await
            .expect("answered");
        let proof = proof.expect("the account is there");
        assert_eq!(proof.verify(anchor.clone()), Ok(()), "at block {}", proof.block.height);
        let mut richer = proof.clone();
        if let Value::Account(account) = &mut richer.value {
            account.posted = Credits(account.posted.0 + 1);
        }
        assert_eq!(
            richer.verify(anchor.clone()).expect_err("another value").code(),
            Code::ProofBadPath
        );
    }
    let stranger = AccountId([7; 20]);
    let nothing = account_proof(chain, stranger, &PeerChanges::default())
        .await
        .expect("answered");
    assert!(nothing.is_none());
}

/// What a block did is proven by its root of outcomes and its certificate.
pub async fn a_transaction_is_proven_to_who_was_not_there(subject: Subject) {
    let (chain, anchor) = (&*subject.chain, anchor(&*subject.chain).await);
    let sends: Vec<_> = (0..3).map(|from| subject.transfer(from, 0, 3, 5)).collect();
    let done = join_all(sends.into_iter().map(|sent| chain.submit_and_wait(sent))).await;
    for done in done {
        let done = done.expect("executed");
        let block = chain.block(done.height).await.expect("answered").expect("it is final");
        let wanted = |entry: &Entry| *entry == Entry::Event(done.events[0].clone());
        let found = EntryProof::find(&block.transactions, &block.outcomes, wanted);
        let finality = finality(chain, &block).await.expect("answered").expect("certified");
        let mut evidence = Evidence {
            entry: found[0].clone(),
            block: block.header.summary(),
            finality,
        };
        assert_eq!(evidence.verify(&anchor), Ok(()));
        evidence.block.timestamp_ms += 1;
        assert_eq!(
            evidence.verify(&anchor).expect_err("another block").code(),
            Code::ProofBadCertificate
        );
    }
}

/// One test for each case, with `subject`, an async function without arguments that makes a [`Subject`].
#[macro_export]
macro_rules! conformance_tests {
    ($subject:path) => {
        $crate::conformance_tests!(@ $subject:
            what_is_final_shows_everywhere,
            a_transaction_is_executed_once_however_often_it_is_sent,
            a_bad_transaction_is_rejected_with_its_code,
            a_transaction_that_nobody_waits_for_is_executed,
            nonces_in_flight_are_executed_in_order,
            blocks_come_in_order_without_gaps,
            what_is_not_there_is_nothing,
            the_head_is_a_block,
            a_value_is_proven_to_who_was_not_there,
            a_transaction_is_proven_to_who_was_not_there,
        );
    };
    (@ $subject:path: $($case:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::$case($subject().await).await;
            }
        )*
    };
}
