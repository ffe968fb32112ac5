//! The controller's shell: [`observe`] and [`lookup`], [`apply`], [`ask`], [`report`], put together by [`reconcile`];
//! and [`finalize`]. What they do is decided in [`crate::cluster`].
//!
//! Clusters do not need the operator to live: elections, failovers and REST discovery are the gateways' business.

pub mod activity;
pub mod apply;
pub mod ask;
pub mod backlog;
pub mod check;
pub mod claims;
pub mod context;
pub mod definition;
pub mod election;
pub mod error;
mod event_series;
pub mod finalize;
pub mod finalizer;
pub mod fingerprint;
mod foreign_ha_data;
mod ha_config_maps;
pub mod ignored;
pub mod kinds;
pub mod leadership;
pub mod lookup;
pub mod metrics;
pub mod namespaces;
pub mod observe;
pub mod owners;
mod pages;
pub mod presence;
mod purge;
pub mod received;
pub mod reconcile;
pub mod report;
pub mod resources;
pub mod roll_out;
pub mod target;
pub mod turns;
pub mod undeclared;
pub mod versions;
pub mod warnings;
pub mod watch;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt;
use kube::api::ListParams;
use kube::{Api, Client, Config as ApiServer};
use kube_runtime::controller::{Config, applier};
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};

use crate::api::FlinkHaCluster;
use crate::api::log_format::LogFormat;
use crate::api::rest::IpFamily;
use crate::cluster::build::Environment;
use crate::cluster::kubernetes_version::{WHY_TOO_OLD, too_old};
use crate::cluster::operators::{DEFAULT_LEASE, Selection};
use crate::cluster::turn::TurnLimits;
use crate::operator::activity::Activity;
use crate::operator::context::{Context, Own};
use crate::operator::ignored::{Ignored, IgnoredObjects};
use crate::operator::leadership::WriteRight;
use crate::operator::metrics::{Clusters, Metrics};
use crate::operator::turns::Turns;
use crate::telemetry;
use crate::world::api_server;
use crate::world::random::nonce;
use crate::world::server::all_addresses;

/// Changes that come together are handled together.
const DEBOUNCE_WINDOW: Duration = Duration::from_millis(50);
/// Clusters that are reconciled at the same time.
const CONCURRENCY: u16 = 16;
/// Port of probes and metrics.
const PROBES: u16 = 8080;

/// Flags of `flinkha operator`; the chart writes them.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Image of the gateway: the one that this program is in.
    #[arg(long, env = "GATEWAY_IMAGE")]
    pub gateway_image: String,
    /// Log filter of the gateways.
    #[arg(long, env = "GATEWAY_LOG", default_value = "info")]
    pub gateway_log: String,
    /// Format of the logs of the operator and the gateways: text, or json for one object in each line.
    #[arg(long, env = "LOG_FORMAT", default_value_t)]
    pub log_format: LogFormat,
    /// Watch only these namespaces, with commas between them; all when empty.
    #[arg(long, env = "WATCH_NAMESPACE", value_delimiter = ',', default_value = "")]
    pub watch_namespace: Vec<String>,
    /// Reconcile only resources with these labels, as in `kubectl get --selector`; all when empty.
    #[arg(long, env = "LABEL_SELECTOR", default_value = "")]
    pub label_selector: String,
    /// Secrets for pulling images that the pods of every cluster name too, after those of its resource.
    #[arg(long, env = "IMAGE_PULL_SECRETS", value_delimiter = ',', default_value = "")]
    pub image_pull_secrets: Vec<String>,
    /// Name of the Lease by which the operator's pods elect the one that works. Each release of the chart has its own.
    #[arg(long, env = "LEASE_NAME", default_value = DEFAULT_LEASE)]
    pub lease_name: String,
    /// Whether to work only when elected. Without it there must be no second operator.
    #[arg(long, env = "LEADER_ELECTION", default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_election: bool,
    /// Name of this operator's pod.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,
    /// Namespace of this operator.
    #[arg(long, env = "POD_NAMESPACE")]
    pub pod_namespace: String,
    /// How long a deletion waits for JobManagers to end. What cannot be proven then is left, and told of.
    #[arg(long, hide = true, value_parser = humantime::parse_duration, default_value = "10m")]
    pub deletion_deadline: Duration,
    /// Clusters whose pods this operator replaces at the same time because it builds them in another way than the
    /// version before. 0: all at once. Roll-outs that a change of a resource asks for do not wait.
    #[arg(long, env = "ROLLOUT_MAX_CONCURRENT", default_value_t = 5)]
    pub rollout_max_concurrent: usize,
    /// Time between the beginnings of two of these roll-outs.
    #[arg(long, env = "ROLLOUT_DELAY", value_parser = humantime::parse_duration, default_value = "0s")]
    pub rollout_delay: Duration,
    /// Address of this operator's pod. Its family is the first one of all pods of the Kubernetes cluster.
    #[arg(long, env = "POD_IP")]
    pub pod_ip: Option<IpAddr>,
    /// Where probes and metrics are served; by default port 8080 of all of the pod's addresses.
    #[arg(long)]
    pub probe_address: Option<SocketAddr>,
}

