//! What was final stays final, whatever moment the process dies at.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::network::*;
use futures::StreamExt as _;
use piecework_chain_node::start;
use piecework_ledger::TransactionId;

const DIRECTORY: &str = "PIECEWORK_TEST_CRASH_DIRECTORY";
const ACCOUNTS: u8 = 5;
const KILLS: u64 = 10;

/// Not a test of its own: the process that is killed. Prints each transaction once it is final.
#[tokio::test]
#[ignore = "the child of a_killed_peer_loses_nothing_final"]
async fn child() {
    let directory = env::var(DIRECTORY).unwrap();
    let node = start_alone(Path::new(&directory), ACCOUNTS).await;
    let chain = node.chain();
    let senders = (1..ACCOUNTS).map(|sender| {
        let chain = chain.clone();
        async move {
            let mut nonce = balance(&*chain, sender).await.nonce;
            loop {
                let next = transfer(&chain.network(), sender, nonce, (sender + 1) % ACCOUNTS, 3);
                // An engine that starts again takes those along who wait.
                let done = chain.submit_and_wait(next).await.unwrap();
                let mut out = std::io::stdout().lock();
                writeln!(out, "final {} {}", done.id.0, done.height).unwrap();
                out.flush().unwrap();
                nonce += 1;
            }
        }
    });
    futures::future::join_all(senders).await;
}

