//! A network of separate processes: peers, a controller, providers; some of them killed, wiped and pestered.

pub mod processes;

use std::{
    fs,
    io::Write as _,
    net::TcpStream,
    time::{Duration, Instant},
};

use piecework_model::Code;
use reqwest::Method;
use serde_json::{Value, json};

use processes::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_network_of_processes_serves_and_pays_and_stops_whole() {
    let mut network = Devnet::start(4, 3).await;
    let events = network.machine.request(Method::GET, "/events").send().await;
    let events = events.expect("a stream");
    let mut jobs = Vec::new();
    for n in 0..10 {
        jobs.push(network.count(n).await);
    }
    network.all_paid(&jobs).await;
    network.kill("provider-3").await;
    let due: [&dyn Fn(&Value) -> bool; 3] = [
        &|event| event["kind"] == "job" && event["body"]["id"] == jobs[0].as_str(),
        &|event| event["kind"] == "block" && event["body"]["transactions"].as_u64() > Some(0),
        &|event| {
            let (body, gone) = (&event["body"], event["kind"] == "provider");
            gone && body["name"] == "provider-3" && body["state"] == "gone"
        },
    ];
    hears(events, &due).await;
    let status = network.machine.get("/ledger/status").await.ok();
    assert_eq!(status["peer_count"], 4);
    for peer in network.peers() {
        let here = network.look(&peer.name, "/ledger/status").await.expect("it answers");
        assert_eq!(here["network"], status["network"]);
        // Whoever is asked shows the job.
        let shown = network.look(&peer.name, &format!("/ledger/jobs/{}", jobs[0])).await;
        assert_eq!(shown.expect("it answers")["paid"], true, "{}", peer.name);
        let listed = network.look(&peer.name, "/ledger/jobs?account=operator").await;
        let listed = listed.expect("it answers")["items"].as_array().map(Vec::len);
        assert!(listed >= Some(10), "{}: {listed:?}", peer.name);
    }
    network.agree().await;
    // One account's transfers, asked for all at once: each gets a nonce of its own.
    let before = network.machine.posted("owner-1").await;
    let transfer = json!({"to": "owner-1", "amount_ucr": 1});
    let send = || network.machine.ask(Method::POST, "/transfers", Some(transfer.clone()));
    for sent in futures::future::join_all((0..16).map(|_| send())).await {
        sent.ok();
    }
    assert_eq!(network.machine.posted("owner-1").await, before + 16);
    let all = descendants(network.machine.pid());
    assert!(all.len() >= 7, "{all:?}");
    let Devnet { machine, .. } = network;
    assert!(machine.stop(), "it stops cleanly");
    all_gone(&all).await;
}

