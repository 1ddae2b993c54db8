//! Accounts: registering, invites, transfers, and the keys that the controller keeps for people with a password.

use std::{sync::Arc, time::Duration};

use piecework_api::{
    accounts::{CreateAccount, OwnerView},
    ledger::ProofView,
};
use piecework_chain::{Final, SubmitError, account_proof};
use piecework_chain_http::view::value_proof_view;
use piecework_ledger::{
    Account, Action, CoverDebt, Key, Register, RotateKey, SetLimit, SignedTransaction, Transaction, Transfer, Value,
};
use piecework_model::{AccountId, Code, Credits, Domain, OwnerName, PublicKey, Roles, SecretKey};
use piecework_store::User;
use rand::RngExt as _;
use serde_json::json;

use crate::{
    Answer,
    accounts::{
        Accounts, audit,
        invites::{self, Invite},
        logins,
        transfers::{self, Keeper},
    },
    clock::now_ms,
    codecs,
    failure::{Refusal, chain, failed, refuse, rejected, store, submit},
};

/// A transaction that became final, and the nonce it took.
pub(crate) struct Sent {
    pub(crate) nonce: u64,
    pub(crate) done: Final,
}

/// Whoever else holds an account's key may take the same nonce; the loser tries again, for as long as some blocks take.
const NONCE_TRIES: u32 = 8;
/// Doubled each time.
const NONCE_PAUSE: Duration = Duration::from_millis(5);
/// Sealed keys that the ledger may not have yet, by account.
const ROTATING: &str = "rotating";
const PASSWORD_LENGTH: std::ops::RangeInclusive<usize> = 10..=200;
/// Words that stand in a name's place where nobody's account is meant.
const RESERVED_NAMES: [&str; 2] = ["platform", "commission"];

/// One transaction of an account at a time: each needs the nonce that the one before leaves. Accounts share a few
/// turns, so that nothing grows with their number.
pub(crate) struct Turns([tokio::sync::Mutex<()>; 64]);

impl Default for Turns {
    fn default() -> Self {
        Self(std::array::from_fn(|_| tokio::sync::Mutex::default()))
    }
}

impl Turns {
    fn of(&self, account: AccountId) -> &tokio::sync::Mutex<()> {
        &self.0[usize::from(account.0[0]) % self.0.len()]
    }
}

/// Signs with the account's next nonce, submits and waits until final. Whoever else holds the key may send meanwhile.
pub(crate) async fn send(accounts: &Accounts, sender: AccountId, key: &SecretKey, action: Action) -> Answer<Sent> {
    send_kept(accounts, sender, key, action, None).await
}

/// The same; `keeper` keeps each transaction before it is submitted.
pub(super) async fn send_kept(
    accounts: &Accounts,
    sender: AccountId,
    key: &SecretKey,
    action: Action,
    keeper: Option<&Keeper>,
) -> Answer<Sent> {
    let _turn = accounts.turns.of(sender).lock().await;
    let mut tries = 0;
    loop {
        let above = accounts.ground.chain.status().height;
        let nonce = on_ledger(accounts, sender).await?.nonce;
        let transaction = Transaction {
            sender,
            nonce,
            action: action.clone(),
        };
        let signed = SignedTransaction::sign(transaction, key, &accounts.ground.network);
        if transfers::is_anothers(accounts, &signed, keeper).await? {
            // Submit it for the other request, which may have crashed before it could; then sign again with the next nonce.
            let settled = accounts.ground.chain.submit_and_wait(signed).await;
            match settled {
                Err(SubmitError::Rejected(rejection)) if rejection.code.is_one_of(&NONCE_RACE) => {}
                Err(error) => return Err(submit(error)),
                Ok(_) => {}
            }
            if tries >= NONCE_TRIES {
                return refuse(
                    Code::ServerBusy,
                    "other transfers of the account come first; retry in a moment",
                );
            }
            tries += 1;
            continue;
        }
        if let Some(keeper) = keeper {
            keeper.keep(accounts, &signed, above).await?;
        }
        match accounts.ground.chain.submit_and_wait(signed).await {
            Ok(done) => return Ok(Sent { nonce, done }),
            Err(SubmitError::Rejected(rejection)) if rejection.code.is_one_of(&NONCE_RACE) && tries < NONCE_TRIES => {
                tokio::time::sleep(NONCE_PAUSE * 2u32.pow(tries)).await;
                tries += 1;
            }
            Err(error) => return Err(submit(error)),
        }
    }
}

