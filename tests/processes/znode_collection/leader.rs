//! A leading JobManager without its JVM: the session that holds the latch, and beside it the gateway's own ledger,
//! claim, collector and sweeper.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use flinkha::flink::znodes::Paths;
use flinkha::gateway::gc::collector::Collector;
use flinkha::gateway::gc::ledger::Ledger;
use flinkha::gateway::gc::ownership::{DirectoryMark, Ownership};
use flinkha::gateway::gc::pointer_store::{PointerStore, Znodes};
use flinkha::gateway::gc::sweeper::{Settings, Sweeper};
use flinkha::gateway::tenure::Tenures;
use flinkha::lease::elector::{LockView, Time};
use flinkha::lease::term::Incarnation;
use flinkha::ledger::election::{Claimant, Notes};
use flinkha::world::storage::Storage;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use zookeeper_client::{Acls, Client, CreateMode};

use super::scene::Rig;
use super::scene::Scene;
use super::seam::Gate;
use super::seam::Way;
use super::seam::to_kubernetes;
use super::seam::to_storage;
use super::seam::to_zookeeper;
use crate::support::cluster::NAMESPACE;
use crate::support::seconds;

pub struct Leader {
    /// The JVM's: when it ends, so does the leadership.
    session: Mutex<Option<Client>>,
    pub gate: Arc<Gate>,
    ledger: Ledger,
    mark: DirectoryMark,
    storage: Storage,
    shown: watch::Sender<LockView>,
    latch: String,
    _ways: [Way; 2],
}

impl Leader {
    /// Wins Flink's election, as Curator's `LeaderLatch` does it. Writes nothing else.
    pub async fn elect(rig: &Rig, scene: &Scene, gate: Arc<Gate>) -> Self {
        let session = rig.session().await;
        let paths = scene.paths();
        let latch = format!("{}/_c_0f6e1c1a-9f63-4d53-8f0e-3b1d5b8ff1b4-latch-", paths.latch());
        let options = CreateMode::EphemeralSequential.with_acls(Acls::anyone_all());
        let (_, sequence) = session.create(&latch, b"", &options).await.expect("a latch node");
        let latch = format!("{latch}{sequence}");
        let servers = rig.quorum.servers();
        let to_quorum = to_zookeeper(servers.split(',').next().expect("a server").to_owned(), &gate).await;
        let to_bucket = to_storage(&rig.http, rig.s3.configuration()["s3.endpoint"].clone(), &gate).await;
        let (shown, seen) = watch::channel(LockView::Standby { acknowledged: true });
        let znodes = znodes(paths, to_quorum.address, &latch).await;
        let ledger = Ledger {
            client: to_kubernetes(rig.admin.clone(), NAMESPACE, &gate),
            namespace: NAMESPACE.to_owned(),
            cluster: scene.cluster.clone(),
            pointers: PointerStore::Znodes(znodes),
            tenures: Arc::new(Tenures::new(seen)),
            signals: Arc::default(),
            copy: Arc::default(),
        };
        let mut configuration = rig.s3.configuration();
        configuration.insert("s3.endpoint".to_owned(), format!("http://{}", to_bucket.address));
        let storage = Storage::new(&rig.storage(), &scene.high_availability_id(), &configuration)
            .expect("a storage that is reached");
        let mark = DirectoryMark::new(ledger.clone());
        Self {
            session: Mutex::new(Some(session)),
            gate,
            ledger,
            mark,
            storage,
            shown,
            latch,
            _ways: [to_quorum, to_bucket],
        }
    }

    /// Takes a term and tells the gateway's parts of it, as `gateway/quorum/requests.rs` does.
    pub async fn take_term(&self) {
        let jvm = Incarnation { pid: i32::MAX, started: 1 };
        let process = self.latch.replace(['/', '.'], "");
        let claimant = Claimant { pod: "pod".to_owned(), pod_uid: "uid".to_owned(), process, jvm: Some(jvm) };
        let taken = |notes: &Notes| Some(notes.taken(&claimant, Timestamp::now()));
        let term = self.ledger.note_election(taken).await.expect("a term").term.expect("a term");
        self.ledger.note_ended().await.expect("the ledger");
        self.shown.send_replace(LockView::Leader { term, until: Time(u64::MAX) });
    }

    /// From the term to the moment when nothing is left to be done.
    pub async fn do_all(&self, scene: &Scene, rig: &Rig) {
        self.take_term().await;
        self.do_rest(scene, rig).await;
    }

    /// The same behind the term.
    pub async fn do_rest(&self, scene: &Scene, rig: &Rig) {
        tokio::select! {
            () = self.collect() => panic!("the collector ended"),
            () = self.until_collected(scene, rig) => {}
        }
        tokio::select! {
            () = self.sweep() => panic!("the sweeper ended"),
            () = self.until_swept() => {}
        }
    }

    /// Collects until it is dropped.
    pub async fn collect(&self) {
        let ownership = Ownership::new(self.mark.clone(), Ok(self.storage.clone()));
        Collector { ledger: self.ledger.clone(), ownership, run: None }.run().await;
    }

    async fn sweep(&self) {
        // What no pointer names is an orphan at once: nothing but a pointer or the ledger protects a file.
        let settings = Settings { delete: true, age: Duration::ZERO, period: Duration::from_millis(1) };
        let (ledger, mark, storage) = (self.ledger.clone(), self.mark.clone(), Some(self.storage.clone()));
        // Nobody asks for another sweep.
        let requests = mpsc::channel(1).1;
        Sweeper { ledger, mark, storage, settings, requests }.run().await;
    }

    pub async fn until_collected(&self, scene: &Scene, rig: &Rig) {
        let begin = Instant::now();
        loop {
            let jobs = rig.jobs(scene).await;
            let open = scene
                .ended()
                .into_iter()
                .filter(|id| !jobs.iter().any(|job| job.id == *id && job.collected.is_some()))
                .count();
            if open == 0 {
                return assert_eq!(scene.left(rig).await, Vec::<String>::new(), "noted as collected");
            }
            assert!(
                begin.elapsed() < seconds(60),
                "{open} jobs are not noted as collected: {jobs:#?}\n{:#?}",
                self.gate.writes()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_swept(&self) {
        while self.ledger.signals.swept().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The session of its JVM ends, and with it the latch: the gateway has not heard of it yet.
    pub async fn lose_latch(&self, rig: &Rig) {
        drop(self.session.lock().unwrap().take());
        let client = rig.session().await;
        while client.check_stat(&self.latch).await.expect("the latch's stat").is_some() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The gateway hears of it.
    pub fn step_down(&self) {
        self.shown.send_replace(LockView::Standby { acknowledged: true });
        let PointerStore::Znodes(znodes) = &self.ledger.pointers else { unreachable!("znodes") };
        znodes.lead_by(None);
    }
}

async fn znodes(paths: Paths, way: SocketAddr, latch: &str) -> Znodes {
    let client = Client::connector()
        .with_session_timeout(seconds(10))
        .connect(&way.to_string())
        .await
        .expect("a session of the gateway");
    let znodes = Znodes::new(paths, watch::channel(Some(client)).1, Acls::anyone_all());
    znodes.lead_by(Some(latch.to_owned()));
    znodes
}
