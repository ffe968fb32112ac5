//! What goes wrong, for how long, and how it ends.

use std::time::Duration;

use flinkha::api::names::{self, TERM_ANNOTATION};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::cluster::{Cluster, LOCK_ANNOTATION, NAME, NAMESPACE, cluster_config_map};
use crate::support::seconds;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    JvmKilled,
    JvmFrozen,
    GatewayKilled,
    GatewayFrozen,
    PodKilled,
    PodFrozen,
    StandbyKilled,
    StandbyFrozen,
    ApiServersDown,
    ApiServersHang,
    EtcdFrozen,
    LeaderCutOff,
    MemberDiesInOutage,
    LeaseDeleted,
    LeaseEmptied,
    TermRemoved,
    LockEdited,
    LockRemoved,
    StampRemoved,
    Switchover,
}

impl Fault {
    pub const ALL: [Fault; 20] = [
        Fault::JvmKilled,
        Fault::JvmFrozen,
        Fault::GatewayKilled,
        Fault::GatewayFrozen,
        Fault::PodKilled,
        Fault::PodFrozen,
        Fault::StandbyKilled,
        Fault::StandbyFrozen,
        Fault::ApiServersDown,
        Fault::ApiServersHang,
        Fault::EtcdFrozen,
        Fault::LeaderCutOff,
        Fault::MemberDiesInOutage,
        Fault::LeaseDeleted,
        Fault::LeaseEmptied,
        Fault::TermRemoved,
        Fault::LockEdited,
        Fault::LockRemoved,
        Fault::StampRemoved,
        Fault::Switchover,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Fault::JvmKilled => "JVM killed",
            Fault::JvmFrozen => "JVM frozen",
            Fault::GatewayKilled => "gateway killed",
            Fault::GatewayFrozen => "gateway frozen for 8 s",
            Fault::PodKilled => "gateway and JVM killed",
            Fault::PodFrozen => "gateway and JVM frozen",
            Fault::StandbyKilled => "standby's gateway and JVM killed",
            Fault::StandbyFrozen => "standby's gateway frozen for 20 s",
            Fault::ApiServersDown => "API servers down",
            Fault::ApiServersHang => "API servers hang",
            Fault::EtcdFrozen => "etcd frozen",
            Fault::LeaderCutOff => "leader's API server hangs",
            Fault::MemberDiesInOutage => "a standby dies while API servers are down",
            Fault::LeaseDeleted => "Lease deleted by hand",
            Fault::LeaseEmptied => "Lease emptied by hand",
            Fault::TermRemoved => "term removed from the Lease by hand",
            Fault::LockEdited => "Flink's lock edited by hand",
            Fault::LockRemoved => "Flink's lock removed by hand",
            Fault::StampRemoved => "stamp removed by hand",
            Fault::Switchover => "planned switchover",
        }
    }

    /// The job must run under another JVM before this fault is over.
    pub fn moves_the_job(self) -> bool {
        matches!(self, Fault::JvmKilled | Fault::JvmFrozen | Fault::PodKilled | Fault::PodFrozen | Fault::Switchover)
    }

    /// Another JVM must lead. TaskManagers may hang on the same API server as the cut off leader, so the job is not waited for.
    pub fn must_change_leader(self) -> bool {
        self.moves_the_job() || self == Fault::LeaderCutOff
    }

    /// How often the leader may change: more would be harm.
    pub fn may_change_leader(self) -> usize {
        match self {
            // The Lease itself, or the right to it, is gone.
            Fault::MemberDiesInOutage | Fault::LeaseDeleted | Fault::LeaseEmptied | Fault::TermRemoved => 1,
            _ => usize::from(self.must_change_leader()),
        }
    }

    /// A whole pod that wakes up has RPCs to TaskManagers in its sockets, which nobody fences: one more restart is possible.
    pub fn may_restart_job_more(self) -> usize {
        usize::from(self == Fault::PodFrozen)
    }

    pub fn lasts(self, outage: Duration) -> Duration {
        match self {
            Fault::ApiServersDown | Fault::ApiServersHang | Fault::EtcdFrozen => outage,
            // A member refuses after duration and two reads, and takes the Lease when its promise has ended.
            Fault::LeaderCutOff => seconds(40),
            Fault::MemberDiesInOutage => seconds(20),
            Fault::GatewayFrozen => seconds(8),
            Fault::StandbyFrozen => seconds(20),
            _ => seconds(3),
        }
    }

    pub async fn strike(self, cluster: &mut Cluster, leader: usize) {
        let standby = (leader + 1) % cluster.job_managers.len();
        let one = &mut cluster.job_managers[leader];
        match self {
            Fault::JvmKilled => one.jvm.kill(),
            Fault::JvmFrozen => one.jvm.stop(),
            Fault::GatewayKilled => one.gateway().restart(),
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
            Fault::EtcdFrozen => cluster.plane.etcd.stop(),
            Fault::MemberDiesInOutage => {
                cluster.plane.servers.iter_mut().for_each(|server| server.process.kill());
                cluster.job_managers[standby].gateway().kill();
            }
            Fault::LeaderCutOff => {
                let server = one.server;
                cluster.plane.servers[server].process.stop();
                cluster.client = cluster.plane.admin(1 - server).await;
            }
            Fault::LeaseDeleted => {
                leases(cluster).delete(NAME, &DeleteParams::default()).await.map(drop).expect("failed to delete the Lease")
            }
            Fault::LeaseEmptied => edit_lease(cluster, json!({ "spec": { "holderIdentity": null } })).await,
            Fault::TermRemoved => edit_lease(cluster, json!({ "metadata": { "annotations": { TERM_ANNOTATION: null } } })).await,
            Fault::LockEdited => edit_cluster(cluster, LOCK_ANNOTATION, json!(r#"{"holderIdentity":"nobody"}"#)).await,
            Fault::LockRemoved => edit_cluster(cluster, LOCK_ANNOTATION, Value::Null).await,
            Fault::StampRemoved => edit_cluster(cluster, TERM_ANNOTATION, Value::Null).await,
            Fault::Switchover => {
                edit_lease(cluster, json!({ "metadata": { "annotations": { names::SWITCHOVER_ANNOTATION: names::ANY_POD } } })).await;
            }
        }
    }

    pub async fn heal(self, cluster: &mut Cluster, leader: usize) {
        match self {
            Fault::GatewayFrozen => cluster.job_managers[leader].gateway().cont(),
            Fault::ApiServersDown | Fault::MemberDiesInOutage => {
                for server in &mut cluster.plane.servers {
                    server.process.restart();
                }
                for server in &cluster.plane.servers {
                    server.wait_until_ready().await;
                }
            }
            Fault::ApiServersHang | Fault::LeaderCutOff => cluster.plane.servers.iter_mut().for_each(|server| server.process.cont()),
            Fault::EtcdFrozen => cluster.plane.etcd.cont(),
            Fault::LeaseDeleted => {
                // As the operator does it.
                let lease = json!({ "metadata": { "name": NAME } });
                leases(cluster).create(&PostParams::default(), &serde_json::from_value(lease).unwrap()).await.expect("a new Lease");
            }
            _ => {}
        }
    }
}

fn leases(cluster: &Cluster) -> Api<Lease> {
    Api::namespaced(cluster.client.clone(), NAMESPACE)
}

async fn edit_lease(cluster: &Cluster, patch: Value) {
    leases(cluster).patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await.expect("failed to edit the Lease");
}

async fn edit_cluster(cluster: &Cluster, annotation: &str, value: Value) {
    let patch = json!({ "metadata": { "annotations": { annotation: value } } });
    let edited = cluster.config_maps().patch(&cluster_config_map(), &PatchParams::default(), &Patch::Merge(patch)).await;
    edited.expect("failed to edit the cluster ConfigMap");
}
