//! Who is at the other end, and in which version both speak: Noise NN, then both sign the handshake's hash.
//!
//! The knock names the lowest version that the provider speaks; the highest is the payload of its Noise message, in the clear
//! as well. So a controller of version 2, which knows neither, reads a knock of version 2, and the handshake's hash covers
//! both. A controller that was told a range answers with the version that it chose, as the payload of its Noise message.

use std::{cmp, fmt, io};

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use piecework_model::{AccountId, Code, Domain, Language, NetworkId, PublicKey, Rejection, SecretKey, Signature};
use snow::{Builder, HandshakeState, TransportState};

use super::{
    HANDSHAKE_TIMEOUT, IMAGES_SINCE, LinkFailure, PACKET_BYTES_MAX, PROOF_TIMEOUT, PROTOCOL, PROTOCOL_LOWEST,
    secure::{Receiver, Secure, Sender},
    wire::Wire,
};
use crate::Profile;

pub(super) const PATTERN: &str = "Noise_NN_25519_ChaChaPoly_BLAKE2s";
const MAGIC: [u8; 8] = *b"pw-link\0";
/// A Noise handshake message of NN with a version as its payload.
const NOISE_MESSAGE_MAX: usize = 128;
/// How a Noise message of NN begins; its payload comes after it.
const EPHEMERAL_BYTES: usize = 32;
/// A knock: 46 bytes and a Noise message. Nobody who has proved nothing is given room for more.
pub(super) const KNOCK_BYTES_MAX: usize = 256;
/// The controller's answer in the clear: a Noise message, or a refusal with its sentences.
const OPENING_BYTES_MAX: usize = 4 << 10;
/// A provider's proof and what it says of itself, in one frame: 32 labels of 64 bytes, the probes of the sandboxes that there
/// are with what they say of themselves, an egress policy. Larger ones are refused before they are decoded.
pub(super) const HELLO_BYTES_MAX: usize = 12 << 10;

/// The versions of the link that an end speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    pub lowest: u16,
    pub highest: u16,
}

impl Versions {
    pub const OURS: Self = Self {
        lowest: PROTOCOL_LOWEST,
        highest: PROTOCOL,
    };

    /// The highest that both speak.
    fn common(self, other: Self) -> Option<u16> {
        let version = self.highest.min(other.highest);
        (version >= self.lowest.max(other.lowest)).then_some(version)
    }

    fn has(self, version: u16) -> bool {
        (self.lowest..=self.highest).contains(&version)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lowest.cmp(&self.highest) {
            cmp::Ordering::Equal => write!(f, "version {}", self.highest),
            cmp::Ordering::Less | cmp::Ordering::Greater => write!(f, "versions {} to {}", self.lowest, self.highest),
        }
    }
}

/// The first words, in the clear.
#[derive(BorshSerialize, BorshDeserialize)]
struct Knock {
    magic: [u8; 8],
    /// The lowest version that the provider speaks.
    protocol: u16,
    network: NetworkId,
    noise: NoiseMessage,
}

/// Read only if it is no longer than such a message can be: borsh would give it a MiB if its length said so.
#[derive(BorshSerialize)]
struct NoiseMessage(Vec<u8>);

impl BorshDeserialize for NoiseMessage {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let length = u32::deserialize_reader(reader)? as usize;
        if length > NOISE_MESSAGE_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; length];
        reader.read_exact(&mut bytes)?;
        Ok(Self(bytes))
    }
}

/// A knock that was understood, and the answer to it under way.
struct Answering {
    noise: HandshakeState,
    version: u16,
    /// Whether the provider named a range, and so reads which version was chosen.
    is_told: bool,
}

