//! The ledger as the leading gateway writes it: read, changed by a pure function, and written if nobody else has
//! written meanwhile and no newer term has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::{Api, Client};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::known_ledger::KnownLedger;
use super::pointer_store::PointerStore;
use crate::api::names::{self, TERM_ANNOTATION};
use crate::flink::job_id::JobId;
use crate::gateway::signals::Signals;
use crate::gateway::tenure::Tenures;
use crate::lease::stamp::relation;
use crate::lease::stamp::version;
use crate::lease::term::{Relation, Term};
use crate::ledger::application::Progress;
use crate::ledger::bounds;
use crate::ledger::certificates::{self, CertificateNotes};
use crate::ledger::checkpoints::{self, Checkpoints};
use crate::ledger::election::Notes;
use crate::ledger::failovers::{self, Failovers};
use crate::ledger::jobs::{self, HaData, Job};
use crate::ledger::refusal::Refusal;
use crate::ledger::savepoints::{self, TakenSavepoints};
use crate::ledger::secrets::{self, SecretsNote};
use crate::ledger::unready;

/// Tries when another task of this gateway writes at the same moment.
const TRIES: usize = 5;

/// Between tries to remove a refusal.
const LIFT_INTERVAL: Duration = Duration::from_secs(5);

/// Reads and writes the ledger, and knows the store of what it is about.
#[derive(Clone)]
pub struct Ledger {
    pub client: Client,
    pub namespace: String,
    /// Name of the FlinkHaCluster.
    pub cluster: String,
    pub pointers: PointerStore,
    pub tenures: Arc<Tenures>,
    pub signals: Arc<Signals>,
    /// What of it would be put back.
    pub copy: Arc<KnownLedger>,
}

impl Ledger {
    pub async fn ha_data(&self) -> anyhow::Result<HaData> {
        self.parsed(&self.read().await?, jobs::HA_DATA_KEY)
    }

    /// The jobs of the ledger.
    pub async fn jobs(&self) -> anyhow::Result<Vec<Job>> {
        self.parsed(&self.read().await?, jobs::JOBS_KEY)
    }

    /// How the application gets on.
    pub async fn progress(&self) -> anyhow::Result<Progress> {
        self.parsed(&self.read().await?, crate::ledger::application::LEDGER_KEY)
    }

    /// Changes what is said of the application.
    pub async fn change_progress(&self, term: &Term, change: impl Fn(&mut Progress)) -> anyhow::Result<()> {
        self.change(term, crate::ledger::application::LEDGER_KEY, |before| Ok(changed(before, &change))).await
    }

    /// Replaces what is said of the application, unless that is refused.
    pub async fn replace_progress(
        &self,
        term: &Term,
        replace: impl Fn(&Progress) -> Result<Progress, Refusal>,
    ) -> anyhow::Result<()> {
        self.change(term, crate::ledger::application::LEDGER_KEY, |before| {
            let after = replace(&before)?;
            Ok((after != before).then(|| json!(after).to_string()))
        })
        .await
    }

    /// Reads which jobs have ended, before a JVM can ask for one of them anew.
    pub async fn note_ended(&self) -> anyhow::Result<()> {
        self.signals.note_ended(ended(&self.jobs().await?));
        Ok(())
    }

    /// Changes the jobs. The change may be made several times; it tells whether it changed anything.
    pub async fn change_jobs(&self, term: &Term, change: impl Fn(&mut Vec<Job>) -> bool) -> anyhow::Result<()> {
        self.change(term, jobs::JOBS_KEY, |mut jobs: Vec<Job>| {
            let changed = change(&mut jobs);
            bounds::keep_small(&mut jobs);
            self.signals.note_ended(ended(&jobs));
            Ok(changed.then(|| json!(jobs).to_string()))
        })
        .await
    }

    /// Changes what is said of the HA data.
    pub async fn change_ha_data(&self, term: &Term, change: impl Fn(&mut HaData)) -> anyhow::Result<()> {
        self.change(term, jobs::HA_DATA_KEY, |before| Ok(changed(before, &change))).await
    }

