//! A history with every kind of action in it that moves credits.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, time::Duration};

use piecework_chain::Chain;
use piecework_ledger::{
    Action, BatchTicket, Challenge, Change, Claim, ClaimedJob, CloseLease, CoverDebt, DelegatePayer, DropOffer,
    Evidence, ExpireLease, Metered, OpenJobs, OpenTicket, PayClaims, PayPeers, Propose, PutOffer, Register, Resources,
    Roles, RotateKey, SetLimit, SignedTransaction, TicketBatch, TopUp, Transaction, Transfer,
};
use piecework_model::{
    AccountId, Counters, Credits, Digest, Domain, JobId, JobStatus, LeaseId, Limits, NetworkId, Prices, Receipt, Seal,
    Sealed, Ticket, merkle_proof,
};

use super::network::*;

/// Developer, provider, somebody with a new key, and who registers on credit.
const DEVELOPER: u8 = 1;
const PROVIDER: u8 = 2;
const ROTATED: u8 = 3;
const GUEST: u8 = 9;

/// Polls, for what takes as long as blocks take.
pub async fn reach(chain: &dyn Chain, height: u64) {
    let late = tokio::time::timeout(Duration::from_secs(120), async {
        while chain.status().height < height {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    late.await.expect("blocks go on");
}

pub struct Story<'a> {
    chain: &'a dyn Chain,
    network: NetworkId,
    nonces: BTreeMap<AccountId, u64>,
    lease: LeaseId,
    pub sent: u64,
}

impl<'a> Story<'a> {
    pub fn new(chain: &'a dyn Chain) -> Self {
        Self {
            chain,
            network: chain.network(),
            nonces: BTreeMap::new(),
            lease: LeaseId::default(),
            sent: 0,
        }
    }

    /// Final when it returns; the height.
    async fn send(&mut self, signed: SignedTransaction) -> u64 {
        self.sent += 1;
        self.chain.submit_and_wait(signed).await.unwrap().height
    }

    async fn act(&mut self, number: u8, action: Action) -> u64 {
        self.act_with(account(number), number, action).await
    }

    async fn act_with(&mut self, sender: AccountId, number: u8, action: Action) -> u64 {
        let next = self.nonces.entry(sender).or_default();
        let transaction = Transaction {
            sender,
            nonce: *next,
            action,
        };
        *next += 1;
        let signed = SignedTransaction::sign(transaction, &key(number), &self.network);
        self.send(signed).await
    }

    /// The height of a transfer that is alone in its block.
    pub async fn accounts(&mut self) -> u64 {
        let network = self.network;
        let id = account(ROTATED);
        let rotate = Action::RotateKey(RotateKey {
            new_key: key(33).public(),
            proof: key(33).sign(Domain::Owner, &network, &id),
        });
        self.act(ROTATED, rotate).await;
        let to = |to: u8, amount| {
            let (to, amount) = (account(to), Credits(amount));
            Action::Transfer(Transfer { to, amount })
        };
        self.act_with(id, 33, to(DEVELOPER, 11)).await;
        for region in ["north", "south"] {
            let offer = PutOffer {
                prices: Prices::default(),
                resources: Resources {
                    cores: 1,
                    memory_bytes: 1 << 30,
                    disk_bytes: 1 << 30,
                    slots: 4,
                },
                backends: vec!["wasm".to_owned()],
                region: region.to_owned(),
                labels: Vec::new(),
                expires_at_height: 1_000_000,
            };
            self.act(PROVIDER, Action::PutOffer(offer.clone())).await;
            self.act(4, Action::PutOffer(offer)).await;
        }
        self.act(4, Action::DropOffer(DropOffer {})).await;
        self.act(DEVELOPER, to(PROVIDER, 7)).await
    }

    /// Somebody registers on credit, spends more than he has, is lent more, and is given some of it.
    pub async fn lending(&mut self) {
        let (network, guest) = (self.network, account(GUEST));
        let limit = Credits(500);
        let sponsored = key(DEVELOPER).sign(Domain::Sponsor, &network, &(guest, limit));
        let owned = key(DEVELOPER).sign(Domain::Owner, &network, &guest);
        let register = Action::Register(Register {
            name: "guest".parse().unwrap(),
            roles: Roles {
                provider: true,
                ..Roles::default()
            },
            sponsor: Some((account(DEVELOPER), limit, sponsored)),
            owner: Some((account(DEVELOPER), owned)),
        });
        self.act(GUEST, register).await;
        let spend = Transfer {
            to: account(PROVIDER),
            amount: Credits(300),
        };
        self.act(GUEST, Action::Transfer(spend)).await;
        let raise = SetLimit {
            account: guest,
            limit: Credits(800),
        };
        self.act(DEVELOPER, Action::SetLimit(raise)).await;
        let cover = CoverDebt {
            account: guest,
            amount: Credits(100),
        };
        self.act(DEVELOPER, Action::CoverDebt(cover)).await;
        let give_back = SetLimit {
            account: guest,
            limit: Credits(250),
        };
        self.act(GUEST, Action::SetLimit(give_back)).await;
    }

    /// The height of a settlement that is alone in its block.
    pub async fn jobs(&mut self) -> u64 {
        let network = self.network;
        let nonce = *self.nonces.entry(account(DEVELOPER)).or_default();
        let (lease, open) = open_lease(&network, DEVELOPER, nonce, 100_000);
        self.lease = lease;
        self.nonces.insert(account(DEVELOPER), nonce + 1);
        self.send(open).await;
        let top_up = TopUp {
            lease,
            amount: Credits(1_000),
        };
        self.act(DEVELOPER, Action::TopUp(top_up)).await;
        for add in [true, false] {
            let key = key(40).public();
            let mailbox = false;
            let delegate = DelegatePayer {
                lease,
                key,
                add,
                mailbox,
            };
            self.act(DEVELOPER, Action::DelegatePayer(delegate)).await;
        }
        let open = OpenJobs {
            lease,
            provider: account(PROVIDER),
            tickets: vec![OpenTicket {
                sequence: 0,
                job: JobId::new(1_700_000_000_000, [7; 10]),
                code: Digest::of(b"code"),
                input: Digest::of(b"input"),
                price_max_ucr: 10,
            }],
        };
        self.act_as_payer(Action::OpenJobs(open)).await;
        // Its own owner's guest, which costs no commission; then another, with a repetition that changes nothing.
        self.send(settle(&network, lease, DEVELOPER, GUEST, 0, 5)).await;
        let height = self.send(settle(&network, lease, DEVELOPER, PROVIDER, 0, 200)).await;
        self.send(settle(&network, lease, DEVELOPER, PROVIDER, 199, 3)).await;
        height
    }

    /// Neither account nor nonce are looked at.
    async fn act_as_payer(&mut self, action: Action) -> u64 {
        let signed = sign(DEVELOPER, 0, action, &self.network);
        self.send(signed).await
    }

    /// Two jobs are claimed: one is refuted, the other is paid when its window is over. Then the lease ends.
    pub async fn claims(&mut self) {
        let (lease, provider) = (self.lease, account(PROVIDER));
        let lane = (lease, provider);
        let jobs = [2_000, 2_001].map(|sequence| claimed(lane, sequence));
        let leaves = jobs.each_ref().map(|job| job.ticket.leaf());
        let seal = Seal::sign(&key(DEVELOPER), Domain::Tickets, &self.network, lane, &leaves);
        let other = receipt(&jobs[1], Digest::of(b"another output"));
        let claim = Claim {
            lease,
            batches: vec![TicketBatch {
                payer: key(DEVELOPER).public(),
                signature: seal.signature,
                tickets: jobs.map(|job| BatchTicket::Claimed(Box::new(job))).into(),
            }],
            acks: None,
        };
        let at = self.act(PROVIDER, Action::Claim(claim)).await;
        let seal = Seal::sign(&key(PROVIDER), Domain::Receipts, &self.network, lane, &[other.leaf()]);
        let challenge = Challenge {
            lease,
            provider,
            sequence: 2_001,
            evidence: Evidence::OtherReceipt(Box::new(Sealed {
                proof: merkle_proof(&[other.leaf()], 0).unwrap(),
                member: other,
                count: 1,
                signature: seal.signature,
            })),
        };
        self.act_as_payer(Action::Challenge(challenge)).await;
        reach(self.chain, at + 6).await;
        let pay = PayClaims {
            lease,
            provider,
            sequences: vec![2_000],
        };
        self.act_as_payer(Action::PayClaims(pay)).await;
        let at = self.act(DEVELOPER, Action::CloseLease(CloseLease { lease })).await;
        reach(self.chain, at + 6).await;
        self.act_as_payer(Action::ExpireLease(ExpireLease { lease })).await;
    }

    pub async fn votes(&mut self) {
        self.act(0, Action::PayPeers(PayPeers {})).await;
        let mut params = params();
        (params.commission_ppm, params.window_blocks) = (50_000, 4);
        let change = Change::SetParams(params);
        self.act(0, Action::Propose(Propose { change })).await;
        let nonce = *self.nonces.entry(account(DEVELOPER)).or_default();
        let (lease, open) = open_lease(&self.network, DEVELOPER, nonce, 1_000);
        self.send(open).await;
        self.send(settle(&self.network, lease, DEVELOPER, PROVIDER, 0, 10))
            .await;
    }
}

fn claimed((lease, provider): (LeaseId, AccountId), sequence: u64) -> ClaimedJob {
    let prices = Prices {
        start_ucr: 10,
        ..Prices::default()
    };
    ClaimedJob {
        ticket: Ticket {
            lease,
            provider,
            sequence,
            job: JobId::new(1_700_000_000_000 + sequence, [8; 10]),
            code: Digest::of(b"code"),
            input: Digest::of(b"input"),
            limits: Limits {
                timeout_ms: 1_000,
                memory_bytes: 1 << 20,
                processes: 1,
                disk_bytes: 0,
                output_bytes: 1,
                log_bytes: 1,
                egress_bytes: 0,
            },
            prices,
            price_max_ucr: 10,
            deadline_ms: 1_800_000_000_000,
            replaces: None,
        },
        metered: Metered {
            output: Digest::of(b"output"),
            status: JobStatus::Ok,
            counters: Counters::default(),
            price_ucr: 10,
            duration_us: 10,
        },
        received_at_ms: None,
    }
}

fn receipt(job: &ClaimedJob, output: Digest) -> Receipt {
    let (ticket, metered) = (&job.ticket, &job.metered);
    Receipt {
        lease: ticket.lease,
        provider: ticket.provider,
        sequence: ticket.sequence,
        job: ticket.job,
        code: ticket.code,
        input: ticket.input,
        output,
        status: metered.status,
        counters: metered.counters,
        price_ucr: metered.price_ucr,
        duration_us: metered.duration_us,
    }
}
