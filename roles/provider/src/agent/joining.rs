//! An account on the ledger, and the offer that stands there.

use piecework_api::{
    Client, ClientError,
    accounts::{AccountView, CreateAccount, CreateSession, sign_login},
    functions::PricesView,
    ledger::SubmitTransaction,
};
use piecework_ledger::{Action, PutOffer, Register, Resources, SignedTransaction, Transaction};
use piecework_model::{AccountId, Code, Domain, NetworkId, OwnerName, PublicKey, Role, SecretKey, Signature};
use piecework_queue::{Profile, ProviderLink as _};

use super::{Failure, Home};
use crate::Provider;

/// Far enough away never to run out.
const OFFER_BLOCKS: u64 = 1 << 40;

/// The logged-in account signs for a computer when it first joins.
pub struct OwnersWord {
    pub client: Client,
    /// Where the owner keeps the account's key and not the controller.
    pub key: Option<SecretKey>,
}

impl OwnersWord {
    async fn vouch(&self, computer: &PublicKey, network: NetworkId) -> Result<(AccountId, Signature), ClientError> {
        match &self.key {
            Some(key) => {
                let owner = self.client.own_account().await?.id;
                Ok((owner, key.sign(Domain::Owner, &network, &AccountId::of(computer))))
            }
            None => {
                let said = self.client.own_provider(*computer).await?;
                Ok((said.owner, said.signature))
            }
        }
    }
}

/// Who joins, if the network does not know this computer yet.
pub struct Newcomer<'a> {
    pub name: &'a str,
    pub invite: Option<&'a str>,
    pub owner: Option<&'a OwnersWord>,
    pub home: &'a Home,
}

/// The account's name, registered if it is not yet.
pub async fn enrol(
    client: &Client,
    key: &SecretKey,
    network: NetworkId,
    newcomer: &Newcomer<'_>,
) -> Result<String, Failure> {
    let id = AccountId::of(&key.public());
    match client.account(&id.to_string()).await {
        Ok(account) if newcomer.owner.is_some() && account.owner.is_none() => return Err(Failure::JoinedWithoutOwner),
        Ok(account) => return Ok(account.name),
        Err(ClientError::Refused { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let name: OwnerName = newcomer.name.parse()?;
    let owner = match newcomer.owner {
        Some(word) => Some(word.vouch(&key.public(), network).await.map_err(Failure::Owner)?),
        None => None,
    };
    let register = Action::Register(Register {
        name: name.clone(),
        roles: [Role::Provider].into_iter().collect(),
        sponsor: None,
        owner,
    });
    let body = CreateAccount {
        name: name.to_string(),
        public_key: Some(key.public()),
        registration: Some(signed(key, network, 0, register)),
        roles: vec![Role::Provider],
        invite: newcomer.invite.map(str::to_owned),
        ..CreateAccount::default()
    };
    let account = client.create_account(&body).await.map_err(|error| match &error {
        ClientError::Refused { refusal, .. }
            if refusal.code.is_one_of(&[Code::AccountExists, Code::AccountNameTaken]) =>
        {
            Failure::NameTaken(name.to_string())
        }
        _ => Failure::Account(error),
    })?;
    if let Some((owner, _)) = owner {
        newcomer.home.set_owner(owner)?;
    }
    Ok(account.name)
}

/// In hex, as signed transactions travel in JSON.
fn signed(key: &SecretKey, network: NetworkId, nonce: u64, action: Action) -> String {
    let sender = AccountId::of(&key.public());
    let signed = SignedTransaction::sign(Transaction { sender, nonce, action }, key, &network);
    hex::encode(borsh::to_vec(&signed).expect("a vector takes every write"))
}

/// This provider's offer for the ledger.
pub fn offer(profile: &Profile, disk_bytes: u64, height: u64) -> PutOffer {
    let working = profile.probes.iter().filter(|probe| probe.works);
    PutOffer {
        prices: profile.prices,
        resources: Resources {
            cores: profile.cores,
            memory_bytes: profile.memory_bytes,
            disk_bytes,
            slots: profile.slots,
        },
        backends: working.map(|probe| probe.backend.to_string()).collect(),
        region: profile.region.clone(),
        labels: profile.labels.clone(),
        expires_at_height: height + OFFER_BLOCKS,
    }
}

/// Puts the offer on the ledger, unless it stands there as it is. Where the account's credits do not cover the deposit, an invite
/// that was not used to register brings some.
pub async fn publish(
    (client, invite): (&Client, Option<&str>),
    key: &SecretKey,
    network: NetworkId,
    (provider, disk_bytes): (&Provider, u64),
) -> Result<(), Failure> {
    let client = logged_in(client, key, network, &provider.profile().name).await?;
    match (offered(&client, key, network, (provider, disk_bytes)).await, invite) {
        (Err(Failure::Offer(ClientError::Refused { refusal, .. })), Some(invite))
            if refusal.code == Code::OfferDeposit =>
        {
            client.accept_invite(invite).await.map_err(Failure::Invite)?;
            offered(&client, key, network, (provider, disk_bytes)).await
        }
        (done, _) => done,
    }
}

async fn offered(
    client: &Client,
    key: &SecretKey,
    network: NetworkId,
    (provider, disk_bytes): (&Provider, u64),
) -> Result<(), Failure> {
    let profile = provider.profile();
    let account: AccountView = client.own_account().await?;
    let offers = client.offers(&Default::default()).await?;
    let stands = offers.items.iter().any(|offer| {
        let resources = (offer.cores, offer.memory_bytes, offer.disk_bytes);
        (offer.provider_id, resources) == (profile.account, (profile.cores, profile.memory_bytes, disk_bytes))
            && serde_json::to_value(offer.prices).ok() == serde_json::to_value(PricesView::from(profile.prices)).ok()
    });
    if stands {
        return Ok(());
    }
    let action = Action::PutOffer(offer(profile, disk_bytes, account.height));
    let body = SubmitTransaction {
        transaction: signed(key, network, account.nonce, action),
    };
    client.submit(&body).await.map_err(Failure::Offer)?;
    Ok(())
}

/// With a token of this account, by its key.
async fn logged_in(client: &Client, key: &SecretKey, network: NetworkId, name: &str) -> Result<Client, ClientError> {
    let challenge = client.challenge(name).await?.challenge;
    let session = CreateSession {
        name: name.to_owned(),
        signature: Some(sign_login(key, &network, name, &challenge)),
        challenge: Some(challenge),
        ..CreateSession::default()
    };
    let token = client.create_session(&session).await?.token;
    Client::new(client.base(), Some(token))
}
