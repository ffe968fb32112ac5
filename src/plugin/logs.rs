//! `logs`: the logs of a cluster's JobManagers in the order of time, of Flink and of the gateways beside it.

use std::collections::HashMap;
use std::time::Duration;

use futures::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt as _, future};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::Resource as _;
use kube::api::{ListParams, LogParams};
use kube::core::Request;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;
use tokio::time::interval;

use super::access::PluginAccess;
use super::arguments::LogsArguments;
use super::failure::{Failure, said};
use super::output::Output;
use super::view::candidates::PlacedPod;
use super::view::cluster::leader_of_status;
use super::view::log_lines::{LogLine, lines, merged};
use super::view::text::plain;
use crate::api::FlinkHaCluster;
use crate::api::names::{CLUSTER_LABEL, FLINK_CONTAINER, GATEWAY_CONTAINER, MANAGED_BY, MANAGED_BY_LABEL, lease};
use crate::lease::record::Record;

/// Between two looks for containers that have started since.
const INTERVAL: Duration = Duration::from_secs(3);
/// Bytes of one log that is not followed.
const LONGEST: i64 = 16 << 20;
/// Lines that wait to be written.
const WAITING: usize = 1000;

/// A container whose log is read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct LogSource {
    pod: String,
    container: &'static str,
}

impl LogSource {
    fn name(&self) -> String {
        format!("{}/{}", self.pod, self.container)
    }

    /// The parameters for this container.
    fn of(&self, parameters: &LogParams) -> LogParams {
        LogParams { container: Some(self.container.to_owned()), ..parameters.clone() }
    }
}

/// Shows logs, once or until interrupted.
///
/// # Errors
/// When pods or all of their logs cannot be read.
pub async fn logs(access: &PluginAccess, arguments: &LogsArguments, output: Output) -> Result<(), Failure> {
    if arguments.follow {
        return follow(access, arguments, output).await;
    }
    let (text, mut failed) = read(access, arguments).await?;
    let last = if text.is_empty() { failed.pop() } else { None };
    failed.iter().for_each(|failed| eprintln!("{}", plain(failed)));
    match last {
        Some(failed) => Err(Failure::Request(failed)),
        None => output.write(&text),
    }
}

/// Returns the lines of all logs, and a sentence for each log that cannot be read.
async fn read(access: &PluginAccess, arguments: &LogsArguments) -> Result<(String, Vec<String>), Failure> {
    let sources = sources(access, arguments).await?;
    if sources.is_empty() {
        let who = if arguments.leader { "leading JobManager" } else { "JobManager" };
        return Err(Failure::Absent(format!("namespace {} has no {who} of {}", access.namespace, arguments.name)));
    }
    let parameters = LogParams { limit_bytes: Some(LONGEST), ..parameters(arguments) };
    let read =
        sources.iter().map(async |source| (source, whole_log(access, &source.pod, &source.of(&parameters)).await));
    let (mut logs, mut failed) = (Vec::new(), Vec::new());
    for (source, read) in future::join_all(read).await {
        match read {
            Ok(log) => logs.push(lines(&source.name(), &log)),
            Err(error) => failed.push(format!("failed to read the log of {}: {}", source.name(), said(&error))),
        }
    }
    Ok((merged(logs).iter().map(LogLine::shown).collect(), failed))
}

fn parameters(arguments: &LogsArguments) -> LogParams {
    LogParams {
        timestamps: true,
        tail_lines: (arguments.tail >= 0).then_some(arguments.tail),
        since_seconds: arguments.since.map(|since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX).max(1)),
        ..LogParams::default()
    }
}

/// The containers of the JobManagers that exist now.
async fn sources(access: &PluginAccess, arguments: &LogsArguments) -> Result<Vec<LogSource>, Failure> {
    let name = arguments.name.as_str();
    let labels = format!("{MANAGED_BY_LABEL}={MANAGED_BY},{CLUSTER_LABEL}={name}");
    let pods = access.list::<Pod>(Some(&access.namespace), &ListParams::default().labels(&labels)).await;
    let pods = pods.map_err(Failure::request(&format!("read the pods of {name}")))?;
    let leader = if arguments.leader { Some(leader(access, name).await?) } else { None };
    let pods = pods.iter().filter_map(PlacedPod::read).filter(|pod| pod.is_job_manager(name));
    let names = pods.map(|pod| pod.pod.name().to_owned());
    let names = names.filter(|pod| leader.as_ref().is_none_or(|leader| leader == pod));
    let containers: &[&'static str] = match (arguments.gateway, arguments.flink) {
        (true, false) => &[GATEWAY_CONTAINER],
        (false, true) => &[FLINK_CONTAINER],
        _ => &[GATEWAY_CONTAINER, FLINK_CONTAINER],
    };
    let of_pod = |pod: String| containers.iter().map(move |container| LogSource { pod: pod.clone(), container });
    Ok(names.flat_map(of_pod).collect())
}

