//! What goes wrong, for how long, and how it ends.

use std::time::{Duration, Instant};

use bytes::Bytes;
use flinkha::api::names::{self, TERM_ANNOTATION};
use flinkha::world::api_server::http_client;
use http_body::Frame;
use http_body_util::StreamBody;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::audit::Request;
use crate::support::cluster::Cluster;
use crate::support::cluster::LOCK_ANNOTATION;
use crate::support::cluster::NAME;
use crate::support::cluster::NAMESPACE;
use crate::support::cluster::cluster_config_map;
use crate::support::eventually;
use crate::support::identity::create_all;
use crate::support::identity::token;
use crate::support::report::number;
use crate::support::rest::Job;
use crate::support::seconds;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    JvmKilled,
    JvmPaused,
    JvmFrozen,
    GatewayKilled,
    GatewayKilledAgain,
    GatewayFrozen,
    PodKilled,
    PodFrozen,
    StandbyKilled,
    StandbyFrozen,
    ApiServersDown,
    ApiServersHang,
    ApiServersSlow,
    ApiServersBusy,
    ReadsOnly,
    EtcdFrozen,
    StandbyCutOff,
    LeaderCutOff,
    LeaderServerDown,
    MemberDiesInOutage,
    LeaseDeleted,
    LeaseEmptied,
    TermRemoved,
    LockEdited,
    LockRemoved,
    LockRemovedUnseen,
    StampRemoved,
    JobConfigMapDeleted,
    ClusterConfigMapDeleted,
    Switchover,
    LostAndRegained,
}

