//! A Debian package: an `ar` archive of a version, a control archive and a data archive.

use std::path::Path;

use anyhow::{Result, ensure};

use super::{
    Release,
    tree::{FILE, PROGRAM, Tree, gzip},
};

const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// The package with these files.
pub fn package(release: &Release, files: &Tree) -> Result<Vec<u8>> {
    let mut control = Tree::default();
    control.put("control", FILE, fields(release, files.size().div_ceil(1_024)));
    control.put("conffiles", FILE, "/etc/default/piecework\n");
    for script in SCRIPTS {
        control.copy(&release.root, &format!("packaging/debian/{script}"), script, PROGRAM)?;
    }
    let epoch = release.epoch;
    ar(
        &[
            ("debian-binary", b"2.0\n".to_vec()),
            ("control.tar.gz", gzip(&control.tar("./", epoch)?, epoch)?),
            ("data.tar.gz", gzip(&files.tar("./", epoch)?, epoch)?),
        ],
        epoch,
    )
}

/// `Depends` names what the scripts call: the program itself is linked statically.
fn fields(release: &Release, installed_kib: usize) -> String {
    format!(
        "Package: piecework\n\
         Version: {}\n\
         Architecture: {}\n\
         Maintainer: The Piecework developers <piecework@localhost>\n\
         Installed-Size: {installed_kib}\n\
         Depends: passwd, coreutils\n\
         Recommends: ca-certificates\n\
         Suggests: nodejs, python3, python3-pip\n\
         Section: net\n\
         Priority: optional\n\
         Description: serverless functions on anyone's computer\n \
         Runs JavaScript and Python functions in sandboxes, on this machine or on computers\n \
         that offer themselves, and pays for each run on a ledger kept by several peers.\n \
         One program: controller, ledger peer, provider and command line. It brings its own\n \
         interpreters; with Node.js and Python installed, functions can use those as well.\n",
        release.version,
        release.debian_architecture()
    )
}

/// Each member with its name, on even offsets.
fn ar(members: &[(&str, Vec<u8>)], epoch: u64) -> Result<Vec<u8>> {
    let mut archive = b"!<arch>\n".to_vec();
    for (name, content) in members {
        ensure!(name.len() <= 16, "{name} is too long for a name in an ar archive");
        let header = format!(
            "{name:<16}{epoch:<12}{:<6}{:<6}{:<8}{:<10}`\n",
            0,
            0,
            "100644",
            content.len()
        );
        archive.extend(header.as_bytes());
        archive.extend(content);
        if content.len() % 2 == 1 {
            archive.push(b'\n');
        }
    }
    Ok(archive)
}

/// What goes where on a Debian system.
pub fn files(release: &Release, program: &[u8], documents: &Path) -> Result<Tree> {
    let root = &release.root;
    let mut files = Tree::default();
    files.put("usr/bin/piecework", PROGRAM, program);
    for unit in super::UNITS {
        files.copy(
            root,
            &format!("packaging/systemd/{unit}"),
            format!("usr/lib/systemd/system/{unit}"),
            FILE,
        )?;
    }
    files.copy(root, "packaging/debian/default", "etc/default/piecework", FILE)?;
    files.copy(root, "LICENSE", "usr/share/doc/piecework/copyright", FILE)?;
    files.copy(root, "README.md", "usr/share/doc/piecework/README.md", FILE)?;
    files.copy_all(&documents.join("man"), "usr/share/man/man1", true)?;
    for (shell, path) in [
        ("bash", "usr/share/bash-completion/completions/piecework"),
        ("zsh", "usr/share/zsh/vendor-completions/_piecework"),
        ("fish", "usr/share/fish/vendor_completions.d/piecework.fish"),
    ] {
        files.copy(documents, &format!("completions/{shell}"), path, FILE)?;
    }
    Ok(files)
}
