//! Codes that only a command says, of its own machine and files.

use piecework_model::Code;

use super::Entry;

const fn local(code: Code, when: &'static str) -> Entry {
    let status = None;
    Entry { code, status, when }
}

pub(super) const LOCAL: &[Entry] = &[
    local(
        Code::DevnetForeignDirectory,
        "the directory given to `devnet` contains something else",
    ),
    local(
        Code::DevnetOtherNetwork,
        "the directory belongs to a test network with other settings",
    ),
    local(Code::DirectoryDamaged, "a file in the data directory is damaged"),
    local(Code::DirectoryForeign, "the directory contains something else"),
    local(Code::DirectoryInUse, "another process uses the data directory"),
    local(
        Code::DirectoryNewer,
        "a newer version of this program wrote the data directory",
    ),
    local(
        Code::GenesisBadGrant,
        "a grant in the genesis is negative, or the sum is too large",
    ),
    local(Code::GenesisBadParams, "a parameter in the genesis is out of bounds"),
    local(
        Code::GenesisDuplicate,
        "a name, key or peer occurs twice in the genesis",
    ),
    local(Code::GenesisNoPeer, "the genesis names no peer"),
    local(Code::GenesisTooLarge, "a text or list in the genesis is too long"),
    local(
        Code::GenesisUnknownOwner,
        "the owner of a peer has no grant in the genesis",
    ),
    local(
        Code::ImageLoginRequired,
        "the registry wants a user name and password: log in with `docker login`, or with another tool that writes ~/.docker/config.json",
    ),
    local(
        Code::ImageRegistryFailed,
        "the registry does not answer, does not have the image, or answers with something else",
    ),
    local(
        Code::ListenBadCertificate,
        "the certificate or its key cannot be read, or they do not belong together",
    ),
    local(Code::ListenRefused, "the address to listen on is not usable"),
    local(
        Code::NetworkMalformed,
        "the text is not an IPv4 network such as 10.0.0.0/8",
    ),
];