/// The pod that leads: by the Lease or, where Flink itself elects by a quorum, as the operator saw it last.
async fn leader(access: &PluginAccess, name: &str) -> Result<String, Failure> {
    let read = access.get::<Lease>(&access.namespace, &lease(name)).await;
    let read = read.map_err(Failure::request(&format!("read Lease {name}")))?;
    let lease: Option<Lease> = read.and_then(|lease| serde_json::from_value(lease).ok());
    let holder = lease.as_ref().map(Record::of).unwrap_or_default().holder;
    if !holder.is_empty() {
        return Ok(holder);
    }
    let read = access.get::<FlinkHaCluster>(&access.namespace, name).await;
    let read = read.map_err(Failure::request(&format!("read FlinkHaCluster {name}")))?;
    let resource: Option<FlinkHaCluster> = read.and_then(|resource| serde_json::from_value(resource).ok());
    let seen = resource.and_then(|resource| resource.status).filter(|_| lease.is_none());
    Ok(seen.as_ref().and_then(leader_of_status).map(|leader| leader.pod).unwrap_or_default())
}

async fn open(
    access: &PluginAccess,
    pod: &str,
    parameters: &LogParams,
) -> kube::Result<impl AsyncBufRead + Unpin + use<>> {
    let request = Request::new(Pod::url_path(&(), Some(&access.namespace))).logs(pod, parameters);
    let log = access.client.request_stream(request.map_err(kube::Error::BuildRequest)?).await?;
    Ok(Box::pin(log))
}

