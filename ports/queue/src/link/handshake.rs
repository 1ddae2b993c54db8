//! Who is at the other end: Noise NN, then both sign the handshake's hash.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use piecework_model::{AccountId, Domain, NetworkId, PublicKey, Rejection, SecretKey, Signature};
use snow::{Builder, HandshakeState, TransportState};
use tokio::time::timeout;

use super::{
    HANDSHAKE_TIMEOUT, LinkFailure, PROTOCOL,
    secure::{Receiver, Secure, Sender},
    wire::Wire,
};
use crate::Profile;

pub(super) const PATTERN: &str = "Noise_NN_25519_ChaChaPoly_BLAKE2s";
const MAGIC: [u8; 8] = *b"pw-link\0";
/// A Noise handshake message of NN without a payload.
const NOISE_MESSAGE_MAX: usize = 128;

/// The first words, in the clear.
#[derive(BorshSerialize, BorshDeserialize)]
struct Knock {
    magic: [u8; 8],
    protocol: u16,
    network: NetworkId,
    noise: Vec<u8>,
}

/// The answer, in the clear as well: whoever cannot speak this protocol must be able to read why.
#[derive(BorshSerialize, BorshDeserialize)]
enum Opening {
    Noise(Vec<u8>),
    Refused(Rejection),
}

#[derive(BorshSerialize, BorshDeserialize)]
enum Side {
    Controller,
    Provider,
}

#[derive(BorshSerialize)]
struct Signed<'a> {
    handshake: &'a [u8],
    side: Side,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct Identity {
    key: PublicKey,
    signature: Signature,
}

impl Identity {
    fn sign(key: &SecretKey, network: &NetworkId, handshake: &[u8], side: Side) -> Self {
        let signed = Signed { handshake, side };
        Self {
            key: key.public(),
            signature: key.sign(Domain::Link, network, &signed),
        }
    }

    fn verify(&self, network: &NetworkId, handshake: &[u8], side: Side) -> Result<(), LinkFailure> {
        let signed = Signed { handshake, side };
        self.key
            .verify(Domain::Link, network, &signed, &self.signature)
            .map_err(|_| LinkFailure::Protocol("the other end did not prove its key"))
    }
}

/// What a provider says of itself when it comes.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub struct Introduction {
    pub profile: Profile,
    /// Of this run of the program: another one has forgotten the jobs of the one before.
    pub instance: [u8; 16],
}

#[derive(BorshSerialize, BorshDeserialize)]
struct Hello {
    identity: Identity,
    introduction: Introduction,
}

#[derive(BorshSerialize, BorshDeserialize)]
enum Verdict {
    Welcome { now_ms: u64 },
    Refused(Rejection),
}

/// A provider that has proved its key and waits for the controller's word.
pub struct Arrival {
    pub key: PublicKey,
    pub introduction: Introduction,
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
}

impl Arrival {
    pub fn account(&self) -> AccountId {
        self.introduction.profile.account
    }

    /// Says no, with a reason that the provider's owner reads.
    pub async fn refuse(mut self, rejection: Rejection) {
        // It may have gone: then nobody reads the reason.
        let _ = self.sender.send(&Verdict::Refused(rejection)).await;
    }

    pub(super) async fn welcome(mut self, now_ms: u64) -> Result<(Sender, Receiver), LinkFailure> {
        self.sender.send(&Verdict::Welcome { now_ms }).await?;
        Ok((self.sender, self.receiver))
    }
}

fn builder() -> Builder<'static> {
    Builder::new(PATTERN.parse().expect("the pattern is one of Noise's"))
}

fn noise_failure(_: snow::Error) -> LinkFailure {
    LinkFailure::Protocol("the handshake does not fit")
}

fn finished(noise: HandshakeState) -> Result<(TransportState, Vec<u8>), LinkFailure> {
    let hash = noise.get_handshake_hash().to_vec();
    Ok((noise.into_transport_mode().map_err(noise_failure)?, hash))
}

/// The controller's half, up to the provider's proof. Whether the provider is welcome is for the caller to find out.
pub async fn receive(mut wire: Wire, key: &SecretKey, network: NetworkId) -> Result<Arrival, LinkFailure> {
    timeout(HANDSHAKE_TIMEOUT, async {
        let knock: Result<Knock, _> = borsh::from_slice(&wire.receive().await?);
        let noise = match opening(knock.ok(), network) {
            Ok(noise) => noise,
            Err(rejection) => {
                let refused = borsh::to_vec(&Opening::Refused(rejection.clone())).expect("a vector accepts every byte");
                wire.send(refused.into()).await?;
                return Err(rejection.into());
            }
        };
        let (noise, answer) = respond(&noise)?;
        let answer = borsh::to_vec(&Opening::Noise(answer)).expect("a vector accepts every byte");
        wire.send(answer.into()).await?;
        let (noise, hash) = finished(noise)?;
        let (mut sender, mut receiver) = Secure::new(wire, noise).split();
        sender
            .send(&Identity::sign(key, &network, &hash, Side::Controller))
            .await?;
        let hello: Hello = receiver.receive().await?;
        hello.identity.verify(&network, &hash, Side::Provider)?;
        Ok(Arrival {
            key: hello.identity.key,
            introduction: hello.introduction,
            sender,
            receiver,
        })
    })
    .await
    .map_err(|_| LinkFailure::Silent)?
}