impl Arguments {
    /// The namespaces to watch; none: all.
    fn namespaces(&self) -> Vec<String> {
        said(&self.watch_namespace)
    }

    /// `<namespace>/<Lease>` of this operator; `None` without an election.
    fn own(&self) -> Option<String> {
        self.leader_election.then(|| format!("{}/{}", self.pod_namespace, self.lease_name))
    }

    fn probes(&self) -> SocketAddr {
        let own = self.pod_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        self.probe_address.unwrap_or_else(|| all_addresses(own, PROBES))
    }

    fn selection(&self) -> Option<Selection> {
        let selector = self.label_selector.trim().to_owned();
        (!selector.is_empty()).then(|| Selection { own: self.own(), selector })
    }
}

/// The words of a list in which there are some, each once.
fn said(list: &[String]) -> Vec<String> {
    let words = list.iter().map(|word| word.trim().to_owned()).filter(|word| !word.is_empty());
    words.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Runs the operator until it is told to end.
///
/// # Errors
/// When the API server cannot be found, a port cannot be opened, or a watch ends by itself: the process must end then.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let config = ApiServer::infer().await.context("failed to find the API server")?;
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let requests = metrics.requests.clone();
    let client = api_server::counted_client(config.clone(), move |code| requests.inc_code(code));
    let client = client.context("failed to read the access to the API server")?;
    let ignored = IgnoredObjects::register(&mut registry);
    let clusters = Clusters::default();
    registry.register_collector(Box::new(clusters.clone()));
    // A standby is ready: it can take over.
    let (activity, readiness) = Activity::new(&mut registry, arguments.leader_election);
    let registry = Arc::new(std::sync::Mutex::new(registry));
    let lease = (arguments.pod_namespace.as_str(), arguments.lease_name.as_str());
    let mut candidate =
        election::OperatorCandidate::new(client, lease, &arguments.pod_name, nonce()?, activity.clone());
    let operator = Operator { arguments: &arguments, config, metrics, ignored, clusters, activity };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        served = telemetry::probes::serve(arguments.probes(), readiness, registry) => served,
        worked = operator.work(&mut candidate) => worked,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }?;
    tracing::info!("told to end");
    if arguments.leader_election {
        candidate.release().await;
    }
    Ok(())
}

/// What all tenures of this process share.
struct Operator<'a> {
    arguments: &'a Arguments,
    config: ApiServer,
    metrics: Metrics,
    ignored: IgnoredObjects,
    clusters: Clusters,
    activity: Activity,
}