impl Fault {
    pub const ALL: [Fault; 31] = [
        Fault::JvmKilled,
        Fault::JvmPaused,
        Fault::JvmFrozen,
        Fault::GatewayKilled,
        Fault::GatewayKilledAgain,
        Fault::GatewayFrozen,
        Fault::PodKilled,
        Fault::PodFrozen,
        Fault::StandbyKilled,
        Fault::StandbyFrozen,
        Fault::ApiServersDown,
        Fault::ApiServersHang,
        Fault::ApiServersSlow,
        Fault::ApiServersBusy,
        Fault::ReadsOnly,
        Fault::EtcdFrozen,
        Fault::StandbyCutOff,
        Fault::LeaderCutOff,
        Fault::LeaderServerDown,
        Fault::MemberDiesInOutage,
        Fault::LeaseDeleted,
        Fault::LeaseEmptied,
        Fault::TermRemoved,
        Fault::LockEdited,
        Fault::LockRemoved,
        Fault::LockRemovedUnseen,
        Fault::StampRemoved,
        Fault::JobConfigMapDeleted,
        Fault::ClusterConfigMapDeleted,
        Fault::Switchover,
        Fault::LostAndRegained,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Fault::JvmKilled => "JVM killed",
            Fault::JvmPaused => "JVM stands still for 5 s",
            Fault::JvmFrozen => "JVM frozen",
            Fault::GatewayKilled => "gateway killed",
            Fault::GatewayKilledAgain => "gateway killed five times",
            Fault::GatewayFrozen => "gateway frozen for 8 s",
            Fault::PodKilled => "gateway and JVM killed",
            Fault::PodFrozen => "gateway and JVM frozen",
            Fault::StandbyKilled => "standby's gateway and JVM killed",
            Fault::StandbyFrozen => "standby's gateway frozen for 20 s",
            Fault::ApiServersDown => "API servers down",
            Fault::ApiServersHang => "API servers hang",
            Fault::ApiServersSlow => "API servers answer every 5 s",
            Fault::ApiServersBusy => "API servers answer 429",
            Fault::ReadsOnly => "API servers answer reads only",
            Fault::EtcdFrozen => "etcd frozen",
            Fault::StandbyCutOff => "a standby's API server is down",
            Fault::LeaderCutOff => "leader's API server hangs",
            Fault::LeaderServerDown => "leader's API server is down",
            Fault::MemberDiesInOutage => "a standby dies while API servers are down",
            Fault::LeaseDeleted => "Lease deleted by hand",
            Fault::LeaseEmptied => "Lease emptied by hand",
            Fault::TermRemoved => "term removed from the Lease by hand",
            Fault::LockEdited => "Flink's lock edited by hand",
            Fault::LockRemoved => "Flink's lock removed by hand",
            Fault::LockRemovedUnseen => "Flink's lock removed by hand, and gateway killed",
            Fault::StampRemoved => "stamp removed by hand",
            Fault::JobConfigMapDeleted => "ConfigMap of the job deleted by hand",
            Fault::ClusterConfigMapDeleted => "cluster ConfigMap deleted by hand",
            Fault::Switchover => "planned switchover",
            Fault::LostAndRegained => "leadership lost and regained again and again",
        }
    }

    /// The job must run under another JVM before this fault is over.
    pub fn moves_the_job(self) -> bool {
        // Flink's JVM ends itself when its cluster ConfigMap is deleted.
        let dies = matches!(self, Fault::JvmKilled | Fault::JvmFrozen | Fault::ClusterConfigMapDeleted);
        dies || matches!(self, Fault::PodKilled | Fault::PodFrozen | Fault::Switchover)
    }

    /// Another JVM must lead. TaskManagers may hang on the same API server as the cut off leader, so the job is not
    /// waited for.
    pub fn must_change_leader(self) -> bool {
        self.moves_the_job() || matches!(self, Fault::LeaderCutOff | Fault::LeaderServerDown)
    }

    /// How often the leader may change: more would be harm.
    pub fn may_change_leader(self) -> usize {
        match self {
            // The Lease itself, or the right to it, is gone.
            Fault::MemberDiesInOutage | Fault::LeaseDeleted | Fault::LeaseEmptied | Fault::TermRemoved => 1,
            Fault::LostAndRegained => 2 * losses(),
            _ => usize::from(self.must_change_leader()),
        }
    }

    /// A whole pod that wakes up has RPCs to TaskManagers in its sockets, which nobody fences; and TaskManagers behind
    /// the leader's API server see late, one after the other, who has led meanwhile: one more restart is possible.
    pub fn may_restart_job_more(self) -> usize {
        usize::from(matches!(self, Fault::PodFrozen | Fault::LeaderCutOff | Fault::LeaderServerDown))
    }

    /// A request that there must have been, or the fault was none.
    pub fn shows_in(self, request: &Request) -> bool {
        match self {
            Fault::ApiServersBusy => request.code == 429,
            Fault::ReadsOnly => request.is_write() && request.code >= 500,
            _ => true,
        }
    }

    pub fn lasts(self, outage: Duration) -> Duration {
        match self {
            Fault::ApiServersDown => outage,
            // Longer than any time of the election.
            Fault::ApiServersHang
            | Fault::ApiServersSlow
            | Fault::ApiServersBusy
            | Fault::ReadsOnly
            | Fault::EtcdFrozen => outage / 3,
            // A member refuses after duration and two reads, and takes the Lease when its promise has ended.
            Fault::LeaderCutOff | Fault::LeaderServerDown => seconds(40),
            Fault::MemberDiesInOutage | Fault::StandbyCutOff | Fault::StandbyFrozen => seconds(20),
            Fault::JvmPaused => seconds(5),
            Fault::GatewayFrozen => seconds(8),
            _ => seconds(3),
        }
    }

    pub async fn strike(self, cluster: &mut Cluster, leader: usize, lasts: Duration) {
        let standby = (leader + 1) % cluster.job_managers.len();
        let one = &mut cluster.job_managers[leader];
        match self {
            Fault::JvmKilled => one.jvm.kill(),
            Fault::JvmPaused | Fault::JvmFrozen => one.jvm.stop(),
            Fault::GatewayKilled => one.gateway().restart(),
            Fault::GatewayKilledAgain => {
                for _ in 0..5 {
                    one.gateway().restart();
                    tokio::time::sleep(seconds(1)).await;
                }
            }
            Fault::GatewayFrozen => one.gateway().stop(),
            Fault::PodKilled => {
                one.gateway().kill();
                one.jvm.kill();
                // Containers are started again one after the other, the sidecar first.
                one.gateway().restart();
            }
            Fault::PodFrozen => {
                one.gateway().stop();
                one.jvm.stop();
            }
            Fault::StandbyKilled => {
                cluster.job_managers[standby].gateway().kill();
                cluster.job_managers[standby].jvm.kill();
            }
            Fault::StandbyFrozen => cluster.job_managers[standby].gateway().stop(),
            Fault::ApiServersDown => cluster.plane.servers.iter_mut().for_each(|server| server.process.kill()),
            Fault::ApiServersHang => cluster.plane.servers.iter_mut().for_each(|server| server.process.stop()),
            Fault::ApiServersSlow => {
                let servers: Vec<Pid> = cluster.plane.servers.iter().map(|server| server.process.pid()).collect();
                tokio::spawn(slow_down(servers, lasts));
            }
            Fault::ApiServersBusy => {
                create_all(&cluster.client, include_str!("busy.yaml")).await;
                let token = token(&cluster.client, NAMESPACE, "demo-jobmanager", None).await;
                for server in &cluster.plane.servers {
                    tokio::spawn(tokio::time::timeout(lasts, keep_busy(server.config(&token).await, token.clone())));
                }
            }
            Fault::ReadsOnly => cluster.plane.refuse_writes().await,
            Fault::EtcdFrozen => cluster.plane.etcd.stop(),
            Fault::StandbyCutOff => {
                let server = one.server;
                cluster.plane.servers[1 - server].process.kill();
                cluster.client = cluster.plane.admin(server).await;
            }
            Fault::MemberDiesInOutage => {
                cluster.plane.servers.iter_mut().for_each(|server| server.process.kill());
                cluster.job_managers[standby].gateway().kill();
            }
            Fault::LeaderCutOff => {
                let server = one.server;
                cluster.plane.servers[server].process.stop();
                cluster.client = cluster.plane.admin(1 - server).await;
            }
            Fault::LeaderServerDown => {
                let server = one.server;
                cluster.plane.servers[server].process.kill();
                cluster.client = cluster.plane.admin(1 - server).await;
            }
            Fault::LeaseDeleted => leases(cluster)
                .delete(NAME, &DeleteParams::default())
                .await
                .map(drop)
                .expect("failed to delete the Lease"),
            Fault::LeaseEmptied => edit_lease(cluster, json!({ "spec": { "holderIdentity": null } })).await,
            Fault::TermRemoved => {
                edit_lease(cluster, json!({ "metadata": { "annotations": { TERM_ANNOTATION: null } } })).await
            }
            Fault::LockEdited => edit_cluster(cluster, LOCK_ANNOTATION, json!(r#"{"holderIdentity":"nobody"}"#)).await,
            Fault::LockRemoved => edit_cluster(cluster, LOCK_ANNOTATION, Value::Null).await,
            Fault::LockRemovedUnseen => {
                edit_cluster(cluster, LOCK_ANNOTATION, Value::Null).await;
                cluster.job_managers[leader].gateway().restart();
            }
            Fault::StampRemoved => edit_cluster(cluster, TERM_ANNOTATION, Value::Null).await,
            Fault::JobConfigMapDeleted => {
                let rest = cluster.job_managers[leader].rest();
                let job = rest
                    .jobs()
                    .await
                    .expect("the leader's jobs")
                    .into_iter()
                    .find(Job::runs)
                    .expect("the job that runs")
                    .id;
                delete_config_map(cluster, &names::job_config_map(&names::kubernetes_cluster_id(NAME), &job)).await;
            }
            Fault::ClusterConfigMapDeleted => delete_config_map(cluster, &cluster_config_map()).await,
            Fault::Switchover => switch_over(cluster, names::ANY_POD).await,
            Fault::LostAndRegained => there_and_back(cluster, leader, standby).await,
        }
    }

    pub async fn heal(self, cluster: &mut Cluster, leader: usize) {
        match self {
            Fault::JvmPaused => cluster.job_managers[leader].jvm.cont(),
            Fault::GatewayFrozen => cluster.job_managers[leader].gateway().cont(),
            Fault::ApiServersDown | Fault::MemberDiesInOutage | Fault::StandbyCutOff | Fault::LeaderServerDown => {
                for server in &mut cluster.plane.servers {
                    if !server.process.is_running() {
                        server.process.restart();
                    }
                }
                for server in &cluster.plane.servers {
                    server.wait_until_ready().await;
                }
            }
            Fault::ApiServersBusy => {
                let params = DeleteParams::default();
                let schemas: Api<FlowSchema> = Api::all(cluster.client.clone());
                schemas.delete("nobody-of-flink", &params).await.map(drop).expect("failed to delete the FlowSchema");
                let levels: Api<PriorityLevelConfiguration> = Api::all(cluster.client.clone());
                levels.delete("nobody-of-flink", &params).await.map(drop).expect("failed to delete the priority level");
            }
            Fault::ReadsOnly => cluster.plane.take_writes().await,
            Fault::ApiServersHang | Fault::ApiServersSlow | Fault::LeaderCutOff => {
                cluster.plane.servers.iter_mut().for_each(|server| server.process.cont())
            }
            Fault::EtcdFrozen => cluster.plane.etcd.cont(),
            Fault::LeaseDeleted => {
                // As the operator does it.
                let lease = json!({ "metadata": { "name": NAME } });
                leases(cluster)
                    .create(&PostParams::default(), &serde_json::from_value(lease).unwrap())
                    .await
                    .expect("a new Lease");
            }
            _ => {}
        }
    }
}

/// Servers that stand still and go on for moments: whatever they are asked is answered up to five seconds later.
async fn slow_down(servers: Vec<Pid>, lasts: Duration) {
    // A server that has ended meanwhile needs no signal.
    let signal = |signal| {
        for server in &servers {
            let _ = kill_process(*server, signal);
        }
    };
    let begin = Instant::now();
    while begin.elapsed() + seconds(5) < lasts {
        signal(Signal::STOP);
        tokio::time::sleep(seconds(5)).await;
        signal(Signal::CONT);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Without a seat, a priority level lets one request at a time pass all the same. So one is under way all the time: its
/// body never ends.
async fn keep_busy(server: kube::Config, token: String) {
    let client = http_client(&server).expect("a client for our own kubeconfig");
    let url = format!("{}api/v1/namespaces/{NAMESPACE}/configmaps/{}", server.cluster_url, cluster_config_map());
    loop {
        let endless = StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, std::io::Error>>());
        let request = http::Request::put(&url).header("authorization", format!("Bearer {token}"));
        let request = request.header("content-type", "application/json").body(endless).expect("a request");
        // Refused while another one is under way, or given up by the server after a minute.
        let _ = client.request(request).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How often one JVM loses and regains its leadership in a row: LOSSES.
fn losses() -> usize {
    number("LOSSES", 50)
}

/// The same two JVMs lead in turns.
async fn there_and_back(cluster: &mut Cluster, leader: usize, standby: usize) {
    for _ in 0..losses() {
        for next in [standby, leader] {
            let one = &cluster.job_managers[next];
            let able = async || one.probe("/readyz").await.ok().filter(|(code, _)| *code == 200);
            eventually(&format!("{} can take over", one.pod), seconds(30), able).await;
            switch_over(cluster, &one.pod).await;
            let leads = async || {
                let leader = cluster.leader().await.filter(|now| *now == next)?;
                cluster.job_managers[leader].rest().jobs().await.ok()?.iter().find(|job| job.runs()).map(drop)
            };
            eventually(&format!("{} leads again, and the job runs", one.pod), seconds(30), leads).await;
        }
    }
    for index in [leader, standby] {
        let jvm = &mut cluster.job_managers[index].jvm;
        assert!(jvm.is_running(), "a JVM that lost its leadership was ended: {jvm}");
    }
}

async fn switch_over(cluster: &Cluster, to: &str) {
    edit_lease(cluster, json!({ "metadata": { "annotations": { names::SWITCHOVER_ANNOTATION: to } } })).await;
}

fn leases(cluster: &Cluster) -> Api<Lease> {
    Api::namespaced(cluster.client.clone(), NAMESPACE)
}

async fn edit_lease(cluster: &Cluster, patch: Value) {
    leases(cluster).patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await.expect("failed to edit the Lease");
}

async fn delete_config_map(cluster: &Cluster, name: &str) {
    cluster.config_maps().delete(name, &DeleteParams::default()).await.map(drop).expect("failed to delete a ConfigMap");
}

async fn edit_cluster(cluster: &Cluster, annotation: &str, value: Value) {
    let patch = json!({ "metadata": { "annotations": { annotation: value } } });
    let edited =
        cluster.config_maps().patch(&cluster_config_map(), &PatchParams::default(), &Patch::Merge(patch)).await;
    edited.expect("failed to edit the cluster ConfigMap");
}
