//! Commands that change a cluster: they write the request into the resource, and some wait for what comes of it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::access::PluginAccess;
use super::arguments::{SavepointArguments, SwitchoverArguments};
use super::changes::{self, ChangeDecision, ResourceChange};
use super::clusters::{absent, find_resource, read_cluster};
use super::failure::{Failure, said};
use super::output::Output;
use super::view::cluster::last_failover;
use super::view::text::plain;
use crate::api::FlinkHaCluster;
use crate::api::names::{ANY_POD, SWITCHOVER_ANNOTATION, lease};
use crate::api::status::Failover;
use crate::cluster::observed::Observed;
use crate::cluster::pause::Pause;
use crate::cluster::switchover::{Switchover, switchover as answer};
use crate::lease::record::Record;

/// Between two looks at what comes of a request.
const INTERVAL: Duration = Duration::from_millis(250);
/// Of a change that others' changes of the resource come before.
const ATTEMPTS: usize = 10;
/// After the request has disappeared from the resource, it is on the Lease, or was refused, within this time.
const SETTLES: Duration = Duration::from_secs(2);

/// Changes a resource as `decide` says.
///
/// # Errors
/// When the change is refused, or a request fails.
pub async fn change(
    access: &PluginAccess,
    name: &str,
    output: Output,
    decide: impl Fn(&FlinkHaCluster) -> ChangeDecision,
) -> Result<(), Failure> {
    let (change, ()) = write(access, name, |resource| Ok((decide(resource)?, ()))).await?;
    output.write(&format!("{}\n", plain(&change.said)))
}

/// Writes what `decide` says, and returns it. It decides anew when the resource has changed in between, as a status
/// does at any time.
async fn write<T>(
    access: &PluginAccess,
    name: &str,
    decide: impl Fn(&FlinkHaCluster) -> Result<(ResourceChange, T), String>,
) -> Result<(ResourceChange, T), Failure> {
    let mut first = None;
    for _ in 0..ATTEMPTS {
        let resource = find_resource(access, name).await?.ok_or_else(|| absent(access, name))?;
        if *first.get_or_insert_with(|| resource.uid()) != resource.uid() {
            break;
        }
        let (change, more) = decide(&resource).map_err(Failure::Refused)?;
        let is_done = match &change.patch {
            Some(patch) => access.patch(name, patch).await?,
            None => true,
        };
        if is_done {
            return Ok((change, more));
        }
    }
    Err(replaced(name))
}

fn replaced(name: &str) -> Failure {
    Failure::Request(format!(
        "FlinkHaCluster {name} was replaced or changed again and again in the meantime, and nothing was requested; try again"
    ))
}

/// Requests another leader, and waits for it.
///
/// # Errors
/// When it is refused, does not happen in time, or a request fails.
pub async fn switchover(access: &PluginAccess, arguments: &SwitchoverArguments, output: Output) -> Result<(), Failure> {
    let (name, wanted) = (arguments.name.as_str(), arguments.to.as_deref().unwrap_or(ANY_POD));
    let sources = read_cluster(access, name).await?;
    let unknown = |what: &str, why: String| Failure::Request(format!("failed to read {what} of {name}: {why}"));
    let lease = sources.lease.map_err(|why| unknown("the Lease", why))?;
    let pods = sources.pods.map_err(|why| unknown("the pods", why))?;
    let before = lease.as_ref().map(Record::of).unwrap_or_default();
    let resource = sources.resource;
    if let Some(pause) = Pause::of(&resource) {
        return Err(Failure::Refused(format!("no switchover: {}", pause.message(&resource))));
    }
    let own = pods.into_iter().filter(|pod| pod.is_job_manager(name));
    let observed = Observed {
        lease: lease.map(Arc::new),
        job_manager_pods: own.map(|pod| Arc::new(pod.pod)).collect(),
        ..Observed::default()
    };
    if let Switchover::Refuse { why } = answer(wanted, resource.spec.high_availability.provider, &observed) {
        let why = why.strip_prefix(SWITCHOVER_ANNOTATION).map_or(why.as_str(), |why| why.trim_start_matches(": "));
        return Err(Failure::Refused(format!("no switchover: {why}")));
    }
    let asked_at = Timestamp::now();
    if !access.patch(name, &changes::switchover(&resource, wanted)).await? {
        return Err(replaced(name));
    }
    progress("the operator was asked for a switchover");
    let wait = SwitchoverWait { access, name, wanted, asked_at, before: &before, resource: &resource };
    let failover = wait.until(Instant::now() + arguments.timeout).await?;
    let milliseconds = failover.leaderless_milliseconds.unwrap_or_default();
    output.report(arguments.output.format, &failover, |_| {
        let text = format!(
            "leadership moved from {} to {}: {milliseconds} ms without a leader ({})",
            failover.from, failover.to, failover.why
        );
        format!("{}\n", plain(&text))
    })?;
    if wanted != ANY_POD && failover.to != wanted {
        return Err(Failure::Refused(format!("{} leads, and not {wanted}", failover.to)));
    }
    Ok(())
}

