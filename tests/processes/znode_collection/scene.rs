//! Znodes, files, results and a ledger as Flink 1.20, 2.0 to 2.2 and 2.3 leave them, each in the way of its version: of
//! jobs that have ended, that live, and of which it is not known.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;

use flinkha::api::names;
use flinkha::flink::result::Store;
use flinkha::flink::znodes::{CHECKPOINTS, COUNTER, Paths};
use flinkha::ledger::jobs::{self, Job};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use zookeeper_client::{Acls, Client, CreateMode};

use crate::support::cluster::NAMESPACE;
use crate::support::eventually;
use crate::support::host::Directory;
use crate::support::identity::create_all;
use crate::support::left::files;
use crate::support::planes::Plane;
use crate::support::s3::S3;
use crate::support::s3::SECRET_KEY;
use crate::support::seconds;
use crate::support::zookeeper::Quorum;
use crate::support::zookeeper::ROOT;

/// The real servers.
pub struct Rig {
    pub quorum: Quorum,
    pub s3: S3,
    pub admin: kube::Client,
    pub http: reqwest::Client,
    _plane: Plane,
    _directory: Directory,
}

impl Rig {
    pub async fn start() -> Self {
        let directory = Directory::new("znodes");
        let plane = Plane::get().await;
        let admin = plane.admin(0).await;
        create_all(&admin, &format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n")).await;
        let s3 = S3::start(directory.path(), SECRET_KEY).await;
        let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
        Self { quorum: Quorum::start().await, s3, admin, http, _plane: plane, _directory: directory }
    }

    /// A new session, straight at the quorum.
    pub async fn session(&self) -> Client {
        eventually("a session", seconds(20), async || self.quorum.connect().await).await
    }

    pub fn storage(&self) -> String {
        format!("{}/ha", self.s3.uri())
    }

    /// Of the last write of the ledger.
    pub async fn term(&self, scene: &Scene) -> Option<String> {
        self.read_ledger(scene).await.metadata.annotations?.remove(names::TERM_ANNOTATION)
    }

    pub async fn jobs(&self, scene: &Scene) -> Vec<Job> {
        let data = self.read_ledger(scene).await.data.unwrap_or_default();
        jobs::read(data.get(jobs::JOBS_KEY).map(String::as_str)).expect("jobs")
    }

    async fn read_ledger(&self, scene: &Scene) -> ConfigMap {
        self.ledgers().get(&names::ledger(&scene.cluster)).await.expect("the ledger")
    }

    fn ledgers(&self) -> Api<ConfigMap> {
        Api::namespaced(self.admin.clone(), NAMESPACE)
    }
}

/// What a cluster has: a line for each znode and each file, with what it holds.
pub type Snapshot = BTreeMap<String, String>;

/// One cluster with all that it has, and a session that holds the locks: another JobManager's.
pub struct Scene {
    pub cluster: String,
    client: Client,
    /// Znodes that are to be created.
    staged: Mutex<Vec<(String, Vec<u8>, CreateMode)>>,
}

/// Where a version keeps what a job is started from, and how it calls the file.
const PLANS: [(&str, &str); 3] = [
    ("jobgraphs", "submittedJobGraph"),
    ("execution-plans", "submittedExecutionPlan"),
    ("applications", "submittedApplication"),
];

/// An id from four hex digits, with which every path that belongs to the job ends or can be told.
pub fn id(tail: &str) -> String {
    format!("{tail:0>32}")
}

const ENDED: [&str; 3] = ["e001", "e002", "e003"];
/// What stands below the znodes of those: Flink leaves it when its JVM dies in the middle of the last steps, each time
/// at another.
const REMNANTS_OF_ENDED: [&[&str]; 3] = [&[CHECKPOINTS, COUNTER], &[COUNTER], &[CHECKPOINTS]];
const LIVING: [&str; 3] = ["a001", "a002", "a003"];
/// Flink is still cleaning up: before and after it has removed its pointers.
const DIRTY: [&str; 2] = ["d001", "d002"];
/// It has a clean result, and another session has locked a pointer to one of its checkpoints.
const LOCKED: &str = "c001";
/// Nothing points to it, there is no result, and the ledger knows of no end.
pub const UNKNOWN: &str = "f001";
/// Its result was not written to its end.
const TORN: &str = "b001";
/// No job.
const NOBODY: &str = "0bad";

/// An entry of a result store.
#[derive(Clone, Copy)]
enum Written {
    /// Flink has cleaned up.
    Clean,
    /// Flink is still cleaning up.
    Dirty,
}

impl Scene {
    pub async fn lay(rig: &Rig, cluster: String) -> Self {
        let scene = Self { cluster, client: rig.session().await, staged: Mutex::default() };
        let mut jobs = Vec::new();
        scene.znode("leader/latch", b"");
        for (index, (kind, file)) in PLANS.into_iter().enumerate() {
            let (ended, living) = (ENDED[index], LIVING[index]);
            scene.remnants(ended, REMNANTS_OF_ENDED[index]);
            scene.checkpoint_file(rig, ended);
            scene.blob(rig, ended);
            scene.result(rig, ended, Written::Clean, if index == 2 { &Store::ALL } else { &[Store::Job] });
            scene.remnants(living, &[CHECKPOINTS, COUNTER]);
            scene.checkpoint(rig, living);
            scene.pointer(&format!("{kind}/{}", id(living)), &named(file, living));
            scene.ephemeral(&format!("leader/job-{}/connection_info", id(living)));
            scene.blob(rig, living);
            for tail in [ended, living] {
                scene.file(rig, &named(file, tail), tail.as_bytes());
                jobs.push((tail, vec![named(file, tail)]));
            }
        }
        scene.checkpoint(rig, DIRTY[0]);
        for tail in [DIRTY[0], DIRTY[1], UNKNOWN] {
            scene.remnants(tail, &[CHECKPOINTS, COUNTER]);
            scene.blob(rig, tail);
            scene.checkpoint_file(rig, tail);
            scene.file(rig, &named(PLANS[1].1, tail), tail.as_bytes());
            jobs.push((tail, vec![named(PLANS[1].1, tail)]));
        }
        DIRTY.iter().for_each(|tail| scene.result(rig, tail, Written::Dirty, &Store::ALL));
        scene.remnants(LOCKED, &[CHECKPOINTS, COUNTER]);
        scene.checkpoint(rig, LOCKED);
        scene.blob(rig, LOCKED);
        scene.result(rig, LOCKED, Written::Clean, &Store::ALL);
        scene.remnants(TORN, &[CHECKPOINTS, COUNTER]);
        scene.write(
            rig,
            &format!("job-result-store/{}/{}.json", scene.high_availability_id(), id(TORN)),
            b"{\"result\":{\"id\":\"",
        );
        scene.file(rig, &named(PLANS[1].1, NOBODY), b"orphan");
        scene.checkpoint_file(rig, NOBODY);
        scene.blob(rig, NOBODY);
        scene.file(rig, "notes.txt", b"of somebody");
        scene.create().await;
        scene.ledger(rig, &jobs).await;
        scene
    }

