//! Who an image runs as: `USER` of its configuration, looked up in its own `/etc/passwd` and `/etc/group`.

use std::{io::Read as _, path::Path};

use piecework_model::Rejection;
use rustix::fs::{self, Mode, OFlags, ResolveFlags};

use crate::{Layers, LayersInUse, bad};

/// A passwd of a directory of thousands.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// An identity inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// User and group.
    pub ids: (u32, u32),
    pub home: String,
}

impl Layers {
    /// Rejects with `image.bad` where the image has no such user.
    pub fn account(&self, layers: &LayersInUse, user: &str) -> Result<Account, Rejection> {
        let text = |file: &str| {
            let names = layers.names();
            let found = names.iter().rev().find_map(|name| read(&self.root().join(name), file));
            found.unwrap_or_default()
        };
        look_up(user, &text("etc/passwd"), &text("etc/group"))
    }
}

/// A regular file of one layer, whatever links it has.
fn read(layer: &Path, file: &str) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let layer = fs::open(
        layer,
        OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let opened = std::fs::File::from(fs::openat2(&layer, file, flags, Mode::empty(), inside).ok()?);
    if !opened.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    opened.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// `user`, `user:group`, each a name or a number; nothing is root.
fn look_up(said: &str, passwd: &str, group: &str) -> Result<Account, Rejection> {
    let (user, group_said) = match said.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (said, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let lines = || passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let field = |line: &[&str], at: usize| line.get(at).and_then(|digits| digits.parse::<u32>().ok());
    let by_name = lines().find(|line| line.first() == Some(&user));
    let number = user.parse::<u32>().ok();
    let line = by_name.or_else(|| lines().find(|line| number.is_some() && field(line, 2) == number));
    let ids = line.as_ref().and_then(|line| Some((field(line, 2)?, field(line, 3)?)));
    let missing = || {
        bad(format!(
            "the image sets `User` to `{said}`, but has no such user or group"
        ))
    };
    let (uid, gid) = ids.or(number.map(|number| (number, 0))).ok_or_else(missing)?;
    let gid = match group_said {
        None | Some("") => gid,
        Some(name) => {
            let mut lines = group.lines().map(|line| line.split(':').collect::<Vec<_>>());
            let found = lines.find(|line| line.first() == Some(&name));
            let found = found.and_then(|line| field(&line, 2)).or_else(|| name.parse().ok());
            found.ok_or_else(missing)?
        }
    };
    // The kernel's "no identity".
    if uid == u32::MAX || gid == u32::MAX {
        return Err(missing());
    }
    let home = line.and_then(|line| line.get(5).map(|home| (*home).to_owned()));
    let home = home.filter(|home| home.starts_with('/'));
    Ok(Account {
        ids: (uid, gid),
        home: home.unwrap_or_else(|| "/".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:\n";

    #[test]
    fn an_image_runs_as_its_own_user() {
        for (said, ids, home) in [
            ("", (0, 0), "/root"),
            ("web", (33, 34), "/var/www"),
            ("33", (33, 34), "/var/www"),
            ("web:staff", (33, 50), "/var/www"),
            ("1000:7", (1000, 7), "/"),
            ("1000", (1000, 0), "/"),
        ] {
            let found = look_up(said, PASSWD, GROUP).expect("it is there");
            assert_eq!((found.ids, found.home.as_str()), (ids, home), "{said}");
        }
        for nobody in ["other", "web:nogroup", "broken", "4294967295", "-1"] {
            let refused = look_up(nobody, PASSWD, GROUP).expect_err("there is none");
            assert_eq!(refused.code, piecework_model::Code::ImageBad, "{nobody}");
        }
    }
}