/// A switchover that was requested.
struct SwitchoverWait<'a> {
    access: &'a PluginAccess,
    name: &'a str,
    wanted: &'a str,
    asked_at: Timestamp,
    before: &'a Record,
    resource: &'a FlinkHaCluster,
}

impl SwitchoverWait<'_> {
    /// Waits until another JobManager leads.
    async fn until(&self, end: Instant) -> Result<Failover, Failure> {
        let mut taken_at: Option<Instant> = None;
        let mut passed_on = false;
        loop {
            // While the leader changes, one answer that fails says nothing.
            let lease = self.access.get::<Lease>(&self.access.namespace, &lease(self.name)).await.ok().flatten();
            let lease: Option<Lease> = lease.and_then(|lease| serde_json::from_value(lease).ok());
            let now = lease.as_ref().map(Record::of).unwrap_or_default();
            if let Some(failover) = self.completed(&now) {
                return Ok(failover);
            }
            if now.switchover.is_some() && !passed_on {
                passed_on = true;
                progress("the leader was asked to hand over");
            }
            if !passed_on && taken_at.is_none() && self.is_taken().await {
                taken_at = Some(Instant::now());
            }
            if !passed_on
                && taken_at.is_some_and(|at| at.elapsed() > SETTLES)
                && let Some(why) = self.refusal().await
            {
                return Err(Failure::Refused(why));
            }
            if Instant::now() >= end {
                return Err(self.late(passed_on, taken_at.is_some()));
            }
            sleep(INTERVAL).await;
        }
    }

    /// The change of leader, once the new one's JVM leads.
    fn completed(&self, now: &Record) -> Option<Failover> {
        let number = |record: &Record| record.term.as_ref().map_or(0, |term| term.number);
        let is_new = number(now) > number(self.before) && now.holder != self.before.holder;
        let has_led = now.change.as_ref().is_some_and(|change| !now.holder.is_empty() && change.to == now.holder);
        if is_new && has_led { last_failover(now) } else { None }
    }

    /// The operator has taken the request from the resource.
    async fn is_taken(&self) -> bool {
        let read = find_resource(self.access, self.name).await.ok().flatten();
        read.is_some_and(|resource| resource.annotation(SWITCHOVER_ANNOTATION).is_none())
    }

    /// What the operator's event says, if it has refused the request.
    async fn refusal(&self) -> Option<String> {
        let uid = self.resource.metadata.uid.as_deref().unwrap_or_default();
        let parameters = ListParams::default().fields(&format!("regarding.uid={uid},reason=SwitchoverRefused"));
        let events = self.access.list::<Event>(Some(&self.access.namespace), &parameters).await;
        let events = match events {
            Ok(events) => events,
            Err(error) => {
                return Some(format!("the operator took the request and asked nobody; its event: {}", said(&error)));
            }
        };
        let time = |event: &Value| event["eventTime"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
        let latest = events.iter().filter(|event| time(event).is_some_and(|at| at >= self.asked_at));
        latest.max_by_key(|event| time(event)).and_then(|event| event["note"].as_str()).map(str::to_owned)
    }

    fn late(&self, passed_on: bool, is_taken: bool) -> Failure {
        let Self { name, access, .. } = self;
        let namespace = &access.namespace;
        Failure::Late(match (passed_on, is_taken) {
            (true, _) => format!(
                "{} was asked to hand over and still leads; it waits while a job is ending, and the request for {} stands",
                self.before.holder, self.wanted
            ),
            (false, true) => {
                "the operator took the request and has not said what came of it; see the events of the resource"
                    .to_owned()
            }
            (false, false) => format!(
                "the operator has not taken the request, which stands; see kubectl flinkha status {name} --namespace \
                 {namespace} for the operator, and withdraw the request by kubectl annotate fhc {name} --namespace \
                 {namespace} {SWITCHOVER_ANNOTATION}-"
            ),
        })
    }
}

/// Requests a savepoint, and waits for it.
///
/// # Errors
/// When it is refused, fails, is not complete in time, or a request fails.
pub async fn savepoint(access: &PluginAccess, arguments: &SavepointArguments, output: Output) -> Result<(), Failure> {
    let name = arguments.name.as_str();
    let (change, nonce) = write(access, name, changes::savepoint).await?;
    progress(&format!("{} (spec.job.savepointTriggerNonce: {nonce})", change.said));
    let end = Instant::now() + arguments.timeout;
    loop {
        let read = find_resource(access, name).await;
        match read.ok().flatten().and_then(|resource| changes::savepoint_result(&resource, nonce)) {
            Some(Ok(path)) => return output.write(&format!("{}\n", plain(&path))),
            Some(Err(why)) => return Err(Failure::Refused(format!("no savepoint was taken: {why}"))),
            None if Instant::now() >= end => {
                return Err(Failure::Late(format!(
                    "the savepoint of {name} is not complete yet, and the request stands (spec.job.savepointTriggerNonce: \
                     {nonce}); status.application.lastSavepoint will name it"
                )));
            }
            None => sleep(INTERVAL * 2).await,
        }
    }
}

/// Says on standard error what has been reached; standard output has the result only.
fn progress(text: &str) {
    eprintln!("{}", plain(text));
}
