//! `report`: writes what is known of a cluster into a ZIP archive: objects, decoded pointers, findings of `doctor`,
//! logs. Without `--no-redact` it holds no credential that [`view::redact`](super::view::redact) knows.

use std::fs::OpenOptions;
use std::io::{Cursor, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, LogParams};
use serde::Serialize;
use serde_json::{Value, json};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::access::PluginAccess;
use super::arguments::ReportArguments;
use super::clusters::{absent, read_cluster};
use super::doctor::examine;
use super::failure::{Failure, said};
use super::inspect::{look_up, stored};
use super::logs::whole_log;
use super::output::Output;
use super::view::cluster::ClusterReport;
use super::view::doctor::finding;
use super::view::redact::Redaction;
use super::view::{cluster_text, stored_text};
use crate::api::FlinkHaCluster;
use crate::api::names::{self, CLUSTER_LABEL, MANAGED_BY, MANAGED_BY_LABEL};

/// Bytes of one container's log.
const LOG: i64 = 4 << 20;
/// Containers whose logs are read, and how many at the same time.
const LOGS: usize = 100;
const PARALLEL: usize = 4;
/// Events of the namespace that are looked through.
const EVENTS: u32 = 2000;

/// What goes into the archive, by the names of the files.
#[derive(Debug, Default)]
struct Collected {
    objects: Vec<(String, Value)>,
    texts: Vec<(String, String)>,
    /// What could not be read, each a sentence.
    failed: Vec<String>,
}

impl Collected {
    fn object(&mut self, name: &str, object: impl Serialize) {
        self.objects.push((name.to_owned(), serde_json::to_value(object).unwrap_or_default()));
    }

    fn text(&mut self, name: impl Into<String>, text: String) {
        self.texts.push((name.into(), text));
    }

    /// An object, or a sentence that says why there is none.
    fn read<T: Serialize>(&mut self, name: &str, read: Result<T, String>) {
        match read {
            Ok(object) => self.object(name, object),
            Err(why) => self.failed.push(format!("{name}: {why}")),
        }
    }
}

/// Writes the archive.
///
/// # Errors
/// When the resource cannot be read, and when the file exists or cannot be written.
pub async fn report(access: &PluginAccess, arguments: &ReportArguments, output: Output) -> Result<(), Failure> {
    if arguments.output.exists() {
        return Err(Failure::Refused(format!("{} exists; name another file", arguments.output.display())));
    }
    let collected = collect(access, arguments).await?;
    let failed = collected.failed.len();
    let files = files(collected, !arguments.no_redact);
    let count = files.len();
    write(&arguments.output, &archive(&files).map_err(|error| unwritten(&arguments.output, &error.to_string()))?)?;
    let redacted = if arguments.no_redact { "with credentials" } else { "without known credentials" };
    let unread = if failed == 0 { String::new() } else { format!("; {failed} could not be read, see not-read.txt") };
    output.write(&format!("{}: {count} files, {redacted}{unread}\n", arguments.output.display()))
}

