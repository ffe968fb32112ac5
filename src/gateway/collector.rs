//! Garbage collection of terminal jobs, by the leading gateway: Flink cleans up its own pointers and files, then we write the
//! tombstone and remove the last entry, the one in the result store that proves the end.
//!
//! Order: decide from what was read in this term, write the tombstones, remove checkpoints that no pointer names, remove the entries, confirm. A crash in between is finished
//! by the next scan of this or the next leader.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::fence::relation;
use super::shared::Shared;
use super::translate::version;
use crate::api::names::{self, TERM_ANNOTATION};
use crate::cluster::collect::{Known, collectable};
use crate::cluster::ledger::{self, StorageState};
use crate::flink::ha_data;
use crate::lease::term::{Relation, Term};
use crate::world::storage::{Mark, NotCollectable, Storage};

/// Between scans when nothing happens; also how often the directory's mark beats. Local files only: no request to the API.
const BEAT: Duration = Duration::from_secs(60);

/// Between scans while a job is ending, and for how long after its end was noticed.
const SOON: Duration = Duration::from_millis(250);
const ENDING: Duration = Duration::from_secs(30);

/// A mark of another owner that does not beat for this long is an old one.
const MARK_PATIENCE: Duration = Duration::from_secs(150);

/// Collects while this gateway's JVM leads.
pub struct Collector {
    pub shared: Arc<Shared>,
    pub client: Client,
    pub storage: Result<Storage, NotCollectable>,
    /// Name of the FlinkHaCluster.
    pub cluster: String,
    /// How this cluster signs the storage directory: the Lease's UID.
    pub owner: Option<String>,
    pub foreign_mark: Option<(Mark, Instant)>,
    /// What the ledger says of the storage, as last written.
    pub reported: Option<String>,
}

impl Collector {
    /// Runs until the process ends.
    pub async fn run(mut self) {
        while let Some(term) = self.shared.tenure().await {
            self.lead(&term).await;
        }
    }

    /// One tenure.
    async fn lead(&mut self, term: &Term) {
        let mut ending_until = Instant::now() + ENDING;
        let mut next_beat = Instant::now();
        while self.shared.leads(term) {
            if Instant::now() >= next_beat {
                next_beat = Instant::now() + BEAT;
                if let Err(error) = self.beat(term).await {
                    tracing::warn!(error = format!("{error:#}"), "failed to mark the storage directory");
                }
            }
            if let Err(error) = self.scan(term).await {
                tracing::warn!(error = format!("{error:#}"), "failed to collect; trying again");
            }
            let pause = if Instant::now() < ending_until { Instant::now() + SOON } else { next_beat };
            tokio::select! {
                () = sleep_until(pause) => {}
                () = self.shared.job_ended.notified() => ending_until = Instant::now() + ENDING,
                () = self.shared.deposed(term) => return,
            }
        }
    }

    /// Looks through the result stores once. Costs the API server nothing while no job has ended.
    async fn scan(&self, term: &Term) -> anyhow::Result<()> {
        let Ok(storage) = &self.storage else { return Ok(()) };
        let entries = storage.entries().await.context("failed to read the result stores")?;
        if entries.iter().all(|entry| entry.dirty) {
            return Ok(());
        }
        let Some(cluster) = self.stamped(&self.shared.names.cluster_config_map(), term).await? else { return Ok(()) };
        let stored: BTreeSet<String> = ha_data::stored_jobs(&cluster).into_iter().chain(ha_data::stored_applications(&cluster)).collect();
        let with_config_map = self.jobs_with_config_map().await?;
        let found = collectable(&Known { entries: &entries, stored: &stored, with_config_map: &with_config_map });
        if found.is_empty() {
            return Ok(());
        }
        let now = Timestamp::now().to_string();
        self.update_ledger(term, |tombstones| {
            found.iter().for_each(|entry| ledger::bury(tombstones, &entry.id, &entry.outcome, &now));
            true
        })
        .await?;
        let ids: Vec<String> = found.iter().map(|entry| entry.id.clone()).collect();
        let orphans = storage.remove_checkpoints_of(&ids).await.context("failed to look for checkpoints without a pointer")?;
        if orphans > 0 {
            tracing::info!(orphans, "removed checkpoints of ended jobs that a dying leader had left without a pointer");
        }
        for entry in &found {
            storage.remove(entry.store, &entry.id).await.with_context(|| format!("failed to remove the result of {}", entry.id))?;
            tracing::info!(job = entry.id, state = entry.outcome.state, store = ?entry.store, "the job is terminal; nothing of its HA data is left");
        }
        let now = Timestamp::now().to_string();
        self.update_ledger(term, |tombstones| ledger::confirm(tombstones, &ids, &now)).await
    }