/// Returns a log that is not followed.
pub async fn whole_log(access: &PluginAccess, pod: &str, parameters: &LogParams) -> kube::Result<String> {
    let mut log = open(access, pod, parameters).await?;
    let mut bytes = Vec::new();
    log.read_to_end(&mut bytes).await.map_err(kube::Error::ReadEvents)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Writes lines as they come, also of containers that start later.
async fn follow(access: &PluginAccess, arguments: &LogsArguments, output: Output) -> Result<(), Failure> {
    let (sender, mut received): (Sender<LogLine>, Receiver<LogLine>) = channel(WAITING);
    let mut open: HashMap<LogSource, JoinHandle<()>> = HashMap::new();
    let mut last: HashMap<String, Timestamp> = HashMap::new();
    let mut look = interval(INTERVAL);
    loop {
        tokio::select! {
            _ = look.tick() => {
                // While the API server is away, what is open goes on.
                for source in sources(access, arguments).await.unwrap_or_default() {
                    if open.get(&source).is_some_and(|task| !task.is_finished()) {
                        continue;
                    }
                    let after = last.get(&source.name()).copied();
                    let parameters = match after {
                        Some(after) => LogParams { timestamps: true, since_time: Some(after), ..LogParams::default() },
                        None => parameters(arguments),
                    };
                    let parameters = LogParams { follow: true, ..parameters };
                    let task = copy(access.clone(), source.clone(), parameters, after, sender.clone());
                    open.insert(source, tokio::spawn(task));
                }
            }
            Some(line) = received.recv() => {
                output.write(&line.shown())?;
                last.insert(line.source, line.at);
            }
        }
    }
}

/// Passes on the lines of one log after a moment, until the log ends. Whoever follows looks again later.
async fn copy(
    access: PluginAccess,
    source: LogSource,
    parameters: LogParams,
    after: Option<Timestamp>,
    sender: Sender<LogLine>,
) {
    let Ok(mut log) = open(&access, &source.pod, &source.of(&parameters)).await else { return };
    let (mut bytes, mut before) = (Vec::new(), after.unwrap_or(Timestamp::UNIX_EPOCH));
    while log.read_until(b'\n', &mut bytes).await.is_ok_and(|read| read > 0) {
        let line = LogLine::read(&source.name(), &String::from_utf8_lossy(&bytes), before);
        bytes.clear();
        before = line.at;
        let is_new = after.is_none_or(|after| line.at > after);
        if is_new && sender.send(line).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::{Path, RawQuery};
    use axum::routing::get;
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;

    /// The pods `a` and `b` of a cluster, and their logs. The gateway's log of `b` cannot be read.
    async fn api_server() -> PluginAccess {
        let pod = |name: &str| {
            json!({
                "metadata": { "name": name, "labels": { "app.kubernetes.io/component": "jobmanager" } },
                "spec": { "serviceAccountName": "demo-jobmanager" },
            })
        };
        let list = json!({ "items": [pod("a"), pod("b")] });
        let lease = json!({ "metadata": { "name": "demo" }, "spec": { "holderIdentity": "b" } });
        let log = async |Path(pod): Path<String>, RawQuery(query): RawQuery| {
            let query = query.unwrap_or_default();
            let asked: HashMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
            assert_eq!(asked.get("timestamps").map(String::as_str), Some("true"));
            match (pod.as_str(), asked["container"].as_str()) {
                ("a", "gateway") => Ok(b"2026-01-01T00:00:02Z stands by \xff\n".to_vec()),
                ("a", _) => Ok(b"2026-01-01T00:00:01Z starts\n".to_vec()),
                ("b", "gateway") => Err(http::StatusCode::BAD_REQUEST),
                _ => Ok(format!("2026-01-01T00:00:03Z tail {}\n", asked["tailLines"]).into_bytes()),
            }
        };
        let pods = "/api/v1/namespaces/flink/pods";
        let router = Router::new()
            .route(pods, get(async move || axum::Json(list)))
            .route("/apis/coordination.k8s.io/v1/namespaces/flink/leases/demo", get(async move || axum::Json(lease)))
            .route(&format!("{pods}/{{pod}}/log"), get(log));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address")).parse().expect("a URL");
        tokio::spawn(async move { axum::serve(listener, router).await });
        PluginAccess::with(kube::Config::new(url), "flink".to_owned()).expect("a client")
    }

    fn arguments(change: impl FnOnce(&mut LogsArguments)) -> LogsArguments {
        let mut arguments = LogsArguments {
            name: "demo".to_owned(),
            leader: false,
            gateway: false,
            flink: false,
            follow: false,
            tail: 200,
            since: None,
        };
        change(&mut arguments);
        arguments
    }

    #[tokio::test]
    async fn logs_of_all_containers_are_read_and_one_that_cannot_be_hides_no_other() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let access = api_server().await;
        let (text, failed) = read(&access, &arguments(|_| ())).await.expect("logs");
        let expected = "\
2026-01-01T00:00:01.000Z a/flink-main-container starts
2026-01-01T00:00:02.000Z a/gateway stands by \u{fffd}
2026-01-01T00:00:03.000Z b/flink-main-container tail 200
";
        assert_eq!((text.as_str(), failed.len()), (expected, 1));
        assert!(failed[0].starts_with("failed to read the log of b/gateway: "), "{failed:?}");
        let of_leader = arguments(|arguments| (arguments.leader, arguments.flink, arguments.tail) = (true, true, 7));
        let (text, failed) = read(&access, &of_leader).await.expect("logs");
        assert_eq!((text.as_str(), failed.len()), ("2026-01-01T00:00:03.000Z b/flink-main-container tail 7\n", 0));
        let of_gateways = arguments(|arguments| arguments.gateway = true);
        assert_eq!(sources(&access, &of_gateways).await.expect("pods").len(), 2);
        let other = arguments(|arguments| arguments.name = "other".to_owned());
        assert!(matches!(read(&access, &other).await, Err(Failure::Absent(_))), "they run as demo-jobmanager");
    }

    #[tokio::test]
    async fn a_log_that_is_read_again_tells_only_what_is_new() {
        let access = api_server().await;
        let source = LogSource { pod: "a".to_owned(), container: GATEWAY_CONTAINER };
        let parameters = LogParams { timestamps: true, follow: true, ..LogParams::default() };
        for (after, expected) in [(None, 1), (Some("2026-01-01T00:00:02Z"), 0), (Some("2026-01-01T00:00:01Z"), 1)] {
            let after = after.map(|at| at.parse().expect("a time"));
            let (sender, mut received) = channel(WAITING);
            copy(access.clone(), source.clone(), parameters.clone(), after, sender).await;
            let mut count = 0;
            while received.recv().await.is_some() {
                count += 1;
            }
            assert_eq!(count, expected, "{after:?}");
        }
    }
}