fn opening(knock: Option<Knock>, network: NetworkId) -> Result<Vec<u8>, Rejection> {
    let knock = knock
        .filter(|knock| knock.magic == MAGIC)
        .ok_or_else(|| Rejection::new("link.malformed", "this is not the beginning of a provider's link"))?;
    if knock.protocol != PROTOCOL {
        let who = if knock.protocol < PROTOCOL {
            "this provider"
        } else {
            "the controller"
        };
        return Err(Rejection::new(
            "link.version",
            format!(
                "the provider speaks version {} of the link and the controller version {PROTOCOL}",
                knock.protocol
            ),
        )
        .hint(format!("update {who}")));
    }
    if knock.network != network {
        return Err(Rejection::new(
            "link.other_network",
            "the controller belongs to another network than this provider's account",
        )
        .hint("use another --data directory for each network"));
    }
    Ok(knock.noise)
}

fn respond(first: &[u8]) -> Result<(HandshakeState, Vec<u8>), LinkFailure> {
    let mut noise = builder().build_responder().map_err(noise_failure)?;
    let mut payload = [0; NOISE_MESSAGE_MAX];
    noise.read_message(first, &mut payload).map_err(noise_failure)?;
    let mut answer = [0; NOISE_MESSAGE_MAX];
    let length = noise.write_message(&[], &mut answer).map_err(noise_failure)?;
    Ok((noise, answer[..length].to_vec()))
}

/// The provider's half. `trusts` decides whether the controller's key is one to work for.
pub(super) async fn introduce(
    mut wire: Wire,
    key: &SecretKey,
    network: NetworkId,
    introduction: Introduction,
    trusts: &(dyn Fn(PublicKey) -> Result<(), Rejection> + Send + Sync),
) -> Result<(PublicKey, u64, Sender, Receiver), LinkFailure> {
    timeout(HANDSHAKE_TIMEOUT, async {
        let mut noise = builder().build_initiator().map_err(noise_failure)?;
        wire.send(knock(&mut noise, PROTOCOL, network)?).await?;
        let answer = match borsh::from_slice(&wire.receive().await?) {
            Ok(Opening::Noise(answer)) => answer,
            Ok(Opening::Refused(rejection)) => return Err(rejection.into()),
            Err(_) => return Err(LinkFailure::Protocol("the other end is no controller")),
        };
        let mut payload = [0; NOISE_MESSAGE_MAX];
        noise.read_message(&answer, &mut payload).map_err(noise_failure)?;
        let (noise, hash) = finished(noise)?;
        let (mut sender, mut receiver) = Secure::new(wire, noise).split();
        let controller: Identity = receiver.receive().await?;
        controller.verify(&network, &hash, Side::Controller)?;
        trusts(controller.key)?;
        let identity = Identity::sign(key, &network, &hash, Side::Provider);
        sender.send(&Hello { identity, introduction }).await?;
        match receiver.receive().await? {
            Verdict::Welcome { now_ms } => Ok((controller.key, now_ms, sender, receiver)),
            Verdict::Refused(rejection) => Err(rejection.into()),
        }
    })
    .await
    .map_err(|_| LinkFailure::Silent)?
}

fn knock(noise: &mut HandshakeState, protocol: u16, network: NetworkId) -> Result<Bytes, LinkFailure> {
    let mut first = [0; NOISE_MESSAGE_MAX];
    let length = noise.write_message(&[], &mut first).map_err(noise_failure)?;
    let knock = Knock {
        magic: MAGIC,
        protocol,
        network,
        noise: first[..length].to_vec(),
    };
    Ok(borsh::to_vec(&knock).expect("a vector accepts every byte").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: NetworkId = NetworkId([4; 32]);

    fn refusal_of(protocol: u16, network: NetworkId) -> String {
        let mut noise = builder().build_initiator().expect("builds");
        let bytes = knock(&mut noise, protocol, network).expect("knocks");
        let knock = borsh::from_slice(&bytes).ok();
        opening(knock, NETWORK).map_or_else(|refused| refused.code.into_owned(), |_| "open".into())
    }

    #[test]
    fn another_protocol_or_network_is_told_so() {
        assert_eq!(refusal_of(PROTOCOL, NETWORK), "open");
        assert_eq!(refusal_of(PROTOCOL + 1, NETWORK), "link.version");
        assert_eq!(refusal_of(PROTOCOL - 1, NETWORK), "link.version");
        assert_eq!(refusal_of(PROTOCOL, NetworkId([5; 32])), "link.other_network");
        assert_eq!(opening(None, NETWORK).expect_err("garbage").code, "link.malformed");
    }
}