/// The answer, in the clear as well: whoever cannot speak this protocol must be able to read why.
#[derive(BorshSerialize, BorshDeserialize)]
enum Opening {
    Noise(NoiseMessage),
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
    /// In which both speak from here on.
    pub version: u16,
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
pub async fn receive(wire: Wire, key: &SecretKey, network: NetworkId) -> Result<Arrival, LinkFailure> {
    let clock = wire.clock.clone();
    let opener = wire.opener.clone();
    let received = clock.timeout(PROOF_TIMEOUT, receive_proof(wire, key, network)).await;
    let arrival = received.ok_or(LinkFailure::Silent)??;
    opener.open();
    Ok(arrival)
}

async fn receive_proof(mut wire: Wire, key: &SecretKey, network: NetworkId) -> Result<Arrival, LinkFailure> {
    let knock = wire.receive(PACKET_BYTES_MAX).await?;
    let answering = match opening(read_knock(&knock), network, Versions::OURS) {
        Ok(answering) => answering,
        Err(rejection) => {
            let refused = borsh::to_vec(&Opening::Refused(rejection.clone())).expect("a vector accepts every byte");
            wire.send(refused.into()).await?;
            return Err(rejection.into());
        }
    };
    let version = answering.version;
    let (noise, answer) = answer(answering)?;
    let answer = borsh::to_vec(&Opening::Noise(NoiseMessage(answer))).expect("a vector accepts every byte");
    wire.send(answer.into()).await?;
    let (noise, hash) = finished(noise)?;
    let (mut sender, mut receiver) = Secure::new(wire, noise).split();
    sender
        .send(&Identity::sign(key, &network, &hash, Side::Controller))
        .await?;
    let hello = receiver.receive_small(HELLO_BYTES_MAX).await?;
    let mut rest = &hello[..];
    let identity = Identity::deserialize(&mut rest).map_err(|_| LinkFailure::Protocol("that proves no key"))?;
    // Before anything else of what a stranger says is decoded.
    identity.verify(&network, &hash, Side::Provider)?;
    let introduction = borsh::from_slice(rest).map_err(|_| LinkFailure::Protocol("a frame does not decode"))?;
    Ok(Arrival {
        key: identity.key,
        introduction,
        version,
        sender,
        receiver,
    })
}

fn read_knock(bytes: &[u8]) -> Option<Knock> {
    let knock: Knock = borsh::from_slice(bytes.get(..bytes.len().min(KNOCK_BYTES_MAX))?).ok()?;
    (knock.magic == MAGIC).then_some(knock)
}

fn opening(knock: Option<Knock>, network: NetworkId, ours: Versions) -> Result<Answering, Rejection> {
    let malformed = || Rejection::new(Code::LinkMalformed, "this is not the beginning of a provider's link");
    let knock = knock.ok_or_else(malformed)?;
    // Read before anything that a later version might do otherwise.
    let highest = knock.noise.0.get(EPHEMERAL_BYTES..);
    let highest = highest.and_then(|payload| borsh::from_slice(payload).ok());
    let theirs = Versions {
        lowest: knock.protocol,
        highest: highest.unwrap_or(knock.protocol),
    };
    let version = ours.common(theirs).ok_or_else(|| no_common(theirs, ours))?;
    if knock.network != network {
        return Err(Rejection::new(
            Code::LinkOtherNetwork,
            "the controller belongs to another network than this provider's account",
        )
        .hint("use another --data directory for each network"));
    }
    let mut payload = [0; NOISE_MESSAGE_MAX];
    let mut noise = builder().build_responder().map_err(|_| malformed())?;
    noise
        .read_message(&knock.noise.0, &mut payload)
        .map_err(|_| malformed())?;
    Ok(Answering {
        noise,
        version,
        is_told: highest.is_some(),
    })
}

fn no_common(theirs: Versions, ours: Versions) -> Rejection {
    let who = match theirs.highest < ours.lowest {
        true => "this provider",
        false => "the controller",
    };
    Rejection::new(
        Code::LinkVersion,
        format!("the provider speaks {theirs} of the link and the controller {ours}"),
    )
    .hint(format!("update {who}"))
}

fn answer(answering: Answering) -> Result<(HandshakeState, Vec<u8>), LinkFailure> {
    let mut noise = answering.noise;
    let version = answering.version.to_le_bytes();
    let payload: &[u8] = if answering.is_told { &version } else { &[] };
    let mut answer = [0; NOISE_MESSAGE_MAX];
    let length = noise.write_message(payload, &mut answer).map_err(noise_failure)?;
    Ok((noise, answer[..length].to_vec()))
}

/// What a provider knows once it is let in.
pub(super) struct Welcome {
    pub(super) controller: PublicKey,
    /// The controller's clock.
    pub(super) now_ms: u64,
    pub(super) version: u16,
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
}

/// Whether a controller's key is one to work for.
pub(super) type Trusts<'a> = &'a (dyn Fn(PublicKey) -> Result<(), Rejection> + Send + Sync);

/// The provider's half.
pub(super) async fn introduce(
    wire: Wire,
    key: &SecretKey,
    network: NetworkId,
    (introduction, versions): (Introduction, Versions),
    trusts: Trusts<'_>,
) -> Result<Welcome, LinkFailure> {
    let clock = wire.clock.clone();
    let introduced = introduce_at_ease(wire, key, network, (introduction, versions), trusts);
    let introduced = clock.timeout(HANDSHAKE_TIMEOUT, introduced).await;
    introduced.ok_or(LinkFailure::Silent)?
}

async fn introduce_at_ease(
    mut wire: Wire,
    key: &SecretKey,
    network: NetworkId,
    (mut introduction, versions): (Introduction, Versions),
    trusts: Trusts<'_>,
) -> Result<Welcome, LinkFailure> {
    let mut noise = builder().build_initiator().map_err(noise_failure)?;
    wire.send(knock(&mut noise, versions, network)?).await?;
    let answer = match borsh::from_slice(&wire.receive(OPENING_BYTES_MAX).await?) {
        Ok(Opening::Noise(NoiseMessage(answer))) => answer,
        Ok(Opening::Refused(rejection)) => return Err(rejection.into()),
        Err(_) => return Err(LinkFailure::Protocol("the other end is no controller")),
    };
    let mut payload = [0; NOISE_MESSAGE_MAX];
    let length = noise.read_message(&answer, &mut payload).map_err(noise_failure)?;
    // A controller that knows of no range says nothing: it has read the lowest.
    let version = borsh::from_slice(&payload[..length]).unwrap_or(versions.lowest);
    if !versions.has(version) {
        return Err(LinkFailure::Protocol(
            "the controller chose a version that was not offered",
        ));
    }
    let (noise, hash) = finished(noise)?;
    let (mut sender, mut receiver) = Secure::new(wire, noise).split();
    let controller: Identity = receiver.receive().await?;
    controller.verify(&network, &hash, Side::Controller)?;
    trusts(controller.key)?;
    let identity = Identity::sign(key, &network, &hash, Side::Provider);
    if version < IMAGES_SINCE {
        let probes = &mut introduction.profile.probes;
        probes
            .iter_mut()
            .for_each(|probe| probe.languages.retain(|language| *language != Language::Image));
    }
    sender.send(&Hello { identity, introduction }).await?;
    match receiver.receive().await? {
        Verdict::Welcome { now_ms } => Ok(Welcome {
            controller: controller.key,
            now_ms,
            version,
            sender,
            receiver,
        }),
        Verdict::Refused(rejection) => Err(rejection.into()),
    }
}

fn knock(noise: &mut HandshakeState, versions: Versions, network: NetworkId) -> Result<Bytes, LinkFailure> {
    let highest = versions.highest.to_le_bytes();
    // As version 2 knocks, where that is all it speaks.
    let payload: &[u8] = if versions.highest > 2 { &highest } else { &[] };
    let mut first = [0; NOISE_MESSAGE_MAX];
    let length = noise.write_message(payload, &mut first).map_err(noise_failure)?;
    let knock = Knock {
        magic: MAGIC,
        protocol: versions.lowest,
        network,
        noise: NoiseMessage(first[..length].to_vec()),
    };
    Ok(borsh::to_vec(&knock).expect("a vector accepts every byte").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: NetworkId = NetworkId([4; 32]);

    fn opened(lowest: u16, highest: u16, network: NetworkId) -> Result<(u16, bool), Rejection> {
        let mut noise = builder().build_initiator().expect("builds");
        let bytes = knock(&mut noise, Versions { lowest, highest }, network).expect("knocks");
        assert!(bytes.len() <= KNOCK_BYTES_MAX);
        let ours = Versions { lowest: 2, highest: 4 };
        let answering = opening(read_knock(&bytes), NETWORK, ours)?;
        Ok((answering.version, answering.is_told))
    }

    #[test]
    fn the_highest_common_version_is_spoken() {
        assert_eq!(opened(2, 2, NETWORK), Ok((2, false)), "as an old provider knocks");
        assert_eq!(opened(1, 3, NETWORK), Ok((3, true)));
        assert_eq!(opened(4, 9, NETWORK), Ok((4, true)));
        assert_eq!(opened(3, 3, NETWORK), Ok((3, true)));
    }

    #[test]
    fn ranges_without_a_common_version_are_refused_by_both_numbers() {
        let newer = opened(5, 7, NETWORK).expect_err("no common version");
        assert_eq!(newer.code, Code::LinkVersion);
        assert!(newer.message.contains("versions 5 to 7") && newer.message.contains("versions 2 to 4"));
        assert_eq!(newer.hint.as_deref(), Some("update the controller"));
        let older = opened(1, 1, NETWORK).expect_err("no common version");
        assert!(older.message.contains("version 1 "), "{}", older.message);
        assert_eq!(older.hint.as_deref(), Some("update this provider"));
        let backwards = opened(9, 3, NETWORK).expect_err("no range");
        assert_eq!(backwards.code, Code::LinkVersion);
    }

    #[test]
    fn another_network_and_garbage_are_told_so() {
        let other = opened(2, 3, NetworkId([5; 32])).expect_err("another network");
        assert_eq!(other.code, Code::LinkOtherNetwork);
        let garbage = opening(None, NETWORK, Versions::OURS).map(|_| ()).expect_err("garbage");
        assert_eq!(garbage.code, Code::LinkMalformed);
    }

    /// What a controller of version 2 did with a knock: it reads the fields and a Noise message with whatever payload.
    #[test]
    fn a_controller_of_version_2_reads_a_knock_that_names_a_range() {
        let mut provider = builder().build_initiator().expect("builds");
        let bytes = knock(&mut provider, Versions { lowest: 2, highest: 3 }, NETWORK).expect("knocks");
        let read: Knock = borsh::from_slice(&bytes).expect("four fields and no more");
        assert_eq!((read.magic, read.protocol, read.network), (MAGIC, 2, NETWORK));
        let mut controller = builder().build_responder().expect("builds");
        let (mut payload, mut answer) = ([0; NOISE_MESSAGE_MAX], [0; NOISE_MESSAGE_MAX]);
        controller
            .read_message(&read.noise.0, &mut payload)
            .expect("one of Noise's");
        let length = controller.write_message(&[], &mut answer).expect("answers");
        assert_eq!(
            provider.read_message(&answer[..length], &mut payload).expect("reads"),
            0
        );
        assert_eq!(provider.get_handshake_hash(), controller.get_handshake_hash());
    }
}

/// For `fuzz`: whether these bytes knock so that they are answered.
#[cfg(test)]
pub(super) fn knocked(bytes: &[u8], network: NetworkId) -> bool {
    match opening(read_knock(bytes), network, Versions::OURS) {
        Ok(answering) => answer(answering).is_ok(),
        Err(_) => false,
    }
}

/// For `golden`: the handshake as version 2 speaks it, and the knock of version 3.
#[cfg(test)]
pub(super) mod golden {
    use super::*;
    use crate::link::golden::{NETWORK, introduction, key};

    pub(in crate::link) fn handshake() -> Vec<(String, Vec<u8>)> {
        let mut kinds = Vec::new();
        let mut put = |name: &str, bytes: Vec<u8>| kinds.push((format!("handshake {name}"), bytes));
        let bytes = |value: &dyn Fn() -> std::io::Result<Vec<u8>>| value().expect("bytes");
        for (name, protocol, noise) in [
            ("knock", 2, [7; 32].to_vec()),
            ("knock with a range", 2, [&[7; 32][..], &[3, 0]].concat()),
        ] {
            let knock = Knock {
                magic: MAGIC,
                protocol,
                network: NETWORK,
                noise: NoiseMessage(noise),
            };
            put(name, bytes(&|| borsh::to_vec(&knock)));
        }
        let refused = || Rejection::new(Code::LinkVersion, "too old").hint("update this provider");
        put(
            "noise",
            bytes(&|| borsh::to_vec(&Opening::Noise(NoiseMessage(vec![8; 48])))),
        );
        put("refusal", bytes(&|| borsh::to_vec(&Opening::Refused(refused()))));
        let identity = |seed, side| Identity::sign(&key(seed), &NETWORK, &[9; 32], side);
        put("controller", bytes(&|| borsh::to_vec(&identity(1, Side::Controller))));
        let hello = Hello {
            identity: identity(2, Side::Provider),
            introduction: introduction(),
        };
        put("hello", bytes(&|| borsh::to_vec(&hello)));
        put(
            "welcome",
            bytes(&|| {
                borsh::to_vec(&Verdict::Welcome {
                    now_ms: 1_700_000_000_000,
                })
            }),
        );
        put("refused", bytes(&|| borsh::to_vec(&Verdict::Refused(refused()))));
        kinds
    }
}
