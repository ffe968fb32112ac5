//! Determines the meaning of a request of the JVM: the few ConfigMap operations of Flink's HA services, and the rest.

use http::Method;
use percent_encoding::percent_decode_str;

use crate::api::names;

/// Names on which the meaning depends.
#[derive(Clone, Debug)]
pub struct Names {
    pub namespace: String,
    /// Flink's `kubernetes.cluster-id`.
    pub cluster_id: String,
}

/// The meaning of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// GET of the cluster ConfigMap: the lock, or data; they share the URL.
    ReadLock,
    /// PATCH of the cluster ConfigMap: the lock.
    WriteLock,
    /// GET of a job's ConfigMap.
    ReadJob(String),
    /// PUT of an HA ConfigMap.
    Replace(String),
    /// POST of a ConfigMap.
    Create,
    /// DELETE of an HA ConfigMap.
    Delete(String),
    /// DELETE of many ConfigMaps at once (Flink ≤ 1.17).
    DeleteCollection,
    /// PATCH of a job's ConfigMap: Flink sends none, so its meaning is undefined.
    PatchJob,
    /// A watch by WebSocket, which the API server refuses without an Origin header.
    WebSocketWatch,
    /// Another request that asks for a protocol other than HTTP, such as `exec` and `port-forward`.
    OtherProtocol,
    /// A request that does not concern HA data; it is forwarded.
    Other,
}

impl Names {
    pub fn cluster_config_map(&self) -> String {
        names::cluster_config_map(&self.cluster_id)
    }

    /// Returns the path of all ConfigMaps in the API.
    pub fn collection(&self) -> String {
        format!("/api/v1/namespaces/{}/configmaps", self.namespace)
    }

    /// Returns the path of a ConfigMap in the API.
    pub fn path(&self, config_map: &str) -> String {
        format!("{}/{config_map}", self.collection())
    }

    /// Determines the meaning from method, path, query, and the header `Upgrade`.
    pub fn call(&self, method: &Method, path: &str, query: Option<&str>, upgrade: Option<&str>) -> Call {
        if upgrade.is_some_and(leaves_http) {
            return if *method == Method::GET && is_watch(path, query) {
                Call::WebSocketWatch
            } else {
                Call::OtherProtocol
            };
        }
        let path = understood(path);
        let Some(rest) = path.strip_prefix(&self.collection()) else { return Call::Other };
        let name = match rest {
            "" => {
                return match *method {
                    Method::POST => Call::Create,
                    Method::DELETE => Call::DeleteCollection,
                    _ => Call::Other,
                };
            }
            _ => match rest.strip_prefix('/') {
                Some(name) => name,
                None => return Call::Other,
            },
        };
        let lock = name == self.cluster_config_map();
        if !lock && names::job_of_config_map(&self.cluster_id, name).is_none() {
            return Call::Other;
        }
        match *method {
            Method::GET if lock => Call::ReadLock,
            Method::PATCH if lock => Call::WriteLock,
            Method::GET => Call::ReadJob(name.to_owned()),
            Method::PUT => Call::Replace(name.to_owned()),
            Method::DELETE => Call::Delete(name.to_owned()),
            Method::PATCH => Call::PatchJob,
            _ => Call::Other,
        }
    }
}

/// The path as the API server understands it: without percent-encoding, and without slashes at the end.
fn understood(path: &str) -> String {
    percent_decode_str(path).decode_utf8_lossy().trim_end_matches('/').to_owned()
}

/// Does the header ask for a protocol other than HTTP? A server may ignore an offer of HTTP/2, which every HTTP client
/// of Java makes.
fn leaves_http(upgrade: &str) -> bool {
    !upgrade.trim().eq_ignore_ascii_case("h2c")
}

