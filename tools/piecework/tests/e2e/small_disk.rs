//! A small file system in memory, gone with the value.

use std::{fs, io::Write as _, path::Path, process::Command};

pub struct SmallDisk(tempfile::TempDir);

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
        mounted.then_some(Self(directory))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all room there is, to the last byte.
    pub fn fill(&self) {
        let mut filler = fs::File::create(self.path().join("filler")).expect("created");
        for size in [1 << 20, 4_096, 1] {
            while filler.write_all(&vec![0; size]).is_ok() {}
        }
    }

    pub fn empty(&self) {
        fs::remove_file(self.path().join("filler")).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(self.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "not unmounted");
    }
}
