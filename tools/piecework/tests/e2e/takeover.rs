//! A developer whose controller is gone for good: another one takes up the account and what its lease still holds.

use std::{fs, path::Path, process::Command};

use piecework_ledger::{Action, Register, Roles, SignedTransaction, Transaction};
use piecework_model::{AccountId, Code, NetworkId, PublicKey, SecretKey};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    command_line::command,
    computer::{Computer, invite, provider},
    machine::{Answer, Machine},
    peers::{Peer, done, found_with},
    providers::{ECHO, until},
};

/// A ledger peer, and controllers of these names on its ledger.
fn founded<const N: usize>(folder: &Path, names: [&str; N]) -> (Peer, [Machine; N]) {
    let mut ada = Peer::init(folder, "ada");
    let mut accounts = String::new();
    let home = |name: &str| folder.join(name);
    for name in names {
        let (home, operator) = (home(name), format!("{name}-operator"));
        let data = home.to_str().expect("UTF-8");
        accounts += &done(&[
            "controller",
            "init",
            "--name",
            name,
            "--operator",
            &operator,
            "--peer",
            &ada.api,
            "--data",
            data,
            "--listen",
            "127.0.0.1:0",
        ]);
    }
    let grants: Vec<String> = accounts.lines().map(|account| format!("{account}:1000cr")).collect();
    let mut more = vec!["--window", "60"];
    more.extend(grants.iter().flat_map(|grant| ["--grant", grant]));
    let genesis = found_with(folder, &mut [&mut ada], &more);
    for name in names {
        fs::copy(&genesis, home(name).join("genesis.json")).expect("copies");
    }
    ada.run();
    let start = |name: &str| tokio::task::block_in_place(|| Machine::start_controller(&home(name)));
    (ada, names.map(start))
}

/// Somebody at a terminal, who keeps the account's key.
struct Person<'a>(&'a Path);

impl Person<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(self.0);
        command.args(arguments);
        command
    }

    #[track_caller]
    fn does(&self, arguments: &[&str]) -> Value {
        let output = tokio::task::block_in_place(|| self.command(arguments).output().expect("it runs"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    async fn enters(&self, controller: &Machine, grant_ucr: u64) {
        let body = json!({"grant_ucr": grant_ucr});
        let invite = controller.ask(Method::POST, "/invites", Some(body)).await.ok();
        let code = invite["code"].as_str().expect("a code");
        self.does(&[
            "login",
            &controller.url,
            "--name",
            "bob",
            "--key",
            "bob.key",
            "--invite",
            code,
        ]);
    }

    async fn runs_and_pays(&self, ledger: &Peer) -> Value {
        self.does(&["deploy", "echo.js"]);
        let called = self.does(&["call", "echo", "1", "--json"]);
        assert_eq!(called["output"], 1, "{called}");
        let job = called["job_id"].as_str().expect("an id");
        until("the job is paid", async || {
            let shown = ledger.get(&format!("/ledger/jobs/{job}")).await;
            (shown["paid"] == true).then_some(shown)
        })
        .await
    }
}

/// Somebody says to be bob and does not have the key.
async fn forged_registration(controller: &Machine, key: &str) -> Answer {
    let key: PublicKey = key.parse().expect("a key");
    let network = controller.get("/ledger/status").await.ok()["network"].clone();
    let network: NetworkId = serde_json::from_value(network).expect("an id");
    let action = Action::Register(Register {
        name: "bob".parse().expect("a name"),
        roles: Roles {
            developer: true,
            ..Roles::default()
        },
        sponsor: None,
        owner: None,
    });
    let transaction = Transaction {
        sender: AccountId::of(&key),
        nonce: 0,
        action,
    };
    let mut signed = SignedTransaction::sign(transaction, &SecretKey::from_seed([9; 32]), &network);
    signed.key = key;
    let invite = controller.ask(Method::POST, "/invites", Some(json!({}))).await.ok();
    let body = json!({
        "name": "bob",
        "public_key": key,
        "registration": hex::encode(borsh::to_vec(&signed).expect("plain data")),
        "roles": ["developer"],
        "invite": invite["code"],
    });
    controller.ask_as(None, Method::POST, "/accounts", Some(body)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_keeps_the_key_goes_to_another_controller_with_account_and_lease() {
    let (folder, away, home) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let (ada, [mut first, second]) = founded(folder.path(), ["first", "second"]);
    let code = invite(&first).await;
    let more = ["--invite", &code, "--controller", &second.url, "--window-min", "1"];
    let _laptop = Computer::start(away.path(), &first.url, "laptop", &more);
    let bob = Person(home.path());
    fs::write(home.path().join("echo.js"), ECHO).expect("written");

    bob.enters(&first, 5_000_000).await;
    let opened = bob.does(&["leases", "open", "2cr", "--key", "bob.key", "--json"]);
    let lease = opened["id"].as_str().expect("an id");
    bob.runs_and_pays(&ada).await;
    let used = async || {
        let lease = ada.get(&format!("/ledger/leases/{lease}")).await;
        lease["used_ucr"].as_i64().expect("a small number")
    };
    let used_before = used().await;
    assert!(used_before > 0);

    first.kill();
    let id = ada.get("/ledger/accounts/bob").await["key"].clone();
    let forged = forged_registration(&second, id.as_str().expect("a key")).await;
    forged.refused(422, Code::AccountBadRegistration);
    bob.enters(&second, 0).await;
    let account = bob.does(&["account", "--json"]);
    assert_eq!(account["held_ucr"], 2_000_000 - used_before, "it is the same account");
    let shared = bob.does(&["leases", "delegate", "--key", "bob.key", "--json"]);
    assert_eq!(shared["id"], lease);
    assert_eq!(shared["payer_keys"].as_array().map(Vec::len), Some(2), "{shared}");
    until("the computer works for the other controller", async || {
        (provider(&second, "laptop").await["state"] == "ready").then_some(())
    })
    .await;
    until("the other controller has taken the lease up", async || {
        let leases = bob.does(&["leases", "--json"]);
        (leases["items"][0]["id"] == lease).then_some(())
    })
    .await;
    let paid = bob.runs_and_pays(&ada).await;
    assert_eq!(
        (&paid["provider"], &paid["developer"]),
        (&json!("laptop"), &json!("bob")),
        "{paid}"
    );
    assert!(used().await > used_before, "it is paid from the same lease");
}