/// Another transaction of the same account was faster.
const NONCE_RACE: [Code; 3] = [
    Code::TransactionStaleNonce,
    Code::TransactionFutureNonce,
    Code::MempoolNonceTaken,
];

/// The account as the ledger has it. Refuses with `account.not_found`.
pub(crate) async fn on_ledger(accounts: &Accounts, account: AccountId) -> Answer<Account> {
    match accounts.ground.chain.get(&Key::Account(account)).await.map_err(chain)? {
        Some(Value::Account(found)) => Ok(found),
        Some(_) | None => refuse(Code::AccountNotFound, format!("the ledger has no account {account}")),
    }
}

/// What shows the account's balances to anybody who holds the genesis file.
pub(crate) async fn proof(accounts: &Accounts, account: AccountId) -> Answer<ProofView> {
    let proof = account_proof(&*accounts.ground.chain, account, &accounts.peer_changes).await;
    match proof.map_err(chain)? {
        Some(proof) => Ok(value_proof_view(proof)),
        None => refuse(
            Code::LedgerUnavailable,
            "the block of this state has no certificate yet; retry in a moment",
        ),
    }
}

/// An account by its name, or by its id. Refuses with `account.not_found`.
pub(crate) async fn find(accounts: &Accounts, name_or_id: &str) -> Answer<AccountId> {
    if name_or_id.starts_with("acc_")
        && let Ok(id) = name_or_id.parse()
    {
        return Ok(id);
    }
    let missing = || refuse(Code::AccountNotFound, format!("no account has the name `{name_or_id}`"));
    let Ok(name) = name_or_id.parse::<OwnerName>() else {
        return missing();
    };
    match accounts.ground.chain.get(&Key::Name(name)).await.map_err(chain)? {
        Some(Value::Name(account)) => Ok(account),
        Some(_) | None => missing(),
    }
}

fn key_context(account: AccountId) -> String {
    format!("key of {account}")
}

/// The key that the controller keeps for this account; `None` where its owner keeps it.
pub(crate) async fn custodial_key(accounts: &Accounts, account: AccountId) -> Answer<Option<SecretKey>> {
    let user = accounts.ground.store.user_by_account(account).await.map_err(store)?;
    let Some(sealed) = user.and_then(|user| user.sealed_key) else {
        return Ok(None);
    };
    let key = open_key(accounts, account, &sealed)?;
    Ok(Some(finish_rotation(accounts, account).await?.unwrap_or(key)))
}

/// The same for what only the account itself may do. Refuses with `account.bad_signature` where its owner keeps the
/// key, and says the command that signs with it.
pub(crate) async fn own_key(accounts: &Accounts, account: AccountId, command: &str) -> Answer<SecretKey> {
    match custodial_key(accounts, account).await? {
        Some(key) => Ok(key),
        None => Err(
            Refusal::new(Code::AccountBadSignature, "only you have this account's key")
                .hint(format!("sign with it by running `piecework {command}`"))
                .into(),
        ),
    }
}

fn open_key(accounts: &Accounts, account: AccountId, sealed: &[u8]) -> Answer<SecretKey> {
    let seed = accounts
        .ground
        .store
        .open_sealed(&key_context(account), sealed)
        .map_err(store)?;
    let seed = <[u8; 32]>::try_from(seed).map_err(|_| failed("open a kept key", &"it is not 32 bytes long"))?;
    Ok(SecretKey::from_seed(seed))
}