    pub fn high_availability_id(&self) -> String {
        names::high_availability_cluster_id(NAMESPACE, &self.cluster)
    }

    pub fn paths(&self) -> Paths {
        Paths::new(ROOT, &self.high_availability_id())
    }

    pub fn ended(&self) -> [String; 3] {
        ENDED.map(id)
    }

    /// All that there is but marks and latches.
    pub async fn snapshot(&self, rig: &Rig) -> Snapshot {
        let mut found = self.znodes().await;
        let bucket = rig.s3.bucket();
        let own = self.high_availability_id();
        for file in
            files(bucket).into_iter().filter(|file| file.components().any(|part| part.as_os_str() == own.as_str()))
        {
            // What has gone since it was listed is gone.
            let Ok(bytes) = std::fs::read(&file) else { continue };
            found.insert(
                file.strip_prefix(bucket).expect("a file of the bucket").display().to_string(),
                format!("{bytes:?}"),
            );
        }
        found
    }

    /// The same of znodes only. A znode that was removed and made again is another one.
    pub async fn znodes(&self) -> Snapshot {
        let (mut found, paths) = (Snapshot::new(), self.paths());
        let (marks, latch) = (paths.child("flinkha"), paths.latch());
        self.client.sync(&paths.cluster).await.expect("a sync");
        let mut open = vec![paths.cluster];
        while !open.is_empty() {
            let looks = open.iter().map(|path| async move {
                (path.clone(), self.client.get_data(path).await, self.client.list_children(path).await)
            });
            let mut next = Vec::new();
            for (path, data, children) in join_all(looks).await {
                // What has gone since it was listed is gone.
                let (Ok((bytes, stat)), Ok(children)) = (data, children) else { continue };
                next.extend(children.into_iter().map(|child| format!("{path}/{child}")));
                if !path.starts_with(&marks) && !path.starts_with(&latch) {
                    found.insert(path, format!("{bytes:?} {} {} {:#x}", stat.czxid, stat.mzxid, stat.ephemeral_owner));
                }
            }
            open = next;
        }
        found
    }

