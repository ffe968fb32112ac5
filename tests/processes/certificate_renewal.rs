//! Renewed certificates of `spec.tls`, as gateways see them.

use std::time::Instant;

use flinkha::api::names;
use flinkha::ledger::certificates::{self, CertificateNotes};

use super::tls::{prepared, told};
use crate::support::cluster::{Cluster, NAME};
use crate::support::failover::fail_over;
use crate::support::tls::{Encrypted, authority, issue};
use crate::support::{eventually, say, seconds};

/// What the leader says of the certificates.
async fn noted(cluster: &Cluster) -> Option<CertificateNotes> {
    let ledger = cluster.config_map(&names::ledger(NAME)).await?;
    serde_json::from_str(ledger.data?.get(certificates::LEDGER_KEY)?).ok()
}

fn changes(notes: &CertificateNotes) -> Vec<u64> {
    notes.values().map(|note| note.changes).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_another_authority_are_noted_once_and_pods_that_trust_both_work_together() {
    let encrypted = Encrypted { internal: true, rest: true, client_authentication: true, by_hand: false };
    let cluster = prepared(encrypted).await;
    let (tls, former, next) = (cluster.tls.clone().expect("certificates"), authority(), authority());
    let both = [former.pem(), next.pem()].concat();
    let issue_all = |authority| {
        for secret in ["internal", "rest"].map(|part| tls.secret(part)) {
            issue(authority, &secret, |_| ());
            std::fs::write(secret.join("ca.crt"), &both).unwrap();
        }
    };
    issue_all(&former);
    let mut cluster = cluster.up(2, 1).await;
    let job = cluster.run_sequence(0, 100).await;
    let first = eventually("a note of the certificates", seconds(60), async || noted(&cluster).await).await;
    assert_eq!(changes(&first), [0, 0]);

    // What nobody can use does not count.
    std::fs::write(tls.secret("internal").join("tls.crt"), "nonsense").unwrap();
    tokio::time::sleep(seconds(15)).await;
    let begin = Instant::now();
    issue_all(&next);
    let counted = async || noted(&cluster).await.filter(|now| *now != first);
    let counted = eventually("a note of the change", seconds(300), counted).await;
    say(format!("noted {:.0} s after the renewal", begin.elapsed().as_secs_f32()));
    assert!(begin.elapsed() > seconds(180), "some mount may not have it yet");
    assert_eq!(changes(&counted), [1, 1], "they are noted together");

    // As the operator replaces pods: standbys first, then the leader. The TaskManager has a certificate of the former
    // authority meanwhile.
    let leader = cluster.leader().await.expect("a leader");
    cluster.replace_job_manager(1 - leader).await;
    let failover = fail_over(&mut cluster, &job, async |leader| leader.jvm.kill()).await;
    let before = 1 - failover.leader;
    cluster.replace_job_manager(before).await;
    cluster.wait_for_checkpoints(&job, 2).await;
    cluster.task_managers.clear();
    cluster.add_task_manager().await;
    cluster.wait_until_ready().await;
    cluster.wait_for_checkpoints(&job, 2).await;
    tokio::time::sleep(seconds(15)).await;
    assert_eq!(noted(&cluster).await, Some(counted), "a failover is no change");
    assert_eq!(told(&cluster).await, None);
    cluster.verify("any");
}
