//! The ledger as the leading gateway writes it: read, changed by a pure function, and written if nobody else has written meanwhile and no newer
//! term has.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::fence::relation;
use super::shared::Shared;
use super::translate::version;
use crate::api::names::{self, TERM_ANNOTATION};
use crate::cluster::inventory::Inventory;
use crate::cluster::ledger::{self, HaData, Job};
use crate::flink::ha_data;
use crate::lease::term::{Relation, Term};

/// Tries when another task of this gateway writes at the same moment.
const TRIES: usize = 5;

const NOT_OURS: &str = "the ledger holds something that is not ours; remove its key 'jobs'";

/// Reads and writes the ledger, and reads what it is about.
#[derive(Clone)]
pub struct Book {
    pub shared: Arc<Shared>,
    pub client: Client,
    /// Name of the FlinkHaCluster.
    pub cluster: String,
}

impl Book {
    /// What is in use, by one quorum read of all HA ConfigMaps; `None` if the cluster's does not carry this term's stamp.
    pub async fn inventory(&self, term: &Term) -> anyhow::Result<Option<Inventory>> {
        let id = &self.shared.names.cluster_id;
        let list = ListParams::default().labels(&ha_data::selector(id));
        let found = self.config_maps().list(&list).await.context("failed to list the HA ConfigMaps")?;
        let values: Vec<Value> = found.items.iter().map(|one| json!(one)).collect();
        let name = names::cluster_config_map(id);
        let stamped = values.iter().any(|one| one["metadata"]["name"] == name && relation(one, term).0 == Relation::Same);
        Ok(stamped.then(|| Inventory::of(id, &values)))
    }

    pub async fn ha_data(&self) -> anyhow::Result<HaData> {
        let object = self.read().await?;
        let text = object.pointer("/data").and_then(|data| data.get(ledger::HA_DATA_KEY)?.as_str());
        Ok(text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default())
    }

    /// The jobs of the ledger.
    pub async fn jobs(&self) -> anyhow::Result<Vec<Job>> {
        let object = self.read().await?;
        let text = object.pointer("/data").and_then(|data| data.get(ledger::JOBS_KEY)?.as_str());
        ledger::read(text).context(NOT_OURS)
    }

    /// Reads which jobs have ended, before a JVM can ask for one of them anew.
    pub async fn note_ended(&self) -> anyhow::Result<()> {
        self.shared.note_ended(ended(&self.jobs().await?));
        Ok(())
    }

    /// Changes the jobs. The change may be made several times; it tells whether it changed anything.
    pub async fn change_jobs(&self, term: &Term, change: impl Fn(&mut Vec<Job>) -> bool) -> anyhow::Result<()> {
        self.change(term, ledger::JOBS_KEY, |text| {
            let mut jobs = ledger::read(text).context(NOT_OURS)?;
            let changed = change(&mut jobs);
            self.shared.note_ended(ended(&jobs));
            Ok(changed.then(|| json!(jobs).to_string()))
        })
        .await
    }

    /// Changes what is said of the HA data.
    pub async fn change_ha_data(&self, term: &Term, change: impl Fn(&mut HaData)) -> anyhow::Result<()> {
        self.change(term, ledger::HA_DATA_KEY, |text| {
            let before: HaData = text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
            let mut after = before.clone();
            change(&mut after);
            Ok((after != before).then(|| json!(after).to_string()))
        })
        .await
    }

    async fn change(&self, term: &Term, key: &str, change: impl Fn(Option<&str>) -> anyhow::Result<Option<String>>) -> anyhow::Result<()> {
        for _ in 0..TRIES {
            let object = self.read().await?;
            anyhow::ensure!(relation(&object, term).0 != Relation::Higher, "a newer term has written the ledger");
            let text = object.pointer("/data").and_then(|data| data.get(key)?.as_str());
            let Some(text) = change(text)? else { return Ok(()) };
            let patch = json!({
                "metadata": { "resourceVersion": version(&object), "annotations": { TERM_ANNOTATION: term.to_string() } },
                "data": { key: text },
            });
            match self.config_maps().patch(&names::ledger(&self.cluster), &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => return Ok(()),
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(error).context("failed to write the ledger"),
            }
        }
        anyhow::bail!("the ledger is written by others all the time")
    }

    async fn read(&self) -> anyhow::Result<Value> {
        let read = self.config_maps().get(&names::ledger(&self.cluster)).await.context("failed to read the ledger")?;
        Ok(serde_json::to_value(&read)?)
    }

    fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.shared.names.namespace)
    }
}

fn ended(jobs: &[Job]) -> BTreeSet<String> {
    jobs.iter().filter(|job| job.has_ended()).map(|job| job.id.clone()).collect()
}
