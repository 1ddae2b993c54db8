//! A small file system in memory, gone with the value.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    process::Command,
    sync::{Mutex, mpsc},
    thread::JoinHandle,
    time::Duration,
};

pub struct SmallDisk(tempfile::TempDir, Mutex<Option<Filling>>);

/// Takes what becomes free while the platform tidies up: segments of its journal, a log of its tables. Half of its reserve it may
/// have.
struct Filling {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl SmallDisk {
    /// Nothing where the test has no right to mount, which it says.
    pub fn mount(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(directory.path())
            .status();
        let mounted = status.is_ok_and(|status| status.success());
        if !mounted {
            crate::machine::skipped("mounting a small disk needs root");
        }
        mounted.then_some(Self(directory, Mutex::default()))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all room there is, to the last byte, and later what is more than the platform's reserve.
    pub fn fill(&self) {
        self.stop_filling();
        let mut filler = File::create(self.path().join("filler")).expect("created");
        for size in [1 << 20, 4_096, 1] {
            while filler.write_all(&vec![0; size]).is_ok() {}
        }
        let (stop, stopped) = mpsc::channel();
        let disk = self.path().to_owned();
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(Duration::from_millis(20)) == Err(mpsc::RecvTimeoutError::Timeout) {
                while has_much_room(&disk) && filler.write_all(&[0; 256 << 10]).is_ok() {}
            }
        });
        *self.1.lock().expect("no panics") = Some(Filling { stop, thread });
    }

    pub fn empty(&self) {
        self.stop_filling();
        fs::remove_file(self.path().join("filler")).expect("removed");
    }
}

impl SmallDisk {
    fn stop_filling(&self) {
        if let Some(filling) = self.1.lock().expect("no panics").take() {
            drop(filling.stop);
            filling.thread.join().expect("no panics");
        }
    }
}

/// So much that the platform would soon take work again: its reserve is a sixteenth of the disk.
fn has_much_room(disk: &Path) -> bool {
    let stat = rustix::fs::statvfs(disk).expect("it is mounted");
    stat.f_bavail > stat.f_blocks / 20
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.stop_filling();
        let unmounted = Command::new("umount").arg("--lazy").arg(self.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "not unmounted");
    }
}