impl Operator<'_> {
    /// Works whenever it is elected. Nothing of a tenure outlives it: caches, memories and tasks are made anew.
    async fn work(&self, candidate: &mut election::OperatorCandidate) -> anyhow::Result<()> {
        if !self.arguments.leader_election {
            self.activity.works("working without an election");
            return self.control(&WriteRight::unlimited()).await;
        }
        loop {
            let tenure = candidate.elected().await;
            tokio::select! {
                () = candidate.lost() => tracing::warn!(
                    "another operator was elected, or the Lease could not be renewed in time: all work has stopped, and \
                     this pod stands for election again"
                ),
                controlled = self.control(&tenure) => return controlled,
            }
        }
    }

    /// Watches and reconciles.
    async fn control(&self, tenure: &WriteRight) -> anyhow::Result<()> {
        let arguments = self.arguments;
        let client = tenure
            .client(self.config.clone(), self.metrics.requests.clone())
            .context("failed to read the access to the API server")?;
        let (triggers, triggered) = futures::channel::mpsc::unbounded();
        let (namespaces, selection) = (arguments.namespaces(), arguments.selection());
        let selector = selection.as_ref().map(|selection| selection.selector.clone());
        is_new_enough(&client).await?;
        if let Some(selector) = &selector {
            is_selector(&client, &namespaces, selector).await?;
        }
        if arguments.leader_election {
            let lease = (arguments.pod_namespace.as_str(), arguments.lease_name.as_str());
            claims::announce(&client, lease, selector.as_deref()).await;
        }
        let (told, to_tell) = futures::channel::mpsc::unbounded();
        let ignored = Ignored::new(self.ignored.clone(), told);
        let (caches, mut watches) = observe::start(&client, (&namespaces, selection), &triggers, &ignored).await?;
        tracing::info!(
            clusters = caches.clusters.len(),
            namespaces = if namespaces.is_empty() { "all".to_owned() } else { namespaces.join(",") },
            selector,
            "the caches are filled"
        );
        let clusters = caches.clusters.clone();
        let _shown = self.clusters.show(clusters.clone());
        let environment = Environment {
            gateway_image: arguments.gateway_image.clone(),
            gateway_log: arguments.gateway_log.clone(),
            image_pull_secrets: said(&arguments.image_pull_secrets),
            log_format: arguments.log_format,
            ip_family: arguments.pod_ip.map(IpFamily::of),
        };
        let own = Own {
            operator: arguments.own(),
            pod: arguments.pod_name.clone(),
            deletion_deadline: arguments.deletion_deadline,
        };
        let limits = TurnLimits { max_concurrent: arguments.rollout_max_concurrent, delay: arguments.rollout_delay };
        let turns = Turns::new(limits, triggers, &clusters);
        let context = Arc::new(Context::new(&client, caches, environment, own, self.metrics.clone(), turns));
        self.activity.is_ready();
        let telling = context.report.tell_ignored(to_tell);
        let reconciler = |resource, context| Box::pin(reconcile::reconcile(resource, context));
        let (known, losing) = (clusters.clone(), Arc::clone(&context));
        let queue = context.backlog.queue(clusters.clone(), triggered).inspect(move |reference| {
            // Nothing is reconciled then.
            if known.get(reference).is_none() {
                losing.turns.lose(reference);
            }
        });
        let queue = queue.map(Ok::<_, std::convert::Infallible>);
        let config = Config::default().debounce(DEBOUNCE_WINDOW).concurrency(CONCURRENCY);
        let reconciling = applier(reconciler, reconcile::on_error, Arc::clone(&context), clusters, queue, config)
            // Errors were logged by `on_error`; that an object is gone is no error.
            .for_each(|result| async move {
                drop(result.inspect_err(|error| tracing::debug!(%error, "not reconciled")));
            });
        tokio::select! {
            () = telling => anyhow::bail!("nothing is watched any more"),
            () = reconciling => anyhow::bail!("reconciling ended by itself"),
            ended = watches.join_next() => anyhow::bail!("a watch ended by itself: {ended:?}"),
        }
    }
}

