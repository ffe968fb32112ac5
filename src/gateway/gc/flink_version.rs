//! Knows which version of Flink this pod's JVM runs, keeps a JVM from leading that would lose stored jobs, and notes in
//! the ledger which version leads. [`crate::ha_data::versions`] decides.
//!
//! A JVM is known by Flink's own jar among its open files: that is what it runs, whatever the image's tag, a link or
//! its class path say, and no request can fail for it. Who is not known leads as ever.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::ledger::Ledger;
use crate::flink::version::FlinkVersion;
use crate::ha_data::versions::{self, StoredJobs};
use crate::lease::term::{Incarnation, Term};
use crate::ledger::refusal::Refusal;
use crate::world::process;

/// Interval of examinations of a standby that may not lead, and of tries to note who leads.
pub const PAUSE: Duration = Duration::from_secs(15);

/// What the probes say of a standby that may not lead.
const UNFIT: &str = "its version of Flink may not lead: the condition Degraded of the FlinkHaCluster says why";

/// Shared by reference by all that grant leadership.
pub struct VersionGuard {
    ledger: Ledger,
    pod_uid: String,
    /// `spec.flinkVersion`.
    declared: Option<String>,
    is_session: bool,
    /// The JVM that was examined last.
    known: Mutex<Option<(Incarnation, FlinkVersion)>>,
    /// It may not lead, by what was stored when it was examined.
    is_unfit: AtomicBool,
}

impl VersionGuard {
    pub fn new(ledger: Ledger, pod_uid: &str, declared: Option<String>, is_session: bool) -> Arc<Self> {
        let (known, is_unfit) = (Mutex::default(), AtomicBool::default());
        Arc::new(Self { ledger, pod_uid: pod_uid.to_owned(), declared, is_session, known, is_unfit })
    }

    /// Why a standby could not take over.
    pub fn unready(&self) -> Option<&'static str> {
        self.is_unfit().then_some(UNFIT)
    }

    pub fn is_unfit(&self) -> bool {
        self.is_unfit.load(Ordering::Relaxed)
    }

    /// Returns the version of a JVM that has begun to ask for the lock, or to connect to the quorum.
    pub async fn of_jvm(&self, jvm: Incarnation) -> Option<FlinkVersion> {
        if let Some((_, version)) = self.last().filter(|(known, _)| *known == jvm) {
            return Some(version);
        }
        let files = spawn_blocking(move || process::open_files(jvm)).await.ok()?;
        let files = files.inspect_err(|error| tracing::debug!(%jvm, %error, "its files cannot be read"));
        let version = FlinkVersion::of_open_files(files.iter().flatten().map(String::as_str));
        tracing::info!(%jvm, version = version.as_ref().map(FlinkVersion::as_str), "the JobManager's version of Flink");
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = version.clone().map(|version| (jvm, version));
        version
    }

    fn last(&self) -> Option<(Incarnation, FlinkVersion)> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why this JVM may not lead over what is stored now. It costs a request only where stored jobs are not of the
    /// JVM's own form.
    pub async fn refusal(&self, jvm: Incarnation, stored: &StoredJobs) -> Option<Refusal> {
        let version = self.of_jvm(jvm).await?;
        let of_declared = self.declared.as_ref().and_then(|declared| versions::of_declared(&version, declared));
        let refusal = match of_declared {
            Some(refusal) => Some(refusal),
            None if self.is_session && stored.unseen_by(&version, None).is_some() => {
                versions::of_session(&version, self.led_by().await.as_ref(), stored)
            }
            None => None,
        };
        Some(refusal?.of_pod(&self.pod_uid))
    }

    /// Why a JVM may not go on from HA data that its application's run has stored before: the one that was examined
    /// last, which waits for that.
    pub async fn refusal_of_last_state(&self, stored: &StoredJobs) -> Option<Refusal> {
        let (_, version) = self.last()?;
        versions::of_application(&version, self.led_by().await.as_ref(), stored)
    }

    /// The version that led last, if it is known.
    async fn led_by(&self) -> Option<FlinkVersion> {
        match self.ledger.ha_data().await {
            Ok(ha_data) => ha_data.led_by(),
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "failed to read which version of Flink led last");
                None
            }
        }
    }

    /// Examines a JVM before it is granted leadership, and says on the resource why it may not have it.
    ///
    /// # Errors
    /// Why it may not.
    pub async fn examine(&self, jvm: Incarnation, stored: &StoredJobs) -> Result<(), Refusal> {
        let Some(refusal) = self.refusal(jvm, stored).await else {
            self.forget_refusal().await;
            return Ok(());
        };
        self.is_unfit.store(true, Ordering::Relaxed);
        tracing::warn!(reason = refusal.reason, "this JobManager may not lead: {}", refusal.message);
        if let Err(error) = self.ledger.note_refusal(Some(&refusal)).await {
            tracing::warn!(error = format!("{error:#}"), "failed to write a refusal into the ledger");
        }
        Err(refusal)
    }

    /// Forgets a JVM that has ended, unless another one was examined since.
    pub async fn forget(&self, jvm: Incarnation) {
        if self.last().is_some_and(|(known, _)| known == jvm) {
            self.forget_refusal().await;
        }
    }

    async fn forget_refusal(&self) {
        if self.is_unfit.swap(false, Ordering::Relaxed)
            && let Err(error) = self.ledger.withdraw_refusal(&self.pod_uid).await
        {
            tracing::warn!(error = format!("{error:#}"), "failed to remove a refusal from the ledger");
        }
    }

    /// Notes which version leads, until the process ends.
    pub async fn note_leading(self: Arc<Self>) {
        let tenures = Arc::clone(&self.ledger.tenures);
        tenures.during_each(async |term| self.note(term).await).await;
    }

    /// Serves one tenure.
    async fn note(&self, term: &Term) {
        let version = self.of_jvm(term.jvm).await.map(|version| version.to_string());
        while let Err(error) =
            self.ledger.change_ha_data(term, |ha_data| ha_data.flink_version.clone_from(&version)).await
        {
            tracing::warn!(error = format!("{error:#}"), "failed to note the version of Flink; trying again");
            sleep(PAUSE).await;
        }
    }
}
