//! The three pipes of a container, in a directory that is mounted into it.

use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use piecework_sandbox_jail::walls::{self, INVENTED};
use tokio::net::unix::pipe;

use super::is_gone;
use crate::{image, yard::Stream};

/// Inside, where the pipes lie.
pub(super) const CHANNEL: &str = "/channel";
/// In an image.
pub(super) const CHANNEL_OF_IMAGES: &str = "/.piecework/channel";
/// The layer that lies over every image.
const TOP: &str = "top";
const PIPES: [&str; 3] = ["in", "out", "printed"];
/// Opens the pipes, and becomes the interpreter.
pub(super) const OPEN_CHANNEL: &str = r#"exec "$@" </dev/null >/channel/printed 2>&1 3</channel/in 4>/channel/out"#;
const STAGE_PREFIX: &str = "piecework-docker-";
const IMAGE_PREFIX: &str = "image-";

/// A directory of this agent's on the host; goes with its value.
pub(super) struct Stage(PathBuf);

impl Stage {
    pub(super) fn make(scratch: &Path, agent: &str) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        sweep(scratch);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = scratch.join(format!("{STAGE_PREFIX}{agent}-{number}"));
        fs::create_dir(&path)?;
        let stage = Self(path.canonicalize()?);
        fs::set_permissions(&stage.0, fs::Permissions::from_mode(0o700))?;
        image::make_top(&stage.top())?;
        for name in INVENTED {
            let path = stage.figures(name);
            fs::write(&path, walls::invented(name))?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
        }
        Ok(stage)
    }

    /// Where a file of `/proc` has figures that say nothing of the machine.
    pub(super) fn figures(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(super) fn top(&self) -> PathBuf {
        self.0.join(TOP)
    }

    /// Where the root of this container's image is mounted.
    pub(super) fn image(&self, number: u64) -> PathBuf {
        self.0.join(format!("{IMAGE_PREFIX}{number}"))
    }

    /// Of this value alone.
    pub(super) fn name(&self) -> String {
        let name = self.0.file_name().unwrap_or_default().to_string_lossy();
        name.trim_start_matches(STAGE_PREFIX).to_owned()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// What could not be removed is the next agent's to remove. Mounts go first: what they show is not this directory's.
fn remove(stage: &Path) {
    for entry in fs::read_dir(stage).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(IMAGE_PREFIX) {
            image::unmount(&entry.path());
            if entry.path().exists() {
                return;
            }
        }
    }
    let _ = fs::remove_dir_all(stage);
}

/// Removes what agents that were killed left here.
pub(super) fn sweep(scratch: &Path) {
    for entry in fs::read_dir(scratch).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let agent = name
            .to_str()
            .and_then(|name| name.strip_prefix(STAGE_PREFIX)?.rsplit_once('-'));
        if agent.is_some_and(|(agent, _)| is_gone(agent)) {
            remove(&entry.path());
        }
    }
}

/// The pipes by their names; these go once both sides have opened them.
pub(super) struct Pipes {
    directory: PathBuf,
}

impl Pipes {
    pub(super) fn make(stage: &Stage, number: u64) -> io::Result<Self> {
        let directory = stage.0.join(format!("channel-{number}"));
        fs::create_dir(&directory)?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))?;
        let pipes = Self { directory };
        for name in PIPES {
            use rustix::fs::{CWD, FileType, Mode, mknodat};
            let path = pipes.path(name);
            mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o666), 0)?;
            // Whatever the mask says: the container is nobody here.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        }
        Ok(pipes)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Opened for both directions: neither side has to wait for the other, and none ends before the container has opened it.
    pub(super) fn hold(&self) -> io::Result<[fs::File; 3]> {
        let open = |name| fs::File::options().read(true).write(true).open(self.path(name));
        let [reads, writes, prints] = PIPES;
        Ok([open(reads)?, open(writes)?, open(prints)?])
    }

    /// Our ends: of the channel, and of what is printed.
    pub(super) fn open(&self) -> io::Result<(Stream, fs::File)> {
        let receiver = pipe::OpenOptions::new().open_receiver(self.path("out"))?;
        let sender = pipe::OpenOptions::new().open_sender(self.path("in"))?;
        let mut options = fs::File::options();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        let printed = options.open(self.path("printed"))?;
        Ok((tokio::io::join(receiver, sender), printed))
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        // What a container still has mounted is empty then.
        let _ = fs::remove_dir_all(&self.directory);
    }
}