    /// What must be left of it: everything but what belongs to ended jobs and to nobody.
    pub fn without_garbage(before: &Snapshot) -> Snapshot {
        let goes = |path: &str| ENDED.iter().chain([&NOBODY]).any(|tail| path.contains(&id(tail)[20..]));
        before.iter().filter(|(path, _)| !goes(path)).map(|(path, what)| (path.clone(), what.clone())).collect()
    }

    /// What is left of ended jobs.
    pub async fn left(&self, rig: &Rig) -> Vec<String> {
        let all = self.snapshot(rig).await.into_keys();
        all.filter(|path| ENDED.iter().any(|tail| path.contains(&id(tail)[20..]))).collect()
    }

    /// Another JobManager completes a checkpoint of this job.
    pub async fn complete_checkpoint(&self, rig: &Rig, tail: &str) {
        self.checkpoint(rig, tail);
        self.create().await;
    }

    fn checkpoint(&self, rig: &Rig, tail: &str) {
        let name = format!("completedCheckpoint{}", &id(&format!("7{tail}"))[20..]);
        self.file(rig, &name, &checkpoint_of(tail));
        self.pointer(&format!("jobs/{}/checkpoints/0000000000000000007", id(tail)), &name);
    }

    /// Another JobManager counts a checkpoint of this job; false if it cannot.
    pub async fn count(&self, tail: &str) -> bool {
        let path = format!("{}/checkpoint_id_counter", self.paths().job(id(tail).parse().expect("an id")));
        self.client.set_data(&path, &[0, 0, 0, 9], None).await.is_ok()
    }

    /// The operator has begun another run in place of this one.
    pub async fn supersede(&self, rig: &Rig, tail: &str) {
        let mut ledger = rig.read_ledger(self).await;
        let data = ledger.data.as_mut().expect("a ledger's data");
        let mut jobs = jobs::read(data.get(jobs::JOBS_KEY).map(String::as_str)).expect("jobs");
        jobs::supersede(&mut jobs, id(tail).parse().expect("an id"), &Timestamp::now().to_string());
        data.insert(jobs::JOBS_KEY.to_owned(), json!(jobs).to_string());
        rig.ledgers().replace(&names::ledger(&self.cluster), &PostParams::default(), &ledger).await.expect("a ledger");
    }

    /// Another JobManager leads this job.
    pub async fn lead_job(&self, tail: &str) {
        self.ephemeral(&format!("leader/job-{}/connection_info", id(tail)));
        self.create().await;
    }

