//! The place of a test on the machine: a directory, and loopback addresses that stand for pod addresses.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

/// Third parts of addresses that one test program may use up, one after another: some thousand addresses.
const BLOCKS: u32 = 4;

/// An address of 127.0.0.0/8 that nobody else on this machine uses: with one for every process that stands for a pod,
/// all of them listen on the ports of production, and no test has to look for a free one.
pub fn address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    address_of(std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn address_of(process: u32, number: u32) -> Ipv4Addr {
    let (block, last) = (number / 254, number % 254 + 1);
    assert!(block < BLOCKS, "one test program has no more than {} addresses", BLOCKS * 254);
    // 127.0.0.0/16 is left to everybody else.
    let third = 256 + process % (254 * 256 / BLOCKS) * BLOCKS + block;
    Ipv4Addr::from(127 << 24 | third << 8 | last)
}

/// A port that belongs to an address of ours as its own number, for what has to be told apart by the port.
pub fn port(address: Ipv4Addr) -> u16 {
    let [_, _, high, low] = address.octets();
    10_000 + u16::from_be_bytes([high, low]) % 20_000
}

/// Of all directories.
const PARENT: &str = env!("CARGO_TARGET_TMPDIR");
/// A file with the id of the process that has no more use for the directory once it has ended.
const MARK: &str = "removable";

/// A directory that goes with the test, and stays with its logs when the test fails.
pub struct Directory(TempDir);

impl Directory {
    pub fn new(name: &str) -> Self {
        Self(
            tempfile::Builder::new()
                .prefix(&format!("{name}-"))
                .tempdir_in(PARENT)
                .expect("failed to make a directory"),
        )
    }

    /// From now on the directory may be removed when this program has ended.
    pub fn mark(&self) {
        self.write(MARK, std::process::id().to_string());
    }

    pub fn unmark(&self) {
        std::fs::remove_file(self.path().join(MARK)).expect("the mark of the directory");
    }

    /// Removes what programs have left that were not there any more to do it.
    pub fn remove_marked() {
        for directory in std::fs::read_dir(PARENT).into_iter().flatten().flatten() {
            let program = std::fs::read_to_string(directory.path().join(MARK));
            if program.is_ok_and(|program| !Path::new("/proc").join(program).exists()) {
                let _ = std::fs::remove_dir_all(directory.path());
            }
        }
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
