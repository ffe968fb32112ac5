//! The keys by which gateways authenticate each other: the one in the cluster's Secret, and for a while the one before.
//!
//! Kubelets deliver a changed Secret to their pods at different times, up to two minutes apart. So a gateway that reads
//! another key accepts the former one too, and keeps the last one that it has read when the Secret is gone: no promise
//! ends because somebody renews or deletes the key.

use std::io::{Error, ErrorKind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ring::hmac;
use tokio::time::{Instant, sleep};

use crate::gateway::gc::ledger::Ledger;
use crate::world::mounted_secrets;

/// How long a key counts after another one was read.
const FORMER: Duration = Duration::from_mins(10);
/// Between looks whether there is a key. A look costs no request.
const INTERVAL: Duration = Duration::from_secs(5);

/// Reads the key each time, because the Secret may be replaced.
#[derive(Default)]
pub struct PeerKeys {
    /// `None`: there is no Secret.
    file: Option<PathBuf>,
    read: Mutex<KeysRead>,
}

/// What has been read.
#[derive(Default)]
struct KeysRead {
    present: Vec<u8>,
    former: Option<(Vec<u8>, Instant)>,
}

impl KeysRead {
    /// Takes in a key as it is read.
    fn take(&mut self, key: Vec<u8>, now: Instant) {
        if key == self.present {
            return;
        }
        let former = std::mem::replace(&mut self.present, key);
        self.former = (!former.is_empty()).then_some((former, now + FORMER));
    }

    /// The keys that count, the present one first.
    fn keys(&self, now: Instant) -> Vec<hmac::Key> {
        let former = self.former.iter().filter(|(_, until)| now < *until).map(|(key, _)| key);
        let present = [&self.present].into_iter().filter(|key| !key.is_empty());
        present.chain(former).map(|key| hmac::Key::new(hmac::HMAC_SHA256, key)).collect()
    }
}

impl PeerKeys {
    pub fn new(file: Option<PathBuf>) -> Self {
        Self { file, ..Self::default() }
    }

    /// The keys that count, the present one first.
    ///
    /// # Errors
    /// When this process has never read one.
    pub fn all(&self) -> Result<Vec<hmac::Key>, Error> {
        let found = self.load();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let missing = match found {
            Ok(key) => {
                read.take(key, now);
                None
            }
            Err(error) => Some(error),
        };
        match (read.keys(now), missing) {
            (keys, Some(error)) if keys.is_empty() => Err(error),
            (keys, _) => Ok(keys),
        }
    }

    /// The file is in memory, as the kubelet mounts it.
    fn load(&self) -> Result<Vec<u8>, Error> {
        self.file.as_ref().map_or_else(|| Err(ErrorKind::NotFound.into()), |file| mounted_secrets::key(file))
    }

    /// Says in the ledger that the Secret is gone, while this gateway's JVM leads: the operator, which may not read
    /// Secrets, makes it again.
    pub async fn tell(self: Arc<Self>, ledger: Ledger) {
        let tenures = Arc::clone(&ledger.tenures);
        tenures
            .during_each(async |_| {
                let mut told = None;
                loop {
                    let is_missing = self.file.is_some() && self.load().is_err();
                    if told != Some(is_missing) {
                        match ledger.note_key(is_missing).await {
                            Ok(()) => told = Some(is_missing),
                            Err(error) => tracing::warn!(
                                error = format!("{error:#}"),
                                "failed to note in the ledger whether there is a key"
                            ),
                        }
                    }
                    sleep(INTERVAL).await;
                }
            })
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(keys: &[hmac::Key], secret: &[u8]) -> bool {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), b"question");
        keys.iter().any(|key| hmac::verify(key, b"question", tag.as_ref()).is_ok())
    }

    #[test]
    fn the_former_key_counts_beside_the_present_one_for_a_while() {
        let (old, new, now) = (b"the former key's bytes", b"the present key's bytes", Instant::now());
        let mut read = KeysRead::default();
        read.take(old.to_vec(), now);
        assert_eq!(read.keys(now).len(), 1);
        read.take(new.to_vec(), now);
        read.take(new.to_vec(), now + FORMER / 2);
        let (soon, later) = (read.keys(now + FORMER - INTERVAL), read.keys(now + FORMER));
        assert!(accepts(&soon[..1], new), "questions are asked under the present one first");
        assert!(accepts(&soon, old) && accepts(&later, new) && !accepts(&later, old));
    }

    #[tokio::test]
    async fn a_key_that_was_read_stays_when_its_file_is_gone_or_emptied() {
        let file = std::env::temp_dir().join(format!("flinkha-key-{}", std::process::id()));
        let keys = PeerKeys::new(Some(file.clone()));
        assert!(keys.all().is_err());
        tokio::fs::write(&file, b"").await.expect("a file");
        assert!(keys.all().is_err(), "everybody knows an empty key");
        tokio::fs::write(&file, b"32 bytes of a key, or so, or more").await.expect("a file");
        assert_eq!(keys.all().expect("a key").len(), 1);
        tokio::fs::remove_file(&file).await.expect("no file");
        assert_eq!(keys.all().expect("the key").len(), 1);
        assert!(PeerKeys::new(Some(file)).all().is_err(), "another process has not read it");
    }
}