/// Is this a watch? As for the API server, every value counts that does not mean no.
fn is_watch(path: &str, query: Option<&str>) -> bool {
    let pairs = query.unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "true")));
    let asked = pairs.filter(|(key, _)| *key == "watch").any(|(_, value)| !["", "0", "false"].contains(&value));
    asked || path.starts_with("/api/v1/watch/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flinks_requests_are_told_apart_from_all_others() {
        let names = Names { namespace: "ns".into(), cluster_id: "demo".into() };
        let job = "demo-0123456789abcdef0123456789abcdef-config-map";
        let base = "/api/v1/namespaces/ns/configmaps";
        let call = |method: Method, path: &str| names.call(&method, path, None, None);
        assert_eq!(call(Method::GET, &format!("{base}/demo-cluster-config-map")), Call::ReadLock);
        assert_eq!(call(Method::PATCH, &format!("{base}/demo-cluster-config-map")), Call::WriteLock);
        assert_eq!(
            call(Method::PUT, &format!("{base}/demo-cluster-config-map")),
            Call::Replace("demo-cluster-config-map".into())
        );
        assert_eq!(call(Method::GET, &format!("{base}/{job}")), Call::ReadJob(job.into()));
        assert_eq!(call(Method::PATCH, &format!("{base}/{job}")), Call::PatchJob);
        assert_eq!(call(Method::DELETE, &format!("{base}/{job}")), Call::Delete(job.into()));
        assert_eq!(call(Method::POST, base), Call::Create);
        assert_eq!(call(Method::DELETE, base), Call::DeleteCollection);
        assert_eq!(call(Method::GET, base), Call::Other);
        assert_eq!(call(Method::PUT, &format!("{base}/somebody-elses")), Call::Other);
        assert_eq!(call(Method::GET, "/api/v1/namespaces/ns/configmapsx/a"), Call::Other);
        assert_eq!(call(Method::GET, "/api/v1/namespaces/other/configmaps/demo-cluster-config-map"), Call::Other);
    }

    #[test]
    fn another_spelling_of_a_path_means_the_same() {
        let names = Names { namespace: "ns".into(), cluster_id: "demo".into() };
        let call = |method: Method, path: &str| names.call(&method, path, None, None);
        let lock = Call::Replace("demo-cluster-config-map".into());
        for path in [
            "/api/v1/namespaces/ns/configmaps/demo-cluster-config-map/",
            "/api/v1/namespaces/ns/configmaps/demo%2Dcluster-config-map",
            "/api/v1/namespaces/ns/configmaps%2fdemo-cluster-config-map",
            "/%61pi/v1/namespaces/%6es/configmaps/demo-cluster-config-map//",
        ] {
            assert_eq!(call(Method::PUT, path), lock, "{path}");
        }
        assert_eq!(call(Method::POST, "/api/v1/namespaces/ns/configmap%73/"), Call::Create);
    }

    #[test]
    fn only_a_watch_is_answered_as_one() {
        let names = Names { namespace: "ns".into(), cluster_id: "demo".into() };
        let base = "/api/v1/namespaces/ns/configmaps";
        let get = |path: &str, query: &str, upgrade: &str| names.call(&Method::GET, path, Some(query), Some(upgrade));
        // The query that Flink's client sends.
        let watch = "fieldSelector=metadata.name%3Ddemo-cluster-config-map&resourceVersion=7&allowWatchBookmarks=true&watch=true";
        assert_eq!(get(base, watch, "websocket"), Call::WebSocketWatch);
        assert_eq!(get("/api/v1/namespaces/ns/pods/jm/exec", "command=id", "websocket"), Call::OtherProtocol);
        assert_eq!(get("/api/v1/namespaces/ns/pods/jm/portforward", "", "SPDY/3.1"), Call::OtherProtocol);
        assert_eq!(get(base, "watch=false", "websocket"), Call::OtherProtocol);
        let lock = format!("{base}/demo-cluster-config-map");
        assert_eq!(get(&lock, "", "h2c"), Call::ReadLock, "HTTP/1.1 is an answer to an offer of HTTP/2");
        assert_eq!(names.call(&Method::PUT, &lock, Some("watch=true"), Some("websocket")), Call::OtherProtocol);
    }
}