async fn collect(access: &PluginAccess, arguments: &ReportArguments) -> Result<Collected, Failure> {
    let (name, namespace) = (arguments.name.as_str(), access.namespace.as_str());
    let mut all = Collected::default();
    let resource = access.get::<FlinkHaCluster>(namespace, name).await;
    let resource = resource.map_err(Failure::request(&format!("read FlinkHaCluster {name}")))?;
    all.object("resource", resource.ok_or_else(|| absent(access, name))?);
    eprintln!("reading objects, files and logs of {name}");
    let (lease_name, ledger_name) = (names::lease(name), names::ledger(name));
    let of_cluster = ListParams::default().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY},{CLUSTER_LABEL}={name}"));
    let some = ListParams::default().limit(EVENTS);
    let (sources, lease, ledger, pods, deployments, events, found) = tokio::join!(
        read_cluster(access, name),
        access.get::<Lease>(namespace, &lease_name),
        access.get::<ConfigMap>(namespace, &ledger_name),
        access.list::<Pod>(Some(namespace), &of_cluster),
        access.list::<Deployment>(Some(namespace), &of_cluster),
        access.list::<Event>(Some(namespace), &some),
        examine(access, name),
    );
    let told = |error: kube::Error| said(&error);
    all.read("lease", lease.map_err(told));
    all.read("ledger", ledger.map_err(told));
    all.read("deployments", deployments.map_err(told));
    let of_name = |event: &Value| {
        let regarding = event["regarding"]["name"].as_str().unwrap_or_default();
        regarding == name || regarding.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'))
    };
    let own = |events: Vec<Value>| events.into_iter().filter(of_name).collect::<Vec<_>>();
    all.read("events", events.map(own).map_err(told));
    let sources = sources?;
    let now = Timestamp::now();
    let status = ClusterReport::of(&sources, now);
    all.text("status.txt", cluster_text::screen(&status, now, false));
    all.object("status", &status);
    match stored(access, name, Some(&sources.resource)).await {
        Ok(mut report) => {
            let files = look_up(access, &report).await;
            report.add_files(files);
            all.text("inspect.txt", stored_text::screen(&report, now, false));
            all.object("inspect", &report);
        }
        Err(failure) => all.failed.push(format!("inspect: {failure}")),
    }
    match found {
        Ok(found) => {
            all.text("doctor.txt", finding::screen(&found, false));
            all.object("doctor", &found);
        }
        Err(failure) => all.failed.push(format!("doctor: {failure}")),
    }
    let pods = pods.map_err(told);
    logs(access, pods.as_deref().unwrap_or_default(), arguments.tail, &mut all).await;
    all.read("pods", pods);
    Ok(all)
}

/// A log of a container, perhaps of its former run.
struct ContainerLog {
    pod: String,
    container: String,
    previous: bool,
}

fn container_logs(pods: &[Value]) -> Vec<ContainerLog> {
    let mut logs = Vec::new();
    for pod in pods {
        for list in ["initContainerStatuses", "containerStatuses"] {
            for status in pod["status"][list].as_array().into_iter().flatten() {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let (pod, container) = (text(&pod["metadata"]["name"]), text(&status["name"]));
                if status["restartCount"].as_i64().is_some_and(|count| count > 0) {
                    logs.push(ContainerLog { pod: pod.clone(), container: container.clone(), previous: true });
                }
                logs.push(ContainerLog { pod, container, previous: false });
            }
        }
    }
    logs.truncate(LOGS);
    logs
}

async fn logs(access: &PluginAccess, pods: &[Value], tail: u32, all: &mut Collected) {
    let read = stream::iter(container_logs(pods)).map(async |log| {
        let parameters = LogParams {
            container: Some(log.container.clone()),
            previous: log.previous,
            tail_lines: Some(i64::from(tail)),
            limit_bytes: Some(LOG),
            timestamps: true,
            ..LogParams::default()
        };
        let text = whole_log(access, &log.pod, &parameters).await;
        (log, text)
    });
    let read: Vec<_> = read.buffered(PARALLEL).collect().await;
    for (log, text) in read {
        let former = if log.previous { ".previous" } else { "" };
        let name = format!("logs/{}/{}{former}.log", log.pod, log.container);
        match text {
            Ok(text) => all.text(name, text),
            Err(error) => all.failed.push(format!("{name}: {}", said(&error))),
        }
    }
}

/// The files of the archive: objects as YAML, texts as they are, all without credentials if wanted.
fn files(collected: Collected, redacts: bool) -> Vec<(String, String)> {
    let Collected { mut objects, mut texts, failed } = collected;
    let mut redaction = Redaction::default();
    objects.iter_mut().for_each(|(_, object)| forget_managed_fields(object));
    let about = json!({
        "plugin": env!("CARGO_PKG_VERSION"),
        "written": Timestamp::now().to_string(),
        "redacted": redacts,
    });
    objects.push(("about".to_owned(), about));
    if !failed.is_empty() {
        texts.push(("not-read.txt".to_owned(), failed.join("\n") + "\n"));
    }
    if redacts {
        // All objects before all texts: logs repeat values that only an object shows to be credentials.
        objects.iter_mut().for_each(|(_, object)| redaction.object(object));
        texts.iter_mut().for_each(|(_, text)| *text = redaction.text(text));
    }
    let objects = objects
        .into_iter()
        .map(|(name, object)| (format!("{name}.yaml"), serde_yaml::to_string(&object).unwrap_or_default()));
    let all = objects.chain(texts);
    all.map(|(name, text)| (name, if redacts { redaction.repeated(&text) } else { text })).collect()
}