fn spawn_child(directory: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills the child after it has printed `lines` transactions, and returns all that it printed in full.
fn kill_after(mut child: Child, lines: u64) -> Vec<(TransactionId, u64)> {
    let mut printed = Vec::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    let mut killed = false;
    while out.read_line(&mut line).unwrap() > 0 {
        if line.ends_with('\n')
            && let Some(rest) = line.split("final ").nth(1)
        {
            let (id, height) = rest.trim().split_once(' ').unwrap();
            printed.push((TransactionId(id.parse().unwrap()), height.parse().unwrap()));
        }
        if printed.len() as u64 >= lines && !killed {
            child.kill().unwrap();
            killed = true;
        }
        line.clear();
    }
    child.wait().unwrap();
    assert!(killed, "the child ended by itself after {} transactions", printed.len());
    printed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_peer_loses_nothing_final() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut printed: Vec<(TransactionId, u64)> = Vec::new();
    for round in 0..KILLS {
        // Between the first transaction and some hundred: the moment within a block is the scheduler's choice.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round | 1);
        let lines = 1 + (random >> 33) % 120;
        let child = spawn_child(directory.path());
        printed.extend(
            tokio::task::spawn_blocking(move || kill_after(child, lines))
                .await
                .unwrap(),
        );

        let node = start_alone(directory.path(), ACCOUNTS).await;
        let chain = node.chain();
        for (id, height) in &printed {
            let at = chain.transaction(*id).await.unwrap().map(|(height, _)| height);
            assert_eq!(at, Some(*height), "after kill {round}");
        }
        assert_eq!(supply(&*chain, ACCOUNTS).await, i128::from(ACCOUNTS) * GRANT);
        // A block that was voted for but not yet final at the kill becomes final with the next: let it, so that the
        // state that is read below is the one after the last block that is counted. Nothing else waits.
        let settled = chain.status().height + 3;
        chain.blocks_from(settled).next().await.unwrap();
        let head = chain.status().height;
        let mut blocks = chain.blocks_from(1);
        let (mut parent, mut transactions) = (None, 0);
        for height in 1..=head {
            let block = blocks.next().await.unwrap();
            assert_eq!(block.height, height);
            assert!(parent.is_none_or(|parent| parent == block.parent));
            parent = Some(block.digest);
            transactions += block.outcomes.iter().filter(|outcome| outcome.result.is_ok()).count() as u64;
        }
        let mut nonces = 0;
        for number in 0..ACCOUNTS {
            nonces += balance(&*chain, number).await.nonce;
        }
        assert_eq!(nonces, transactions, "the state is what the blocks make it");
        drop(blocks);
        node.shutdown().await.unwrap();
    }
}

/// A small file system of its own; `None` with the reason where this machine does not allow it.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Result<Self, String> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(directory.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Self(directory)),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl SmallDisk {
    fn grow(&self, size: &str) {
        let grown = Command::new("mount")
            .args(["-o", &format!("remount,size={size}")])
            .arg(self.0.path())
            .status();
        assert!(grown.is_ok_and(|status| status.success()), "the disk could not grow");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Blocks need room; where there is none they wait, and so does who waits for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_the_ledger_stands_still_and_goes_on_when_there_is_room() {
    let disk = match SmallDisk::mount("24m") {
        Ok(disk) => disk,
        Err(reason) => {
            assert!(
                env::var_os("CI").is_none(),
                "CI must be able to mount a tmpfs: {reason}"
            );
            println!("SKIPPED: no tmpfs can be mounted here: {reason}");
            return;
        }
    };
    let directory = disk.0.path().join("peer");
    let node = start(options(&directory, alone(3))).await.unwrap();
    let chain = node.chain();
    let network = chain.network();
    let (lease, open) = open_lease(&network, 1, 0, 1_000_000_000 / 2);
    chain.submit_and_wait(open).await.unwrap();
    let mut from = 0;
    let waiting = loop {
        let paid = settle(&network, lease, 1, 2, from, 1_000);
        from += 1_000;
        let mut waiting = Box::pin(chain.submit_and_wait(paid));
        match tokio::time::timeout(Duration::from_secs(5), &mut waiting).await {
            Ok(done) => drop(done.unwrap()),
            Err(_) => break waiting,
        }
    };
    let height = chain.status().height;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(chain.status().height, height, "it stands still");
    let failed = tokio::time::timeout(Duration::ZERO, node.failed()).await;
    assert!(failed.is_err(), "and lives: {failed:?}");
    disk.grow("96m");
    let done = tokio::time::timeout(Duration::from_secs(30), waiting).await;
    done.expect("it goes on").expect("what waited is final");
    let last = settle(&network, lease, 1, 2, from, 1_000);
    chain.submit_and_wait(last).await.unwrap();
    let head = chain.status();
    drop(chain);
    node.shutdown().await.unwrap();
    let node = start(options(&directory, alone(3))).await.unwrap();
    let block = node.chain().block(head.height).await.unwrap().unwrap();
    assert_eq!(block.digest, head.block, "all of it is there after a restart");
}

/// Filled to the last byte by others, in the middle of a block and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_others_fill_again_and_again_costs_no_block() {
    let Ok(disk) = SmallDisk::mount("48m") else {
        return;
    };
    let directory = disk.0.path().join("peer");
    let node = start(options(&directory, alone(3))).await.unwrap();
    let chain = node.chain();
    let network = chain.network();
    let (lease, open) = open_lease(&network, 1, 0, 1_000_000_000 / 2);
    chain.submit_and_wait(open).await.unwrap();
    let filler = disk.0.path().join("filler");
    for round in 0..5 {
        let paid = settle(&network, lease, 1, 2, round * 500, 500);
        let waiting = chain.submit_and_wait(paid);
        let full = tokio::task::spawn_blocking({
            let filler = filler.clone();
            move || {
                let mut file = std::fs::File::create(filler).unwrap();
                for size in [1 << 20, 4_096, 1] {
                    while std::io::Write::write_all(&mut file, &vec![0; size]).is_ok() {}
                }
            }
        });
        let emptied = async {
            full.await.unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
            std::fs::remove_file(&filler).unwrap();
        };
        let (done, ()) = tokio::join!(waiting, emptied);
        done.unwrap();
    }
    let head = chain.status();
    drop(chain);
    node.shutdown().await.unwrap();
    let node = start(options(&directory, alone(3))).await.unwrap();
    assert!(node.chain().status().height >= head.height);
}

/// The C library's syncs of files below a directory `chain`, which fail while another file is there: what a network file system
/// may do, whose server is full, or a disk that is broken.
const SYNCS: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int full(int file) {
    char link[64], path[4096];
    const char *flag = getenv("PIECEWORK_TEST_FULL");
    if (!flag || access(flag, F_OK)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (!strstr(path, "/chain")) return 0;
    errno = atoi(getenv("PIECEWORK_TEST_ERRNO"));
    return 1;
}
int fsync(int file) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    return full(file) ? -1 : real(file);
}
int fdatasync(int file) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    return full(file) ? -1 : real(file);
}
ssize_t pwritev2(int file, const void *parts, int count, off_t at, int flags) {
    ssize_t (*real)(int, const void *, int, off_t, int) = dlsym(RTLD_NEXT, "pwritev2");
    return (flags & 6) && full(file) ? -1 : real(file, parts, count, at, flags);
}
"#;