/// Gives an account whose key the controller keeps another one.
///
/// The new key is kept before the ledger hears of it and becomes the account's once the ledger has it, also after a
/// crash between the two. Refuses with `account.bad_signature` where the owner keeps the key.
pub(crate) async fn rotate_key(accounts: &Accounts, account: AccountId) -> Answer<PublicKey> {
    let old = own_key(accounts, account, "account rotate-key --key FILE --new-key FILE").await?;
    let new = SecretKey::from_seed(rand::rng().random());
    let sealed = accounts
        .ground
        .store
        .seal(&key_context(account), &new.to_seed())
        .map_err(store)?;
    let place = account.to_string();
    accounts
        .ground
        .store
        .put_value(ROTATING, &place, &sealed)
        .await
        .map_err(store)?;
    let action = Action::RotateKey(RotateKey {
        new_key: new.public(),
        proof: new.sign(Domain::Owner, &accounts.ground.network, &account),
    });
    send(accounts, account, &old, action).await?;
    finish_rotation(accounts, account).await?;
    let detail = json!({"key": new.public()});
    let name = accounts.ground.account_name(account).await;
    audit::own(accounts, account, ("account", "key_rotated"), name, detail).await?;
    Ok(new.public())
}

/// The account's word, for the ledger, that the account of `key` is its own. Refuses with `account.bad_signature` where
/// the controller does not keep its key.
pub(crate) async fn vouch(accounts: &Accounts, owner: AccountId, key: &PublicKey) -> Answer<OwnerView> {
    let own = own_key(accounts, owner, "provide --mine --owner-key FILE").await?;
    let account = AccountId::of(key);
    let signature = own.sign(Domain::Owner, &accounts.ground.network, &account);
    let name = accounts.ground.account_name(owner).await;
    audit::own(
        accounts,
        owner,
        ("provider", "owned"),
        name,
        json!({"provider": account}),
    )
    .await?;
    Ok(OwnerView { owner, signature })
}

/// Takes up a key that was kept for a rotation, if the ledger has it by now.
async fn finish_rotation(accounts: &Accounts, account: AccountId) -> Answer<Option<SecretKey>> {
    let place = account.to_string();
    let Some(sealed) = accounts.ground.store.value(ROTATING, &place).await.map_err(store)? else {
        return Ok(None);
    };
    let key = open_key(accounts, account, &sealed)?;
    if on_ledger(accounts, account).await?.key != key.public() {
        return Ok(None);
    }
    if let Some(mut user) = accounts.ground.store.user_by_account(account).await.map_err(store)? {
        user.public_key = key.public();
        user.sealed_key = Some(sealed);
        accounts.ground.store.update_user(&user).await.map_err(store)?;
    }
    accounts
        .ground
        .store
        .take_value(ROTATING, &place)
        .await
        .map_err(store)?;
    Ok(Some(key))
}

/// The ledger has another key for an account: from now on that one logs in.
pub(crate) async fn key_rotated(accounts: &Accounts, account: AccountId) -> Answer<()> {
    let Some(mut user) = accounts.ground.store.user_by_account(account).await.map_err(store)? else {
        return Ok(());
    };
    if user.sealed_key.is_some() {
        return finish_rotation(accounts, account).await.map(drop);
    }
    let key = on_ledger(accounts, account).await?.key;
    if user.public_key != key {
        user.public_key = key;
        accounts.ground.store.update_user(&user).await.map_err(store)?;
        let detail = json!({"key": key});
        audit::own(
            accounts,
            account,
            ("account", "key_rotated"),
            user.name.as_str(),
            detail,
        )
        .await?;
    }
    Ok(())
}

/// Makes a genesis account of this installation a user. Idempotent.
pub(crate) async fn adopt(
    accounts: &Accounts,
    name: OwnerName,
    key: &SecretKey,
    (roles, operator): (Roles, bool),
) -> Answer<AccountId> {
    let account = AccountId::of(&key.public());
    if accounts
        .ground
        .store
        .user_by_account(account)
        .await
        .map_err(store)?
        .is_some()
    {
        return Ok(account);
    }
    let user = User {
        account,
        name,
        public_key: key.public(),
        password_hash: None,
        sealed_key: Some(
            accounts
                .ground
                .store
                .seal(&key_context(account), &key.to_seed())
                .map_err(store)?,
        ),
        roles,
        operator,
        created_at_ms: now_ms(),
    };
    accounts.ground.store.insert_user(&user).await.map_err(store)?;
    Ok(account)
}