/// Refuses an API server on which no cluster could run. One that does not say its version is not refused.
async fn is_new_enough(client: &Client) -> anyhow::Result<()> {
    let Ok(server) = client.apiserver_version().await else { return Ok(()) };
    match too_old(&server) {
        Some(version) => {
            anyhow::bail!("Kubernetes {version} is too old for FlinkHaClusters ({WHY_TOO_OLD}): upgrade it")
        }
        None => Ok(()),
    }
}

/// Refuses a selector that the API server does not understand: a watch would only try again and again.
async fn is_selector(client: &Client, namespaces: &[String], selector: &str) -> anyhow::Result<()> {
    let all: Api<FlinkHaCluster> = Api::all(client.clone());
    let api = match namespaces {
        [] => all,
        [one, ..] => all.constrain(one),
    };
    match api.list_metadata(&ListParams::default().labels(selector).limit(1)).await {
        Err(kube::Error::Api(refusal)) if refusal.code == 400 => anyhow::bail!(
            "--label-selector (labelSelector of the chart): the API server does not understand {selector:?} ({}): write it \
             as for kubectl get --selector, for example team=a or team in (a,b)",
            refusal.message
        ),
        // The watches tell of everything else.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use http::{Request, Response, StatusCode};
    use kube::client::Body;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments(flags: &[&str]) -> Arguments {
        let place = ["flinkha", "--gateway-image", "i", "--pod-name", "p", "--pod-namespace", "n"];
        Line::try_parse_from(place.iter().chain(flags)).map(|line| line.arguments).unwrap_or_else(|e| panic!("{e}"))
    }

    #[tokio::test]
    async fn an_api_server_that_is_too_old_is_refused_with_its_version_and_one_that_says_none_is_not() {
        let server = |status: StatusCode, answer: &'static str| {
            let service = tower::service_fn(move |request: Request<Body>| async move {
                assert_eq!(request.uri().path(), "/version");
                Response::builder().status(status).body(Body::from(answer.as_bytes().to_vec()))
            });
            Client::new(service, "default")
        };
        let old = server(StatusCode::OK, r#"{"major": "1", "minor": "28+", "gitVersion": "v1.28.15-eks-1"}"#);
        let refusal = is_new_enough(&old).await.map_err(|error| error.to_string());
        assert_eq!(
            refusal.map_err(|text| text.split(" (").next().map(str::to_owned)),
            Err(Some("Kubernetes v1.28.15-eks-1 is too old for FlinkHaClusters".to_owned()))
        );
        for (status, answer) in [
            (StatusCode::OK, r#"{"major": "1", "minor": "29", "gitVersion": "v1.29.15"}"#),
            (StatusCode::OK, "{}"),
            (StatusCode::FORBIDDEN, "{}"),
        ] {
            assert!(is_new_enough(&server(status, answer)).await.is_ok(), "{status} {answer}");
        }
    }

    #[test]
    fn probes_are_answered_at_addresses_of_the_pods_family() {
        let probes = |flags: &[&str]| arguments(flags).probes().to_string();
        assert_eq!((probes(&[]), probes(&["--pod-ip", "10.0.0.1"])), ("0.0.0.0:8080".into(), "0.0.0.0:8080".into()));
        assert_eq!(probes(&["--pod-ip", "fd00::1"]), "[::]:8080");
        assert_eq!(probes(&["--pod-ip", "fd00::1", "--probe-address", "[::1]:1"]), "[::1]:1");
    }

    #[test]
    fn lists_may_be_empty_and_name_nobody_twice() {
        for (text, expected) in [("", vec![]), ("a", vec!["a"]), ("b, a,,b", vec!["a", "b"])] {
            assert_eq!(arguments(&["--watch-namespace", text]).namespaces(), expected, "{text:?}");
        }
        assert!(arguments(&[]).namespaces().is_empty() && arguments(&["--label-selector", " "]).selection().is_none());
        let selection = arguments(&["--label-selector", "team=a"]).selection();
        assert_eq!(selection.and_then(|selection| selection.own).as_deref(), Some("n/flinkha-operator"));
    }
}