    /// That JobManager closes this job.
    pub async fn close_job(&self, tail: &str) {
        let path = self.paths().child(&format!("leader/job-{}/connection_info", id(tail)));
        self.client.delete(&path, None).await.expect("the address of a leader");
    }

    /// The parents that Flink leaves, with or without those of checkpoints and of their number.
    fn remnants(&self, tail: &str, below_job: &[&str]) {
        for child in below_job {
            // Curator's `SharedCount`.
            let content: &[u8] = if *child == COUNTER { &[0, 0, 0, 8] } else { b"" };
            self.znode(&format!("jobs/{}/{child}", id(tail)), content);
        }
        self.znode(&format!("leader/job-{}", id(tail)), b"");
    }

    /// A pointer and the lock that goes with it.
    fn pointer(&self, path: &str, file: &str) {
        let uri = format!("s3://bucket/ha/{}/{file}", self.high_availability_id());
        self.znode(path, &pointer_to(&uri));
        self.znode(&format!("{path}/locks"), b"127.0.0.1");
        self.ephemeral(&format!("{path}/locks/68075c3d-8c4f-497e-830a-0b3505741f43"));
    }

    fn znode(&self, path: &str, data: &[u8]) {
        self.stage(path, data, CreateMode::Persistent);
    }

    fn ephemeral(&self, path: &str) {
        self.stage(path, b"127.0.0.1", CreateMode::Ephemeral);
    }

    fn stage(&self, path: &str, data: &[u8], mode: CreateMode) {
        self.staged.lock().unwrap().push((self.paths().child(path), data.to_vec(), mode));
    }

    /// Creates what is staged, with the parents that are missing.
    async fn create(&self) {
        let (staged, mut known) = (std::mem::take(&mut *self.staged.lock().unwrap()), BTreeSet::from([String::new()]));
        let mut writer = self.client.new_multi_writer();
        for (path, data, mode) in staged {
            let ends = path.match_indices('/').skip(1).map(|(end, _)| &path[..end]);
            for parent in ends.map(str::to_owned).collect::<Vec<_>>() {
                if known.insert(parent.clone()) && self.client.check_stat(&parent).await.expect("a stat").is_none() {
                    writer
                        .add_create(&parent, b"", &CreateMode::Persistent.with_acls(Acls::anyone_all()))
                        .expect("a parent");
                }
            }
            if known.insert(path.clone()) {
                writer.add_create(&path, &data, &mode.with_acls(Acls::anyone_all())).expect("a znode");
            }
        }
        writer.commit().await.expect("new znodes");
    }

    fn checkpoint_file(&self, rig: &Rig, tail: &str) {
        self.file(rig, &named("completedCheckpoint", tail), &checkpoint_of(tail));
    }

    fn blob(&self, rig: &Rig, tail: &str) {
        self.file(rig, &format!("blob/job_{}/blob_p-a56f922e180727e3-{tail}", id(tail)), b"jar");
        if tail.ends_with('3') {
            self.file(rig, &format!("blob/application_{}/blob_p-a56f922e180727e3-{tail}", id(tail)), b"jar");
        }
    }

    /// As Flink 2.3 writes it, with that of the application if there is one; 1.20 has fewer fields.
    fn result(&self, rig: &Rig, tail: &str, written: Written, stores: &[Store]) {
        let (own, id) = (self.high_availability_id(), id(tail));
        let suffix = match written {
            Written::Clean => "",
            Written::Dirty => "_DIRTY",
        };
        for store in stores {
            let result = match store {
                Store::Job => {
                    json!({ "id": id, "application-status": "CANCELED", "net-runtime": 2694, "accumulator-results": {} })
                }
                Store::Application => {
                    json!({ "application-id": id, "application-state": "CANCELED", "application-name": "words", "start-time": 1, "end-time": 2 })
                }
            };
            let content = json!({ "result": result, "version": 1 }).to_string();
            self.write(rig, &format!("{}/{own}/{id}{suffix}.json", store.directory()), content.as_bytes());
        }
    }