/// Reads server-sent events until each of these was among them.
async fn hears(mut events: reqwest::Response, due: &[&dyn Fn(&Value) -> bool]) {
    let mut heard = String::new();
    let deadline = Instant::now() + WITHIN;
    let mut due = due.to_vec();
    while !due.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let chunk = tokio::time::timeout(left, events.chunk()).await;
        let chunk = chunk.unwrap_or_else(|_| panic!("{} are missing in {heard}", due.len()));
        heard.push_str(&String::from_utf8_lossy(
            &chunk.expect("it goes on").expect("it does not end"),
        ));
        let data = heard.lines().filter_map(|line| line.strip_prefix("data: "));
        let all: Vec<Value> = data.filter_map(|text| serde_json::from_str(text).ok()).collect();
        due.retain(|wanted| !all.iter().any(wanted));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_all_at_once_nothing_lives_on_and_nothing_final_is_lost() {
    let mut network = Devnet::start(4, 1).await;
    let mut jobs = Vec::new();
    for n in 0..20 {
        jobs.push(network.count(n).await);
    }
    network.all_paid(&jobs[..10]).await;
    let last = network.agree().await;
    let paid = network.machine.posted("provider-1").await;
    // In the middle of the settlements of the rest.
    network = network.kill_all_and_restart().await;
    let height = last[0].as_u64().expect("a height");
    for peer in network.peers() {
        assert_eq!(network.block(&peer.name, height).await, last, "{}", peer.name);
    }
    jobs.push(network.count(20).await);
    network.all_paid(&jobs).await;
    assert!(network.machine.posted("provider-1").await >= paid);
    for peer in network.peers() {
        network.reach(&peer.name, height + 1).await;
    }
    network.agree().await;
}

/// What a user does all day: deploys, calls, and gets what was called paid; and moves credits.
async fn a_day(network: &Devnet, name: &str) {
    let code = "def handler(event, context):\n    return 'here'\n";
    network.machine.deploy(name, "python", code).await;
    let answer = network.machine.call(name, json!({})).await.ok();
    assert_eq!(answer["output"], "here");
    let job = answer["job_id"].as_str().expect("an id");
    network.all_paid(&[job.to_owned()]).await;
    let before = network.machine.posted("owner-2").await;
    let transfer = json!({"to": "owner-2", "amount_ucr": 5});
    let sent = network.machine.ask(Method::POST, "/transfers", Some(transfer)).await;
    sent.ok();
    assert_eq!(network.machine.posted("owner-2").await, before + 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_peer_of_the_controller_is_killed_and_wiped_and_not_missed() {
    let mut network = Devnet::start(4, 1).await;
    let mut jobs = Vec::new();
    for n in 0..60 {
        if n == 20 {
            // The one that the controller asks, while calls run and are settled.
            network.kill("peer-1").await;
        }
        jobs.push(network.count(n).await);
    }
    network.all_paid(&jobs).await;
    a_day(&network, "meanwhile").await;

    network.start_again("peer-1");
    let head = network.height("peer-2").await.expect("it answers");
    network.reach("peer-1", head).await;
    a_day(&network, "back").await;

    // Another loses its disk.
    network.kill("peer-3").await;
    fs::remove_dir_all(network.directory("peer-3").join("ledger")).expect("removed");
    a_day(&network, "without-another").await;
    network.start_again("peer-3");
    let head = network.height("peer-2").await.expect("it answers");
    network.reach("peer-3", head).await;
    assert_eq!(network.block("peer-3", 1).await, network.block("peer-2", 1).await);
    network.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_four_stand_still_serve_on_and_settle_when_one_returns() {
    let mut network = Devnet::start(4, 1).await;
    let mut jobs = vec![network.count(1).await];
    network.all_paid(&jobs).await;
    network.kill("peer-3").await;
    network.kill("peer-4").await;
    // What four had begun, two may finish; then the height stands.
    let (mut still, mut since) = (network.height("peer-1").await, Instant::now());
    let deadline = since + WITHIN;
    while since.elapsed() < Duration::from_secs(2) {
        assert!(Instant::now() < deadline, "two of four make blocks");
        tokio::time::sleep(Duration::from_millis(50)).await;
        let height = network.height("peer-1").await;
        if height != still {
            (still, since) = (height, Instant::now());
        }
    }
    // Calls need no ledger.
    for n in 2..12 {
        jobs.push(network.count(n).await);
    }
    assert_eq!(network.height("peer-1").await, still);
    let unpaid = network.machine.get(&format!("/jobs/{}", jobs[10])).await.ok();
    assert_eq!(unpaid["paid"], false);

    refuses_another_genesis(&network, "peer-3");
    network.start_again("peer-3");
    network.all_paid(&jobs).await;
    network.start_again("peer-4");
    let head = network.height("peer-1").await.expect("it answers");
    network.reach("peer-4", head).await;
    network.agree().await;
}

/// A genesis file that does not fit the data beside it is told by its code, and harms nothing.
fn refuses_another_genesis(network: &Devnet, peer: &str) {
    let directory = network.directory(peer);
    let (path, data) = (directory.join("genesis.json"), directory.to_str().expect("UTF-8"));
    let genesis = fs::read_to_string(&path).expect("a genesis");
    fs::write(&path, genesis.replace("\"devnet\"", "\"other\"")).expect("written");
    let output = piecework(&["peer", "run", "--data", data]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("chain.foreign_directory"), "{said}");
    fs::write(&path, genesis).expect("written");
}

#[test]
fn a_network_that_cannot_be_started_is_refused_by_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().to_str().expect("UTF-8");
    let refused = |arguments: &[&str], said: &str| {
        let output = piecework(&[&["devnet", "--data", data], arguments].concat());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
    };
    refused(&["--peers", "0"], "1..=16");
    refused(&["--providers", "99"], "0..=16");
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    refused(
        &["--peers", "1", "--providers", "0", "--listen", &address],
        "controller did not start",
    );
    refused(&["--peers", "2"], Code::DevnetOtherNetwork.as_str());
    fs::remove_file(folder.path().join("devnet.json")).expect("there");
    refused(&[], Code::DevnetForeignDirectory.as_str());
}

/// Garbage, the beginning of something huge, silence, a head that never ends.
fn pester(address: &str, kind: u32) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let noise = |count: u32| -> Vec<u8> {
        (0..count)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8 ^ kind as u8)
            .collect()
    };
    let bytes = match kind % 4 {
        0 => noise(20_000),
        1 => vec![0xff; 64],
        2 => Vec::new(),
        _ => b"POST /ledger/transactions HTTP/1.1\r\nhost: h\r\ncontent-length: 4000000000\r\nx: ".to_vec(),
    };
    // It may hang up before it has all.
    let _ = stream.write_all(&bytes);
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_at_every_port_of_a_network_harms_nobody() {
    let network = Devnet::start(2, 1).await;
    let mut addresses = vec![network.machine.url.replace("http://", "")];
    for peer in ["peer-1", "peer-2"] {
        let settings = fs::read_to_string(network.directory(peer).join("peer.toml")).expect("settings");
        for key in ["listen = ", "api = "] {
            let line = settings.lines().find_map(|line| line.strip_prefix(key));
            addresses.push(line.expect("an address").trim_matches('"').to_owned());
        }
    }
    let strangers = addresses
        .iter()
        .flat_map(|address| (0..40).map(move |kind| pester(address, kind)));
    let mut held: Vec<_> = strangers.collect();
    let mut jobs = Vec::new();
    for n in 0..10 {
        // A byte now and then.
        for stream in &mut held {
            let _ = stream.write_all(b"a");
        }
        jobs.push(network.count(n).await);
    }
    network.all_paid(&jobs).await;
    a_day(&network, "in-the-noise").await;
    drop(held);
    network.agree().await;
}
