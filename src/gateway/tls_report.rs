//! Reports on the ledger what is wrong with Flink's own TLS, as the leading gateway sees it: it cannot call its JVM, or
//! a certificate has expired.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;

use super::gc::ledger::Ledger;
use super::tls_arguments::{TlsPart, TlsSecrets};
use crate::world::flink_rest::Rest;
use crate::world::tls::{PemFiles, Usage, rejection};

/// Interval of checks. What two checks in a row have found is reported.
const INTERVAL: Duration = Duration::from_secs(15);

/// Checks while this gateway's JVM leads.
pub struct TlsReport {
    pub ledger: Ledger,
    pub rest: Rest,
    pub secrets: TlsSecrets,
    pub pod: String,
}

impl TlsReport {
    /// Runs until the process ends.
    pub async fn run(self) {
        self.ledger.tenures.during_each(async |_| self.lead().await).await;
    }

    async fn lead(&self) {
        // A former leader's report is removed. Without TLS there is none, and a leader need not write that.
        let (mut noted, mut last) = ((!self.is_used()).then_some(None), None);
        loop {
            let now = self.find();
            if now == last && noted.as_ref() != Some(&now) {
                match self.ledger.note_tls(now.as_deref()).await {
                    Ok(()) => noted = Some(now.clone()),
                    Err(error) => {
                        tracing::warn!(error = format!("{error:#}"), "failed to note the state of Flink's TLS")
                    }
                }
            }
            last = now;
            sleep(INTERVAL).await;
        }
    }

    fn is_used(&self) -> bool {
        self.rest.address.starts_with("https") || self.secrets.parts().next().is_some()
    }

    fn find(&self) -> Option<String> {
        let rest =
            self.rest.trouble().map(|why| format!("gateway {} cannot call its JobManager by REST: {why}", self.pod));
        let certificates = self.secrets.parts().filter_map(|part| self.of_certificates(part));
        let all: Vec<String> = rest.into_iter().chain(certificates).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    fn of_certificates(&self, part: TlsPart<'_>) -> Option<String> {
        let name = part.name;
        if let Some(why) = wrong(part.secret, part.usage) {
            return Some(format!("the Secret of spec.tls.{name}: {why}; issue the certificate again"));
        }
        let why = wrong(&self.secrets.stores_of(name), part.usage)?;
        Some(format!(
            "pod {} still uses a former certificate of spec.tls.{name}: {why}; if OperatorRollOut does not say that the \
             pods are replaced, change spec.restartNonce",
            self.pod
        ))
    }
}

/// Returns why the certificate of a directory cannot be used.
fn wrong(directory: &Path, usage: Usage) -> Option<String> {
    let files = match PemFiles::read(directory).and_then(|files| files.identity()?.check_key().map(|()| files)) {
        Ok(files) => files,
        Err(error) => return Some(format!("{error:#}")),
    };
    rejection(&files, usage, Timestamp::now())
}