    fn file(&self, rig: &Rig, path: &str, content: &[u8]) {
        self.write(rig, &format!("{}/{path}", self.high_availability_id()), content);
    }

    fn write(&self, rig: &Rig, path: &str, content: &[u8]) {
        let path: PathBuf = rig.s3.bucket().join("ha").join(path);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("failed to make a directory");
        std::fs::write(path, content).expect("failed to write a file");
    }

    async fn ledger(&self, rig: &Rig, jobs: &[(&str, Vec<String>)]) {
        let job = |(tail, plans): &(&str, Vec<String>)| Job {
            state: "Running".into(),
            plans: plans.clone(),
            ..Job::of(id(tail).parse().expect("an id"))
        };
        let jobs: Vec<Job> = jobs.iter().map(job).collect();
        let data = BTreeMap::from([(jobs::JOBS_KEY, json!(jobs).to_string())]);
        let ledger = json!({ "metadata": { "name": names::ledger(&self.cluster) }, "data": data });
        let ledger = serde_json::from_value(ledger).expect("a ConfigMap");
        rig.ledgers().create(&PostParams::default(), &ledger).await.expect("a new ledger");
    }
}

/// As Flink names its files: twelve hex digits behind what it is.
fn named(prefix: &str, tail: &str) -> String {
    format!("{prefix}{}", &id(tail)[20..])
}

/// A serialised `RetrievableStreamStateHandle`, as Flink 1.20.5, 2.2.1 and 2.3.0 wrote it into a znode, but for the URI
/// and the file's length.
fn pointer_to(uri: &str) -> Vec<u8> {
    let mut bytes = b"\xac\xed\x00\x05sr\x00;org.apache.flink.runtime.state.RetrievableStreamStateHandle\x00\x01\x1e\x18\xf1U\x97+\x02\x00\x01L\x00\x18\
        wrappedStreamStateHandlet\x002Lorg/apache/flink/runtime/state/StreamStateHandle;xpsr\x009org.apache.flink.runtime.state.filesystem.FileStateHandle\
        \x04\xdcu\xd8b\xbd\x1b\xb3\x02\x00\x02J\x00\tstateSizeL\x00\x08filePatht\x00\x1fLorg/apache/flink/core/fs/Path;xp\x00\x00\x00\x00\x00\x00\x7f\xd0\
        sr\x00\x1dorg.apache.flink.core.fs.Path\x00\x00\x00\x00\x00\x00\x00\x01\x02\x00\x01L\x00\x03urit\x00\x0eLjava/net/URI;xpsr\x00\x0cjava.net.URI\
        \xac\x01x.C\x9eI\xab\x03\x00\x01L\x00\x06stringt\x00\x12Ljava/lang/String;xpt"
        .to_vec();
    bytes.extend(u16::try_from(uri.len()).expect("a short URI").to_be_bytes());
    bytes.extend(uri.as_bytes());
    bytes.push(b'x');
    bytes
}

/// The beginning of a serialised `CompletedCheckpoint`, as far as its job stands there.
fn checkpoint_of(tail: &str) -> Vec<u8> {
    let mut bytes =
        b"\xac\xed\x00\x05sr\x00!org.apache.flink.api.common.JobID\x00\x00\x00\x00\x00\x00\x00\x01\x02\x00\x00xr\x00 \
        org.apache.flink.util.AbstractID\x00\x00\x00\x00\x00\x00\x00\x01\x02\x00\x02J\x00\tlowerPartJ\x00\tupperPartxp"
            .to_vec();
    let id = u128::from_str_radix(&id(tail), 16).expect("hex digits");
    bytes.extend(id.to_be_bytes());
    bytes
}