    /// Changes what is said of the Secrets, unless it stays; returns what is said then.
    pub async fn change_secrets(
        &self,
        term: &Term,
        change: impl Fn(&SecretsNote) -> SecretsNote,
    ) -> anyhow::Result<SecretsNote> {
        self.change_note(term, secrets::LEDGER_KEY, change).await
    }

    /// Changes what is said of the certificates, unless it stays; returns what is said then.
    pub async fn change_certificates(
        &self,
        term: &Term,
        change: impl Fn(&CertificateNotes) -> CertificateNotes,
    ) -> anyhow::Result<CertificateNotes> {
        self.change_note(term, certificates::LEDGER_KEY, change).await
    }

    /// Changes what is said of the last changes of leader, unless it stays.
    pub async fn change_failovers(
        &self,
        term: &Term,
        change: impl Fn(&Failovers) -> Failovers,
    ) -> anyhow::Result<Failovers> {
        self.change_note(term, failovers::FAILOVERS_KEY, change).await
    }

    /// What the ledger says of the application's savepoints.
    pub async fn savepoints(&self) -> anyhow::Result<TakenSavepoints> {
        self.parsed(&self.read().await?, savepoints::SAVEPOINTS_KEY)
    }

    /// Changes what is said of the savepoints, unless it stays; returns what is said then.
    pub async fn change_savepoints(
        &self,
        term: &Term,
        change: impl Fn(&TakenSavepoints) -> TakenSavepoints,
    ) -> anyhow::Result<TakenSavepoints> {
        self.change_note(term, savepoints::SAVEPOINTS_KEY, change).await
    }

    /// What the ledger says of the jobs' last checkpoints.
    pub async fn checkpoints(&self) -> anyhow::Result<Checkpoints> {
        self.parsed(&self.read().await?, checkpoints::CHECKPOINTS_KEY)
    }

    /// Says which checkpoints are the last. It is one request, because nothing rests on it: what a gateway writes that
    /// leads no more is written over within a minute.
    pub async fn note_checkpoints(&self, term: &Term, checkpoints: &Checkpoints) -> anyhow::Result<()> {
        let patch = Patch::Merge(json!({ "data": { checkpoints::CHECKPOINTS_KEY: checkpoints.to_text() } }));
        let patched = self.config_maps().patch(&names::ledger(&self.cluster), &PatchParams::default(), &patch).await;
        self.copy.follow(&patched.context("failed to write the ledger")?, term);
        Ok(())
    }

