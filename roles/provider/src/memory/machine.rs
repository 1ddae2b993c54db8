//! How much memory there is: of the machine, and of the control groups that this process is in (version 1 or 2).

use std::{
    fs,
    path::{Path, PathBuf},
};

/// For the platform itself (a ledger peer under load holds 370 MiB, and a settled store some 200 more) or a share of a large
/// machine, for what the kernel and the files of the store take there.
pub(crate) const RESERVE_BYTES: u64 = 512 << 20;
const RESERVE_SHARE: u64 = 8;
/// The platform never takes more than this share of a small machine.
const RESERVE_SHARE_MAX: u64 = 2;
/// What is offered goes in steps, so that it is the same after each start.
const STEP_BYTES: u64 = 16 << 20;

/// What guests may have together on a machine of `total_bytes`, within the control groups of this process.
pub fn guest_bytes(total_bytes: u64) -> u64 {
    without_reserve(Groups::of_this_process().limit().min(total_bytes))
}

fn without_reserve(bytes: u64) -> u64 {
    let reserve = RESERVE_BYTES.max(bytes / RESERVE_SHARE).min(bytes / RESERVE_SHARE_MAX);
    let left = bytes - reserve;
    left - left % STEP_BYTES
}

/// The control group of this process and all above it, as far as they can be seen.
#[derive(Debug, Default)]
pub(crate) struct Groups(Vec<PathBuf>);

impl Groups {
    pub(crate) fn of_this_process() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self::find(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
    }

    fn find(mounts: &str, own: &str) -> Self {
        let Some((mount, at)) =
            place(mounts, own, "cgroup", Some("memory")).or_else(|| place(mounts, own, "cgroup2", None))
        else {
            return Self::default();
        };
        let above = at.ancestors().take_while(|group| group.starts_with(&mount));
        Self(above.map(Path::to_owned).collect())
    }

    /// The least that any of them may use.
    fn limit(&self) -> u64 {
        let limits = self.0.iter().filter_map(|group| limit(group));
        limits.min().unwrap_or(u64::MAX)
    }

    /// What may still be used, in them and on the machine.
    pub(crate) fn available(&self) -> u64 {
        let left = self.0.iter().filter_map(|group| {
            let used = number(group, "memory.current").or_else(|| number(group, "memory.usage_in_bytes"))?;
            Some(limit(group)?.saturating_sub(used.saturating_sub(reclaimable(group))))
        });
        left.min().unwrap_or(u64::MAX).min(machine_available())
    }
}

fn limit(group: &Path) -> Option<u64> {
    number(group, "memory.max").or_else(|| number(group, "memory.limit_in_bytes"))
}

/// `max`, and what version 1 writes for it, are no number that any machine has.
fn number(group: &Path, file: &str) -> Option<u64> {
    let text = fs::read_to_string(group.join(file)).ok()?;
    text.trim().parse().ok()
}

/// Files in the page cache that nobody uses at the moment.
fn reclaimable(group: &Path) -> u64 {
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let field = |name: &str| {
        stat.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    };
    field("total_inactive_file")
        .or_else(|| field("inactive_file"))
        .unwrap_or(0)
}

/// All of it where Linux does not say.
fn machine_available() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok());
    kib.map_or(u64::MAX, |kib| kib << 10)
}

/// The mount point of a hierarchy and this process's group in it.
fn place(mounts: &str, own: &str, kind: &str, controller: Option<&str>) -> Option<(PathBuf, PathBuf)> {
    let (root, mount) = mounts.lines().find_map(|line| {
        let (fields, filesystem) = line.split_once(" - ")?;
        let mut filesystem = filesystem.split(' ');
        let is_it = filesystem.next() == Some(kind)
            && controller.is_none_or(|name| {
                filesystem
                    .nth(1)
                    .is_some_and(|list| list.split(',').any(|one| one == name))
            });
        let mut fields = fields.split(' ').skip(3);
        is_it.then(|| Some((fields.next()?.to_owned(), PathBuf::from(fields.next()?))))?
    })?;
    let group = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        let is_it = match controller {
            Some(name) => controllers.split(',').any(|one| one == name),
            None => controllers.is_empty(),
        };
        is_it.then(|| fields.next())?
    })?;
    let below = group.strip_prefix(&root).unwrap_or(group).trim_start_matches('/');
    Some((mount.clone(), mount.join(below)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        for (path, content) in files {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().expect("below it")).expect("a directory");
            fs::write(path, content).expect("writes");
        }
        directory
    }

    #[test]
    fn the_platform_keeps_a_reserve() {
        const GIB: u64 = 1 << 30;
        assert_eq!(without_reserve(3 * GIB), 3 * GIB - (512 << 20));
        assert_eq!(without_reserve(32 * GIB), 28 * GIB);
        assert_eq!(without_reserve(GIB / 2), GIB / 4, "half of a small machine");
        assert!(guest_bytes(8 * GIB) < 8 * GIB, "this machine");
    }

    #[test]
    fn the_least_limit_of_the_groups_above_counts_in_either_version() {
        let two = directory(&[
            ("a/memory.max", "3221225472\n"),
            ("a/memory.current", "1073741824\n"),
            ("a/memory.stat", "anon 1\ninactive_file 536870912\n"),
            ("a/b/memory.max", "max\n"),
            ("a/b/memory.current", "5\n"),
        ]);
        let mount = two.path().display().to_string();
        let groups = Groups::find(&format!("30 1 0:26 / {mount} rw - cgroup2 cgroup2 rw\n"), "0::/a/b\n");
        assert_eq!((groups.0.len(), groups.limit()), (3, 3 << 30));
        assert_eq!(
            groups.available(),
            (5 << 29).min(machine_available()),
            "the cache can go"
        );
        let one = directory(&[
            ("g/memory.limit_in_bytes", "1048576\n"),
            ("g/memory.usage_in_bytes", "4096\n"),
            ("g/memory.stat", "total_inactive_file 0\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        let mount = one.path().display().to_string();
        let mounts =
            format!("31 1 0:27 / {mount} rw - cgroup cgroup rw,memory\n30 1 0:26 / /none rw - cgroup2 cgroup2 rw\n");
        let groups = Groups::find(&mounts, "4:memory:/g\n0::/\n");
        assert_eq!((groups.limit(), groups.available()), (1 << 20, (1 << 20) - 4_096));
        assert_eq!(Groups::find("", "").limit(), u64::MAX, "where nothing is said");
    }
}
