//! Four peers as four processes: killed, cut off, wiped, damaged and pestered.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::network::*;
use crate::processes::*;

/// Transfers one after the other through one peer until told to stop or the peer is gone; how many became final.
fn load(peer: Arc<Peer>, sender: u8, mut nonce: u64, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<u64> {
    tokio::spawn(async move {
        while !stop.load(Ordering::Relaxed) {
            match peer.transfer(sender, nonce, 7).await {
                Some(_) => nonce += 1,
                None => break,
            }
        }
        nonce
    })
}

/// From its start to the head that the others had then: what operators are promised.
const BACK_WITHIN: Duration = Duration::from_secs(10);

async fn killed_and_back(network: &Network, peers: &mut [Arc<Peer>]) {
    let stop = Arc::new(AtomicBool::new(false));
    let loads: Vec<_> = (0..3)
        .map(|number| load(peers[number].clone(), number as u8 + 1, 0, stop.clone()))
        .collect();
    peers[0].reach(10).await;
    peers[3].kill().await;
    let at = peers[0].status().await.height;
    let took = peers[0].reach(at + 60).await;
    println!("60 blocks without one of four: {took:?}");
    let started = Instant::now();
    peers[3] = Arc::new(network.start(3).await);
    let head = peers[0].status().await.height;
    peers[3].reach(head).await;
    let took = started.elapsed();
    println!("back at the head ({head}) after {took:?}");
    assert!(took < BACK_WITHIN, "back at the head after {took:?}");
    stop.store(true, Ordering::Relaxed);
    for (number, load) in loads.into_iter().enumerate() {
        let sent = load.await.unwrap();
        assert!(sent > 3, "transfers through peer {number} went on");
        assert_eq!(peers[number].balance(number as u8 + 1).await.1, sent);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_killed_peer_stops_nobody_and_comes_back_and_all_killed_lose_nothing_final() {
    let network = Network::new(4);
    let mut peers: Vec<Arc<Peer>> = network.start_all().await.into_iter().map(Arc::new).collect();
    killed_and_back(&network, &mut peers).await;

    // All four, in the middle of their work.
    let stop = Arc::new(AtomicBool::new(false));
    let mut sent = Vec::new();
    for number in 0..4 {
        let nonce = peers[0].balance(number as u8 + 1).await.1;
        sent.push(load(peers[number].clone(), number as u8 + 1, nonce, stop.clone()));
    }
    let height = peers[0].status().await.height;
    peers[0].reach(height + 30).await;
    let before = peers[0].status().await.height;
    let last = peers[0].block(before).await.unwrap();
    for peer in &peers {
        peer.kill().await;
    }
    let mut shown = Vec::new();
    for sent in sent {
        shown.push(sent.await.unwrap());
    }
    let started = Instant::now();
    let peers = network.start_all().await;
    for peer in &peers {
        peer.reach(before + 3).await;
        assert_eq!(peer.block(before).await, Some(last));
    }
    println!("all four went on after {:?}", started.elapsed());
    for (number, shown) in shown.into_iter().enumerate() {
        let (_, nonce) = peers[0].balance(number as u8 + 1).await;
        assert!(nonce >= shown, "what was shown as final is there: {nonce} of {shown}");
    }
    let peers: Vec<&Peer> = peers.iter().collect();
    assert!(agree(&peers).await > before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_four_stand_still_until_one_returns() {
    let network = Network::new(4);
    let mut peers: Vec<Arc<Peer>> = network.start_all().await.into_iter().map(Arc::new).collect();
    peers[0].transfer(1, 0, 7).await.unwrap();
    let gone: Vec<Arc<Peer>> = peers.drain(2..).collect();
    for peer in &gone {
        peer.kill().await;
    }
    // What two can finish that four had begun is final; then nothing is.
    let first = peers[0].clone();
    let waiting = first.transfer(1, 1, 7);
    tokio::pin!(waiting);
    let mut still = peers[0].status().await.height;
    let mut since = Instant::now();
    let deadline = Instant::now() + LONG;
    while since.elapsed() < Duration::from_secs(3) {
        assert!(Instant::now() < deadline, "two of four make blocks");
        let finished = tokio::time::timeout(Duration::from_millis(100), &mut waiting).await;
        assert!(finished.is_err(), "two of four made a transaction final");
        let height = peers[0].status().await.height;
        if height != still {
            (still, since) = (height, Instant::now());
        }
    }
    // Passed on all the same, so that whoever leads next can propose it.
    assert_eq!(peers[1].status().await.queued, 1);
    peers.push(Arc::new(network.start(2).await));
    let height = tokio::time::timeout(LONG, waiting)
        .await
        .expect("three are enough")
        .unwrap();
    peers.push(Arc::new(network.start(3).await));
    for peer in &peers {
        peer.reach(height).await;
    }
    let peers: Vec<&Peer> = peers.iter().map(|peer| &**peer).collect();
    assert!(agree(&peers).await >= height);
    assert_eq!(peers[3].balance(1).await.1, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_starts_empty_gets_the_whole_history() {
    let network = Network::new(4);
    let mut peers = network.start_all().await;
    for nonce in 0..5 {
        peers[0].transfer(1, nonce, 7).await.unwrap();
    }
    let gone = peers.pop().unwrap();
    gone.kill().await;
    for nonce in 5..40 {
        peers[0].transfer(1, nonce, 7).await.unwrap();
    }
    // The others are well into the third epoch.
    let directory = network.directory(3);
    std::fs::remove_dir_all(directory).unwrap();
    std::fs::create_dir(directory).unwrap();
    let started = Instant::now();
    let back = network.start(3).await;
    let head = peers[0].status().await.height;
    back.reach(head).await;
    println!("{head} blocks from nothing in {:?}", started.elapsed());
    assert!(head > 40, "{head}");
    peers.push(back);
    let peers: Vec<&Peer> = peers.iter().collect();
    assert!(agree(&peers).await >= head);
    assert_eq!(peers[3].balance(7).await.0, GRANT + 40);

    // What it voted before is lost with its directory: it votes again once that epoch is over, and not before.
    let mut nonce = 40;
    let deadline = Instant::now() + LONG;
    let new = directory.join("chain.new");
    assert!(new.exists(), "it does not vote yet");
    while new.exists() {
        assert!(Instant::now() < deadline, "it still only follows");
        peers[1].transfer(1, nonce, 7).await.unwrap();
        nonce += 1;
    }
    peers[0].kill().await;
    for nonce in nonce..nonce + 5 {
        let sent = tokio::time::timeout(LONG, peers[1].transfer(1, nonce, 7)).await;
        sent.expect("its vote counts").unwrap();
    }
}

/// Garbage, a huge length, silence, and a byte now and then.
fn pester(address: std::net::SocketAddr, kind: usize) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LONG))?;
    match kind % 4 {
        0 => stream.write_all(&[0xa5; 4096])?,
        1 => stream.write_all(&[0xff; 16])?,
        2 => {}
        _ => stream.write_all(&[0x20])?,
    }
    Ok(stream)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_at_the_port_do_no_harm() {
    let network = Network::new(4);
    let peers = network.start_all().await;
    peers[1].transfer(1, 0, 7).await.unwrap();
    let before: u64 = peers[1].ask("memory").await.unwrap().parse().unwrap();
    let address = network.addresses[1];
    let strangers = tokio::task::spawn_blocking(move || {
        let opened: Vec<_> = (0..200).filter_map(|kind| pester(address, kind).ok()).collect();
        assert!(!opened.is_empty());
        // Each is cut off, however slowly it talks.
        for (kind, mut stream) in opened.into_iter().enumerate() {
            let mut byte = [0];
            while kind % 4 == 3 && stream.write_all(&[0]).is_ok() {
                std::thread::sleep(Duration::from_millis(50));
            }
            let cut = stream.read(&mut byte).map(|read| read == 0).unwrap_or_else(|error| {
                !matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                )
            });
            assert!(cut, "stranger {kind} was let in");
        }
    });
    for nonce in 1..30 {
        tokio::time::timeout(LONG, peers[1].transfer(1, nonce, 7))
            .await
            .expect("transactions go on")
            .unwrap();
    }
    strangers.await.unwrap();
    let after: u64 = peers[1].ask("memory").await.unwrap().parse().unwrap();
    assert!(after < before + 64 * 1024, "{before} KiB grew to {after} KiB");
    let peers: Vec<&Peer> = peers.iter().collect();
    agree(&peers).await;
}

/// Two bridges, two peers at each, and one cable between them, all in network namespaces of this test.
struct Cabled {
    names: Vec<String>,
    prefix: String,
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = std::process::Command::new("ip").args(arguments.split(' ')).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => Err(format!("ip: {error}")),
    }
}

impl Cabled {
    fn new() -> Result<Self, String> {
        let prefix = format!("pw{}", std::process::id() % 100_000);
        let mut made = Self {
            names: Vec::new(),
            prefix: prefix.clone(),
        };
        let hub = made.namespace("hub")?;
        for bridge in ["a", "b"] {
            ip(&format!("-n {hub} link add br{bridge} type bridge"))?;
            ip(&format!("-n {hub} link set br{bridge} up"))?;
        }
        ip(&format!("-n {hub} link add cablea type veth peer name cableb"))?;
        for side in ["a", "b"] {
            ip(&format!("-n {hub} link set cable{side} master br{side}"))?;
            ip(&format!("-n {hub} link set cable{side} up"))?;
        }
        for number in 0..4 {
            let name = made.namespace(&number.to_string())?;
            let bridge = if number < 2 { "a" } else { "b" };
            ip(&format!(
                "-n {hub} link add p{number} type veth peer name eth0 netns {name}"
            ))?;
            ip(&format!("-n {hub} link set p{number} master br{bridge}"))?;
            ip(&format!("-n {hub} link set p{number} up"))?;
            ip(&format!("-n {name} addr add 10.77.0.{}/24 dev eth0", number + 1))?;
            ip(&format!("-n {name} link set eth0 up"))?;
            ip(&format!("-n {name} link set lo up"))?;
        }
        Ok(made)
    }

    fn namespace(&mut self, part: &str) -> Result<String, String> {
        let name = format!("{}-{part}", self.prefix);
        ip(&format!("netns add {name}"))?;
        self.names.push(name.clone());
        Ok(name)
    }

    fn cable(&self, state: &str) {
        ip(&format!("-n {}-hub link set cablea {state}", self.prefix)).unwrap();
    }
}

impl Drop for Cabled {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_cut_in_halves_stands_still_and_heals() {
    let cabled = match Cabled::new() {
        Ok(cabled) => cabled,
        Err(reason) => return skip(&format!("no network namespaces: {reason}")),
    };
    let addresses = (1..=4).map(|number| format!("10.77.0.{number}:7700").parse().unwrap());
    let mut network = Network::at(addresses.collect(), 4, 20);
    for number in 0..4 {
        let words = ["ip", "netns", "exec", &cabled.names[number + 1]];
        network.wrappers[number] = words.map(str::to_owned).to_vec();
    }
    let peers: Vec<Arc<Peer>> = network.start_all().await.into_iter().map(Arc::new).collect();
    peers[0].transfer(1, 0, 7).await.unwrap();
    cabled.cable("down");
    let halves = [(0, 1, 1), (2, 2, 0)];
    let waiting = halves.map(|(peer, sender, nonce)| {
        let peer = peers[peer].clone();
        tokio::spawn(async move { peer.transfer(sender, nonce, 7).await })
    });
    // What was on its way may still arrive; then neither half gets anywhere.
    let mut heights = [0; 4];
    let mut since = Instant::now();
    let deadline = Instant::now() + LONG;
    while since.elapsed() < Duration::from_secs(4) {
        assert!(Instant::now() < deadline, "half a network makes blocks: {heights:?}");
        for (peer, height) in peers.iter().zip(&mut heights) {
            let now = peer.status().await.height;
            if now != *height {
                (*height, since) = (now, Instant::now());
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
    cabled.cable("up");
    let started = Instant::now();
    let mut last = 0;
    for waiting in waiting {
        let height = tokio::time::timeout(LONG, waiting).await.expect("the network heals");
        last = last.max(height.unwrap().unwrap());
    }
    println!("healed after {:?}", started.elapsed());
    for peer in &peers {
        peer.reach(last).await;
    }
    let peers: Vec<&Peer> = peers.iter().map(|peer| &**peer).collect();
    assert!(agree(&peers).await >= last);
    assert_eq!(peers[0].balance(7).await.0, GRANT + 3);
}