/// The library, or why there is none.
fn full_at_syncs(directory: &Path) -> Result<std::path::PathBuf, String> {
    let (source, library) = (directory.join("syncs.c"), directory.join("syncs.so"));
    std::fs::write(&source, SYNCS).unwrap();
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .output();
    match made {
        Ok(output) if output.status.success() => Ok(library),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// A child whose syncs fail with this error while there is a file `full`, and what it prints of what is final.
struct Failing {
    child: Child,
    full: std::path::PathBuf,
    said: std::sync::mpsc::Receiver<String>,
    printed: Vec<String>,
}

impl Failing {
    /// None where no library can be compiled, outside of CI.
    fn spawn(directory: &Path, errno: i32) -> Option<Self> {
        let library = match full_at_syncs(directory) {
            Ok(library) => library,
            Err(reason) => {
                assert!(env::var_os("CI").is_none(), "CI has a C compiler: {reason}");
                println!("SKIPPED: no library can be compiled here: {reason}");
                return None;
            }
        };
        let full = directory.join("full");
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory.join("peer"))
            .env("LD_PRELOAD", library)
            .env("PIECEWORK_TEST_FULL", &full)
            .env("PIECEWORK_TEST_ERRNO", errno.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let (say, said) = std::sync::mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            let finals = out.lines().map_while(Result::ok);
            let finals = finals.filter_map(|line| line.split("final ").nth(1).map(str::to_owned));
            finals.for_each(|line| drop(say.send(line)));
        });
        let printed = Vec::new();
        Some(Self {
            child,
            full,
            said,
            printed,
        })
    }

    fn hear(&mut self, within: Duration) -> bool {
        self.said.recv_timeout(within).is_ok_and(|line| {
            self.printed.push(line);
            true
        })
    }

    fn hear_five(&mut self) {
        for nth in 0..5 {
            assert!(self.hear(LONG), "{nth}");
        }
    }
}

const LONG: Duration = Duration::from_secs(60);

/// All that was printed is there after a start, and no credit more or less.
async fn is_all_there(peer: &Path, printed: &[String]) {
    let node = start_alone(peer, ACCOUNTS).await;
    for line in printed {
        let (id, height) = line.trim().split_once(' ').unwrap();
        let at = node
            .chain()
            .transaction(TransactionId(id.parse().unwrap()))
            .await
            .unwrap();
        assert_eq!(at.map(|(height, _)| height), Some(height.parse().unwrap()), "{line}");
    }
    assert_eq!(supply(&*node.chain(), ACCOUNTS).await, i128::from(ACCOUNTS) * GRANT);
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_only_at_the_sync_stops_the_ledger_until_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let Some(mut peer) = Failing::spawn(directory.path(), rustix::io::Errno::NOSPC.raw_os_error()) else {
        return;
    };
    for round in 0..2 {
        peer.hear_five();
        std::fs::write(&peer.full, "").unwrap();
        while peer.hear(Duration::from_millis(800)) {}
        assert_eq!(peer.child.try_wait().unwrap(), None, "it stands still, and lives");
        std::fs::remove_file(&peer.full).unwrap();
        assert!(
            peer.hear(LONG),
            "it goes on by itself, and who waited gets an answer: {round}"
        );
    }
    peer.child.kill().unwrap();
    peer.child.wait().unwrap();
    is_all_there(&directory.path().join("peer"), &peer.printed).await;
}

/// Nobody can tell what such a disk has kept: the ledger says nothing more, and a start reads what is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_the_disk_ends_the_ledger_and_nothing_final_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let Some(mut peer) = Failing::spawn(directory.path(), rustix::io::Errno::IO.raw_os_error()) else {
        return;
    };
    peer.hear_five();
    std::fs::write(&peer.full, "").unwrap();
    while peer.hear(LONG) {}
    let ended = peer.child.wait().unwrap();
    assert!(
        !ended.success(),
        "who waited for its transaction is told that the ledger failed: {ended}"
    );
    is_all_there(&directory.path().join("peer"), &peer.printed).await;
}
