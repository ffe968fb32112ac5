//! HA data beside the files that it names: what the leading gateway says of them.

use std::collections::{BTreeMap, BTreeSet};

use super::stored::{PointerReport, StoredReport};
use crate::flink::pointer;
use crate::ledger::asked::{StoredFile, StoredFiles};

impl StoredReport {
    fn pointers(&mut self) -> impl Iterator<Item = (String, &mut PointerReport)> {
        let plans = self.plans.iter_mut().map(|plan| (format!("key {}", plan.key), &mut plan.pointer));
        let checkpoints = self.jobs.iter_mut().flat_map(|job| {
            let id = job.id.clone();
            let named = move |checkpoint: &str| format!("checkpoint {checkpoint} of job {id}");
            job.checkpoints.iter_mut().map(move |one| (named(&one.checkpoint), &mut one.pointer))
        });
        plans.chain(checkpoints)
    }

    /// Names of the files that the pointers name, in the cluster's directory.
    pub fn named_files(&self) -> BTreeSet<String> {
        let plans = self.plans.iter().map(|plan| &plan.pointer);
        let checkpoints = self.jobs.iter().flat_map(|job| &job.checkpoints).map(|checkpoint| &checkpoint.pointer);
        let files = plans.chain(checkpoints).filter_map(|pointer| pointer.file.as_deref());
        files.map(|uri| pointer::name(uri).to_owned()).collect()
    }

    /// Adds what the storage says, or why it was not asked, and finds pointers to files that are not there.
    pub fn add_files(&mut self, found: Result<StoredFiles, String>) {
        let StoredFiles { files, results, marks, failed } = match found {
            Ok(found) => found,
            Err(why) => {
                self.files = format!("not checked: {why}");
                return;
            }
        };
        "checked".clone_into(&mut self.files);
        (self.results, self.marks) = (results, marks);
        let files: BTreeMap<String, StoredFile> = files.into_iter().map(|file| (file.file.clone(), file)).collect();
        let mut findings = failed;
        for (what, pointer) in self.pointers() {
            let Some(uri) = &pointer.file else { continue };
            pointer.stored = files.get(pointer::name(uri)).cloned();
            let Some(stored) = &pointer.stored else { continue };
            match (&stored.failed, stored.bytes, pointer.size) {
                (Some(why), ..) => findings.push(format!("{what}: nothing is known of its file: {why}")),
                // Flink removes the file first.
                (None, None, _) if pointer.is_marked => {}
                (None, None, _) => {
                    findings.push(format!("{what} is dangling: its file {uri} is missing, so Flink cannot read it"));
                }
                (None, Some(bytes), Some(size)) if bytes != size => {
                    findings.push(format!("{what}: its file has {bytes} bytes, and the pointer says {size}"));
                }
                _ => {}
            }
        }
        if self.marks.len() > 1 {
            let owners: Vec<&str> = self.marks.iter().map(|mark| mark.owner.as_str()).collect();
            findings.push(format!("{} clusters have signed the directory: {}", owners.len(), owners.join(", ")));
        }
        self.findings.extend(findings);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::flink::pointer::tests::pointer_to;
    use crate::ledger::asked::{StoredMark, StoredResult};
    use crate::plugin::view::stored::StoredSources;
    use crate::plugin::view::stored_text::screen;

    fn report() -> StoredReport {
        let id = "00000000000000000000000000000001";
        let cluster = json!({
            "metadata": { "name": "demo-cluster-config-map" },
            "data": { format!("executionPlan-{id}"): pointer_to("submittedExecutionPlan1") },
        });
        let job = json!({
            "metadata": { "name": format!("demo-{id}-config-map") },
            "data": {
                "checkpointID-0000000000000000006": pointer_to("completedCheckpoint6"),
                "checkpointID-0000000000000000007": pointer_to("completedCheckpoint7"),
                "checkpointID-0000000000000000008": pointer_to("completedCheckpoint8"),
            },
        });
        let config_maps = &[cluster, job];
        StoredReport::of(&StoredSources {
            namespace: "flink",
            name: "demo",
            config_maps,
            ledger: Ok(None),
            quorum: None,
        })
    }

    #[test]
    fn a_pointer_without_its_file_is_dangling_and_silence_is_no_finding() {
        let mut report = report();
        let named = report.named_files();
        assert!(named.contains("completedCheckpoint7") && named.len() == 4, "{named:?}");
        let size = report.plans[0].pointer.size;
        let file = |name: &str, bytes, failed: Option<&str>| StoredFile {
            file: name.to_owned(),
            bytes,
            written: None,
            failed: failed.map(str::to_owned),
        };
        let files = vec![
            file("submittedExecutionPlan1", size, None),
            file("completedCheckpoint6", Some(1), None),
            file("completedCheckpoint7", None, None),
            file("completedCheckpoint8", None, Some("timed out")),
        ];
        let store = "job-result-store".to_owned();
        let results = vec![StoredResult { store, id: "x".to_owned(), is_dirty: true, state: None }];
        let mark = |owner: &str| StoredMark { owner: owner.to_owned(), written: "2026-01-01T00:59:00Z".to_owned() };
        let marks = vec![mark("one"), mark("two")];
        report.add_files(Ok(StoredFiles { files, results, marks, failed: vec!["y".to_owned()] }));
        let text = screen(&report, "2026-01-01T01:00:00Z".parse().expect("a time"), false);
        for part in [
            "its file is there",
            "DANGLING: no such file",
            "readable, its file not known",
            "checkpoint 7 of job 00000000000000000000000000000001 is dangling: its file",
            "checkpoint 6 of job 00000000000000000000000000000001: its file has 1 bytes, and the pointer says",
            "nothing is known of its file: timed out",
            "2 clusters have signed the directory: one, two",
            "job-result-store   x    Flink is still cleaning up",
            "one       1m ago",
            "Files: checked.",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert_eq!(text.matches("is dangling").count(), 1, "{text}");
    }

    #[test]
    fn without_an_answer_nothing_is_said_of_files() {
        let mut report = report();
        let before = report.findings.clone();
        report.add_files(Err("no JobManager leads".to_owned()));
        assert_eq!((report.files.as_str(), &report.findings), ("not checked: no JobManager leads", &before));
    }
}
