//! Looks at the disks, four times a second, from a thread of its own: it must be on time when everything else waits.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::{Level, Marks, Reading, Room, ballast::Ballast};

/// A disk of 1 GB/s takes 250 MB meanwhile, half of the reserve of a large one.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The ballast goes when less than this part of it is free.
const GIVEN_UP_BELOW: u64 = 4;

/// So much room is worth another attempt: somebody else has given up the ballast a moment ago.
const ANOTHER_ATTEMPT_BYTES: u64 = 1 << 20;

/// The file systems of some directories.
pub struct Watched {
    directories: Vec<PathBuf>,
    ballast: Mutex<Ballast>,
    reading: watch::Sender<Reading>,
    stirred: Notify,
}

impl Watched {
    /// Looks at the file systems of `directories`, which exist, until it is dropped. `ballast` is the file that holds the
    /// reserve; it lies on the file system of the first.
    pub fn start(directories: Vec<PathBuf>, ballast: PathBuf) -> io::Result<Arc<Self>> {
        let first = directories.first().map_or_else(|| Path::new("/"), PathBuf::as_path);
        let marks = Marks::of(space(first)?.total);
        let watched = Arc::new(Self {
            ballast: Mutex::new(Ballast::new(ballast, marks.reserve_bytes)),
            directories,
            reading: watch::Sender::default(),
            stirred: Notify::new(),
        });
        watched.look();
        let weak = Arc::downgrade(&watched);
        std::thread::Builder::new()
            .name("disk".into())
            .spawn(move || look_on(&weak))?;
        Ok(watched)
    }

    /// To be called where a write found no room: gives up the ballast. Whether there is room now for another attempt.
    pub fn relieve(&self) -> bool {
        let given_up = self.ballast.lock().give_up();
        if given_up {
            tracing::error!("a disk with data is full; the reserve is given to the ledger and the journal");
        }
        self.look();
        given_up || self.reading().free_bytes >= ANOTHER_ATTEMPT_BYTES
    }

    fn look(&self) {
        let before = *self.reading.borrow();
        let read = self
            .directories
            .iter()
            .filter_map(|directory| read(directory, before.level));
        // Of several disks, the one that is nearest to its end.
        let Some(now) = read.max_by_key(|reading| (reading.level, u64::MAX - reading.free_bytes)) else {
            return;
        };
        self.keep_ballast(&now);
        self.reading.send_replace(now);
        if before.level != now.level {
            tell(&now);
            self.stirred.notify_one();
        }
    }

    fn keep_ballast(&self, now: &Reading) {
        let mut ballast = self.ballast.lock();
        if ballast.is_held() && now.free_bytes < ballast.bytes() / GIVEN_UP_BELOW {
            ballast.give_up();
            tracing::error!("a disk with data is full; the reserve is given to the ledger and the journal");
        } else if now.level == Level::Ample
            && now.free_bytes > now.marks.low_bytes + ballast.bytes()
            && let Err(error) = ballast.take()
        {
            tracing::debug!(%error, "no reserve can be held on this disk");
        }
    }
}

fn tell(now: &Reading) {
    let (free_bytes, reserve_bytes) = (now.free_bytes, now.marks.reserve_bytes);
    match now.level {
        Level::Ample => tracing::info!(free_bytes, "there is room on the disk again"),
        Level::Low => tracing::warn!(free_bytes, reserve_bytes, "the disk is filling up: free some space"),
        Level::Reserved => tracing::error!(
            free_bytes,
            reserve_bytes,
            "the disk is nearly full: new work and data are refused until there is room"
        ),
    }
}

fn look_on(watched: &Weak<Watched>) {
    loop {
        std::thread::sleep(LOOK_EVERY);
        let Some(watched) = watched.upgrade() else { return };
        watched.look();
    }
}

struct Space {
    total: u64,
    free: u64,
}

fn space(directory: &Path) -> io::Result<Space> {
    let found = rustix::fs::statvfs(directory)?;
    Ok(Space {
        total: found.f_blocks.saturating_mul(found.f_frsize),
        free: found.f_bavail.saturating_mul(found.f_frsize),
    })
}

/// A disk that does not answer says nothing: what is written there fails by itself.
fn read(directory: &Path, before: Level) -> Option<Reading> {
    let space = match space(directory) {
        Ok(space) => space,
        Err(error) => {
            tracing::debug!(%error, "a disk does not say how much room it has");
            return None;
        }
    };
    let marks = Marks::of(space.total);
    Some(Reading {
        level: marks.level(before, space.free),
        free_bytes: space.free,
        marks,
    })
}

#[async_trait]
impl Room for Watched {
    fn reading(&self) -> Reading {
        *self.reading.borrow()
    }

    async fn taking(&self) {
        let mut readings = self.reading.subscribe();
        // The sender is `self`.
        let _ = readings.wait_for(|reading| reading.level != Level::Reserved).await;
    }

    async fn changed(&self) {
        self.stirred.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    struct SmallDisk(tempfile::TempDir);

    impl SmallDisk {
        fn mount() -> Option<Self> {
            let directory = tempfile::tempdir().expect("a directory");
            let mounted = Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"])
                .arg(directory.path())
                .status();
            if !mounted.is_ok_and(|status| status.success()) {
                assert!(std::env::var("CI").is_err(), "in CI the test has the right to mount");
                println!("SKIPPED: mounting a small disk needs root");
                return None;
            }
            Some(Self(directory))
        }
    }

    impl Drop for SmallDisk {
        fn drop(&mut self) {
            let unmounted = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
            assert!(unmounted.is_ok_and(|status| status.success()), "not unmounted");
        }
    }

    #[tokio::test]
    async fn a_full_disk_is_seen_its_reserve_given_up_and_taken_again() {
        let Some(disk) = SmallDisk::mount() else { return };
        let (ballast, filler) = (disk.0.path().join("reserve"), disk.0.path().join("filler"));
        let watched = Watched::start(vec![disk.0.path().to_owned()], ballast.clone()).expect("started");
        assert_eq!(watched.reading().level, Level::Ample);
        assert!(ballast.exists());
        fs::write(&filler, vec![1; 56 << 20]).expect("room");
        watched.look();
        assert_eq!(watched.reading().level, Level::Low);
        tokio::time::timeout(Duration::from_secs(5), watched.taking())
            .await
            .expect("low is enough");
        let full = fs::write(disk.0.path().join("rest"), vec![1; 16 << 20]);
        assert!(full.is_err(), "the disk takes no more");
        assert!(watched.relieve() && !ballast.exists());
        assert_eq!(watched.reading().level, Level::Reserved);
        fs::remove_file(disk.0.path().join("rest")).expect("removed");
        fs::remove_file(&filler).expect("removed");
        tokio::time::timeout(Duration::from_secs(5), watched.taking())
            .await
            .expect("room again");
        watched.look();
        assert!(ballast.exists(), "held again");
    }
}
