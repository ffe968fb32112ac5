//! The place of a test on the machine: a directory, and loopback addresses that stand for pod addresses.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use tempfile::TempDir;

/// An address of 127.0.0.0/8 that nobody else on this machine uses: with one for every process that stands for a pod, all
/// of them listen on the ports of production, and no test has to look for a free one.
pub fn address() -> Ipv4Addr {
    static LAST: AtomicU8 = AtomicU8::new(0);
    let last = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    assert!(last < 255, "one test program has no more than 254 addresses");
    let [high, low] = u16::try_from(std::process::id() % 65_025).expect("a remainder").to_be_bytes();
    // 127.0.0.0/16 is left to everybody else.
    Ipv4Addr::new(127, high + 1, low, last)
}

/// A port that belongs to an address of ours as its own number, for what has to be told apart by the port.
pub fn port(address: Ipv4Addr) -> u16 {
    let [_, _, high, low] = address.octets();
    10_000 + u16::from_be_bytes([high, low]) % 20_000
}

/// A directory that goes with the test, and stays with its logs when the test fails.
pub struct Directory(TempDir);

impl Directory {
    pub fn new(name: &str) -> Self {
        let parent = env!("CARGO_TARGET_TMPDIR");
        Self(tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(parent).expect("failed to make a directory"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A directory inside, made if needed.
    pub fn sub(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(&path).expect("failed to make a directory");
        path
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, content).expect("failed to write a file");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.disable_cleanup(true);
            eprintln!("    all logs of the failed test are in {}", self.path().display());
        }
    }
}
