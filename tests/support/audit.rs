//! The recorder of the tests: the kube-apiserver's own audit log, not anything of ours.

use std::io::{BufRead, Read, Seek, SeekFrom};
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

pub struct Audit {
    path: PathBuf,
    /// In bytes: what stands before is of an earlier test.
    begin: u64,
}

/// A request that the kube-apiserver has answered.
#[derive(Debug, Clone)]
pub struct Request {
    /// `system:serviceaccount:<namespace>:<name>` for a pod.
    pub user: String,
    /// The pod that the user's token is bound to.
    pub pod: Option<String>,
    pub user_agent: String,
    pub verb: String,
    pub resource: String,
    /// Such as `status`; empty for the object itself.
    pub subresource: String,
    pub namespace: String,
    /// Empty for lists and collection deletes.
    pub name: String,
    pub code: u16,
    /// RFC 3339, with microseconds.
    pub received: String,
    pub body: Value,
    pub response: Value,
}

impl Request {
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// `resourceVersion` of the object that was stored: the order of all writes to one etcd.
    pub fn stored_version(&self) -> Option<u64> {
        self.response["metadata"]["resourceVersion"].as_str()?.parse().ok()
    }

    /// An annotation of the object that was sent.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.body["metadata"]["annotations"][key].as_str()
    }
}

/// A request without its bodies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub user: String,
    pub verb: String,
    pub resource: String,
    /// Such as `status`; empty for the object itself.
    pub subresource: String,
    /// Empty for lists and collection deletes.
    pub name: String,
    pub code: u16,
    /// RFC 3339, with microseconds.
    pub received: String,
}

impl From<Brief> for Summary {
    fn from(event: Brief) -> Self {
        let ObjectRef { resource, subresource, name, .. } = event.object_ref;
        Self {
            user: event.user.username,
            verb: event.verb,
            resource,
            subresource,
            name,
            code: event.response_status.code,
            received: event.request_received_timestamp,
        }
    }
}

impl Audit {
    pub fn since(path: PathBuf, begin: u64) -> Self {
        Self { path, begin }
    }

    fn read(&self) -> std::io::Result<String> {
        let (mut file, mut log) = (std::fs::File::open(&self.path)?, String::new());
        file.seek(SeekFrom::Start(self.begin))?;
        file.read_to_string(&mut log)?;
        Ok(log)
    }

    /// Every request so far, in the order in which the server answered them; a watch counts when it has ended.
    pub fn requests(&self) -> Vec<Request> {
        let log = self.read().unwrap_or_default();
        // The last line may be half written.
        let lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let events = lines.map(|line| serde_json::from_str::<Event>(line).expect("a line of the audit log"));
        events.filter(|event| event.stage == "ResponseComplete").map(Request::from).collect()
    }

    /// The same without bodies, of which a log of many thousand requests has too much: user, verb, resource, name.
    pub fn summaries(&self) -> Vec<Summary> {
        let mut file = std::fs::File::open(&self.path).expect("an audit log");
        file.seek(SeekFrom::Start(self.begin)).expect("an audit log");
        let lines = std::io::BufReader::new(file).lines().map_while(Result::ok);
        let events = lines.filter_map(|line| serde_json::from_str::<Brief>(&line).ok());
        let complete = events.filter(|event| event.stage == "ResponseComplete");
        complete.map(Summary::from).collect()
    }

    /// What is answered from now on, to be read as it comes.
    pub fn follow(&self) -> Follow {
        let mut file = std::fs::File::open(&self.path).expect("an audit log");
        file.seek(SeekFrom::End(0)).expect("an audit log");
        Follow { log: std::io::BufReader::new(file), line: String::new() }
    }

    /// The requests for one kind of object in a namespace.
    pub fn of(&self, namespace: &str, resource: &str) -> Vec<Request> {
        let requests = self.requests().into_iter();
        requests.filter(|request| request.namespace == namespace && request.resource == resource).collect()
    }
}

/// An audit log that grows.
pub struct Follow {
    log: std::io::BufReader<std::fs::File>,
    /// The beginning of one that is half written.
    line: String,
}

impl Follow {
    /// What has been answered since the last call.
    pub fn more(&mut self) -> Vec<Summary> {
        let mut all = Vec::new();
        while self.log.read_line(&mut self.line).expect("an audit log") > 0 && self.line.ends_with('\n') {
            let event: Brief = serde_json::from_str(&self.line).expect("a line of the audit log");
            all.extend((event.stage == "ResponseComplete").then(|| Summary::from(event)));
            self.line.clear();
        }
        all
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    stage: String,
    verb: String,
    #[serde(default)]
    user: User,
    #[serde(default)]
    user_agent: String,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: Status,
    request_received_timestamp: String,
    #[serde(default)]
    request_object: Value,
    #[serde(default)]
    response_object: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Brief {
    stage: String,
    verb: String,
    #[serde(default)]
    user: User,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: Status,
    request_received_timestamp: String,
}

/// Without a name when the request ended before it was known.
#[derive(Deserialize, Default)]
#[serde(default)]
struct User {
    username: String,
    extra: std::collections::HashMap<String, Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ObjectRef {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    code: u16,
}

impl From<Event> for Request {
    fn from(event: Event) -> Self {
        let pod = event.user.extra.get("authentication.kubernetes.io/pod-name").and_then(|names| names.first());
        Self {
            pod: pod.cloned(),
            user: event.user.username,
            user_agent: event.user_agent,
            verb: event.verb,
            resource: event.object_ref.resource,
            subresource: event.object_ref.subresource,
            namespace: event.object_ref.namespace,
            name: event.object_ref.name,
            code: event.response_status.code,
            received: event.request_received_timestamp,
            body: event.request_object,
            response: event.response_object,
        }
    }
}
