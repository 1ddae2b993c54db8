//! Where this process stands in each hierarchy of control groups, and what agents before it left there.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::Version;

/// The kernel lets go of a group a moment after the last process in it was killed.
pub(super) const DYING_WAIT: Duration = Duration::from_millis(200);
const DYING_LOOK: Duration = Duration::from_millis(2);

/// Two controllers of version 1 may share one hierarchy, and so one directory.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

pub(super) fn next_instance() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Removes groups of agents that are gone.
pub(super) fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    let until = Instant::now() + DYING_WAIT;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix("piecework-jail-")?.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove_tree(&entry.path(), until);
        }
    }
}

/// With the groups in it, as soon as the processes in them have ended.
pub(super) fn remove_tree(base: &Path, until: Instant) {
    loop {
        for entry in fs::read_dir(base).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                // What was frozen when its agent was killed can only die now.
                let freezer = OpenOptions::new().write(true).open(entry.path().join("freezer.state"));
                let _ = freezer.and_then(|mut state| state.write_all(b"THAWED"));
                let _ = fs::remove_dir(entry.path());
            }
        }
        let _ = fs::remove_dir(base);
        if !base.exists() || Instant::now() >= until {
            return;
        }
        std::thread::sleep(DYING_LOOK);
    }
}

/// Where this process stands in each hierarchy.
pub(super) struct Parents {
    mounts: String,
    own: String,
}

impl Parents {
    pub(super) fn read() -> io::Result<Self> {
        Ok(Self {
            mounts: fs::read_to_string("/proc/self/mountinfo")?,
            own: fs::read_to_string("/proc/self/cgroup")?,
        })
    }

    pub(super) fn choose(&self) -> Result<(Version, Vec<PathBuf>), String> {
        if let Some(parent) = self.version_two() {
            return Ok((Version::Two, vec![parent]));
        }
        let found: Option<Vec<PathBuf>> = ["memory", "pids", "cpuacct", "cpu"]
            .into_iter()
            .map(|controller| self.version_one(controller))
            .collect();
        found
            .map(|mut parents| {
                parents.extend(self.version_one("freezer"));
                (Version::One, parents)
            })
            .ok_or_else(|| "no control group hierarchy with memory, pids and cpu is mounted".to_owned())
    }

    /// The nearest group, our own or above it, that can pass the controllers on.
    fn version_two(&self) -> Option<PathBuf> {
        let (mount, own) = self.place("cgroup2", None)?;
        let mut at = own.as_path();
        loop {
            let controllers = fs::read_to_string(at.join("cgroup.controllers")).unwrap_or_default();
            let enough = ["memory", "pids", "cpu"]
                .iter()
                .all(|name| controllers.split(' ').any(|c| c.trim() == *name));
            if enough && fs::write(at.join("cgroup.subtree_control"), "+memory +pids +cpu").is_ok() {
                return Some(at.to_owned());
            }
            if at == mount {
                return None;
            }
            at = at.parent()?;
        }
    }

    fn version_one(&self, controller: &str) -> Option<PathBuf> {
        self.place("cgroup", Some(controller)).map(|(_, own)| own)
    }

    /// The mount point of a hierarchy and our group below it.
    fn place(&self, kind: &str, controller: Option<&str>) -> Option<(PathBuf, PathBuf)> {
        let (root, mount) = self.mounts.lines().find_map(|line| {
            let (fields, filesystem) = line.split_once(" - ")?;
            let mut filesystem = filesystem.split(' ');
            let matches = filesystem.next() == Some(kind)
                && controller.is_none_or(|name| filesystem.nth(1).is_some_and(|o| o.split(',').any(|o| o == name)));
            let mut fields = fields.split(' ').skip(3);
            matches.then(|| Some((fields.next()?.to_owned(), PathBuf::from(fields.next()?))))?
        })?;
        let own = self.own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let names = fields.next()?;
            let matches = match controller {
                Some(controller) => names.split(',').any(|name| name == controller),
                None => names.is_empty(),
            };
            matches.then(|| fields.next())?
        })?;
        let below = own.strip_prefix(&root).unwrap_or(own).trim_start_matches('/');
        let own = mount.join(below);
        Some((mount.clone(), if own.is_dir() { own } else { mount }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_goes_when_what_dies_in_it_is_gone_and_nobody_waits_for_ever() {
        let place = tempfile::tempdir().expect("a directory");
        let base = place.path().join("piecework-jail-1-0");
        let dying = base.join("0").join("process");
        fs::create_dir_all(&dying).expect("made");
        remove_tree(&base, Instant::now());
        assert!(base.exists(), "something is in it");
        let ends = std::thread::spawn({
            let dying = dying.clone();
            move || fs::remove_dir(dying)
        });
        remove_tree(&base, Instant::now() + Duration::from_secs(60));
        assert!(!base.exists());
        ends.join().expect("ends").expect("it was there");
    }
}
