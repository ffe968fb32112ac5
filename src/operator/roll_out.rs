//! Applies the objects of a plan. Pods that only the operator wants to replace take turns, and are announced before.

use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::Value;

use super::context::Context;
use super::error::Error;
use super::target::Target;
use crate::api::FlinkHaCluster;
use crate::api::status::{AppliedObjects, FlinkHaClusterStatus};
use crate::cluster::build::network_policy;
use crate::cluster::plan::Rollout;
use crate::cluster::status::{Applied, announced};
use crate::cluster::turn::Turn;

/// Applies, or leaves the pods as they are until their turn comes. `before`: the status until now.
///
/// # Errors
/// When the resource cannot be applied, or when a request fails; it is safe to try again.
pub async fn roll_out(
    resource: &FlinkHaCluster,
    rollout: &Rollout,
    before: &FlinkHaClusterStatus,
    context: &Context,
) -> Result<Applied, Error> {
    let new_policy = rollout.objects.network_policy().filter(|policy| is_absent(policy, context));
    let applied = apply_in_turn(resource, rollout, before, context).await;
    if let Some(policy) = new_policy.filter(|policy| context.applier.has_applied(policy))
        && let Some(note) = network_policy::announcement(policy, before)
    {
        context.report.publish(resource, &note).await;
    }
    applied
}

/// Neither this operator nor a former one has made it.
fn is_absent(object: &Value, context: &Context) -> bool {
    let target = Target::of(object);
    let live = context.caches.fingerprint(target.kind, target.namespace, target.name);
    live.is_none() && !context.applier.has_applied(object)
}

async fn apply_in_turn(
    resource: &FlinkHaCluster,
    rollout: &Rollout,
    before: &FlinkHaClusterStatus,
    context: &Context,
) -> Result<Applied, Error> {
    let (applier, caches) = (&context.applier, &context.caches);
    let note = rollout.note.as_ref().filter(|_| !rollout.keeps_pods);
    let turn = note.map(|_| context.turns.take(resource, before, rollout.why));
    let kept = |turn| Applied {
        gateway_image: before.gateway_image.clone().unwrap_or_else(|| rollout.gateway_image.image.clone()),
        objects: before.applied.clone(),
        turn,
    };
    match (&turn, note) {
        _ if rollout.keeps_pods => {
            applier.complete_missing(&resource.name_any(), rollout, caches).await?;
            return Ok(kept(None));
        }
        (Some(Turn::Waits(_)), _) => {
            // What the pods rest on stays as the version of the operator has made it that made them.
            applier.complete_missing(&resource.name_any(), rollout, caches).await?;
            return Ok(kept(turn));
        }
        (Some(Turn::Begins), Some(note)) => {
            // An operator that dies in between announces it once more, and does not forget that it has begun.
            context.report.publish(resource, note).await;
            context
                .resources
                .write_status(resource, &announced(resource, before, rollout.why, Timestamp::now()))
                .await?;
        }
        _ => {}
    }
    // Somebody has asked for it, or the image cannot be pulled: nobody else waits for that.
    if let (None, Some(note)) = (&turn, &rollout.gateway_image.note) {
        context.report.publish(resource, note).await;
    }
    let noted = before.applied.as_ref().map(|applied| applied.objects.as_str());
    let noted = applier.apply(&resource.name_any(), rollout, noted, caches).await?;
    let objects = noted.map(|objects| AppliedObjects { generation: resource.metadata.generation, objects });
    Ok(Applied { gateway_image: rollout.gateway_image.image.clone(), objects, turn })
}