/// `POST /accounts`: on the ledger first, then here; the invite's grant last.
pub(crate) async fn register(accounts: &Accounts, body: CreateAccount) -> Answer<AccountId> {
    let name: OwnerName = body.name.parse().map_err(rejected)?;
    if RESERVED_NAMES.contains(&name.as_str()) {
        let message = format!("`{name}` is what the platform calls itself in audit records and payments");
        return refuse(Code::AccountReservedName, message);
    }
    let invite = invites::take(accounts, body.invite.as_deref()).await?;
    let result = register_invited(accounts, &body, name, invite.as_ref()).await;
    if let (Err(_), Some(invite), Some(code)) = (&result, &invite, &body.invite) {
        invites::give_back(accounts, code, invite).await?;
    }
    let account = result?;
    let inviter = invite.as_ref().map(|invite| invite.inviter.to_string());
    let detail = json!({"roles": body.roles, "by": if body.password.is_some() { "password" } else { "key" }, "inviter": inviter});
    audit::own(accounts, account, ("account", "registered"), body.name.as_str(), detail).await?;
    if let Some(invite) = &invite {
        invites::keep_promises(accounts, invite, account).await?;
    }
    Ok(account)
}

async fn register_invited(
    accounts: &Accounts,
    body: &CreateAccount,
    name: OwnerName,
    invite: Option<&Invite>,
) -> Answer<AccountId> {
    let roles = invites::granted_roles(accounts, body, invite).await?;
    if accounts
        .ground
        .store
        .user_by_name(&name)
        .await
        .map_err(store)?
        .is_some()
    {
        return refuse(Code::AccountExists, format!("the name `{name}` is already taken"));
    }
    match (&body.password, &body.public_key, &body.registration) {
        (Some(password), None, None) => register_with_password(accounts, name, password, roles).await,
        (None, Some(key), Some(registration)) => register_with_key(accounts, name, *key, registration, roles).await,
        _ => refuse(
            Code::BodyMalformed,
            "send either a password, or public_key with registration",
        ),
    }
}

async fn register_with_password(
    accounts: &Accounts,
    name: OwnerName,
    password: &str,
    roles: Roles,
) -> Answer<AccountId> {
    if !PASSWORD_LENGTH.contains(&password.chars().count()) {
        return refuse(Code::AccountBadPassword, "the password must have 10 to 200 characters");
    }
    let hash = logins::hash_password(accounts, password.to_owned()).await?;
    let key = SecretKey::from_seed(rand::rng().random());
    let account = AccountId::of(&key.public());
    let register = Register {
        name: name.clone(),
        roles,
        sponsor: None,
        owner: None,
    };
    let transaction = Transaction {
        sender: account,
        nonce: 0,
        action: Action::Register(register),
    };
    let signed = SignedTransaction::sign(transaction, &key, &accounts.ground.network);
    let user = User {
        account,
        name,
        public_key: key.public(),
        password_hash: Some(hash),
        sealed_key: Some(
            accounts
                .ground
                .store
                .seal(&key_context(account), &key.to_seed())
                .map_err(store)?,
        ),
        roles,
        operator: false,
        created_at_ms: now_ms(),
    };
    enter(accounts, signed, user).await
}

async fn register_with_key(
    accounts: &Accounts,
    name: OwnerName,
    key: PublicKey,
    registration: &str,
    roles: Roles,
) -> Answer<AccountId> {
    let bad = |message: &str| refuse(Code::AccountBadRegistration, message);
    let Some(signed) = codecs::from_hex::<SignedTransaction>(registration) else {
        return bad("the registration is not a signed transaction in hex");
    };
    match &signed.transaction.action {
        Action::Register(register) if signed.key == key && register.name == name && register.roles == roles => {}
        _ => return bad("the registration does not match the name, the roles and the key"),
    }
    // The ledger asks this only of accounts that it does not know yet.
    if signed.verify(&accounts.ground.network).is_err() {
        return bad("the registration is not signed with the key");
    }
    let known = registered(accounts, &name, key).await?;
    let user = User {
        account: known.unwrap_or_else(|| AccountId::of(&key)),
        name,
        public_key: key,
        password_hash: None,
        sealed_key: None,
        roles,
        operator: false,
        created_at_ms: now_ms(),
    };
    match known {
        Some(_) => remember(accounts, user).await,
        None => enter(accounts, signed, user).await,
    }
}