/// They say who wrote which field, at length.
fn forget_managed_fields(object: &mut Value) {
    match object {
        Value::Array(objects) => objects.iter_mut().for_each(forget_managed_fields),
        object => {
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
            }
        }
    }
}

/// Makes the archive.
///
/// # Errors
/// When it becomes too large for its format.
fn archive(files: &[(String, String)]) -> zip::result::ZipResult<Vec<u8>> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().unix_permissions(0o600);
    for (name, text) in files {
        writer.start_file(name.as_str(), options)?;
        writer.write_all(text.as_bytes())?;
    }
    Ok(writer.finish()?.into_inner())
}

fn unwritten(path: &Path, why: &str) -> Failure {
    Failure::Request(format!("failed to write {}: {why}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    opened.and_then(|mut file| file.write_all(bytes)).map_err(|error| unwritten(path, &error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn read(archive: Vec<u8>) -> Vec<(String, String)> {
        let mut archive = zip::ZipArchive::new(Cursor::new(archive)).expect("an archive");
        let mut files = Vec::new();
        for index in 0..archive.len() {
            let mut file = archive.by_index(index).expect("a file");
            let mut text = String::new();
            file.read_to_string(&mut text).expect("text");
            files.push((file.name().expect("a name").into_owned(), text));
        }
        files
    }

    fn prepared() -> Collected {
        let mut all = Collected::default();
        let configuration = json!({ "s3.secret-key": "hunter2-key", "s3.endpoint": "https://s3.example.org" });
        all.object(
            "resource",
            json!({
                "metadata": { "name": "demo", "managedFields": [{ "manager": "kubectl" }] },
                "spec": { "flinkConfiguration": configuration, "image": "flink:2.3.0" },
            }),
        );
        let env = json!([{ "name": "AWS_SECRET_ACCESS_KEY", "value": "hunter2-env" }]);
        let container = json!({ "name": "flink-main-container", "env": env });
        let status = json!([{ "name": "flink-main-container", "restartCount": 1 }]);
        all.object(
            "pods",
            json!([{
                "metadata": { "name": "demo-0", "managedFields": [] },
                "spec": { "containers": [container] }, "status": { "containerStatuses": status },
            }]),
        );
        all.text(
            "logs/demo-0/flink-main-container.log",
            "signs with hunter2-env and hunter2-key\ntoken=hunter2-token\n".to_owned(),
        );
        all.failed.push("events: https://me:hunter2-uri@x failed".to_owned());
        all
    }

    #[test]
    fn no_secret_of_a_prepared_resource_is_in_the_archive_unless_asked_for() {
        let files = read(archive(&files(prepared(), true)).expect("an archive"));
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        let log = "logs/demo-0/flink-main-container.log";
        assert_eq!(names, ["resource.yaml", "pods.yaml", "about.yaml", log, "not-read.txt"]);
        for (name, text) in &files {
            assert!(!text.contains("hunter2") && !text.contains("managedFields"), "{name}: {text}");
        }
        assert!(files[0].1.contains("https://s3.example.org") && files[0].1.contains("flink:2.3.0"), "{}", files[0].1);
        assert!(files[3].1.starts_with("signs with (hidden) and (hidden)\n"), "{}", files[3].1);
        let whole = super::files(prepared(), false);
        assert!(whole[0].1.contains("hunter2-key") && whole[2].1.contains("redacted: false"), "{whole:?}");
    }

    #[test]
    fn logs_of_former_runs_are_read_too_and_a_file_is_not_written_over() {
        let pods = prepared().objects.swap_remove(1).1;
        let logs = container_logs(pods.as_array().expect("pods"));
        assert_eq!(logs.iter().map(|log| log.previous).collect::<Vec<_>>(), [true, false]);
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.zip");
        write(&path, b"1").expect("written");
        assert!(matches!(write(&path, b"2"), Err(Failure::Request(why)) if why.contains("exists")));
        assert_eq!(std::fs::read(&path).expect("the file"), b"1");
    }
}
