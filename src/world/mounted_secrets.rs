//! Reads the directories in which the kubelet mounts Secrets.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use anyhow::Context;

use crate::flink::mounted_secrets::MountedSecret;

/// A shorter key counts as none: everybody knows an empty one.
const SHORTEST_KEY: usize = 16;

/// Reads the gateways' key from its file.
///
/// # Errors
/// When there is no file, or no key in it.
pub fn key(file: &Path) -> io::Result<Vec<u8>> {
    let key = std::fs::read(file)?;
    if key.len() < SHORTEST_KEY { Err(io::ErrorKind::InvalidData.into()) } else { Ok(key) }
}

/// Reads the Secrets below a directory, in their order: each has a directory `<place>.<name>`.
///
/// # Errors
/// When a file cannot be read. The kubelet may just have replaced it, so another try may succeed.
pub fn read(directory: &Path) -> anyhow::Result<Vec<MountedSecret>> {
    let failed = || format!("failed to read the Secrets in {}", directory.display());
    let mut names: Vec<String> = entries(directory).with_context(failed)?;
    let place = |name: &str| name.split('.').next().and_then(|place| place.parse().ok()).unwrap_or(usize::MAX);
    names.sort_by_key(|name| place(name));
    names.into_iter().map(|name| secret(&directory.join(&name), &name).with_context(failed)).collect()
}

fn secret(directory: &Path, name: &str) -> io::Result<MountedSecret> {
    let name = name.split_once('.').map_or(name, |(_, name)| name).to_owned();
    let keys = entries(directory)?.into_iter();
    let files: io::Result<BTreeMap<_, _>> =
        keys.map(|key| Ok((key.clone(), std::fs::read(directory.join(key))?))).collect();
    Ok(MountedSecret { name, files: files? })
}

/// Returns the names in a directory. Those that begin with two dots are the kubelet's.
fn entries(directory: &Path) -> io::Result<Vec<String>> {
    let names = std::fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: io::Result<Vec<String>> = names.collect();
    Ok(names?.into_iter().filter(|name| !name.starts_with("..")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_empty_or_short_is_none() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        for (bytes, is_key) in [(&b""[..], false), (b"15 bytes: short", false), (b"16 bytes: a key.", true)] {
            std::fs::write(file.path(), bytes).expect("a file");
            assert_eq!(key(file.path()).is_ok(), is_key, "{bytes:?}");
        }
        assert!(key(Path::new("/absent")).is_err());
    }

    #[test]
    fn secrets_are_read_in_their_order_as_the_kubelet_mounts_them() {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, value) in [("1.b.c", "second"), ("0.a", "first")] {
            let data = directory.path().join(name).join("..2026");
            std::fs::create_dir_all(&data).expect("a directory");
            std::fs::write(data.join("key"), value).expect("a file");
            std::os::unix::fs::symlink("..2026", directory.path().join(name).join("..data")).expect("a link");
            std::os::unix::fs::symlink("..data/key", directory.path().join(name).join("key")).expect("a link");
        }
        let secrets = read(directory.path()).expect("Secrets");
        let found: Vec<(&str, &[u8])> =
            secrets.iter().map(|secret| (secret.name.as_str(), secret.files["key"].as_slice())).collect();
        assert_eq!(found, [("a", &b"first"[..]), ("b.c", b"second")]);
        assert!(read(&directory.path().join("absent")).is_err());
    }
}
