//! Notes in the ledger when a Secret of `spec.flinkConfigurationFrom` has changed: by a digest under the gateways' key,
//! so that nobody can guess values from it.

use std::path::PathBuf;
use std::time::Duration;

use ring::hmac;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior};

use super::ledger::Ledger;
use crate::api::names;
use crate::flink::mounted_secrets::merged;
use crate::lease::term::Term;
use crate::ledger::secrets::{SecretsNote, SeenSecrets};
use crate::world::mounted_secrets;

/// Interval of looks at the mounted files. A look costs no request.
const INTERVAL: Duration = Duration::from_secs(10);

/// Looks always, and notes while this gateway's JVM leads.
pub struct SecretRecorder {
    pub ledger: Ledger,
    /// Where the Secrets are mounted.
    pub directory: PathBuf,
    /// File with the gateways' key.
    pub key: Option<PathBuf>,
}

impl SecretRecorder {
    /// Runs until the process ends.
    pub async fn run(self) {
        let begin = Instant::now();
        let (mut seen, mut told): (SeenSecrets, Option<(Term, SecretsNote)>) = Default::default();
        let mut leads: Option<(Term, Duration)> = None;
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.look() {
                Ok((names, digest)) => seen.look(names, digest, begin.elapsed()),
                // It is read again; the kubelet may just have replaced it.
                Err(error) => tracing::warn!(error = format!("{error:#}"), "failed to look at the Secrets"),
            }
            let Some(term) = self.ledger.tenures.current() else { continue };
            let since =
                leads.take().filter(|(led, _)| *led == term).map_or_else(|| begin.elapsed(), |(_, since)| since);
            leads = Some((term.clone(), since));
            if told.as_ref().is_some_and(|(told, note)| *told == term && !seen.differs(note)) {
                continue;
            }
            match self.ledger.change_secrets(&term, |before| seen.noted(before, since, begin.elapsed())).await {
                Ok(note) => told = Some((term, note)),
                Err(error) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "failed to note the Secrets in the ledger; trying again"
                    )
                }
            }
        }
    }

    /// Returns the names of the Secrets, and the digest of their contents or why Flink must not get them.
    fn look(&self) -> anyhow::Result<(Vec<String>, Result<String, String>)> {
        let secrets = mounted_secrets::read(&self.directory)?;
        let names = secrets.iter().map(|secret| secret.name.clone()).collect();
        let Some(key) = self.key.as_ref().and_then(|file| mounted_secrets::key(file).ok()) else {
            let peers = names::peers(&self.ledger.cluster);
            let problem = format!(
                "spec.flinkConfigurationFrom: the gateways have no key, so a changed Secret is not noticed; if Secret \
                 {peers} is gone, create it again with 32 random bytes under 'key'"
            );
            return Ok((names, Err(problem)));
        };
        Ok((names, merged(&secrets).map(|configuration| digest(&key, &json!(configuration).to_string()))))
    }
}

/// Begins with a mark of the key, which is itself a digest under it.
fn digest(key: &[u8], text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let of = |text: &str| hmac::sign(&key, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let (mark, digest): (String, String) = (of("key"), of(text));
    format!("{}-{digest}", &mark[..8])
}
