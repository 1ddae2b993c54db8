//! The image that holds what the host's `/usr` does not: places to mount at, the runners, a few files of `/etc`.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use piecework_model::Digest;
use piecework_sandbox_jail::walls::LINKS;
use tar::{Builder, EntryType, Header};

use super::{api::Docker, pipes::CHANNEL};
use crate::{
    config::{FUNCTION, TOLD},
    keeper::root_files,
};

const REPOSITORY: &str = "piecework-root";
/// Of the archive's digest.
const TAG_LENGTH: usize = 24;

/// The image's name; made where it is not there yet.
pub(super) async fn image(docker: &Docker, seen: &[PathBuf]) -> Result<String, String> {
    let archive = archive(seen).map_err(|error| format!("no archive of the root: {error}"))?;
    let tag = tag_of(&Digest::of(&archive));
    let name = format!("{REPOSITORY}:{tag}");
    if !docker.has_image(&name).await? {
        docker.import((REPOSITORY, &tag), archive).await?;
    }
    Ok(name)
}

pub(super) fn tag_of(digest: &Digest) -> String {
    let digits = digest.to_string();
    digits
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(TAG_LENGTH)
        .collect()
}

/// The same bytes for the same content.
fn archive(seen: &[PathBuf]) -> io::Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    let relative = |path: &Path| path.strip_prefix("/").unwrap_or(path).to_owned();
    let places = ["/proc", "/dev", "/sys", "/tmp", FUNCTION, CHANNEL].map(PathBuf::from);
    // Docker mounts figures of `/proc` from a place of its own.
    let files = root_files().into_iter().filter(|(path, _)| !path.starts_with(TOLD));
    let files: Vec<(PathBuf, Vec<u8>)> = files.collect();
    let parents = files.iter().flat_map(|(path, _)| path.ancestors().skip(1));
    let directories: BTreeSet<PathBuf> = places
        .into_iter()
        .chain(seen.iter().cloned())
        .chain(parents.map(Path::to_owned))
        .filter(|path| path != Path::new("/"))
        .collect();
    // Those above come first: unpacked without one, they would be the daemon's alone.
    for directory in &directories {
        // What is mounted there gets the mode of its place, whatever mode is asked for.
        let mode = if directory == Path::new("/tmp") { 0o1777 } else { 0o755 };
        let mut header = header(EntryType::Directory, mode, 0);
        archive.append_data(&mut header, relative(directory), io::empty())?;
    }
    for (path, content) in files {
        let mut header = header(EntryType::Regular, 0o644, content.len() as u64);
        archive.append_data(&mut header, relative(&path), &content[..])?;
    }
    for link in LINKS.map(|link| Path::new("/").join(link)) {
        if let Ok(target) = fs::read_link(&link) {
            let mut header = header(EntryType::Symlink, 0o777, 0);
            archive.append_link(&mut header, relative(&link), target)?;
        }
    }
    archive.into_inner()
}

pub(super) fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_the_same_each_time() {
        let seen = [PathBuf::from("/usr")];
        let first = archive(&seen).expect("an archive");
        assert_eq!(first, archive(&seen).expect("an archive"));
        let mut names = Vec::new();
        for entry in tar::Archive::new(&first[..]).entries().expect("entries") {
            let entry = entry.expect("an entry");
            let path = entry.path().expect("a path").display().to_string();
            let name = path.trim_end_matches('/').to_owned();
            let mode = entry.header().mode().expect("a mode");
            assert!(name != "tmp" || mode == 0o1777, "a function may write there: {mode:o}");
            names.push(name);
        }
        for name in [
            "usr",
            "channel",
            "runner",
            "runner/python.py",
            "runner/contracts",
            "etc/passwd",
        ] {
            assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
        }
    }
}