    /// An HA ConfigMap by a quorum read, if it carries this term's stamp.
    async fn stamped(&self, name: &str, term: &Term) -> anyhow::Result<Option<Value>> {
        let read = self.config_maps().get_opt(name).await.with_context(|| format!("failed to read {name}"))?;
        let object = serde_json::to_value(&read)?;
        Ok((relation(&object, term).0 == Relation::Same).then_some(object))
    }

    async fn jobs_with_config_map(&self) -> anyhow::Result<BTreeSet<String>> {
        let id = &self.shared.names.cluster_id;
        let list = ListParams::default().labels(&ha_data::selector(id));
        let names = self.config_maps().list_metadata(&list).await.context("failed to list the ConfigMaps of jobs")?;
        Ok(names.into_iter().filter_map(|one| names::job_of_config_map(id, one.metadata.name.as_deref()?)).collect())
    }

    /// Changes the ledger, if no newer term has written it.
    async fn update_ledger(&self, term: &Term, change: impl Fn(&mut Vec<ledger::Tombstone>) -> bool) -> anyhow::Result<()> {
        let mut tombstones = Vec::new();
        let read = |data: Option<&str>| ledger::read(data).context("the ledger holds something that is not ours; remove its key 'jobs'");
        self.patch_ledger(term, |data| {
            tombstones = read(data.and_then(|data| data.get(ledger::JOBS_KEY)?.as_str()))?;
            Ok(change(&mut tombstones).then(|| (ledger::JOBS_KEY, json!(tombstones).to_string())))
        })
        .await
    }

    async fn patch_ledger(
        &self,
        term: &Term,
        mut change: impl FnMut(Option<&Value>) -> anyhow::Result<Option<(&'static str, String)>>,
    ) -> anyhow::Result<()> {
        let name = names::ledger(&self.cluster);
        let read = self.config_maps().get(&name).await.context("failed to read the ledger")?;
        let object = serde_json::to_value(&read)?;
        anyhow::ensure!(relation(&object, term).0 != Relation::Higher, "a newer term has written the ledger");
        let Some((key, text)) = change(object.get("data"))? else { return Ok(()) };
        let patch = json!({
            "metadata": { "resourceVersion": version(&object), "annotations": { TERM_ANNOTATION: term.to_string() } },
            "data": { key: text },
        });
        self.config_maps().patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.context("failed to write the ledger")?;
        Ok(())
    }

    /// Marks the directory as ours, unless another cluster does so too.
    async fn beat(&mut self, term: &Term) -> anyhow::Result<()> {
        let state = match &self.storage {
            Err(why) => StorageState { state: "NotCollectable".into(), message: why.to_string() },
            Ok(storage) => {
                let owner = match &self.owner {
                    Some(owner) => owner.clone(),
                    None => self.lease_uid().await?,
                };
                self.owner = Some(owner.clone());
                let collectable = StorageState { state: "Collectable".into(), message: String::new() };
                match storage.mark().await.context("failed to read the mark")?.filter(|mark| mark.owner != owner) {
                    None => {
                        storage.claim(&owner).await.context("failed to write the mark")?;
                        collectable
                    }
                    Some(mark) => match &self.foreign_mark {
                        Some((before, since)) if *before == mark && since.elapsed() >= MARK_PATIENCE => {
                            storage.claim(&owner).await.context("failed to write the mark")?;
                            collectable
                        }
                        Some((before, _)) if *before == mark => return Ok(()),
                        before => {
                            let living = before.is_some();
                            self.foreign_mark = Some((mark, Instant::now()));
                            if !living {
                                return Ok(());
                            }
                            let message = "another cluster uses the same high-availability.storageDir and cluster id; give each its own";
                            StorageState { state: "Shared".into(), message: message.into() }
                        }
                    },
                }
            }
        };
        let text = json!(state).to_string();
        if self.reported.as_ref() == Some(&text) {
            return Ok(());
        }
        self.patch_ledger(term, |data| {
            let stands = data.and_then(|data| data.get(ledger::STORAGE_KEY)?.as_str()) == Some(&text);
            Ok((!stands).then(|| (ledger::STORAGE_KEY, text.clone())))
        })
        .await?;
        self.reported = Some(text);
        Ok(())
    }

    async fn lease_uid(&self) -> anyhow::Result<String> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.shared.names.namespace);
        let lease = leases.get(&names::lease(&self.cluster)).await.context("failed to read the Lease")?;
        lease.metadata.uid.context("the Lease has no UID")
    }

    fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.shared.names.namespace)
    }
}