/// The account that has this name and this key on the ledger: it registered at another controller, and comes here too.
async fn registered(accounts: &Accounts, name: &OwnerName, key: PublicKey) -> Answer<Option<AccountId>> {
    let named = accounts
        .ground
        .chain
        .get(&Key::Name(name.clone()))
        .await
        .map_err(chain)?;
    let Some(Value::Name(account)) = named else {
        return Ok(None);
    };
    let found = on_ledger(accounts, account).await?;
    Ok((found.key == key).then_some(account))
}

async fn enter(accounts: &Accounts, signed: SignedTransaction, user: User) -> Answer<AccountId> {
    accounts.ground.chain.submit_and_wait(signed).await.map_err(submit)?;
    remember(accounts, user).await
}

async fn remember(accounts: &Accounts, user: User) -> Answer<AccountId> {
    match accounts.ground.store.insert_user(&user).await {
        Ok(()) => Ok(user.account),
        Err(failure) if failure.is_conflict() => refuse(Code::AccountExists, "the name or the key is already taken"),
        Err(failure) => Err(store(failure)),
    }
}

/// Moves credits of the caller's account, whose key the controller keeps.
pub(crate) async fn transfer(accounts: &Accounts, from: AccountId, to: AccountId, amount: Credits) -> Answer<Sent> {
    let key = own_key(accounts, from, "transfer NAME AMOUNT --key FILE").await?;
    let sent = send(accounts, from, &key, Action::Transfer(Transfer { to, amount })).await?;
    moved(accounts, from, to, amount, &sent).await?;
    Ok(sent)
}

pub(super) async fn moved(
    accounts: &Accounts,
    from: AccountId,
    to: AccountId,
    amount: Credits,
    sent: &Sent,
) -> Answer<()> {
    let target = accounts.ground.account_name(to).await;
    let detail = json!({"amount_ucr": amount, "height": sent.done.height, "transaction": sent.done.id});
    audit::own(accounts, from, ("transfer", "made"), target, detail).await
}

/// Lets `account` owe the caller's as much as `limit`, or gives back what the caller's own may owe. Made twice, it is the
/// same. Refuses with `transaction.queued` while the ledger does not answer, and goes on.
pub(crate) async fn lend(
    accounts: &Arc<Accounts>,
    caller: AccountId,
    account: AccountId,
    limit: Credits,
) -> Answer<()> {
    let work = accounts.clone();
    let name = format!("loan/{account}/{limit}");
    let change = async move {
        let key = own_key(&work, caller, "lend NAME AMOUNT --key FILE").await?;
        let action = Action::SetLimit(SetLimit { account, limit });
        let sent = send(&work, caller, &key, action).await?;
        let detail = json!({"limit_ucr": limit, "height": sent.done.height, "transaction": sent.done.id});
        let target = work.ground.account_name(account).await;
        audit::own(&work, caller, ("loan", "set"), target, detail).await
    };
    transfers::waiting(accounts, (caller, name), change).await
}

/// Pays of what `account` owes out of what the caller lent it.
pub(crate) async fn cover(accounts: &Accounts, caller: AccountId, account: AccountId, amount: Credits) -> Answer<()> {
    let key = own_key(accounts, caller, "lend NAME --cover AMOUNT --key FILE").await?;
    let action = Action::CoverDebt(CoverDebt { account, amount });
    let sent = send(accounts, caller, &key, action).await?;
    let detail = json!({"amount_ucr": amount, "height": sent.done.height, "transaction": sent.done.id});
    let target = accounts.ground.account_name(account).await;
    audit::own(accounts, caller, ("loan", "covered"), target, detail).await
}