    async fn change_note<T: Default + PartialEq + Serialize + DeserializeOwned>(
        &self,
        term: &Term,
        key: &str,
        change: impl Fn(&T) -> T,
    ) -> anyhow::Result<T> {
        let said = Mutex::new(T::default());
        self.change(term, key, |before: T| {
            let after = change(&before);
            let text = (after != before).then(|| json!(after).to_string());
            *said.lock().unwrap_or_else(PoisonError::into_inner) = after;
            Ok(text)
        })
        .await?;
        Ok(said.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// `change` makes the text of what is said from now on; `None` when it stays.
    async fn change<T: Default + DeserializeOwned>(
        &self,
        term: &Term,
        key: &str,
        change: impl Fn(T) -> anyhow::Result<Option<String>>,
    ) -> anyhow::Result<()> {
        for _ in 0..TRIES {
            let object = self.read().await?;
            if relation(&object, term).0 == Relation::Higher {
                self.signals.overtaken.notify_one();
                anyhow::bail!("a newer term has written the ledger");
            }
            let Some(text) = change(self.parsed(&object, key)?)? else { return Ok(()) };
            let patch = json!({
                "metadata": { "resourceVersion": version(&object), "annotations": { TERM_ANNOTATION: term.to_string() } },
                "data": { key: text },
            });
            match self
                .config_maps()
                .patch(&names::ledger(&self.cluster), &PatchParams::default(), &Patch::Merge(patch))
                .await
            {
                Ok(written) => {
                    self.copy.follow(&written, term);
                    return Ok(());
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(error).context("failed to write the ledger"),
            }
        }
        anyhow::bail!("the ledger is written by others all the time")
    }

    /// Changes what the ledger says of Flink's own election; returns what it says then. A change to nothing changes
    /// nothing.
    pub async fn note_election(&self, change: impl Fn(&Notes) -> Option<Notes>) -> anyhow::Result<Notes> {
        for _ in 0..TRIES {
            let (before, version) = self.election().await?;
            let Some(after) = change(&before).filter(|after| *after != before) else { return Ok(before) };
            if self.write_election(&after, &version).await? {
                return Ok(after);
            }
        }
        anyhow::bail!("the ledger is written by others all the time")
    }

    /// What the ledger says of Flink's own election, and the ledger's resourceVersion.
    pub async fn election(&self) -> anyhow::Result<(Notes, String)> {
        let metadata = self.object().await?.metadata;
        Ok((Notes::of(&metadata), metadata.resource_version.unwrap_or_default()))
    }

    /// Writes that, if the ledger still has this resourceVersion; returns whether it had.
    pub async fn write_election(&self, notes: &Notes, version: &str) -> anyhow::Result<bool> {
        let (name, patch) = (names::ledger(&self.cluster), Patch::Merge(notes.to_patch(version)));
        match self.config_maps().patch(&name, &PatchParams::default(), &patch).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error).context("failed to write the ledger"),
        }
    }

    /// Reads which savepoint the operator asks for.
    pub async fn read_asked(&self) -> anyhow::Result<()> {
        self.asked(&self.object().await?.metadata);
        Ok(())
    }

    /// Signal of the savepoint that an annotation on the ledger asks for.
    pub fn asked(&self, ledger: &ObjectMeta) {
        let text = ledger.annotations.as_ref().and_then(|annotations| annotations.get(names::SAVEPOINT_ANNOTATION));
        self.signals.ask_savepoint(text.and_then(|text| serde_json::from_str(text).ok()));
    }

    /// Reads which job in quarantine is to be removed.
    pub async fn asked_to_drop(&self) -> anyhow::Result<Option<String>> {
        let annotations = self.object().await?.metadata.annotations;
        Ok(annotations.and_then(|mut annotations| annotations.remove(names::DROP_JOB_ANNOTATION)))
    }

    /// Says that this was done.
    pub async fn forget_asked_to_drop(&self) -> anyhow::Result<()> {
        self.annotate(json!({ "annotations": { names::DROP_JOB_ANNOTATION: null } })).await
    }

    /// Merges this into the ledger's metadata.
    async fn annotate(&self, metadata: Value) -> anyhow::Result<()> {
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let patched = self.config_maps().patch(&names::ledger(&self.cluster), &PatchParams::default(), &patch).await;
        patched.map(drop).context("failed to write the ledger")
    }

    /// Says why the quorum is not reached, or that it is. No term is needed: without a quorum there is none.
    pub async fn note_quorum(&self, trouble: Option<&str>) -> anyhow::Result<()> {
        self.annotate(json!({ "annotations": { names::QUORUM_ANNOTATION: trouble } })).await
    }

    /// Says what is wrong with Flink's TLS, or that nothing is. No term is needed: the next leader says it again.
    pub async fn note_tls(&self, trouble: Option<&str>) -> anyhow::Result<()> {
        self.annotate(json!({ "annotations": { names::TLS_ANNOTATION: trouble } })).await
    }

    /// Says why no JVM is let lead, or that one leads now. Writes only what is new. No term is needed: whoever refuses
    /// may have none.
    pub async fn note_refusal(&self, refusal: Option<&Refusal>) -> anyhow::Result<()> {
        let ledger = self.object().await?;
        if Refusal::of(&ledger.metadata).as_ref() == refusal {
            return Ok(());
        }
        let text = refusal.map(|refusal| json!(refusal).to_string());
        self.annotate(json!({
            "resourceVersion": ledger.metadata.resource_version,
            "annotations": { names::REFUSAL_ANNOTATION: text },
        }))
        .await
    }

    /// Removes the refusal of this pod's JobManager alone, which may lead now.
    pub async fn withdraw_refusal(&self, pod_uid: &str) -> anyhow::Result<()> {
        let refusal = Refusal::of(&self.object().await?.metadata);
        if refusal.is_some_and(|refusal| refusal.pod.as_deref() == Some(pod_uid)) {
            self.note_refusal(None).await?;
        }
        Ok(())
    }

    /// Says that there is no key for promises between gateways, or that there is one again. Writes only what is new.
    pub async fn note_key(&self, is_missing: bool) -> anyhow::Result<()> {
        let annotations = self.object().await?.metadata.annotations;
        if annotations.is_some_and(|annotations| annotations.contains_key(names::NO_KEY_ANNOTATION)) == is_missing {
            return Ok(());
        }
        let since = is_missing.then(|| jiff::Timestamp::now().to_string());
        self.annotate(json!({ "annotations": { names::NO_KEY_ANNOTATION: since } })).await
    }

    /// Says why this pod's candidate could not take over, or that it could. No term is needed: who is not ready has
    /// none.
    pub async fn note_unready(&self, pod_uid: &str, why: Option<&str>) -> anyhow::Result<()> {
        let now = jiff::Timestamp::now();
        let outdated = unready::outdated(&self.object().await?.metadata, now);
        let mut annotations: BTreeMap<String, Option<String>> = outdated.into_iter().map(|key| (key, None)).collect();
        annotations.insert(unready::annotation(pod_uid), why.map(|why| unready::text(why, now)));
        self.annotate(json!({ "annotations": annotations })).await
    }

    /// Removes what a gateway said about refusing, once a JVM leads. Failures are tried again for a while.
    pub fn lift_refusal(&self) {
        let ledger = self.clone();
        tokio::spawn(async move {
            for _ in 0..TRIES {
                match ledger.note_refusal(None).await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::warn!(error = format!("{error:#}"), "failed to remove a refusal from the ledger")
                    }
                }
                tokio::time::sleep(LIFT_INTERVAL).await;
            }
        });
    }

    /// Reads it by quorum. While this gateway's JVM leads, what somebody has taken away is put back before.
    pub async fn object(&self) -> anyhow::Result<ConfigMap> {
        let name = names::ledger(&self.cluster);
        for _ in 0..TRIES {
            let found = self.config_maps().get_opt(&name).await.context("failed to read the ledger")?;
            let injury = self.tenures.term().and_then(|term| self.copy.injury(found.as_ref(), &term));
            match (injury, found) {
                (None, Some(found)) => return Ok(found),
                (None, None) => anyhow::bail!("failed to read the ledger: there is no ConfigMap {name}"),
                (Some(injury), _) => {
                    if let Some(repaired) = self.put_back(&injury).await? {
                        return Ok(repaired);
                    }
                }
            }
        }
        anyhow::bail!("the ledger is written by others all the time")
    }

    async fn read(&self) -> anyhow::Result<Value> {
        Ok(serde_json::to_value(self.object().await?)?)
    }

    /// What the ledger says under a key; the default when it says nothing. Text that is not understood is an error, and
    /// is not written over: it may be all that tells of a run.
    fn parsed<T: Default + DeserializeOwned>(&self, ledger: &Value, key: &str) -> anyhow::Result<T> {
        let Some(text) = text_of(ledger, key) else { return Ok(T::default()) };
        serde_json::from_str(text).map_err(|_| Refusal::unreadable(&self.cluster, key).into())
    }

    pub fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// What the ledger says under a key.
fn text_of<'a>(ledger: &'a Value, key: &str) -> Option<&'a str> {
    ledger.pointer("/data")?.get(key)?.as_str()
}

/// The text of a changed value; `None` when it is as before.
fn changed<T: Clone + PartialEq + Serialize>(before: T, change: &impl Fn(&mut T)) -> Option<String> {
    let mut after = before.clone();
    change(&mut after);
    (after != before).then(|| json!(after).to_string())
}

fn ended(jobs: &[Job]) -> BTreeSet<JobId> {
    jobs.iter().filter(|job| job.has_ended()).map(|job| job.id).collect()
}
