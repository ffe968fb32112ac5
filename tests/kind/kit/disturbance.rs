//! What befalls a leader in a bench.

use std::time::Instant;

use flinkha::api::names::{FLINK_CONTAINER, GATEWAY_CONTAINER};
use kube::ResourceExt;
use kube::api::DeleteParams;

use super::cluster::Cluster;
use super::failover::Failover;
use super::failover::fail_over;
use super::machine::kubectl;
use super::node;
use super::node::Shot;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    PodDeleted,
    PodForceDeleted,
    GatewayAndJvmKilled,
    JvmFrozen,
    NodeLost,
    Switchover,
}

impl Disturbance {
    pub const ALL: [Self; 6] = [
        Self::PodDeleted,
        Self::PodForceDeleted,
        Self::GatewayAndJvmKilled,
        Self::JvmFrozen,
        Self::NodeLost,
        Self::Switchover,
    ];

    pub const fn title(self) -> &'static str {
        match self {
            Self::PodDeleted => "pod deleted",
            Self::PodForceDeleted => "pod force-deleted",
            Self::GatewayAndJvmKilled => "gateway and JVM killed",
            Self::JvmFrozen => "JVM frozen",
            Self::NodeLost => "node lost",
            Self::Switchover => "planned switchover",
        }
    }

    /// Follows the job until it has completed a checkpoint under another leader; afterwards all is well again.
    pub async fn befall(self, cluster: &Cluster, job: &str) -> Failover {
        let leader = cluster.leader().await.expect("a leader to disturb");
        let (name, on) = (leader.name_any(), node::of(&leader));
        let delete = async |params: DeleteParams| {
            let begin = Instant::now();
            cluster.pods_api().delete(&name, &params).await.expect("failed to delete a pod");
            begin
        };
        let failover = match self {
            Self::PodDeleted => fail_over(cluster, job, &name, async || delete(DeleteParams::default()).await).await,
            Self::PodForceDeleted => {
                fail_over(cluster, job, &name, async || delete(DeleteParams::default().grace_period(0)).await).await
            }
            Self::GatewayAndJvmKilled => {
                let gateway = Shot::aim(&leader, GATEWAY_CONTAINER, "flinkha", "KILL").await;
                let jvm = Shot::aim(&leader, FLINK_CONTAINER, "java", "KILL").await;
                fail_over(cluster, job, &name, async || {
                    let begin = gateway.send().await;
                    jvm.send().await;
                    begin
                })
                .await
            }
            Self::JvmFrozen => {
                let shot = Shot::aim(&leader, FLINK_CONTAINER, "java", "STOP").await;
                fail_over(cluster, job, &name, async || shot.send().await).await
            }
            Self::NodeLost => fail_over(cluster, job, &name, async || node::lose(&on)).await,
            Self::Switchover => {
                let ask = async || {
                    let begin = Instant::now();
                    kubectl(&[
                        "--namespace",
                        &cluster.namespace.0,
                        "annotate",
                        "fhc",
                        &cluster.name,
                        "flinkha.dev/switchover=any",
                    ]);
                    begin
                };
                fail_over(cluster, job, &name, ask).await
            }
        };
        match self {
            Self::NodeLost => node::start(&on),
            // Containers that died are restarted ever later.
            Self::GatewayAndJvmKilled | Self::JvmFrozen => cluster.replace(&name).await,
            Self::PodDeleted | Self::PodForceDeleted | Self::Switchover => {}
        }
        cluster.wait_until_ready().await;
        failover
    }
}
