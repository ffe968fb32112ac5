//! Notes in the ledger when a certificate of `spec.tls` has changed, so that the operator replaces the pods: Flink
//! reads its key stores once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use tokio::time::{Instant, MissedTickBehavior};

use super::gc::ledger::Ledger;
use super::prepare_tls;
use super::tls_arguments::{TlsPart, TlsSecrets};
use crate::lease::term::Term;
use crate::ledger::certificates::{CertificateNotes, SeenCertificate, SeenCertificates};
use crate::world::tls::PemFiles;

/// Interval of looks at the mounted files. A look costs no request.
const INTERVAL: Duration = Duration::from_secs(10);

/// Looks always, and notes while this gateway's JVM leads.
pub struct CertificateRecorder {
    pub ledger: Ledger,
    pub tls: TlsSecrets,
    /// File with the names of the Secrets, by the fields of `spec.tls`.
    pub names: Option<PathBuf>,
}

/// What was done in one term.
struct Noted {
    term: Term,
    /// When the term began here.
    since: Duration,
    /// What the ledger says.
    said: Option<CertificateNotes>,
}

impl CertificateRecorder {
    /// Runs until the process ends.
    pub async fn run(self) {
        let (begin, names) = (Instant::now(), self.names());
        let (mut seen, mut noted): (SeenCertificates, Option<Noted>) = Default::default();
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = begin.elapsed();
            match self.look(&names) {
                Ok(all) => {
                    if seen.look(all, now) {
                        tracing::info!("a certificate of spec.tls has changed; it is noted in some minutes");
                    }
                }
                // It is read again; the kubelet may just have replaced it.
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "failed to look at the certificates of spec.tls");
                    continue;
                }
            }
            noted = match (self.ledger.tenures.current(), noted) {
                (None, _) => None,
                (Some(term), Some(noted)) if noted.term == term => Some(noted),
                (Some(term), _) => Some(Noted { term, since: now, said: None }),
            };
            let Some(noted) = &mut noted else { continue };
            if noted.said.as_ref().is_some_and(|said| seen.noted(said, noted.since, now) == *said) {
                continue;
            }
            let change = |before: &CertificateNotes| seen.noted(before, noted.since, now);
            match self.ledger.change_certificates(&noted.term, change).await {
                Ok(said) => noted.said = Some(said),
                Err(error) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "failed to note the certificates in the ledger; trying again"
                    )
                }
            }
        }
    }

    /// Returns the names of the Secrets. Those of a later spec do not matter: it replaces this pod.
    fn names(&self) -> BTreeMap<String, String> {
        let text = self.names.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    fn look(&self, names: &BTreeMap<String, String>) -> anyhow::Result<BTreeMap<String, SeenCertificate>> {
        let name = |part: TlsPart<'_>| names.get(part.name).cloned().unwrap_or_default();
        let seen = |part: TlsPart<'_>| Ok((part.name.to_owned(), self.look_at(part, name(part))?));
        self.tls.parts().map(seen).collect()
    }

    fn look_at(&self, part: TlsPart<'_>, secret: String) -> anyhow::Result<SeenCertificate> {
        let files = PemFiles::read(part.secret)?;
        let mounted = digest_of(&files);
        // They are absent until the pod's Flink is started.
        let stores = PemFiles::read(&self.tls.stores_of(part.name))?;
        let used = if stores == PemFiles::default() { mounted.clone() } else { digest_of(&stores) };
        let is_usable = used == mounted || prepare_tls::is_usable(part, &files);
        Ok(SeenCertificate { secret, mounted, used, is_usable })
    }
}

/// Returns the digest of a certificate and of whom it trusts. Everybody may know both, so it needs no key; and who has
/// another key has another certificate.
fn digest_of(files: &PemFiles) -> String {
    let of = |file: &Option<Vec<u8>>| digest(&SHA256, file.as_deref().unwrap_or_default());
    let both = [of(&files.certificate), of(&files.authority)].map(|digest| digest.as_ref().to_vec()).concat();
    digest(&SHA256, &both).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_follows_the_certificate_and_whom_it_trusts_and_not_the_key() {
        let files = |certificate: &str, authority: &str, key: &str| PemFiles {
            certificate: Some(certificate.into()),
            authority: Some(authority.into()),
            key: Some(key.into()),
        };
        let first = digest_of(&files("a", "b", "k"));
        assert_eq!(first, digest_of(&files("a", "b", "another")));
        for other in [files("c", "b", "k"), files("a", "c", "k"), files("ab", "", "k"), PemFiles::default()] {
            assert_ne!(first, digest_of(&other), "{other:?}");
        }
    }
}
